"""AV-HuBERT's files: sizes from shapes, both kinds of file, LoRA, and errors that name the key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from omni_avsr.checkpoints import build
from omni_avsr.checkpoints.fairseq import DROPPED, dropped, expected_shapes, load_avhubert
from omni_avsr.checkpoints.weights import state
from omni_avsr.config import ModelConfig, VideoEncoderConfig
from omni_avsr.errors import CheckpointError
from omni_avsr.model.avhubert import AVHUBERT_SIZES, AVHubertEncoder

SMALL = {
    "embed_dim": 24,
    "layers": 2,
    "heads": 3,
    "ffn_dim": 40,
    "resnet_widths": (4, 6, 8, 10),
    "pos_conv": 16,
    "pos_conv_groups": 4,
}
UNUSED = {
    "mask_emb": (104,),
    "label_embs_concat": (12, 8),
    "final_proj.weight": (8, 24),
    "final_proj.bias": (8,),
    "feature_extractor_audio.proj.weight": (24, 104),
    "feature_extractor_audio.proj.bias": (24,),
}


def encoder(**changes: Any) -> AVHubertEncoder:
    model = AVHubertEncoder(VideoEncoderConfig(**{**SMALL, **changes}))
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand_like(buffer) + 0.1)
        assert "running" in name or "tracked" in name
    return model


def content(model: AVHubertEncoder, **cfg: Any) -> dict[str, Any]:
    """What fairseq writes for it."""
    tensors = {**model.state_dict(), **{k: torch.randn(s) for k, s in UNUSED.items()}}
    cfg = {"encoder_attention_heads": 3, "layer_norm_first": True, "modality_fuse": "concat"} | cfg
    return {"args": None, "cfg": {"model": cfg, "task": {"sample_rate": 25}}, "model": tensors, "criterion": None}


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Any], Path]:
    def save(value: Any) -> Path:
        torch.save(value, tmp_path / "avhubert.pt")
        return tmp_path / "avhubert.pt"

    return save


def same(got: dict[str, Tensor], model: AVHubertEncoder) -> None:
    expected = model.state_dict()
    assert got.keys() == expected.keys()
    for name in got:
        assert torch.equal(got[name], expected[name].to(got[name].dtype)), name


@pytest.mark.parametrize("rank", [0, 5])
def test_a_pretrained_file(rank: int, saved: Callable[[Any], Path]) -> None:
    model = encoder(lora_rank=rank)
    fields, tensors = load_avhubert(saved(content(model)))
    same(tensors, model)
    assert fields == SMALL | {"relu": "prelu", "lora_rank": rank, "lora_scale": 2.0, "layer_norm_first": True}
    VideoEncoderConfig(**fields)


def test_a_fine_tuned_file(saved: Callable[[Any], Path]) -> None:
    model = encoder()
    file = content(model)
    inside = {f"encoder.w2v_model.{k}": v for k, v in file["model"].items()}
    file["model"] = {**inside, "encoder.proj.weight": torch.ones(2), "decoder.embed_tokens.weight": torch.ones(2)}
    file["cfg"]["model"] = {"w2v_args": {"model": file["cfg"]["model"]}, "encoder_attention_heads": None}
    fields, tensors = load_avhubert(saved(file))
    same(tensors, model)
    assert fields["heads"] == 3


def test_halves_and_a_newer_torchs_weight_norm(saved: Callable[[Any], Path]) -> None:
    model = encoder()
    file = content(model)
    renamed = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    file["model"] = {
        k.replace(old, new): v.half() if v.is_floating_point() else v
        for k, v in file["model"].items()
        for old, new in [next(((o, n) for o, n in renamed.items() if k.endswith(o)), ("", ""))]
    }
    same(load_avhubert(saved(file))[1], model)


@pytest.mark.parametrize("size", AVHUBERT_SIZES)
def test_published_sizes(size: str) -> None:
    """The expected keys are those of our encoder, at full size, and heads follow from the width."""
    fields = VideoEncoderConfig(**AVHUBERT_SIZES[size], lora_rank=64)
    with torch.device("meta"):
        model = AVHubertEncoder(fields)
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    assert expected_shapes(fields.model_dump()) == shapes


def test_heads_that_nothing_shows(saved: Callable[[Any], Path]) -> None:
    path = saved(content(encoder(), encoder_attention_heads=None))
    with pytest.raises(CheckpointError, match=r"width 24 is neither base \(768\) nor large \(1024\).*--video_heads"):
        load_avhubert(path)
    assert load_avhubert(path, heads=6)[0]["heads"] == 6


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: m.pop("encoder.layers.1.fc1.bias"), r"has no 'encoder\.layers\.1\.fc1\.bias'.*\(40,\)"),
        (lambda m: m.update({"encoder.extra": torch.ones(3)}), r"key 'encoder\.extra' of shape \(3,\)"),
        (
            lambda m: m.update({"layer_norm.bias": torch.ones(7)}),
            r"'layer_norm\.bias' has shape \(7,\), expected \(48,",
        ),
        (lambda m: m.pop("post_extract_proj.weight"), r"has no 'post_extract_proj\.weight'"),
        (lambda m: m.clear(), "has no 'model'"),
    ],
)
def test_damage_is_named(damage: Callable[[dict], object], message: str, saved: Callable[[Any], Path]) -> None:
    file = content(encoder())
    damage(file["model"])
    with pytest.raises(CheckpointError, match=message):
        load_avhubert(saved(file))


def test_another_fusion_is_refused(saved: Callable[[Any], Path]) -> None:
    with pytest.raises(CheckpointError, match="'add'"):
        load_avhubert(saved(content(encoder(), modality_fuse="add")))


def test_every_dropped_key_has_a_reason() -> None:
    assert all(dropped(key) for key in UNUSED)
    assert all(any(key.startswith(prefix) for key in UNUSED) for prefix in DROPPED)
    assert not dropped("encoder.layers.0.fc1.weight")


def test_a_model_is_built_on_it(saved: Callable[[Any], Path], tiny_config: Callable[..., ModelConfig]) -> None:
    eye = encoder()
    path = saved(content(eye))
    config = tiny_config(tasks=("vsr",), video_encoder={**SMALL, "source": str(path), "lora_rank": 4})
    model = build(config, ["bin blue"])
    loaded = state(model, "video_encoder")
    for name, value in eye.state_dict().items():
        assert torch.equal(loaded[f"video_encoder.{name}"], value)
    assert set(model.references) == {"video_encoder"}
    assert model.encoder("video").encoder.layers[0].self_attn.lora_up_Q.weight.abs().sum() == 0
