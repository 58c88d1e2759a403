"""Fits the map from sound to lips: `python scripts/fit_lips.py GRID_MANIFEST` writes `omni_avsr/assets/lips.npz`.

Half of what it learns from are synthetic voices, whose lips are known; half are clips of real speakers, whose lips
are measured. Ridge regression in closed form; the same inputs give the same file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from omni_avsr.data.manifest import read_manifest
from omni_avsr.data.noise import mix_noise, pink
from omni_avsr.data.synthetic import utterances
from omni_avsr.data.visemes import articulate
from omni_avsr.media.landmarks import MediaPipeDetector
from omni_avsr.media.mouth import mouth_stream
from omni_avsr.media.reader import read_clip
from omni_avsr.media.sync import context
from omni_avsr.types import FPS

TARGET = Path(__file__).parents[1] / "omni_avsr" / "assets" / "lips.npz"
VOICES, CLIPS = 400, 120
RIDGE = 1000.0  # per 9,000 frames
Pair = tuple[np.ndarray, np.ndarray]  # (S,) sound, (T,) opening of the lips


def synthetic() -> Iterator[Pair]:
    """Voices in some noise, and how their lips move."""
    rng = np.random.default_rng(1)
    for spoken in islice(utterances("grid", seed=1), VOICES):
        mouth = articulate(spoken.phonemes, round(spoken.duration * FPS))
        opening = np.asarray(mouth.open) * (1 - np.asarray(mouth.close))
        yield mix_noise(spoken.audio, pink(len(spoken.audio), rng), float(rng.uniform(5, 40))), opening


def real(manifest: Path) -> Iterator[Pair]:
    """Clips of the split `train`, and how their lips were seen to move."""
    detector = MediaPipeDetector()
    for row in islice((row for row in read_manifest(manifest) if row.split == "train"), CLIPS):
        clip = read_clip(row.media)
        opening = np.array([mouth.opening for mouth in mouth_stream(clip.frames, detector=detector)])
        if np.isfinite(opening).all() and clip.audio is not None:
            yield clip.audio, opening


def statistics(pairs: Iterator[Pair]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of the contexts, and per frame their products with themselves and with the standardised opening."""
    contexts, openings = [], []
    for audio, opening in pairs:
        opening = np.minimum(opening, np.quantile(opening, 0.98))
        contexts.append(context(audio, len(opening)))
        openings.append((opening - opening.mean()) / (opening.std() + 1e-6))
    x, y = np.concatenate(contexts), np.concatenate(openings)
    mean = x.mean(0)
    return mean, (x - mean).T @ (x - mean) / len(x), (x - mean).T @ y / len(x)


def main(manifest: Path) -> None:
    """Fit, store, and say how well lips are explained."""
    parts = [statistics(synthetic()), statistics(real(manifest))]
    mean, square, cross = (sum(values) / len(parts) for values in zip(*parts, strict=True))
    weights = np.linalg.solve(square + RIDGE / 9000 * np.eye(len(square)), cross)
    np.savez(TARGET, mean=mean.astype(np.float32), weights=weights.astype(np.float32))
    print(f"{TARGET}: explains {cross @ weights:.2f} of the variance")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
