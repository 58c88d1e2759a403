"""The published algorithm and ours on the same random weights of the published size, alternating, in one run.

    python benchmarks/vs_reference.py [--rounds 1] [--clips 4] [--tokens 32] [--beams 15] [--out results.json]

A run that was ended goes on where it was: each clip of the reference and each batch of ours is written to `--out` as
it is done, and what stands there for the same settings is not run again. With `--reference_rounds 1` the reference,
which takes most of the time, runs once, and every round of ours is compared with it.

The reference is written from the facts of the published code: one clip at a time, Whisper over 30 s, every prompt read
once per beam, transformers' `generate`, float32. Sizes: whisper-medium.en, AV-HuBERT large, Llama-3.2-1B, Omni-ST.

Layers of one kind share one set of weights. A set is larger than the processor's cache, so the work and the memory
traffic are those of separate layers, and 3 GB hold both sides instead of 16. Times are processor time of one thread:
other programs on the machine change them little.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omni_avsr.config import ModelConfig
from omni_avsr.evaluate.provenance import provenance
from omni_avsr.model.batch import collate
from omni_avsr.model.compute import COMPUTE, prepare, without_window
from omni_avsr.model.decode import DecodeOptions, decode
from omni_avsr.model.omni import OmniAVSR, build_model
from omni_avsr.types import Encoded, Features

VOCABULARY = 128_261  # Llama 3's and our tags
RATES = {"audio": 4, "video": 2}
LAYERS = {"llm": 16, "audio_encoder": 24, "video_encoder": 24}
WINDOW = 3000  # mel frames of 30 s


def one_layer() -> OmniAVSR:
    """The published model with one layer of each kind."""
    config = ModelConfig.model_validate(
        {
            "audio_encoder": {
                "dims": {
                    "d_model": 1024,
                    "encoder_layers": 1,
                    "encoder_attention_heads": 16,
                    "encoder_ffn_dim": 4096,
                }
            },
            "video_encoder": {"layers": 1, "lora_rank": 64},
            "llm": {
                "dims": {
                    "hidden_size": 2048,
                    "intermediate_size": 8192,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 32,
                    "num_key_value_heads": 8,
                    "tie_word_embeddings": True,
                    "max_position_embeddings": 131072,
                },
                "vocab_size": 280,
            },
            "prompts": {"avsr": "Transc"},  # letters are tokens here: as many as the published prompt has
        }
    )
    torch.manual_seed(0)
    model = build_model(config)
    model.llm.resize_token_embeddings(VOCABULARY, mean_resizing=False)
    for layer in model.adapters.layers.values():
        for factor in layer.lora_B.values():
            nn.init.normal_(factor, std=0.02)
    return model.eval().requires_grad_(False)


def grown(model: OmniAVSR) -> OmniAVSR:
    """`model` with as many layers as published, all of a kind on one storage."""
    model.llm.model.layers = _stack(model.llm.model.layers[0], LAYERS["llm"])
    model.llm.config.num_hidden_layers = LAYERS["llm"]
    for name in ("audio_encoder", "video_encoder"):
        encoder: Any = model.get_submodule(name)
        holder = encoder.whisper if name == "audio_encoder" else encoder.encoder
        holder.layers = _stack(holder.layers[0], LAYERS[name])
    return model


def _stack(layer: nn.Module, count: int) -> nn.ModuleList:
    tensors = [t for m in layer.modules() for t in vars(m).values() if isinstance(t, Tensor)]
    shared = {id(t): t for t in [*layer.parameters(), *layer.buffers(), *tensors]}
    layers = nn.ModuleList([layer, *(copy.deepcopy(layer, dict(shared)) for _ in range(count - 1))])
    for index, each in enumerate(layers):
        for module in each.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index
    return layers


def clip(seconds: float, seed: int = 0) -> Features:
    """Noise as features: what is said does not matter to the time."""
    noise = torch.Generator().manual_seed(seed)
    frames = round(seconds * 25)
    return Features(
        torch.randn(80, 4 * frames, generator=noise), 2 * frames, torch.randn(frames, 88, 88, generator=noise)
    )


def windowed(features: Features) -> Features:
    """The same clip as the published code feeds it: silence up to 30 s."""
    assert features.mel is not None
    mel = torch.full((80, WINDOW), -1.0)
    mel[:, : features.mel.shape[1]] = features.mel
    return Features(mel, features.audio_frames, features.video)


# ---- stages ----------------------------------------------------------------------------------


@dataclass
class Stages:
    """Processor seconds per stage of one run."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Adds the time of the block to `name`."""
        begun = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - begun

    def watch(self, module: nn.Module, name: Callable[[], str]) -> list[Any]:
        """Hooks that add the time of each call of `module` to the stage `name()`."""
        begun: list[float] = []

        def after(*_: Any) -> None:
            stage = name()
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.process_time() - begun.pop()

        return [
            module.register_forward_pre_hook(lambda *_: begun.append(time.process_time())),
            module.register_forward_hook(after),
        ]


@torch.inference_mode()
def reference(model: OmniAVSR, clips: Sequence[Features], beams: int, tokens: int, stages: Stages) -> list[list[int]]:
    """The published way: clip by clip, 30 s, `generate` with beams expanded before the prompt is read."""
    said = []
    for features in clips:
        batch = collate([windowed(features)])
        with stages.measured("audio encoder"):
            heard: Any = model.get_submodule("audio_encoder.whisper")(batch.mel).last_hidden_state
        with stages.measured("video encoder"):
            seen = model.encoder("video")(batch.video, batch.video_lengths)
        encoded = {"audio": Encoded(heard[:, : features.audio_frames], batch.audio_lengths), "video": seen}
        with stages.measured("projector"):
            prefix = model.prefixes("avsr", model.project(encoded, RATES).tokens, [0])[0]
        passes = iter(["prompt", *["answer"] * tokens])
        hooks = stages.watch(model.llm.base_model, lambda passes=passes: next(passes))
        with stages.measured("search"):
            said.append(generated(model, prefix, "avsr", beams, tokens))
        for hook in hooks:
            hook.remove()
    stages.seconds["search"] -= stages.seconds["prompt"] + stages.seconds["answer"]
    return said


def generated(model: OmniAVSR, prefix: Tensor, task: str, beams: int, tokens: int) -> list[int]:
    """What transformers' `generate` says after `prefix` (L, H), of which it makes a copy per beam; without its end."""
    with model.adapters.use(task):
        out = model.llm.generate(
            inputs_embeds=prefix[None],
            attention_mask=torch.ones(1, len(prefix), dtype=torch.long),
            num_beams=beams,
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=model.tokenizer.eos_id,
            pad_token_id=model.tokenizer.pad_id,
        )
    return [token for token in out[0].tolist() if token != model.tokenizer.eos_id]


@torch.inference_mode()
def ours(model: OmniAVSR, clips: Sequence[Features], beams: int, tokens: int, stages: Stages) -> list[list[int]]:
    """This project's way: all clips in one batch."""
    exact = model.config.preprocess.audio_window > 0
    batch = collate([windowed(c) if exact else c for c in clips])
    with stages.measured("audio encoder"):
        heard = model.encode(batch, ["audio"])
    with stages.measured("video encoder"):
        seen = model.encode(batch, ["video"])
    passes = iter(["prompt", *["answer"] * tokens])
    hooks = stages.watch(model.llm.base_model, lambda: next(passes))
    with stages.measured("search"):
        found = decode(model, batch, "avsr", RATES, DecodeOptions(beams, tokens), {**heard, **seen})
    for hook in hooks:
        hook.remove()
    stages.seconds["search"] -= stages.seconds["prompt"] + stages.seconds["answer"]
    return [list(h.tokens) for h in found]


# ---- the run ---------------------------------------------------------------------------------

SETTINGS = ("beams", "tokens", "threads", "versions")  # what makes two runs parts of one


@dataclass
class Ledger:
    """What has been measured, in a file after every piece of work."""

    path: Path
    meta: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def recall(self) -> None:
        """Takes the rows that the file holds for the same settings."""
        known = json.loads(self.path.read_text()) if self.path.exists() else {"meta": {}}
        if all(known["meta"].get(name) == self.meta[name] for name in SETTINGS):
            self.rows = known["rows"]

    def has(self, turn: int, side: str, clips: Sequence[str]) -> bool:
        """Whether a piece of work is done."""
        return any((r["round"], r["side"], r["clips"]) == (turn, side, list(clips)) for r in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Keeps a row."""
        self.rows.append(row)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        self.meta["peak_gib"] = round(max(peak, self.meta.get("peak_gib", 0)), 2)
        self.path.write_text(json.dumps({"meta": self.meta, "rows": self.rows}, indent=1) + "\n")


def main() -> None:
    """Measures, prints a table and writes JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--reference_rounds", type=int, help="as many as the others, if not given")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--beams", type=int, default=15)
    parser.add_argument("--clips", type=float, nargs="+", default=[4.0], help="seconds of each clip")
    parser.add_argument("--sides", nargs="+", default=["float32", "int8 fast", "int8 fast 5", "int8 fast 1"])
    parser.add_argument("--out", type=Path, default=Path("results.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    plain = one_layer()
    sides = _sides(plain, options)
    grown(plain)
    clips = {f"{seconds:g} s, seed {seed}": clip(seconds, seed) for seed, seconds in enumerate(options.clips)}
    every = list(clips)
    ledger = Ledger(options.out, _meta(options))
    ledger.recall()
    for turn in range(options.rounds):
        by_clip = every if turn < (options.reference_rounds or options.rounds) else []
        pieces = [("reference", plain, options.beams, [name]) for name in by_clip]
        pieces += [(side, model, beams, every) for side, (model, beams) in sides.items()]
        for side, model, beams, chosen in pieces:
            if not ledger.has(turn, side, chosen):
                found = _measured(side, model, [clips[name] for name in chosen], beams, options.tokens)
                ledger.add({"round": turn, "side": side, "clips": chosen, **found})
                print(f"{turn} {side:12} {'; '.join(chosen)}: {found['total']:.2f} s", flush=True)
    print(table([row for row in ledger.rows if row["side"] == "reference" or row["clips"] == every]))


def _sides(plain: OmniAVSR, options: argparse.Namespace) -> dict[str, tuple[OmniAVSR, int]]:
    """Ours: a model and its beams for each of `--sides`."""
    sides: dict[str, tuple[OmniAVSR, int]] = {}
    models: dict[str, OmniAVSR] = {}
    for side in options.sides:
        name, fast, beams = (*side.split(), "", "")[:3]
        if name + fast not in models:
            model = copy.deepcopy(plain)
            if COMPUTE[name].dtype == torch.bfloat16:
                for tensor in model.parameters():
                    tensor.data = tensor.data.bfloat16()
            model = without_window(model) if fast else model
            models[name + fast] = grown(prepare(model, COMPUTE[name]))
        sides[side] = models[name + fast], int(beams or options.beams)
    return sides


def _measured(side: str, model: OmniAVSR, clips: Sequence[Features], beams: int, tokens: int) -> dict[str, Any]:
    stages, begun = Stages(), time.process_time()
    said = (reference if side == "reference" else ours)(model, clips, beams, tokens, stages)
    total = time.process_time() - begun
    rounded = {stage: round(seconds, 3) for stage, seconds in stages.seconds.items()}
    return {"total": round(total, 3), "stages": rounded, "tokens": said}


def _meta(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "beams": options.beams,
        "tokens": options.tokens,
        "threads": 1,
        "clock": "processor time",
        **provenance(torch.device("cpu")),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Per side: seconds, ratios to every round of the reference on the same clips, and how many say the same."""
    rounds: dict[int, dict[str, float]] = {}  # round -> clip -> seconds of the reference
    words: dict[str, list[int]] = {}
    for row in rows:
        if row["side"] == "reference":
            rounds.setdefault(row["round"], {})[row["clips"][0]] = row["total"]
            words[row["clips"][0]] = row["tokens"][0]
    lines = ["side | rounds | seconds (median) | reference / side: min, median, max | same words"]
    for side in dict.fromkeys(row["side"] for row in rows if row["side"] != "reference"):
        own = [row for row in rows if row["side"] == side]
        clips = own[0]["clips"]
        whole = [sum(seconds[name] for name in clips) for seconds in rounds.values() if set(clips) <= set(seconds)]
        ratios = [expected / row["total"] for expected in whole for row in own] or [float("nan")]
        same = sum(words.get(name) == said for name, said in zip(clips, own[-1]["tokens"], strict=True))
        spread = ", ".join(f"{x:.2f}" for x in (min(ratios), statistics.median(ratios), max(ratios)))
        seconds = statistics.median(row["total"] for row in own)
        lines.append(f"{side} | {len(own)} | {seconds:.1f} | {spread} | {same}/{len(clips)}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
