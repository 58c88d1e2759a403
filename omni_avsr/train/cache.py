"""States of frozen encoders, computed once: they cost much at every step and learn nothing.

    CACHE/<digest>/0-00000.npy           states of 256 rows, one after the other: (sum of N, D), read by memory map
    CACHE/<digest>/0-00000.lengths.npy   (256,) N of each; written last, so a shard that has it is whole

The digest is that of the encoder's weights, the preprocessing, the augmentation and the rows: what would change a state
changes the folder. Processes share the shards among them; a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from omni_avsr.config import Recipe
from omni_avsr.data.dataset import SpeechDataset
from omni_avsr.errors import ConfigError
from omni_avsr.model.batch import collate
from omni_avsr.model.omni import OmniAVSR

log = logging.getLogger(__name__)

SHARD = 256  # rows
ROWS = 8  # rows that the encoder hears at once


@dataclass(frozen=True)
class StateCache:
    """The states of one modality of a training split on disk: a `data.dataset.States`."""

    folder: Path
    variants: int
    half: bool  # kept as bfloat16

    def __call__(self, epoch: int, row: int) -> torch.Tensor | None:
        """(N, D) float32 states of a row in `epoch`; None for a row that lacks the stream."""
        variant, shard, place = epoch % self.variants, row // SHARD, row % SHARD
        lengths, states = _opened(self.path(variant, shard, "lengths.npy"), self.path(variant, shard, "npy"))
        start = int(lengths[:place].sum())
        own = states[start : start + int(lengths[place])]
        if not len(own):
            return None
        tensor = torch.from_numpy(own.copy())
        return tensor.view(torch.bfloat16).float() if self.half else tensor

    def path(self, variant: int, shard: int, suffix: str) -> Path:
        """A file of a shard."""
        return self.folder / f"{variant}-{shard:05d}.{suffix}"


def frozen(recipe: Recipe) -> list[str]:
    """The modalities whose encoders `recipe` does not train.

    Raises:
        ConfigError: it trains all of them.
    """
    moving = {part.partition("_")[0] for part in recipe.train.parts if part.endswith("_encoder")}
    if "video_lora" in recipe.train.parts and recipe.model.video_encoder.lora_rank:
        moving.add("video")
    found: list[str] = [m for m in recipe.model.modalities if m not in moving]
    if not found:
        raise ConfigError("data.cache is for frozen encoders, and this recipe trains its own; set data.cache=''")
    return found


def state_cache(
    model: OmniAVSR,
    dataset: SpeechDataset,
    recipe: Recipe,
    modality: str,
    rank: int = 0,
    world: int = 1,
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> StateCache:
    """The cache in `data.cache`, with this process's share of what was missing computed.

    Args:
        model: whose encoder of `modality`; it must not be trained.
        dataset: the rows, with their augmentation.
        modality: one of `frozen(recipe)`.
        rank, world: this process, and how many share the work.
        autocast: as in training.
    """
    folder = Path(recipe.data.cache) / _digest(model, dataset, recipe, modality)
    cache = StateCache(folder, recipe.data.variants, half=recipe.train.precision == "bf16")
    folder.mkdir(parents=True, exist_ok=True)
    shards = -(-len(dataset) // SHARD)
    todo = [(v, s) for v in range(cache.variants) for s in range(shards)][rank::world]
    todo = [(v, s) for v, s in todo if not cache.path(v, s, "lengths.npy").is_file()]
    if todo:
        log.info("%s states: %d shard(s) of %d rows are computed once, in '%s'", modality, len(todo), SHARD, folder)
    for variant, shard in todo:
        dataset.set_epoch(variant)
        with torch.no_grad(), autocast():
            rows = range(shard * SHARD, min(len(dataset), (shard + 1) * SHARD))
            found = _states(model, dataset, modality, rows)
        whole = torch.cat([s.to(torch.bfloat16) if cache.half else s.float() for s in found])
        _save(cache.path(variant, shard, "npy"), (whole.view(torch.int16) if cache.half else whole).numpy())
        _save(cache.path(variant, shard, "lengths.npy"), np.array([len(s) for s in found]))
    return cache


def _states(model: OmniAVSR, dataset: SpeechDataset, modality: str, rows: range) -> list[torch.Tensor]:
    """(N, D) of each row; N = 0 without the stream."""
    found: list[torch.Tensor] = []
    for first in range(0, len(rows), ROWS):
        features = [dataset[i][0] for i in rows[first : first + ROWS]]
        present = [(f.mel if modality == "audio" else f.video) is not None for f in features]
        states: list[torch.Tensor] = []
        if any(present):
            batch = collate([f for f, has in zip(features, present, strict=True) if has])
            encoded = model.encode(batch.to(model.device), (modality,))[modality]
            states = [s[:n] for s, n in zip(encoded.states.cpu(), encoded.lengths.tolist(), strict=True)]
        empty = torch.zeros(0, model.encoder(modality).dim)
        found += [states.pop(0) if has else empty for has in present]
    return found


@lru_cache(maxsize=64)
def _opened(lengths: Path, states: Path) -> tuple[np.ndarray, np.ndarray]:
    return np.load(lengths), np.load(states, mmap_mode="r")


def _save(path: Path, array: np.ndarray) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("wb") as file:
        np.save(file, array)
    os.replace(partial, path)


def _digest(model: OmniAVSR, dataset: SpeechDataset, recipe: Recipe, modality: str) -> str:
    """Of all that a state depends on."""
    digest = hashlib.sha256()
    for name, tensor in model.encoder(modality).state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    rows = [(r.id, r.source.name, r.size or r.source.stat().st_size, r.start, r.end, r.frames) for r in dataset.rows]
    knobs = (recipe.model.preprocess, recipe.data.augment)
    said = [rows, recipe.train.seed, recipe.train.precision, *(k.model_dump(mode="json") for k in knobs)]
    digest.update(json.dumps(said, sort_keys=True).encode())
    return digest.hexdigest()[:16]
