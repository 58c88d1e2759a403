"""Fewer, wider-spaced states: `rate` consecutive encoder states become one (Omni-AVSR, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from omni_avsr.types import Encoded


@dataclass(frozen=True)
class Compressor:
    """One way of making `rate` states into one; a remainder at the end of a row is dropped.

    A token is made of valid states only. A row shorter than `rate` keeps no token: whoever prepares the input pads
    it to the largest rate (`preprocess.min_audio_frames`).

    Attributes:
        name: as in `ModelConfig.compression`.
        merge: (B, N, rate, D) -> (B, N, width).
        widens: whether the width grows by the rate.
    """

    name: str
    merge: Callable[[Tensor], Tensor]
    widens: bool

    def __call__(self, encoded: Encoded, rate: int) -> Encoded:
        """(B, N, D) -> (B, N // rate, D or D * rate), lengths // rate; zero on padding."""
        count = encoded.states.shape[1] // rate
        groups = encoded.states[:, : count * rate].unflatten(1, (count, rate))
        lengths = encoded.lengths // rate
        merged = self.merge(groups)
        mask = Encoded(merged, lengths).mask
        return Encoded(merged * mask[..., None].to(merged.dtype), lengths)


COMPRESSORS: dict[str, Compressor] = {
    c.name: c
    for c in (
        Compressor("average", lambda groups: groups.mean(2), widens=False),
        Compressor("stack", lambda groups: groups.flatten(2), widens=True),
    )
}


def compressed_dim(name: str, dim: int, rate: int) -> int:
    """Width after compressor `name` at `rate` of states `dim` wide."""
    return dim * rate if COMPRESSORS[name].widens else dim
