"""The shipped model in noise, and what its answers cost: evaluation alone, done again when the weights change."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.findings.plan import RESULTS, is_done, path_of, store, stored
from benchmarks.findings.runs import WORK, errors_of
from omni_avsr.bench.floor import flop_counter
from omni_avsr.checkpoints import load_model
from omni_avsr.checkpoints.folder import folder_digest, locate
from omni_avsr.data.dataset import SpeechDataset
from omni_avsr.data.synthetic import make_corpus
from omni_avsr.errors import AssetError
from omni_avsr.evaluate.measure import Options, System, systems
from omni_avsr.evaluate.provenance import provenance
from omni_avsr.model.batch import collate
from omni_avsr.model.decode import DecodeOptions, decode
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.tasks import TASKS

MANIFEST = "runs/data/grid/manifest.jsonl"
BEAMS = 5
SNRS = (None, 10.0, 5.0, 0.0, -5.0, -10.0)
RECORDED, CROWD = "recorded", "crowd"  # what results and the page call the recording, and babble of strangers
STRANGERS = {"sentences": "grid", "utterances": 40, "speakers": 40, "video": False, "seed": 98}
CLIPS, ROUNDS = 10, 3  # of which the compute is measured


def recording() -> Path:
    """A recording that no training has heard: the saxophone that comes with Gradio, which the extra 'demo' installs.

    Raises:
        AssetError: Gradio is not installed.
    """
    found = find_spec("gradio")
    path = Path(str(found.origin)).parent / "media_assets" / "audio" / "sax.wav" if found else Path()
    if not path.is_file():
        raise AssetError("the recording of this study comes with Gradio; pip install -e '.[dev]'")
    return path


def crowd() -> Path:
    """Synthetic strangers who say a sentence each, made here; by their seed they are the same everywhere."""
    return make_corpus(WORK / "crowd", **STRANGERS).parent


def noise(model: OmniAVSR, work: Path) -> list[dict[str, Any]]:
    """Three tasks at the finest rates against five noises at five levels."""
    rates = {"audio_rates": [min(model.config.audio_rates)], "video_rates": [min(model.config.video_rates)]}
    named = {f"babble={crowd()}": CROWD, str(recording()): RECORDED}
    kinds = ["babble", "white", "music", *named]
    options = Options(snrs=SNRS, noises=kinds, split="dev", beam_size=BEAMS, batch_size=25, **rates)
    return [row | {"noise": named.get(row["noise"], row["noise"])} for row in errors_of(model, MANIFEST, options, work)]


def frontier(model: OmniAVSR, work: Path) -> list[dict[str, Any]]:
    """Every task at every rate, clean and in babble at 0 dB, with tokens and compute per second of speech."""
    options = Options(snrs=(None, 0.0), noises=["babble"], split="dev", beam_size=BEAMS, batch_size=25)
    costs = dict(compute(model, systems(model, options)))
    found = errors_of(model, MANIFEST, options, work)
    return [row | costs[System(row["task"], row["audio_rate"], row["video_rate"])] for row in found]


def compute(model: OmniAVSR, asked: list[System]) -> Iterator[tuple[System, dict[str, float]]]:
    """Of each system, per second of speech: tokens, operations and processor seconds, one clip at a time."""
    dataset = SpeechDataset(MANIFEST, "dev", model.config, None)
    batches = [collate([dataset[i][0]]) for i in range(min(CLIPS, len(dataset)))]
    seconds = sum(int(batch.video_lengths[0]) for batch in batches) / 25
    for system in asked:

        def answer(system: System = system) -> None:
            for batch in batches:
                decode(model, batch, system.task, system.rates, DecodeOptions(BEAMS))

        with flop_counter() as counter:
            answer()
        clocks = {m: model.encoder(m).frames_per_second for m in TASKS[system.task].modalities}
        tokens = sum(clocks[m] / rate for m, rate in system.rates.items())
        yield (
            system,
            {
                "tokens_per_second": round(tokens, 2),
                "gflop_per_second": round(counter.get_total_flops() / 1e9 / seconds, 4),
                "cpu_seconds_per_second": round(least(answer) / seconds, 5),
            },
        )


def least(work: Callable[[], object]) -> float:
    """Processor seconds of the quickest of ROUNDS."""
    spent = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return min(spent)


STUDIES: dict[str, Callable[[OmniAVSR, Path], list[dict[str, Any]]]] = {"noise": noise, "frontier": frontier}


def perform(study: str, folder: Path = RESULTS, again: bool = False) -> bool:
    """Measures the shipped model, unless it has been with these weights and settings and is not asked for `again`;
    True if it was."""
    torch.set_num_threads(1)
    model = load_model("default")
    heard = hashlib.sha256(recording().read_bytes()).hexdigest() if study == "noise" else ""
    key = {"weights": folder_digest(locate("default")), "beams": BEAMS, "snrs": list(SNRS), "recording": heard}
    key |= {"crowd": STRANGERS} if study == "noise" else {}
    if not again and is_done(stored(study, folder=folder), key):
        return False
    wall, processor = time.monotonic(), time.process_time()
    rows = STUDIES[study](model, WORK / study)
    cost = {"wall_seconds": time.monotonic() - wall, "cpu_seconds": time.process_time() - processor}
    first = rows[0]
    result = {
        "study": study,
        "key": key,
        **provenance(model.device),
        **{name: round(value, 1) for name, value in cost.items()},
        "beam_size": BEAMS,
        "utterances": first["ids"],
        "words": first["words_each"],
        "rows": [{k: v for k, v in row.items() if k not in ("ids", "words_each")} for row in rows],
    }
    store(result, path_of(study, folder=folder))
    return True
