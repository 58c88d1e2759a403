"""What a model folder says about itself, read without its weights; and the official quirks in force in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from omni_avsr.checkpoints import folder as files
from omni_avsr.checkpoints.folder import read_json
from omni_avsr.checkpoints.native import read_config
from omni_avsr.config import ModelConfig
from omni_avsr.tasks import TASKS


@dataclass(frozen=True)
class Quirk:
    """A habit of the official code that a model depends on.

    Attributes:
        in_force: whether a model has it, from its configuration and origin.json.
        sentence: what the official code does, and what ours does instead.
    """

    in_force: Callable[[ModelConfig, Mapping[str, Any]], bool]
    sentence: str


def _imported(config: ModelConfig, origin: Mapping[str, Any]) -> bool:
    return "official" in origin


def _official_prompts(config: ModelConfig, origin: Mapping[str, Any]) -> bool:
    return _imported(config, origin) and all(config.prompt(t) == TASKS[t].prompt for t in config.tasks)


QUIRKS: dict[str, Quirk] = {
    "unmasked_padding": Quirk(
        lambda c, o: c.compat.unmasked_padding,
        "In training, padding of a batch is encoded and attended like real frames, so a row depends on its neighbours; "
        "ours masks padding everywhere, and decoding here always does.",
    ),
    "trim_to_longest": Quirk(
        lambda c, o: c.compat.trim_to_longest,
        "In training, every row keeps as many audio frames as the longest of its batch; ours keeps its own length, and "
        "decoding here always does.",
    ),
    "length_arithmetic": Quirk(
        lambda c, o: c.preprocess.length_arithmetic != "exact",
        "The number of audio frames is computed in floating point and is one or more too low for some clip lengths; "
        "ours uses integers.",
    ),
    "minimum_frames": Quirk(
        lambda c, o: _imported(c, o) and "audio" in c.modalities and c.preprocess.min_audio_frames == 25,
        "Audio shorter than half a second keeps 25 encoder frames of silence; ours does the same, so that the largest "
        "rate leaves a token, and the number is a knob (preprocess.min_audio_frames).",
    ),
    "missing_layer_norm": Quirk(
        lambda c, o: bool(c.compat.no_layer_norm),
        "The projectors lack the LayerNorm that the paper draws (it was passed as the bias argument); ours has it "
        "unless projector.layer_norm is off.",
    ),
    "waveform_norm": Quirk(
        lambda c, o: c.preprocess.waveform_norm,
        "The waveform gets zero mean and unit variance before Whisper's mel; ours leaves it as Whisper was trained.",
    ),
    "float_grey": Quirk(
        lambda c, o: _imported(c, o) and "video" in c.modalities,
        "Grey is computed in floating point; ours rounds it to whole numbers of 0 to 255, as mouths are stored: the "
        "normalised picture differs by up to 0.0125.",
    ),
    "rank_divisor": Quirk(
        lambda c, o: _imported(c, o) and c.lora.strategy != "none",
        "The official --rank divides the width (rank 32 of a width of 2048 is r = 64) and scales by alpha / rank; "
        "lora.rank and the adapters here hold the true rank, and alpha in PEFT's sense.",
    ),
    "prompts": Quirk(
        _official_prompts,
        "The prompts are fixed sentences without chat template, stored as embeddings in the official file; ours "
        "embeds the same sentences when they are needed.",
    ),
    "token_order_llama": Quirk(
        lambda c, o: _imported(c, o) and c.llm.family == "llama",
        "The LLM reads <bos> <audio> A </audio> <video> V </video> prompt text <eos>; ours keeps this order.",
    ),
    "token_order_qwen": Quirk(
        lambda c, o: _imported(c, o) and c.llm.family == "qwen2",
        "The LLM reads <audio> A </audio> <video> V </video> prompt text <eos> without an opening token; "
        "ours keeps this order.",
    ),
    "answer_length": Quirk(
        _imported,
        "An answer ends after 32 tokens; ours allows 32 and 16 more per second of the clip, so that no speech is cut "
        "off (max_new_tokens=32 gives the official limit).",
    ),
    "sampled_beams": Quirk(
        lambda c, o: _imported(c, o) and c.llm.family == "llama",
        "With Llama's generation settings the 15 beams are sampled (temperature 0.6, top-p 0.9), so words differ from "
        "run to run; ours always keeps the best beams, 5 of them unless --beam_size says otherwise.",
    ),
    "added_rows": Quirk(
        _imported,
        "The embedding rows of the added tokens are random and frozen, and the table is cut to the tokenizer; the rows "
        "of the official file are kept, ours are stored with every model.",
    ),
    "train_on_padding": Quirk(
        lambda c, o: c.compat.train_on_padding,
        "With Qwen the padding after the transcript is learned like text; ours ignores it.",
    ),
    "trim_to_rate": Quirk(
        lambda c, o: c.compat.trim_to_rate,
        "A clip is cut to a multiple of its one video rate before the encoder sees it; ours encodes all frames and "
        "drops the rest after it.",
    ),
    "plain_kernels": Quirk(
        lambda c, o: c.compat.plain_kernels,
        "AV-HuBERT has a Conv3d stem in row-major memory and plain attention; ours does the same sums faster, folded "
        "and fused, with other roundings.",
    ),
    "bf16": Quirk(
        lambda c, o: c.preprocess.bf16,
        "Waveform, picture and Hann window are rounded to bfloat16; ours keeps them in float32.",
    ),
    "bf16_rotary": Quirk(
        lambda c, o: c.compat.bf16_rotary,
        "The LLM's rotary frequencies are rounded to bfloat16; ours keeps them in float32.",
    ),
}
"""Name -> quirk, in the order in which data meet them."""


def quirks_in_force(config: ModelConfig, origin: Mapping[str, Any]) -> dict[str, str]:
    """Name -> sentence of the official quirks that a model has."""
    return {name: quirk.sentence for name, quirk in QUIRKS.items() if quirk.in_force(config, origin)}


def model_info(name: str | Path, offline: bool = False) -> dict[str, Any]:
    """What `omni-avsr info` shows; weights are not read, only the headers of their files.

    Returns:
        JSON-ready: name, folder, tasks, rates, compression, projector, lora, llm, encoders, prompts, preprocess,
        parameters (stored here, by part), bytes, references, quirks (name -> sentence), origin.

    Raises:
        CheckpointError, AssetError: no model folder of that name.
    """
    folder = files.locate(name, offline)
    config = read_config(folder)
    origin = read_json(folder / files.ORIGIN, {})
    adapters = sorted(p.name for p in (folder / files.ADAPTERS).glob("*"))
    return {
        "name": str(name),
        "folder": str(folder),
        "tasks": list(config.tasks),
        "rates": {m: list(config.rates(m)) for m in config.modalities},
        "compression": config.compression,
        "projector": config.projector.model_dump(),
        "lora": {**config.lora.model_dump(), "peft_alpha": config.lora.scale * config.lora.rank, "adapters": adapters},
        "llm": config.llm.model_dump(),
        "encoders": {m: getattr(config, f"{m}_encoder").model_dump(mode="json") for m in config.modalities},
        "prompts": {task: config.prompt(task) for task in config.tasks},
        "preprocess": config.preprocess.model_dump(),
        "parameters": _stored_parameters(folder, adapters),
        "bytes": sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()),
        "references": read_json(folder / files.REFERENCES, {}),
        "quirks": quirks_in_force(config, origin),
        "origin": origin,
    }


def _stored_parameters(folder: Path, adapters: list[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for key, (_, shape) in files.tensor_shapes(folder / files.WEIGHTS).items():
        part = key.partition(".")[0]
        counts[part] = counts.get(part, 0) + torch.Size(shape).numel()
    for adapter in adapters:
        shapes = files.tensor_shapes(folder / files.ADAPTERS / adapter / "adapter_model.safetensors").values()
        counts[f"adapter {adapter}"] = sum(torch.Size(shape).numel() for _, shape in shapes)
    return counts
