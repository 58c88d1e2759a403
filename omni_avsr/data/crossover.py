"""One utterance made of several: at the edges of words, another recording of the speaker goes on.

Aligned data augmentation (Lam et al., 2021, "On-the-fly aligned data augmentation for sequence-to-sequence ASR") for
both streams at once. A few hundred sentences are soon known by heart, by their first word or their light; sentences
that nobody has said cannot be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from omni_avsr.types import FPS, SAMPLE_RATE, Sample

Rng = np.random.Generator
Edges = Callable[[Sample], np.ndarray]
"""A sample of W words -> (W + 1,) int, the frames (25/s) at which they part, the first 0 and the last its length;
-1 where that cannot be told."""

STEP = SAMPLE_RATE // FPS  # samples a frame
FADE = 64  # samples (4 ms) over which a joint fades in: an edge of its own would be heard as a sound


class Crossover:
    """Children of the rows of a corpus.

    Args:
        speakers: of each row; rows without one ("") have no kin.
        texts: of each row, words apart by spaces.
        load: row -> its signals.
        edges: where its words part; asked once a row.
    """

    def __init__(
        self, speakers: Sequence[str], texts: Sequence[str], load: Callable[[int], Sample], edges: Edges
    ) -> None:
        self._words = [tuple(text.split()) for text in texts]
        self._load, self._find = load, edges
        self._edges: dict[int, np.ndarray] = {}
        self._kin: dict[tuple[str, int], list[int]] = {}
        for row, (speaker, words) in enumerate(zip(speakers, self._words, strict=True)):
            if speaker and len(words) > 1:
                self._kin.setdefault((speaker, len(words)), []).append(row)
        self._key = {row: key for key, rows in self._kin.items() for row in rows}

    def __call__(self, row: int, rng: Rng) -> Sample:
        """A sample that begins as `row` does and goes on, at every other edge, as one of its kin at the same word.

        Without kin, or where they do not part at the same words, the row as it is.
        """
        whole = self._whole(row)
        if row not in self._key:
            return whole
        kin, length = self._kin[self._key[row]], len(self._words[row])
        inner = [edge for edge in range(1, length) if self._parts(row)[edge] > 0 and rng.random() < 0.5]
        bounds = [0, *inner, length]
        parents = [row, *(kin[i] for i in rng.integers(len(kin), size=len(inner)))]
        pieces = [self._piece(*piece) for piece in zip(parents, bounds, bounds[1:], strict=False)]
        found = [piece for piece in pieces if piece is not None]
        return _joined(found, whole) if len(found) == len(pieces) else whole

    def _whole(self, row: int) -> Sample:
        return replace(self._load(row), text=" ".join(self._words[row]))

    def _parts(self, row: int) -> np.ndarray:
        if row not in self._edges:
            self._edges[row] = self._find(self._whole(row))
        return self._edges[row]

    def _piece(self, row: int, first: int, last: int) -> Sample | None:
        """The words from `first` up to `last` of `row`; None where their edges are not known."""
        sample, parts = self._whole(row), self._parts(row)
        start, end = int(parts[first]), int(parts[last])
        if not 0 <= start < end:
            return None
        return replace(
            sample,
            audio=None if sample.audio is None else sample.audio[start * STEP : end * STEP],
            mouths=None if sample.mouths is None else sample.mouths[start:end],
            text=" ".join(self._words[row][first:last]),
        )


def _joined(pieces: Sequence[Sample], like: Sample) -> Sample:
    """One sample, named like `like`, with the streams that all pieces have."""
    sounds = [piece.audio for piece in pieces if piece.audio is not None]
    lips = [piece.mouths for piece in pieces if piece.mouths is not None]
    return replace(
        like,
        audio=np.concatenate([sounds[0], *map(_faded, sounds[1:])]) if len(sounds) == len(pieces) else None,
        mouths=np.concatenate(lips) if len(lips) == len(pieces) else None,
        text=" ".join(piece.text for piece in pieces),
    )


def _faded(sound: np.ndarray) -> np.ndarray:
    out = sound.copy()
    out[:FADE] *= np.linspace(0, 1, len(out[:FADE]), dtype=np.float32)
    return out
