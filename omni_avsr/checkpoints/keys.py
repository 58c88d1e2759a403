"""Official keys <-> our names, with every key accounted for: mapped, dropped with a reason, or an error."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from omni_avsr.checkpoints import fairseq
from omni_avsr.checkpoints.systems import OFFICIAL_TASK, Layout
from omni_avsr.errors import CheckpointError
from omni_avsr.model.lora import SHARED

DROPPED: dict[str, str] = {
    r"prompt(_audio|_video|_audiovisual)?": "embedded prompt: the same rows are looked up when they are needed",
    r".*\.rotary_emb\.inv_freq": "rotary frequencies: computed from the LLM's configuration",
}
"""Pattern of keys that are left out of every official checkpoint -> why."""
_TIED = "llm.lm_head.weight"

_LORA = re.compile(r"(?P<base>.*)\.(?P<letter>[qv])_proj\.lora_(?P<side>[AB])\.(?P<adapter>\w+)")
_MLP = re.compile(r"projector\.mlps\.(?P<modality>audio|video)(_(?P<rate>\d+))?\.(?P<rest>.*)")
_EXPERTS = re.compile(r"projector\.pools\.(?P<pool>\w+)\.(?P<what>weight1|bias1|weight2|bias2|norm_weight|norm_bias)")
_ROUTER = re.compile(r"projector\.routers\.(?P<pool>\w+)\.weight")


def official_keys(name: str, layout: Layout) -> tuple[str, ...]:
    """The official key of our tensor `name`; several where ours is the stack of theirs."""
    if lora := _LORA.fullmatch(name):
        side = {"A": "down", "B": "up"}[lora["side"]]
        return (f"{lora['base']}.lora_{side}_{lora['letter'].upper()}{_adapter(lora['adapter'], layout)}.weight",)
    if mlp := _MLP.fullmatch(name):
        position = f"{mlp['rate']}." if layout.projectors.listed else ""
        return (f"{mlp['modality']}_proj.{position}{mlp['rest']}",)
    if experts := _EXPERTS.fullmatch(name):
        pool, what = layout.projectors.pools[experts["pool"]], experts["what"]
        part = {"1": pool.first, "2": pool.second}.get(what[-1], pool.norm)
        value = "weight" if "weight" in what else "bias"
        return tuple(pool.key(expert, part, value) for expert in range(pool.experts))
    if router := _ROUTER.fullmatch(name):
        return (f"{layout.projectors.pools[router['pool']].prefix}.gate.weight",)
    return (name.replace("audio_encoder.whisper.", "audio_encoder.", 1),)


def _adapter(adapter: str, layout: Layout) -> str:
    if adapter != SHARED:
        return f".{OFFICIAL_TASK[adapter]}"
    return "_shared" if layout.lora.strategy == "ST" else ""


def dropped(key: str, tied: bool) -> str:
    """Why `key` is left out; empty if it is not."""
    if key == _TIED and tied:
        return "output embeddings: tied to the input embeddings"
    if key.startswith("video_encoder."):
        return fairseq.dropped(key.removeprefix("video_encoder."))
    return next((why for pattern, why in DROPPED.items() if re.fullmatch(pattern, key)), "")


def translate(
    official: Mapping[str, Tensor], ours: Mapping[str, tuple[int, ...]], layout: Layout, tied: bool, where: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Our names with the tensors of the file, and the dropped keys with the reason of each.

    Args:
        official: key -> tensor of the file.
        ours: name -> shape of every tensor of our model.
        layout: what the file holds.
        tied: whether input and output embeddings are one.
        where: what the file is called in an error.

    Raises:
        CheckpointError: a key is missing or unknown, or a shape does not fit.
    """
    sources = {name: official_keys(name, layout) for name in ours}
    wanted = {key: _shape(ours[name], keys) for name, keys in sources.items() for key in keys}
    left = [key for key in official if key not in wanted]
    reasons = {key: dropped(key, tied) for key in left}
    unknown = [key for key, why in reasons.items() if not why]
    missing = [key for key in wanted if key not in official]
    if missing:
        raise CheckpointError(_missing(missing, unknown, wanted, where))
    if unknown:
        shape = tuple(official[unknown[0]].shape)
        raise CheckpointError(
            f"{where} has the key '{unknown[0]}' of shape {shape}, which {layout.system.name} does not have "
            f"({len(unknown)} unknown keys); give the file as the official training wrote it"
        )
    for key, shape in wanted.items():
        if tuple(official[key].shape) != shape:
            raise CheckpointError(
                f"{where}: '{key}' has shape {tuple(official[key].shape)}, expected {shape}; {_advice(key)}"
            )
    if tied and _TIED in official:
        _check_tied(official, where)
    return {name: _value(official, keys) for name, keys in sources.items()}, reasons


def _shape(own: tuple[int, ...], keys: Sequence[str]) -> tuple[int, ...]:
    return own[1:] if len(keys) > 1 else own


def _value(official: Mapping[str, Tensor], keys: Sequence[str]) -> Tensor:
    return official[keys[0]] if len(keys) == 1 else torch.stack([official[key] for key in keys])


def _missing(missing: Sequence[str], unknown: Sequence[str], wanted: Mapping[str, tuple[int, ...]], where: str) -> str:
    key = missing[0]
    close = difflib.get_close_matches(key, unknown, n=1, cutoff=0.6)
    if close:
        do = f"it has the unknown key '{close[0]}' instead: give that its official name back"
    elif key.startswith("llm.model.layers.") and not unknown:
        do = "the file is truncated, or --llm names a deeper model than it was trained with"
    else:
        do = "the file is truncated or not of this program: copy or download it again"
    return (
        f"{where} has no key '{key}', expected with shape {wanted[key]} ({len(missing)} of {len(wanted)} missing); {do}"
    )


_ADVICE = {
    "llm.": "--llm names another model than the one it was trained with",
    "audio_encoder.": "--audio_encoder names another Whisper than the one it was trained with",
    "video_encoder.": "the file does not hold a published AV-HuBERT",
    "audio_proj.": "encoder, projector and LLM belong to different models",
    "video_proj.": "encoder, projector and LLM belong to different models",
}


def _advice(key: str) -> str:
    return next((text for prefix, text in _ADVICE.items() if key.startswith(prefix)), "the file is damaged")


def _check_tied(official: Mapping[str, Tensor], where: str) -> None:
    table, head = official["llm.model.embed_tokens.weight"], official[_TIED]
    if table.data_ptr() != head.data_ptr() and not torch.equal(table, head):
        raise CheckpointError(
            f"{where}: the LLM's configuration ties input and output embeddings, but '{_TIED}' differs from the table; "
            "--llm names another model than the one it was trained with"
        )
