"""The nouns of official checkpoints: whose they are, what the training command said, what a file holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from omni_avsr.errors import CheckpointError, ConfigError
from omni_avsr.tasks import Modality

Strategy = Literal["none", "S", "T", "ST"]
Compression = Literal["average", "stack"]

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

    def check(self) -> None:
        """Refuses values that no training command can have had.

        Raises:
            ConfigError: one of them, with what is expected.
        """
        for option, (expected, holds) in _VALUES.items():
            given = getattr(self, option)
            if given not in ((), "", None) and not holds(given):
                raise ConfigError(
                    f"--{option} {typed(given)} was given; expected is {expected}: give what the training command said"
                )

    def completed(self, arguments: Mapping[str, Any], where: str) -> Flags:
        """Fills in what the training arguments stored in a checkpoint say.

        Raises:
            CheckpointError: a flag contradicts them.
        """
        found: dict[str, Any] = {}
        for name, (flag, convert) in _ARGUMENTS.items():
            if arguments.get(name) is not None:
                found[flag] = convert(arguments[name])
        for flag, trained in found.items():
            given = getattr(self, flag)
            if given not in ((), "", None, trained):
                raise CheckpointError(
                    f"--{flag} {typed(given)} was given, but {where} was trained with {typed(trained)}; "
                    "leave the option out"
                )
        return replace(self, **found)


def _distinct(rates: tuple[int, ...]) -> bool:
    return min(rates) > 0 and len(set(rates)) == len(rates)


_VALUES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "audio_rates": ("one or more rates from 1 on, each once", _distinct),
    "video_rates": ("one or more rates from 1 on, each once", _distinct),
    "strategy": ("none, S, T or ST", lambda given: given in get_args(Strategy)),
    "compression": ("average or stack", lambda given: given in get_args(Compression)),
    "rank": ("a number above 0, the divisor of the LLM's width", lambda given: 0 < given < math.inf),
    "alpha": ("a number above 0", lambda given: 0 < given < math.inf),
    "top_k": ("a number of experts from 1 on", lambda given: given > 0),
    "video_heads": ("a number of attention heads from 1 on", lambda given: given > 0),
}
"""Field of Flags -> what it must be, in words and as a test."""

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


# ---- what a file holds ----------------------------------------------------------------------


@dataclass(frozen=True)
class Pool:
    """A mixture of projectors in official keys.

    Attributes:
        prefix: of all its keys.
        experts: how many.
        first: name, inside an expert, of the first linear layer.
        second: of the second.
        norm: of the LayerNorm, "" without.
    """

    prefix: str
    experts: int
    first: str
    second: str
    norm: str

    def key(self, expert: int, part: str, value: str = "weight") -> str:
        """The official key of a part of an expert."""
        return f"{self.prefix}.experts.{expert}.{part}.{value}"


@dataclass(frozen=True)
class Lora:
    """Omni-LoRA in a file.

    Attributes:
        strategy: row of model.lora.LORA.
        rank: the true rank r; 0 without LoRA.
        scale: factor of the LoRA product.
    """

    strategy: Strategy
    rank: int = 0
    scale: float = 0.0


@dataclass(frozen=True)
class Projectors:
    """Projectors in a file, and what stands before them.

    Attributes:
        kind: row of model.projectors.PROJECTORS.
        compression: row of model.compress.COMPRESSORS.
        rates: modality -> rates, in the order of the projectors.
        listed: whether there is a projector per rate (keys carry the position of the rate).
        hidden: width between the projector's linear layers.
        layer_norm: whether projectors end in one, by what the program means.
        no_layer_norm: modalities whose projectors lack it nevertheless.
        pools: key of our pool -> its official keys; empty for MLPs.
        top_k: experts per token.
    """

    kind: str
    compression: Compression
    rates: dict[str, tuple[int, ...]]
    listed: bool
    hidden: int
    layer_norm: bool
    no_layer_norm: tuple[Modality, ...] = ()
    pools: dict[str, Pool] = field(default_factory=dict)
    top_k: int = 1

    @property
    def single(self) -> bool:
        """Whether the official program knew one rate per modality only."""
        return not self.listed and all(len(rates) == 1 for rates in self.rates.values())


@dataclass(frozen=True)
class Layout:
    """An official checkpoint in our terms.

    Attributes:
        system: row of SYSTEMS.
        tasks: rows of tasks.TASKS.
        lora: of the LLM.
        projectors: of all modalities.
        assumed: options that neither the file nor the flags say, with the value taken.
    """

    system: System
    tasks: tuple[str, ...]
    lora: Lora
    projectors: Projectors
    assumed: dict[str, Any]
