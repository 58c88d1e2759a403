"""The rows a run trains on and is chosen by, as batches in an order that depends on seed and epoch alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from omni_avsr.config import Recipe
from omni_avsr.data.dataset import SpeechDataset
from omni_avsr.data.manifest import by_split, check_splits, read_manifest
from omni_avsr.data.normalize import normalize
from omni_avsr.data.sampler import FrameBudgetSampler
from omni_avsr.errors import ConfigError, DataError
from omni_avsr.model.batch import collate
from omni_avsr.types import Batch, Features

log = logging.getLogger(__name__)


class Corpus:
    """Training and dev rows of a recipe.

    Args:
        recipe: names the manifests.
        rank: this process.
        world_size: processes that share the rows.

    Raises:
        ConfigError: the recipe names no training manifest.
        DataError: no row to train on, or an utterance in two splits.
    """

    def __init__(self, recipe: Recipe, rank: int = 0, world_size: int = 1) -> None:
        data, seed = recipe.data, recipe.train.seed
        self._recipe, self._rank, self._world_size = recipe, rank, world_size
        self.texts = _checked_texts(recipe)
        self.train = SpeechDataset(data.train, "train", recipe.model, data.augment, seed)
        self.dev = SpeechDataset(data.dev, "dev", recipe.model, None, seed) if data.dev else None
        if self.dev is not None and not len(self.dev):
            raise DataError(f"data.dev = {list(data.dev)}: no row has the split 'dev'; mark some, or empty the list")
        self._sampler = FrameBudgetSampler(self.train.frames, data.frames_per_batch, seed, rank, world_size)

    def epoch_batches(self, epoch: int) -> list[list[int]]:
        """Row numbers of every batch of `epoch` of this process."""
        self._sampler.set_epoch(epoch)
        return [list(batch) for batch in self._sampler]

    def epoch_steps(self, epoch: int) -> int:
        """Optimiser steps of `epoch`; the last one may accumulate fewer batches."""
        return -(-len(self.epoch_batches(epoch)) // self._recipe.train.accumulate)

    def groups(self, epoch: int, done: int = 0) -> Iterator[list[Batch]]:
        """The batches of each optimiser step of `epoch`, after the first `done` batches."""
        self.train.set_epoch(epoch)
        group: list[Batch] = []
        left = len(batches := self.epoch_batches(epoch)[done:])
        for batch in self._loader(self.train, batches):
            group.append(batch)
            left -= 1
            if len(group) == self._recipe.train.accumulate or not left:
                yield group
                group = []

    def dev_batches(self) -> Iterator[Batch]:
        """This process's share of the dev rows; how rows fall into batches does not depend on the processes."""
        assert self.dev is not None
        sampler = FrameBudgetSampler(self.dev.frames, self._recipe.data.frames_per_batch, 0, 0, 1)
        yield from self._loader(self.dev, [list(batch) for batch in sampler][self._rank :: self._world_size])

    def digests(self) -> dict[str, str]:
        """Manifest -> SHA-256 of its bytes."""
        return {str(p): sha256(Path(p).read_bytes()).hexdigest() for p in _manifests(self._recipe)}

    def _loader(self, dataset: SpeechDataset, batches: Sequence[list[int]]) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=_collate,
            num_workers=self._recipe.data.workers,
            pin_memory=torch.cuda.is_available(),
            # its own generator: a loader made anew on resuming must not draw from the one dropout draws from
            generator=torch.Generator().manual_seed(0),
        )


def _collate(rows: Sequence[tuple[Features, str]]) -> Batch:
    features, texts = zip(*rows, strict=True)
    return collate(features, texts)


def _manifests(recipe: Recipe) -> list[str]:
    return list(dict.fromkeys((*recipe.data.train, *recipe.data.dev)))


def _checked_texts(recipe: Recipe) -> list[str]:
    """Normalised transcripts of the training rows, after the splits have been compared."""
    if not recipe.data.train:
        raise ConfigError("data.train is empty; name a manifest: --set 'data.train=[\"OUT/manifest.jsonl\"]'")
    rows = {path: read_manifest(path) for path in _manifests(recipe)}
    splits = by_split(row for some in rows.values() for row in some)
    check_splits(splits)
    train = [row for path in recipe.data.train for row in rows[path] if row.split == "train"]
    if not train:
        raise DataError(f"data.train = {list(recipe.data.train)}: no row has the split 'train'; got {sorted(splits)}")
    return [normalize(row.text, recipe.model.preprocess.normalizer) for row in train]
