"""The official programs whose checkpoints are read, and what their training commands say that no shape shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from omni_avsr.errors import CheckpointError

OFFICIAL_TASK: dict[str, str] = {"asr": "audio", "vsr": "video", "avsr": "audiovisual"}
"""Our task -> its name in official keys."""


@dataclass(frozen=True)
class Flags:
    """What the training command said; everything is optional and cross-checked with the file.

    Attributes:
        audio_rates: --downsample-ratio-audio.
        video_rates: --downsample-ratio-video.
        strategy: S, T or ST.
        compression: average or stack.
        rank: the official --rank (--reduction_lora), a divisor of the LLM's width.
        alpha: the official --alpha; LoRA is scaled by alpha / rank.
        top_k: experts per token (Llama-SMoP).
        video_heads: attention heads of an AV-HuBERT of unpublished width.
        bf16: reproduce the roundings of the official bfloat16 run.
    """

    audio_rates: tuple[int, ...] = ()
    video_rates: tuple[int, ...] = ()
    strategy: str = ""
    compression: str = ""
    rank: float | None = None
    alpha: float | None = None
    top_k: int | None = None
    video_heads: int | None = None
    bf16: bool = False

    def rates(self, modality: str) -> tuple[int, ...]:
        """The rates of `modality`."""
        return {"audio": self.audio_rates, "video": self.video_rates}[modality]

    def completed(self, arguments: Mapping[str, Any], where: str) -> Flags:
        """Fills in what the training arguments stored in a checkpoint say.

        Raises:
            CheckpointError: a flag contradicts them.
        """
        found: dict[str, Any] = {}
        for name, (field, convert) in _ARGUMENTS.items():
            if arguments.get(name) is not None:
                found[field] = convert(arguments[name])
        for field in [f for f in found if getattr(self, f) not in ((), "", None)]:
            given = getattr(self, field)
            if given != found[field]:
                raise CheckpointError(
                    f"--{field} {typed(given)} was given, but {where} was trained with {typed(found[field])}; "
                    "leave the option out"
                )
        return replace(self, **found)


_COMPRESSIONS = {"avg-pooling": "average", "stack": "stack"}
_ARGUMENTS: dict[str, tuple[str, Any]] = {
    "downsample_ratio_audio": ("audio_rates", lambda v: tuple(v) if isinstance(v, list) else (int(v),)),
    "downsample_ratio_video": ("video_rates", lambda v: tuple(v) if isinstance(v, list) else (int(v),)),
    "compression_mode": ("compression", lambda v: _COMPRESSIONS.get(v, v)),
    "rank": ("rank", float),
    "reduction_lora": ("rank", float),
    "alpha": ("alpha", float),
    "MoP_topk": ("top_k", int),
}
"""Argument of the official training scripts -> field of Flags."""


def typed(value: Any) -> str:
    """A value as it is typed on the command line."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class System:
    """One of the official programs whose checkpoints are read.

    Attributes:
        name: as typed on the command line.
        unified: whether one model performs all tasks, with the prompts stored.
        mixture: whether its projectors are mixtures of experts.
        audio_rates: published rates for average pooling, where all published files share them.
        video_rates: likewise.
        ranks: published values of --rank, with the alpha of each.
    """

    name: str
    unified: bool
    mixture: bool
    audio_rates: tuple[int, ...]
    video_rates: tuple[int, ...]
    ranks: tuple[tuple[float, float], ...]


SYSTEMS: dict[str, System] = {
    s.name: s
    for s in (
        System("omni-avsr", True, False, (4, 16), (2, 5), ((32, 4),)),
        System("llama-avsr", False, False, (), (), ((32, 4), (64, 8))),
        System("llama-smop", False, True, (4,), (2,), ((32, 4),)),
    )
}
