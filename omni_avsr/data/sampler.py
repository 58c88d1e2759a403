"""Batches of similar length under a budget of frames: seeded, shared over processes, resumable in mid-epoch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from omni_avsr.errors import ConfigError

logger = logging.getLogger(__name__)

STEP = 1.1  # ratio between neighbouring buckets: a batch has at most a tenth of padding


class FrameBudgetSampler(Sampler[list[int]]):
    """A batch sampler: longest row times rows, padding counted, never exceeds `budget`.

    Rows are shuffled inside buckets of similar length and packed; then the batches are shuffled. Batches are
    packed as if every row had its bucket's longest length, so their number is the same in every epoch, and a
    schedule can be computed beforehand. A row longer than the budget makes a batch of its own.

    Every row comes once an epoch, in one process only: where the batches do not divide evenly over the
    processes, the largest are halved until they do. Only where all batches are single rows, and still do not
    divide, is the remainder left out: other rows in every epoch, fewer than there are processes, with a warning.
    It shards by itself, so the loader must not be sharded again.
    """

    def __init__(
        self,
        frames: Sequence[int],
        budget: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
    ) -> None:
        """Group the rows.

        Args:
            frames: length of each row at 25/s.
            budget: frames per batch and process, padding counted.
            seed: of the order; one order for all processes.
            rank, world_size: this process and their number.
            shuffle: False = shortest first, the same in every epoch.

        Raises:
            ConfigError: a budget or length that is not positive, a rank outside the world.
        """
        if budget <= 0 or not 0 <= rank < world_size:
            raise ConfigError(f"budget {budget}, rank {rank} of {world_size}; expected budget > 0, 0 <= rank < world")
        lengths = np.asarray(frames, dtype=np.int64)
        if len(lengths) and lengths.min() <= 0:
            raise ConfigError(f"row {int(lengths.argmin())} has {int(lengths.min())} frames; expected at least 1")
        too_long = lengths[lengths > budget]
        if len(too_long):
            logger.warning(
                "%d row(s) are longer than frames_per_batch = %d (the longest: %d frames); each is a batch of its own",
                len(too_long), budget, too_long.max(),
            )  # fmt: skip
        self._lengths, self._budget, self._seed, self._shuffle = lengths, budget, seed, shuffle
        self._rank, self._world = rank, world_size
        self._ceilings = _ceilings(lengths, budget)
        self._epoch = self._start = 0
        first = self._batches(0)
        self.batches_per_epoch = len(first) // world_size  # of this process
        left_out = len(lengths) - sum(map(len, first))
        if left_out:
            logger.warning("%d row(s) are left out of each epoch: too few for %d processes", left_out, world_size)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the order of `epoch`, and skip this process's first `start_batch` batches (to resume)."""
        self._epoch, self._start = epoch, start_batch

    def __iter__(self) -> Iterator[list[int]]:
        """This process's batches of row numbers."""
        yield from self._batches(self._epoch)[self._rank :: self._world][self._start :]

    def __len__(self) -> int:
        """Batches that iteration yields."""
        return max(0, self.batches_per_epoch - self._start)

    def _batches(self, epoch: int) -> list[list[int]]:
        """Of all processes, in turn."""
        rng = np.random.default_rng((self._seed, epoch))
        order = rng.permutation(len(self._lengths)) if self._shuffle else np.argsort(self._lengths, kind="stable")
        batches = self._packed(order[np.argsort(self._ceilings[order], kind="stable")])
        if self._shuffle:
            batches = [batches[i] for i in rng.permutation(len(batches))]
        return _even(batches, self._world)

    def _packed(self, order: np.ndarray) -> list[list[int]]:
        """Rows in rising order of their ceilings, cut where the next would exceed the budget."""
        batches: list[list[int]] = []
        for row in order.tolist():
            if batches and (len(batches[-1]) + 1) * self._ceilings[row] <= self._budget:
                batches[-1].append(row)
            else:
                batches.append([row])
        return batches


def _ceilings(lengths: np.ndarray, budget: int) -> np.ndarray:
    """(n,) the longest length in each row's bucket; no bucket reaches across the budget."""
    if not len(lengths):
        return lengths
    buckets = np.floor(np.log(lengths) / np.log(STEP)).astype(np.int64) * 2 + (lengths > budget)
    _, inverse = np.unique(buckets, return_inverse=True)
    longest = np.zeros(inverse.max() + 1, np.int64)
    np.maximum.at(longest, inverse, lengths)
    return longest[inverse]


def _even(batches: list[list[int]], world: int) -> list[list[int]]:
    """The batches with the fullest halved until `world` divides their number, or none can be halved."""
    batches = list(batches)
    while len(batches) % world:
        fullest = max(range(len(batches)), key=lambda i: len(batches[i]))
        batch = batches[fullest]
        if len(batch) == 1:
            return batches[: len(batches) // world * world]
        half = len(batch) // 2
        batches[fullest : fullest + 1] = [batch[:half], batch[half:]]
    return batches
