"""One run of the study: train, measure, store. What is stored for exactly this plan and this base is not run again."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.findings import base
from benchmarks.findings.plan import RECIPE, RESULTS, RUNS, Run, is_done, path_of, store, stored
from omni_avsr.checkpoints import load_model
from omni_avsr.config import Recipe, load_recipe
from omni_avsr.data.dataset import SpeechDataset
from omni_avsr.evaluate.grid import UTTERANCES, evaluate
from omni_avsr.evaluate.measure import Options
from omni_avsr.evaluate.provenance import provenance
from omni_avsr.model.batch import collate
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.train.loop import inherited, train
from omni_avsr.train.rates import all_rates

WORK = Path("runs/findings")
GREEDY = Options(split="dev", beam_size=1, batch_size=25)
Row = dict[str, Any]
log = logging.getLogger(__name__)


def key_of(run: Run, seed: int) -> dict[str, Any]:
    """What a stored result must have been made from to be that of `run` today."""
    return {
        "recipe": load_recipe(RECIPE).model_dump(mode="json", exclude_unset=True),
        "sets": run.overrides(seed),
        "base": {"commit": base.COMMIT, "weights": base.WEIGHTS},
    }


def perform(name: str, seed: int, folder: Path = RESULTS, again: bool = False) -> bool:
    """Trains and measures the run `name`, unless that is done and not asked for `again`; True if it was run."""
    run = RUNS[name]
    key = key_of(run, seed)
    if not again and is_done(stored(name, seed, folder), key):
        return False
    base.fetch_base()
    work = WORK / f"{name}-{seed}"
    shutil.rmtree(work, ignore_errors=True)  # a killed run is half a minute
    result = trained(inherited(load_recipe(RECIPE, run.overrides(seed))), run, work)
    store({"run": name, "seed": seed, "key": key, **result}, path_of(name, seed, folder))
    shutil.rmtree(work, ignore_errors=True)
    return True


def trained(recipe: Recipe, run: Run, work: Path) -> dict[str, Any]:
    """Trains `recipe` and measures what comes out.

    Returns:
        Provenance, cost and size of the training, and `rows` of errors per utterance; of a mixture also `router`.
    """
    wall, processor = time.monotonic(), time.process_time()
    model = load_model(train(recipe, work, progress=False))
    cost = {"wall_seconds": time.monotonic() - wall, "cpu_seconds": time.process_time() - processor}
    model.set_trainable(recipe.train.parts)
    size = {"projectors": 0, "llm_lora": 0}
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            size["projectors" if parameter_name.startswith("projector.") else "llm_lora"] += parameter.numel()
    (manifest,) = recipe.data.train
    rows = list(measured(model, manifest, run, work))
    found = {
        **provenance(model.device),
        "steps": recipe.train.max_steps,
        "llm_passes": recipe.train.max_steps * len(run.tasks),
        **{name: round(seconds, 1) for name, seconds in cost.items()},
        "trained": size,
        "beam_size": GREEDY.beam_size,
        "utterances": rows[0]["ids"],
        "words": rows[0]["words_each"],
    }
    if recipe.model.projector.kind.startswith("smop"):
        found["router"] = router_load(model, manifest)
    return found | {"rows": [{k: v for k, v in row.items() if k not in ("ids", "words_each")} for row in rows]}


# ---- measuring ---------------------------------------------------------------------------------


def measured(model: OmniAVSR, manifest: str, run: Run, work: Path) -> Iterator[Row]:
    """The rows of every task and rate, also of those rates that are only reached by pooling."""
    yield from errors_of(model, manifest, _greedy(run), work / "dev")
    if run.pooled:
        audio, video = run.pooled
        options = _greedy(run, audio_rates=[audio], video_rates=[video])
        for row in errors_of(pooling(model, run.pooled), manifest, options, work / "pooled"):
            yield row | {"pooled": True}


def _greedy(run: Run, **more: Any) -> Options:
    return Options(**{**vars(GREEDY), "tasks": list(run.tasks), **more})


def errors_of(model: OmniAVSR | str, manifest: str, options: Options, out: Path) -> list[Row]:
    """`omni-avsr evaluate`, with the errors of each utterance beside the sums."""
    import json

    results = evaluate(manifest, model, out, options)
    lines = [json.loads(line) for line in (out / UTTERANCES).read_text("utf-8").splitlines()]
    cells = ("task", "audio_rate", "video_rate", "snr_db", "noise")
    rows = []
    for row in results["rows"]:
        own = sorted((u for u in lines if all(u[c] == row[c] for c in cells)), key=lambda u: u["id"])
        kept = {c: row[c] for c in (*cells, "substitutions", "deletions", "insertions", "words")}
        errors = [u["substitutions"] + u["deletions"] + u["insertions"] for u in own]
        each = {"ids": [u["id"] for u in own], "words_each": [u["words"] for u in own]}
        rows.append({**kept, "wer": round(row["wer"], 6), "errors": errors, **each})
    return rows


def pooling(model: OmniAVSR, rates: tuple[int, int]) -> OmniAVSR:
    """`model`, trained for one rate per modality, as one that is asked for `rates` too: its MLPs are given averages
    over so many states."""
    config = model.config
    coarse = config.model_copy(
        update={"audio_rates": (*config.audio_rates, rates[0]), "video_rates": (*config.video_rates, rates[1])}
    )
    out = OmniAVSR(coarse, model.tokenizer, model.ctc_alphabet)
    weights = dict(model.state_dict())
    weights |= {n.replace("_0.", "_1."): t for n, t in weights.items() if n.startswith("projector.mlps.")}
    out.load_state_dict(weights, strict=True)
    return out.eval()


@torch.inference_mode()
def router_load(model: OmniAVSR, manifest: str) -> Mapping[str, list[float]]:
    """'audio 4' -> share of the choices that fell on each expert, over the dev clips."""
    dataset = SpeechDataset(manifest, "dev", model.config, None)
    k, experts = model.config.projector.top_k, model.config.projector.experts
    counts: dict[str, torch.Tensor] = {}
    for start in range(0, len(dataset), 10):
        rows = range(start, min(start + 10, len(dataset)))
        encoded = model.encode(collate([dataset[i][0] for i in rows]))
        for rates in all_rates(model.config):
            for modality, probabilities in model.project(encoded, rates).router.items():
                chosen = probabilities.topk(k).indices.flatten().bincount(minlength=experts)
                name = f"{modality} {rates[modality]}"
                counts[name] = counts.get(name, torch.zeros(experts)) + chosen
    return {name: [round(float(share), 4) for share in c / c.sum()] for name, c in sorted(counts.items())}
