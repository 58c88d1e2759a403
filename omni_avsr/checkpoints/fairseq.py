"""AV-HuBERT's published files (fairseq), read safely: pre-trained and fine-tuned, base and large.

Our encoder keeps the published key names, so what is done here is: unwrap, drop by name what only pre-training
needs, infer the sizes from the shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from omni_avsr.checkpoints.folder import read_tensors
from omni_avsr.checkpoints.pickles import plain, read_pickle
from omni_avsr.errors import CheckpointError

FINE_TUNED = "encoder.w2v_model."  # where a fine-tuned model keeps the pre-trained one
DROPPED: dict[str, str] = {
    "mask_emb": "replaces masked features in pre-training",
    "label_embs_concat": "cluster embeddings of the pre-training loss",
    "final_proj.": "head of the pre-training loss",
    "feature_extractor_audio.": "the audio branch; without audio its half of the fusion is zeros",
}
"""Prefix of keys that lip reading does not use -> why."""
RENAMED: dict[str, str] = {
    "encoder.pos_conv.0.parametrizations.weight.original0": "encoder.pos_conv.0.weight_g",
    "encoder.pos_conv.0.parametrizations.weight.original1": "encoder.pos_conv.0.weight_v",
}
"""Keys as a newer torch writes weight normalisation -> the published names, which are ours."""
HEADS: dict[int, int] = {768: 12, 1024: 16}
"""Width of the published models (base, large) -> attention heads, which no shape shows."""
LORA_SCALE = 2.0  # fixed in the official code

Shapes = dict[str, tuple[int, ...]]  # key -> shape

_LAYER = re.compile(r"encoder\.layers\.(\d+)\.")
_RESNET = "feature_extractor_video.resnet"


def load_avhubert(path: str | Path, heads: int | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads a fairseq `.pt` file, or a safetensors file with the same keys.

    Args:
        path: the file.
        heads: attention heads, where the file's settings do not say and its width is not a published one.

    Returns:
        Fields of VideoEncoderConfig, and the tensors under the names of our encoder, in the types of the file.

    Raises:
        CheckpointError: not such a file, an unknown or missing key, or a program hidden in it.
    """
    path = Path(path).expanduser()
    if path.suffix == ".safetensors":
        return avhubert_state(read_tensors(path), {}, heads, str(path))
    content = read_pickle(path)
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not model:
        raise CheckpointError(
            f"{path} has no 'model' with tensors in it; give a fairseq checkpoint such as large_vox_iter5.pt"
        )
    settings = plain(content.get("cfg") or content.get("args")) or {}
    return avhubert_state(model, settings, heads, str(path))


def avhubert_state(
    model: Mapping[str, Tensor], settings: Mapping[str, Any], heads: int | None, where: str, prefix: str = ""
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Sizes and tensors of AV-HuBERT under published keys; see `load_avhubert`.

    Args:
        model: published key -> tensor, of a pre-trained or a fine-tuned model; LoRA may be in it.
        settings: fairseq's configuration, if there is one.
        heads: attention heads, where `settings` do not say.
        where: what the weights are called in an error.
        prefix: what keys are called with in an error.
    """
    if any(key.startswith(FINE_TUNED) for key in model):
        model = {key.removeprefix(FINE_TUNED): v for key, v in model.items() if key.startswith(FINE_TUNED)}
    state = {RENAMED.get(key, key): v for key, v in model.items() if not dropped(key)}
    fields = _sizes(state, where) | _invisible(state, settings, heads, where)
    expected = expected_shapes(fields)
    for key in sorted(expected.keys() | state.keys()):
        got = tuple(state[key].shape) if key in state else None
        if got != expected.get(key):
            raise CheckpointError(_misfit(prefix + key, got, expected.get(key), where))
    return fields, state


def dropped(key: str) -> str:
    """Why `key` is left out; empty if it is not."""
    return next((why for prefix, why in DROPPED.items() if key.startswith(prefix)), "")


def _misfit(key: str, got: tuple[int, ...] | None, expected: tuple[int, ...] | None, where: str) -> str:
    if got is None:
        return f"{where} has no '{key}', expected with shape {expected}; the file is truncated or not AV-HuBERT"
    if expected is None:
        return f"{where} has the key '{key}' of shape {got}, which AV-HuBERT does not have; give the published file"
    return f"{where}: '{key}' has shape {got}, expected {expected} from the other shapes; give the published file"


# ---- sizes -----------------------------------------------------------------------------------


def _sizes(state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """Fields that shapes show."""

    def shape(key: str) -> tuple[int, ...]:
        if key not in state:
            raise CheckpointError(f"{where} has no '{key}'; it is truncated, or not an AV-HuBERT with a video branch")
        return tuple(state[key].shape)

    width = shape("post_extract_proj.weight")[0]
    position = shape("encoder.pos_conv.0.weight_v")  # (E, E/groups, taps)
    lora = state.get("encoder.layers.0.self_attn.lora_down_Q.weight")
    return {
        "embed_dim": width,
        "layers": 1 + max((int(m[1]) for m in map(_LAYER.match, state) if m), default=-1),
        "ffn_dim": shape("encoder.layers.0.fc1.weight")[0],
        "resnet_widths": tuple(shape(f"{_RESNET}.trunk.layer{i}.0.conv1.weight")[0] for i in (1, 2, 3, 4)),
        "relu": "prelu" if f"{_RESNET}.frontend3D.2.weight" in state else "relu",
        "pos_conv": position[2],
        "pos_conv_groups": width // position[1],
        "lora_rank": 0 if lora is None else lora.shape[0],
        "lora_scale": LORA_SCALE,
    }


def _invisible(
    state: Mapping[str, Tensor], settings: Mapping[str, Any], heads: int | None, where: str
) -> dict[str, Any]:
    """Fields that no shape shows: from the settings, else what all published files have."""
    width = state["post_extract_proj.weight"].shape[0]
    stated = _find(settings, "encoder_attention_heads") or heads or HEADS.get(width)
    if stated is None:
        raise CheckpointError(
            f"{where}: AV-HuBERT of width {width} is neither base (768) nor large (1024), and its number of attention "
            "heads shows in no shape; name a fairseq file of that size with --video_encoder FILE, or --video_heads N"
        )
    if stated < 1 or width % stated:
        raise CheckpointError(
            f"{where}: {stated} attention heads do not divide AV-HuBERT's width {width}; give the right number with "
            "--video_heads, or the fairseq file of that size with --video_encoder"
        )
    told = _find(settings, "encoder_embed_dim")
    if told not in (None, width):
        raise CheckpointError(
            f"{where}: AV-HuBERT is {width} wide here, but {told} in the settings; give the file of the training "
            "command as --video_encoder, or none"
        )
    fuse = _find(settings, "modality_fuse") or "concat"
    if fuse != "concat":
        raise CheckpointError(f"{where} fuses its streams by '{fuse}'; only 'concat', the published way, is supported")
    first = _find(settings, "layer_norm_first")
    return {"heads": int(stated), "layer_norm_first": True if first is None else bool(first)}


def _find(settings: Mapping[str, Any], name: str) -> Any:
    """A field of the pre-trained model's settings; a fine-tuned file keeps them one level deeper."""
    model = _group(settings, "model") or settings
    inner = _group(model, "w2v_args")
    for place in (_group(inner, "model"), inner, model):
        if place.get(name) is not None:
            return place[name]
    return None


def _group(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = settings.get(name)
    return value if isinstance(value, Mapping) else {}


def expected_shapes(fields: Mapping[str, Any]) -> Shapes:
    """Every key of our video encoder -> shape, from fields of VideoEncoderConfig; LoRA where lora_rank > 0."""
    width, ffn, rank = fields["embed_dim"], fields["ffn_dim"], fields["lora_rank"]
    widths = fields["resnet_widths"]
    out: Shapes = {
        f"{_RESNET}.frontend3D.0.weight": (widths[0], 1, 5, 7, 7),
        **_norm(f"{_RESNET}.frontend3D.1", widths[0], statistics=True),
        **_prelu(f"{_RESNET}.frontend3D.2", widths[0], fields),
        **_linear("feature_extractor_video.proj", widths[3], width),
        **_norm("layer_norm", 2 * width),
        **_linear("post_extract_proj", 2 * width, width),
        "encoder.pos_conv.0.bias": (width,),
        "encoder.pos_conv.0.weight_g": (1, 1, fields["pos_conv"]),
        "encoder.pos_conv.0.weight_v": (width, width // fields["pos_conv_groups"], fields["pos_conv"]),
        **_norm("encoder.layer_norm", width),
    }
    before = widths[0]
    for stage, channels in enumerate(widths, 1):
        for block, come in ((0, before), (1, channels)):
            out |= _block(f"{_RESNET}.trunk.layer{stage}.{block}", come, channels, fields, stage > 1 and block == 0)
        before = channels
    for layer in range(fields["layers"]):
        base = f"encoder.layers.{layer}"
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            out |= _linear(f"{base}.self_attn.{name}", width, width)
        for letter in "QV" if rank else "":
            out[f"{base}.self_attn.lora_down_{letter}.weight"] = (rank, width)
            out[f"{base}.self_attn.lora_up_{letter}.weight"] = (width, rank)
        out |= _norm(f"{base}.self_attn_layer_norm", width) | _norm(f"{base}.final_layer_norm", width)
        out |= _linear(f"{base}.fc1", width, ffn) | _linear(f"{base}.fc2", ffn, width)
    return out


def _block(name: str, come: int, channels: int, fields: Mapping[str, Any], down: bool) -> Shapes:
    out: Shapes = {f"{name}.conv1.weight": (channels, come, 3, 3), f"{name}.conv2.weight": (channels, channels, 3, 3)}
    for part in ("bn1", "bn2"):
        out |= _norm(f"{name}.{part}", channels, statistics=True)
    for part in ("relu1", "relu2"):
        out |= _prelu(f"{name}.{part}", channels, fields)
    if down or come != channels:
        out[f"{name}.downsample.0.weight"] = (channels, come, 1, 1)
        out |= _norm(f"{name}.downsample.1", channels, statistics=True)
    return out


def _linear(name: str, come: int, go: int) -> Shapes:
    return {f"{name}.weight": (go, come), f"{name}.bias": (go,)}


def _norm(name: str, width: int, statistics: bool = False) -> Shapes:
    out: Shapes = {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    if statistics:
        out |= {f"{name}.running_mean": (width,), f"{name}.running_var": (width,), f"{name}.num_batches_tracked": ()}
    return out


def _prelu(name: str, width: int, fields: Mapping[str, Any]) -> Shapes:
    return {f"{name}.weight": (width,)} if fields["relu"] == "prelu" else {}
