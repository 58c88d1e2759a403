"""Official files of many sizes and layouts, imported by the command line: nothing depends on the golden files' sizes.

Each file is made of a random model of ours, written with official keys; what comes back must be that model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, WhisperConfig
from typer.testing import CliRunner

from omni_avsr.checkpoints import load_model
from omni_avsr.checkpoints.keys import official_keys
from omni_avsr.checkpoints.systems import OFFICIAL_TASK, SYSTEMS, Layout, Lora, Projectors
from omni_avsr.checkpoints.weights import state
from omni_avsr.cli import app
from omni_avsr.config import ModelConfig
from omni_avsr.media.features import extract
from omni_avsr.model.batch import collate
from omni_avsr.model.llm import LLM_FAMILIES, train_tokenizer
from omni_avsr.model.omni import OmniAVSR

EAR = {
    "d_model": 40, "encoder_layers": 3, "encoder_attention_heads": 5, "encoder_ffn_dim": 70, "num_mel_bins": 80,
    "max_source_positions": 100,
}  # fmt: skip
EYE = {
    "embed_dim": 36, "layers": 4, "heads": 3, "ffn_dim": 50, "resnet_widths": (6, 10, 12, 20), "pos_conv": 30,
    "pos_conv_groups": 6, "lora_rank": 2,
}  # fmt: skip
LLAMA = {
    "hidden_size": 60, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 6,
    "num_key_value_heads": 2, "tie_word_embeddings": False,
}  # fmt: skip
QWEN = {
    "hidden_size": 72, "intermediate_size": 50, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 1, "tie_word_embeddings": True,
}  # fmt: skip
BOTH = ("audio", "video")

CASES: dict[str, dict[str, Any]] = {
    "T, llama, untied": {"lora": "T", "rates": ((3, 8), (1, 4)), "lost": BOTH},
    "ST, qwen, three rates": {"lora": "ST", "llm": QWEN, "rates": ((2, 6, 12), (7,)), "lost": BOTH},
    "S, qwen, stack": {"llm": QWEN, "rates": ((2, 7), (3, 5)), "compression": "stack", "lost": BOTH},
    "stack, the flag that is inverted for audio": {"rates": ((5,), (2, 3)), "compression": "stack", "lost": ("video",)},
    "one rate": {"rates": ((5,), (3,)), "listed": False},
    "one rate, stack, qwen": {"llm": QWEN, "rates": ((6,), (1,)), "compression": "stack", "listed": False},
    "one projector for all rates": {"rates": ((3, 9), (2, 7)), "listed": False, "kind": "mlp_shared"},
    "llama-avsr asr, stack": {"task": "asr", "rates": ((3,), ()), "compression": "stack", "norm": False},
    "llama-avsr vsr": {"task": "vsr", "rates": ((), (3,)), "listed": False},
    "llama-avsr avsr, no LoRA in the eye": {"task": "avsr", "rates": ((4,), (2,)), "eye": {"lora_rank": 0}},
    "llama-mtsk": {"task": "avsr", "rates": ((4, 16), (2, 5)), "listed": True, "norm": True, "llm": QWEN},
}
DIVISOR, ALPHA = 14, 5  # round(60 / 14) = 4, round(72 / 14) = 5


def _case(name: str) -> dict[str, Any]:
    base = {"lora": "S", "llm": LLAMA, "compression": "average", "lost": (), "norm": True, "eye": {}}
    case = base | {"kind": "mlp_per_rate", "task": ""} | CASES[name]
    return case | {"listed": case.get("listed", not case["task"])}


def _model(case: dict[str, Any]) -> OmniAVSR:
    """A random model in bfloat16, as official files are."""
    family = "llama" if case["llm"] is LLAMA else "qwen2"
    audio, video = case["rates"]
    config = ModelConfig.model_validate({
        "tasks": (case["task"],) if case["task"] else ("asr", "vsr", "avsr"),
        "audio_rates": audio or (4,), "video_rates": video or (2,), "compression": case["compression"],
        "audio_encoder": {"dims": EAR}, "video_encoder": EYE | case["eye"],
        "projector": {"kind": case["kind"], "hidden": 26, "layer_norm": case["norm"]},
        "llm": {"family": family, "dims": case["llm"]},
        "lora": {"strategy": case["lora"], "rank": round(case["llm"]["hidden_size"] / DIVISOR),
                 "scale": ALPHA / DIVISOR},
        "preprocess": {"audio_window": 2.0 if audio else 30.0, "waveform_norm": True, "length_arithmetic": "float32",
                       "min_audio_frames": 25, "normalizer": "official"},
        "compat": {"no_layer_norm": case["lost"], "unmasked_padding": True, "trim_to_longest": True,
                   "trim_to_rate": bool(video) and not case["listed"] and case["kind"] == "mlp_per_rate",
                   "plain_kernels": bool(video), "train_on_padding": family == "qwen2"},
    })  # fmt: skip
    model = OmniAVSR(config, train_tokenizer(("some words", "and others"), 280, family))
    for tensor in state(model).values():
        noise = torch.rand(tensor.shape) + 0.5 if tensor.dim() < 2 else torch.randn(tensor.shape) * 0.2
        tensor.data = noise.bfloat16().float() if tensor.is_floating_point() else torch.tensor(7)
    return model.eval()


def _official(model: OmniAVSR, case: dict[str, Any]) -> dict[str, Tensor]:
    """The state dict that the official program writes for it."""
    rates = {m: r for m, r in zip(BOTH, case["rates"], strict=True) if r}
    projectors = Projectors(case["kind"], case["compression"], rates, case["listed"], 26, case["norm"])
    system = SYSTEMS["llama-avsr" if case["task"] else "omni-avsr"]
    layout = Layout(system, model.config.tasks, Lora(case["lora"]), projectors, {})
    out = {key: v.detach() for name, v in state(model).items() for key in official_keys(name, layout)}
    out = {key: v.bfloat16() if v.is_floating_point() else v for key, v in out.items()}
    table = out["llm.model.embed_tokens.weight"]
    out.setdefault("llm.lm_head.weight", table)
    for task in model.config.tasks if system.unified else ():
        out[f"prompt_{OFFICIAL_TASK[task]}"] = table[model.tokenizer.encode(model.config.prompt(task))][None]
    if "video" in rates:
        unused = {"mask_emb": (104,), "label_embs_concat": (9, 8), "feature_extractor_audio.proj.weight": (36, 104)}
        out |= {f"video_encoder.{key}": torch.zeros(shape) for key, shape in unused.items()}
    return out


def _directories(model: OmniAVSR, folder: Path) -> list[str]:
    """The options with configurations and tokenizers, and no weights."""
    config = model.config.llm
    settings = AutoConfig.for_model(LLM_FAMILIES[config.family].model_type, **config.dims, vocab_size=999)
    settings.save_pretrained(folder / "llm")
    model.tokenizer.save(folder / "llm")
    WhisperConfig(**EAR).save_pretrained(folder / "whisper")
    torch.save({"cfg": {"model": {"encoder_attention_heads": EYE["heads"]}}, "model": {}}, folder / "avhubert.pt")
    options = {"llm": "llm", "audio_encoder": "whisper", "video_encoder": "avhubert.pt"}
    return [word for name, place in options.items() for word in (f"--{name}", str(folder / place))]


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_what_comes_back_is_the_model(name: str, tmp_path: Path) -> None:
    case = _case(name)
    model = _model(case)
    torch.save(_official(model, case), tmp_path / "model_avg_1.pth")
    arguments = ["import", "llama-avsr" if case["task"] else "omni-avsr", str(tmp_path / "model_avg_1.pth")]
    arguments += [*_directories(model, tmp_path), "-o", str(tmp_path / "out"), "--offline"]
    arguments += ["--rank", str(DIVISOR), "--alpha", str(ALPHA)]
    if case["compression"] == "average":
        for modality, rates in zip(BOTH, case["rates"], strict=True):
            arguments += [f"--{modality}_rates", *map(str, rates)] if rates else []
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    imported = load_model(tmp_path / "out")
    _same_config(imported.config, model.config)
    left, right = state(imported), state(model)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key].float()) for key in left)
    task, rates = model.config.tasks[-1], model.check_rates(model.config.tasks[-1])
    for one, other in zip(*(_read(m, task, rates) for m in (imported, model)), strict=True):
        torch.testing.assert_close(one, other)


def _same_config(got: ModelConfig, want: ModelConfig) -> None:
    """All that is used; configurations of transformers may say the same in more words."""
    skipped = {"llm": {"dims", "vocab_size"}, "audio_encoder": {"dims"}}
    unused = {f"{m}_{field}" for m in BOTH if m not in want.modalities for field in ("encoder", "rates")}
    assert got.model_dump(exclude=skipped | dict.fromkeys(unused, True)) == want.model_dump(
        exclude=skipped | dict.fromkeys(unused, True)
    )
    assert want.llm.dims.items() <= (AutoConfig.for_model(got.llm.family, **got.llm.dims).to_dict()).items()
    if "audio" in want.modalities:
        assert EAR.items() <= got.audio_encoder.dims.items()


def _read(model: OmniAVSR, task: str, rates: dict[str, int]) -> list[Tensor]:
    """Logits of two clips, from the signals on."""
    noise = np.random.default_rng(0)
    clips = [
        extract(
            noise.normal(0, 0.1, frames * 640).astype(np.float32) if "audio" in rates else None,
            noise.integers(0, 256, (frames, 96, 96), np.uint8) if "video" in rates else None,
            model.config.preprocess,
        )
        for frames in (31, 20)
    ]
    tokens = model.project(model.encode(collate(clips)), rates).tokens
    with model.adapters.use(task):
        return [model.llm(inputs_embeds=p[None]).logits for p in model.prefixes(task, tokens, [0, 1])]
