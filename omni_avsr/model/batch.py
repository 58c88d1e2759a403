"""Rows of features become one right-padded batch; every row keeps its own lengths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from omni_avsr.errors import InputError
from omni_avsr.types import Batch, Features


def collate(features: Sequence[Features], texts: Sequence[str] = ()) -> Batch:
    """Pads `features` with zeros to the longest of each stream.

    Args:
        features: rows; a row may lack one stream (its length is then 0), not both.
        texts: one transcript per row for training; none at inference.

    Returns:
        mel (B, n_mels, F) or None, video (B, T, 88, 88) or None, lengths (B,) int64.

    Raises:
        InputError: no rows, a row without any stream, or not one text per row.
    """
    if not features:
        raise InputError("a batch of no rows was asked for; give at least one clip")
    if texts and len(texts) != len(features):
        raise InputError(f"{len(texts)} transcripts for {len(features)} clips; give one per clip, or none")
    for row in features:
        if row.mel is None and row.video is None and not row.states:
            raise InputError(f"clip '{row.id}' has neither audio nor video; leave it out")
    return Batch(
        mel=_stack([f.mel for f in features], time=1),
        audio_lengths=torch.tensor(
            [0 if f.mel is None and "audio" not in f.states else f.audio_frames for f in features]
        ),
        video=_stack([f.video for f in features], time=0),
        video_lengths=torch.tensor([f.video_frames for f in features]),
        texts=tuple(texts),
        ids=tuple(f.id for f in features),
        states={
            m: s for m in ("audio", "video") if (s := _stack([f.states.get(m) for f in features], time=0)) is not None
        },
        false_lips=frozenset(i for i, f in enumerate(features) if f.false_lips),
    )


def _stack(rows: Sequence[Tensor | None], time: int) -> Tensor | None:
    present = [row for row in rows if row is not None]
    if not present:
        return None
    shape = list(present[0].shape)
    shape[time] = max(row.shape[time] for row in present)
    out = present[0].new_zeros(len(rows), *shape)
    for i, row in enumerate(rows):
        if row is not None:
            out[i].narrow(time, 0, row.shape[time]).copy_(row)
    return out
