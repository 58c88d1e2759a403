"""A corpus of noise for runs of a second, and the recipes that train on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from omni_avsr.config import Recipe, load_recipe
from omni_avsr.data.manifest import Row, write_manifest
from omni_avsr.data.mouth_store import write_store

WORDS = ("bin", "place", "set", "blue", "red", "green", "at", "by", "with", "one", "two", "three", "now", "soon")


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training and four dev utterances of about a second: tones and random mouths."""
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(0)
    rows = []
    for number in range(12):
        frames = 15 + number
        audio = 0.3 * np.sin(np.arange(frames * 640) * 0.05 * (number + 1)).astype(np.float32)
        crops = random.integers(0, 256, (frames, 96, 96), dtype=np.uint8)
        store = write_store(folder / f"{number}.mkv", crops, audio, codec="ffv1")
        split, text = ("train" if number < 8 else "dev"), " ".join(random.choice(WORDS, 3))
        rows.append(Row(f"u{number}", store, text, split, f"s{number}", mouths=store, frames=frames))
    return write_manifest(folder / "manifest.jsonl", rows)


@pytest.fixture(scope="session")
def make_recipe(manifest: Path) -> Callable[..., Recipe]:
    """`make_recipe("omni_st", "train.lr=1")`: a recipe in its tiny size on that corpus, four batches an epoch."""

    def make(name: str = "omni_st", *overrides: str) -> Recipe:
        data = [f"data.train=['{manifest}']", f"data.dev=['{manifest}']", "data.frames_per_batch=50"]
        return load_recipe(name, [*data, *overrides], tiny=True)

    return make
