"""What the LLM has read: keys and values written once, and for every new position what it may look back on.

A pass reads positions of many rows at once: whole prompts, the next token of each beam, a drafted sentence. They lie
one behind the other without padding, each as a row of length 1 to transformers' layers, which treat positions alike;
only attention knows which belong together. A beam is then no copy of its row but a set of cells it may see: prompts
are read and stored once, and beams that part share what they have in common.

Letters: R rows, T new positions of all rows, M most new positions of a row, C cells, N cells in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "omni_memory"  # the name under which transformers finds `attend`


class Memory:
    """Keys and values per layer, (R, C, key heads, width); rows come and go."""

    def __init__(self) -> None:
        self.rows = 0
        self.cells = 0
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def resize(self, rows: int, cells: int) -> None:
        """Makes room for `rows`, the new ones at the end, and for at least `cells` of each."""
        if cells > self.cells:
            cells = max(cells, self.cells * 3 // 2)
        grow = (rows - self.rows, max(0, cells - self.cells))
        self._layers = (
            {
                i: (F.pad(k, (0, 0, 0, 0, 0, grow[1], 0, grow[0])), F.pad(v, (0, 0, 0, 0, 0, grow[1], 0, grow[0])))
                for i, (k, v) in self._layers.items()
            }
            if any(grow)
            else self._layers
        )
        self.rows, self.cells = rows, max(cells, self.cells)

    def keep(self, rows: Sequence[int]) -> None:
        """Forgets all rows but these."""
        index = torch.tensor(rows, dtype=torch.long)
        self._layers = {i: (k[index], v[index]) for i, (k, v) in self._layers.items()}
        self.rows = len(rows)

    def write(self, layer: int, cells: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Puts (T, key heads, width) into `cells` (T,), counted through all rows; returns all of the layer."""
        if layer not in self._layers:  # zeros: a cell that nobody sees is still multiplied, by zero
            shape = (self.rows, self.cells, *keys.shape[1:])
            self._layers[layer] = keys.new_zeros(shape), values.new_zeros(shape)
        for stored, new in zip(self._layers[layer], (keys, values), strict=True):
            stored.flatten(0, 1).index_copy_(0, cells, new)
        return self._layers[layer]


@dataclass(frozen=True)
class Reading:
    """One pass: which new positions there are, where they are kept and what they see."""

    memory: Memory
    counts: tuple[int, ...]  # R, new positions per row
    cells: Tensor  # (T,) int64, where keys and values go, counted through all rows
    lanes: Tensor | None  # (T,) int64, place of each position among (R, M); None = every row has M
    mask: Tensor  # (R, M, N) float, 0 = seen, -inf = not seen

    @classmethod
    def of(cls, memory: Memory, starts: Sequence[int], sees: Sequence[np.ndarray], like: Tensor) -> Reading:
        """The pass in which row r reads the positions from cell `starts[r]` on.

        Args:
            memory: with a row for each of `starts`; it is made large enough.
            starts: cells that each row has used before.
            sees: per row (new positions, cells of the row) bool: what each new position may look back on, itself
                included.
            like: for the device and float type.
        """
        memory.resize(len(starts), max(s.shape[1] for s in sees))
        counts = tuple(len(s) for s in sees)
        widest, used = max(counts), max(s.shape[1] for s in sees)
        seen = np.zeros((len(sees), widest, used), dtype=bool)
        for row, s in enumerate(sees):
            seen[row, : s.shape[0], : s.shape[1]] = s
            seen[row, s.shape[0] :, 0] = True  # a place without a position sees something, so that it is no NaN
        where = [np.arange(n) for n in counts]
        cells = np.concatenate([r * memory.cells + s + w for r, (s, w) in enumerate(zip(starts, where, strict=True))])
        lanes = None if min(counts) == widest else np.concatenate([r * widest + w for r, w in enumerate(where)])
        mask = torch.zeros(seen.shape, dtype=like.dtype).masked_fill_(~torch.from_numpy(seen), float("-inf"))
        return cls(
            memory,
            counts,
            torch.from_numpy(cells).to(like.device),
            None if lanes is None else torch.from_numpy(lanes).to(like.device),
            mask.to(like.device),
        )

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """(T, heads, 1, width) of all three -> (T, 1, heads, width)."""
        heads, width = query.shape[1], query.shape[-1]
        keys, values = self.memory.write(layer, self.cells, key[:, :, 0], value[:, :, 0])
        rows, widest, used = self.mask.shape
        groups = heads // keys.shape[2]  # query heads per key head
        q = query[:, :, 0]
        if self.lanes is not None:
            q = q.new_zeros(rows * widest, heads, width).index_copy_(0, self.lanes, q)
        # query heads that share a key head are more queries to it: (R, key heads, groups * M, width)
        q = q.view(rows, widest, -1, groups, width).permute(0, 2, 3, 1, 4).flatten(2, 3)
        mask = self.mask[:, None].expand(-1, groups, -1, -1).flatten(1, 2)[:, None]
        out = F.scaled_dot_product_attention(
            q, keys[:, :used].transpose(1, 2), values[:, :used].transpose(1, 2), mask, scale=scale
        )
        out = out.unflatten(2, (groups, widest)).permute(0, 3, 1, 2, 4).reshape(rows * widest, 1, heads, width)
        return out if self.lanes is None else out[self.lanes]


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """transformers' attention: that of PyTorch, or with `reading=` that of a `Reading`."""
    reading: Reading | None = options.pop("reading", None)
    if reading is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return reading.attend(module.layer_idx, query, key, value, options.get("scaling")), None


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
