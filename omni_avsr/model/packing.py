"""Sequences laid end to end in the rows of one batch, so that the LLM runs once for all tasks.

    row 0   [ AVSR of utterance 3 ------------------------------ ]
    row 1   [ ASR of utterance 3 ---- ][ ASR of utterance 1 --- ].     attention stays inside a sequence

A row holds sequences of one group (those that visit the same adapters), so rows are routed as ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

WIDTHS = tuple(1 + tenth / 10 for tenth in range(31))  # of a row, in lengths of the longest sequence


@dataclass(frozen=True)
class Piece:
    """One sequence to be read."""

    group: str  # sequences of one group may share a row
    inputs: Tensor  # (L, H) embeddings
    labels: Tensor  # (L,) int64


@dataclass(frozen=True)
class Packed:
    """Rows of whole sequences."""

    groups: tuple[str, ...]  # one per row, neighbours of one group together
    inputs: Tensor  # (R, L, H)
    labels: Tensor  # (R, L) int64
    positions: Tensor  # (R, L) int64, from 0 in each sequence
    owner: Tensor  # (R, L) int64, number of the piece; -1 = padding

    @property
    def mask(self) -> Tensor:
        """(R, 1, L, L) bool: what a position may attend to; padding sees itself, for a softmax needs something."""
        same = self.owner[:, :, None] == self.owner[:, None, :]
        causal = torch.ones(same.shape[1:], dtype=torch.bool, device=same.device).tril()
        return (same & causal)[:, None]

    @property
    def padding(self) -> float:
        """Share of positions that hold nothing, 0 to 1."""
        return float((self.owner < 0).float().mean())


def bins(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Numbers of `lengths` in bins of at most `capacity`: the longest first, each where it fits first."""
    filled: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        place = next((b for b, left in enumerate(room) if left >= lengths[number]), None)
        if place is None:
            place = len(filled)
            filled.append([])
            room.append(capacity)
        filled[place].append(number)
        room[place] -= lengths[number]
    return filled


def _rows(pieces: Sequence[Piece], lengths: Sequence[int], capacity: int) -> tuple[list[tuple[str, list[int]]], int]:
    """(group, numbers of its pieces) per row, and the length of the fullest row."""
    rows: list[tuple[str, list[int]]] = []
    for group in dict.fromkeys(piece.group for piece in pieces):
        members = [i for i, piece in enumerate(pieces) if piece.group == group]
        rows += [(group, [members[i] for i in some]) for some in bins([lengths[i] for i in members], capacity)]
    return rows, max(sum(lengths[i] for i in numbers) for _, numbers in rows)


def pack(pieces: Sequence[Piece], ignore: int) -> Packed:
    """Lays `pieces` into rows of that width, of a few, which leaves the least padding.

    Args:
        ignore: label of padding.
    """
    lengths = [len(piece.inputs) for piece in pieces]
    layouts = [_rows(pieces, lengths, int(max(lengths) * width)) for width in WIDTHS]
    rows, longest = min(layouts, key=lambda layout: len(layout[0]) * layout[1])
    first = pieces[0].inputs
    shape = (len(rows), longest)
    labels = torch.full(shape, ignore, dtype=torch.long)
    positions, owner = torch.zeros(shape, dtype=torch.long), torch.full(shape, -1)
    inputs = []
    for row, (_, numbers) in enumerate(rows):
        at = 0
        for number in numbers:
            end = at + len(pieces[number].inputs)
            labels[row, at:end] = pieces[number].labels
            positions[row, at:end] = torch.arange(end - at)
            owner[row, at:end] = number
            at = end
        parts = [pieces[number].inputs for number in numbers]
        inputs.append(torch.cat([*parts, first.new_zeros(longest - at, first.shape[1])]))
    device = first.device
    return Packed(
        tuple(group for group, _ in rows),
        torch.stack(inputs),
        labels.to(device),
        positions.to(device),
        owner.to(device),
    )
