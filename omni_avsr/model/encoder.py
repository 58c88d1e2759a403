"""What every encoder is: features and lengths in, states and lengths out. The table of them is in `encoders`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omni_avsr.types import Encoded


class Encoder(nn.Module):
    """Turns features of one modality into states.

    A subclass sets `dim` and `frames_per_second` and keeps two promises, which the contract test checks: the states
    of a row do not depend on the other rows or on the padding, and positions at and beyond a row's length are zero.

    Attributes:
        dim: width of the states.
        frames_per_second: states per second of input.
    """

    dim: int
    frames_per_second: int

    def forward(self, x: Tensor, lengths: Tensor) -> Encoded:
        """Encodes right-padded features.

        Args:
            x: (B, n_mels, F) log-mel or (B, T, height, width) normalised grey pictures, float.
            lengths: (B,) int64, valid states per row; 0 says that the row lacks the stream.
        """
        raise NotImplementedError


def valid_mask(lengths: Tensor, size: int) -> Tensor:
    """(B,) lengths -> (B, size) bool, True on valid positions."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def key_mask(lengths: Tensor, size: int) -> Tensor | None:
    """(B, 1, 1, size) bool mask of the keys that attention may see; None where nothing is padding.

    The first key of an empty row stays visible: a softmax over nothing would be NaN, and the row is zeroed later.
    """
    if bool((lengths >= size).all()):
        return None
    return valid_mask(lengths.clamp(min=1), size)[:, None, None]
