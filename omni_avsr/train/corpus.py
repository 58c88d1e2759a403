"""The rows a run trains on and is chosen by, as batches in an order that depends on seed and epoch alone."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any

import torch
from torch.utils.data import DataLoader

from omni_avsr.config import Recipe
from omni_avsr.data.dataset import SpeechDataset
from omni_avsr.data.manifest import by_split, check_splits, manifest_bytes, read_manifest
from omni_avsr.data.sampler import FrameBudgetSampler
from omni_avsr.errors import ConfigError
from omni_avsr.model.batch import collate
from omni_avsr.transcribe.words import word_edges
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
        DataError: a manifest without rows of its split, or an utterance in two splits.
    """

    def __init__(self, recipe: Recipe, rank: int = 0, world_size: int = 1) -> None:
        data, seed = recipe.data, recipe.train.seed
        self._recipe = recipe
        _check_splits(recipe)
        edges = word_edges if data.augment.crossover else None
        self.train = SpeechDataset(data.train, "train", recipe.model, data.augment, seed, edges=edges)
        self._sampler = FrameBudgetSampler(self.train.frames, data.frames_per_batch, seed, rank, world_size)
        self._loader = _loader(self.train, self._sampler, data.workers)
        self.dev = SpeechDataset(data.dev, "dev", recipe.model, None, seed) if data.dev else None
        if self.dev is not None:
            # how rows fall into batches does not depend on the number of processes
            shares = list(FrameBudgetSampler(self.dev.frames, data.frames_per_batch, shuffle=False))
            self._dev_loader = _loader(self.dev, shares[rank::world_size], data.workers)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch; the last one may accumulate fewer batches."""
        return -(-self._sampler.batches_per_epoch // self._recipe.train.accumulate)

    def groups(self, epoch: int, done: int = 0) -> Iterator[list[Batch]]:
        """The batches of each optimiser step of `epoch`, after the first `done` batches."""
        self.train.set_epoch(epoch)
        self._sampler.set_epoch(epoch, done)
        group: list[Batch] = []
        left = len(self._sampler)
        for batch in self._loader:
            group.append(batch)
            left -= 1
            if len(group) == self._recipe.train.accumulate or not left:
                yield group
                group = []

    def dev_batches(self) -> Iterator[Batch]:
        """This process's share of the dev rows."""
        return iter(self._dev_loader)

    def digests(self) -> dict[str, str]:
        """Manifest -> SHA-256 of its bytes."""
        return {str(p): sha256(manifest_bytes(p)).hexdigest() for p in _manifests(self._recipe)}


def _loader(dataset: SpeechDataset, batches: Iterable[list[int]], workers: int) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=_collate,
        num_workers=workers,
        persistent_workers=workers > 0,  # they keep what they have decoded
        # its own generator: starting an epoch must not draw from the one that dropout draws from
        generator=torch.Generator().manual_seed(0),
    )


def _collate(rows: Sequence[tuple[Features, str]]) -> Batch:
    features, texts = zip(*rows, strict=True)
    return collate(features, texts)


def _manifests(recipe: Recipe) -> list[str]:
    return list(dict.fromkeys((*recipe.data.train, *recipe.data.dev)))


def _check_splits(recipe: Recipe) -> None:
    """Compares the splits of all manifests: a dev split that overlaps train or test measures nothing."""
    if not recipe.data.train:
        raise ConfigError("data.train is empty; name a manifest: --set 'data.train=[\"OUT/manifest.jsonl\"]'")
    check_splits(by_split(row for path in _manifests(recipe) for row in read_manifest(path)))
