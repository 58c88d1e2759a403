"""Who speaks when, of those who are seen: the most likely sequence of speakers, given how well each mouth fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from omni_avsr.media.sync import activity, movement
from omni_avsr.types import FPS, SAMPLES_PER_FRAME, Speech

UNSEEN = 0.08  # fit of a voice to nobody in particular: what a mouth must exceed to be its speaker
CHANGE = 1.0  # what a change of speaker costs; fits summed over frames must make up for it
PAUSE = 8  # frames by which a change may move to the quietest moment nearby: 0.3 s


@dataclass(frozen=True)
class Turn:
    """A stretch in which one person speaks."""

    speaker: int | None  # row of the openings; None = nobody who is seen
    start: int  # frames
    end: int  # exclusive


def turns(openings: np.ndarray, audio: np.ndarray | None, speech: Sequence[Speech] | None = None) -> list[Turn]:
    """Splits a stretch between those who speak in it.

    Args:
        openings: (K, T) float, of K mouths over their widths; NaN where a face is not seen.
        audio: (S,) float32, 16 kHz, of the same T frames; None = nothing was recorded, who moves the lips speaks.
        speech: where a voice is heard, in seconds; None = everywhere. Elsewhere nobody is judged.

    Returns:
        Turns in order, without gaps from 0 to T, the speaker changing from each to the next.
    """
    count, frames = openings.shape
    if not frames:
        return []
    fit = np.full((count + 1, frames), UNSEEN)  # the last row is nobody's
    if count:
        fit[:count] = movement(openings) if audio is None else activity(openings, audio)
    voiced = np.full(frames, speech is None)
    for span in speech or ():
        voiced[round(span.start * FPS) : round(span.end * FPS)] = True
    path = _best_path(fit * voiced)
    path = path if audio is None else _at_pauses(path, audio)
    edges = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), frames]
    return [Turn(None if path[a] == count else int(path[a]), a, b) for a, b in pairwise(edges)]


def _best_path(fit: np.ndarray) -> np.ndarray:
    """(T,) the row of (K, T) `fit` at each frame, so that their sum less the changes' cost is greatest (Viterbi)."""
    score = fit[:, 0].copy()
    came = np.zeros(fit.shape, np.int64)
    for frame in range(1, fit.shape[1]):
        best = int(score.argmax())
        changed = score[best] - CHANGE > score
        came[:, frame] = np.where(changed, best, np.arange(len(fit)))
        score = np.where(changed, score[best] - CHANGE, score) + fit[:, frame]
    path = np.empty(fit.shape[1], np.int64)
    row = int(score.argmax())
    for frame in range(fit.shape[1] - 1, -1, -1):
        path[frame] = row
        row = int(came[row, frame])
    return path


def _at_pauses(path: np.ndarray, audio: np.ndarray) -> np.ndarray:
    """`path` (T,) with every change moved to the quietest moment nearby; a turn that is lost by it had none."""
    edges = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist()]
    out = np.empty_like(path)
    for edge in edges:
        out[min(_calmest(audio, edge) if edge else 0, len(path)) :] = path[edge]
    return out


def _calmest(audio: np.ndarray, edge: int) -> int:
    """The frame near `edge` at which the sound is weakest."""
    first = max(edge - PAUSE, 0)
    near = audio[first * SAMPLES_PER_FRAME : (edge + PAUSE) * SAMPLES_PER_FRAME]
    whole = len(near) // SAMPLES_PER_FRAME
    if not whole:
        return edge
    power = np.square(near[: whole * SAMPLES_PER_FRAME].reshape(whole, -1)).mean(1)
    return first + int(np.convolve(np.pad(power, 1, mode="edge"), np.ones(3), "valid").argmin())
