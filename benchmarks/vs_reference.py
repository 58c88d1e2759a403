"""The published algorithm and ours on the same random weights of the published size, alternating, in one run.

    python benchmarks/vs_reference.py [--rounds 1] [--tokens 32] [--beams 15] [--out results.json]

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
import platform
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
        with stages.measured("search"), model.adapters.use("avsr"):
            out = model.llm.generate(
                inputs_embeds=prefix[None],
                attention_mask=torch.ones(1, len(prefix), dtype=torch.long),
                num_beams=beams,
                max_new_tokens=tokens,
                do_sample=False,
                eos_token_id=model.tokenizer.eos_id,
                pad_token_id=model.tokenizer.pad_id,
            )
        for hook in hooks:
            hook.remove()
        said.append([token for token in out[0].tolist() if token != model.tokenizer.eos_id])
    stages.seconds["search"] -= stages.seconds["prompt"] + stages.seconds["answer"]
    return said


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


def main() -> None:
    """Measures, prints a table and writes JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--beams", type=int, default=15)
    parser.add_argument("--clips", type=float, nargs="+", default=[4.0], help="seconds of each clip")
    parser.add_argument("--sides", nargs="+", default=["float32", "int8 fast", "int8 fast 5", "int8 fast 1"])
    parser.add_argument("--out", type=Path, default=Path("results.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    plain = one_layer()
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
    grown(plain)
    clips = [clip(seconds, seed) for seed, seconds in enumerate(options.clips)]
    rows: list[dict[str, Any]] = []
    for turn in range(options.rounds):
        expected: list[list[int]] = []
        for side, (model, beams) in {"reference": (plain, options.beams), **sides}.items():
            stages = Stages()
            begun = time.process_time()
            run = reference if side == "reference" else ours
            said = run(model, clips, beams, options.tokens, stages)
            total = time.process_time() - begun
            expected = expected or said
            same = sum(a == b for a, b in zip(said, expected, strict=True))
            rows.append({"round": turn, "side": side, "total": total, "same": same, **stages.seconds})
            parts = ", ".join(f"{k} {v:.2f}" for k, v in stages.seconds.items())
            print(f"{side:12} {total:8.2f} s  same words {same}/{len(clips)}  ({parts})", flush=True)
            options.out.write_text(json.dumps({"meta": _meta(options), "rows": rows}, indent=1))
    print(_table(rows))


def _meta(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "clips": options.clips,
        "beams": options.beams,
        "tokens": options.tokens,
        "threads": 1,
        "clock": "processor time",
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def _table(rows: Sequence[dict[str, Any]]) -> str:
    times: dict[str, list[float]] = {}
    for row in rows:
        times.setdefault(row["side"], []).append(row["total"])
    lines = ["side | seconds (median) | reference / side: min, median, max"]
    for side, own in times.items():
        ratios = [r / t for r, t in zip(times["reference"], own, strict=True)]
        lines.append(
            f"{side} | {statistics.median(own):.1f} | "
            + ", ".join(f"{x:.2f}" for x in (min(ratios), statistics.median(ratios), max(ratios)))
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
