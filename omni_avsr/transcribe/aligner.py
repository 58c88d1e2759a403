"""When each word is said: two small networks that look at sounds and at lips, a third of a second at a time.

A recogniser's own states cannot tell the time: with attention over the whole utterance a CTC head learns what is said
and emits it anywhere. On synthetic truth its words were 0.24 s off by ear and 0.43 s by the lips (LOG.md). These
networks see `REACH` frames to either side at most, so what they find is there. They know letters, not words: the
words come from the recogniser, and the best path lays their letters along the time.

`scripts/train_aligner.py` makes the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load
from torch import Tensor, nn

from omni_avsr.media.features import log_mel
from omni_avsr.media.quality import MUTED
from omni_avsr.types import SAMPLE_RATE

RATE = 50  # moments per second: the ear's frames; the eye's 25 are doubled
LETTERS = "abcdefghijklmnopqrstuvwxyz"
REST = 0  # the class of silence and of lips that do not speak; letter i is class i + 1
CLASSES = len(LETTERS) + 1
BANDS = 80  # mel bands
LIPS, SHRINK = 72, 3  # pixels: the middle of a mouth crop that the eye sees, and by how much it is shrunk
REACH = {"ear": 3, "eye": 2}  # frames that one block looks to either side; there are four
SHORTEST = 402  # samples of sound that make a mel frame


class Block(nn.Module):
    """(B, T, C) -> (B, T, C): each channel looks `reach` frames to either side, then the channels mix."""

    def __init__(self, width: int, reach: int) -> None:
        super().__init__()
        self.along = nn.Conv1d(width, width, 2 * reach + 1, padding=reach, groups=width)
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.gelu(self.mix(self.norm(self.along(x.transpose(1, 2)).transpose(1, 2))))


class Ear(nn.Module):
    """Log-mel (B, 80, F) at 100/s -> (B, F // 2, CLASSES) log-probabilities at 50/s."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.stem = nn.Conv1d(BANDS, width, 5, stride=2, padding=2)
        self.blocks = nn.Sequential(*(Block(width, REACH["ear"]) for _ in range(4)))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, mel: Tensor) -> Tensor:
        x = mel - mel.amax((1, 2), keepdim=True)  # no matter how loud, nor how much of it is silence
        x = F.gelu(self.stem(x)).transpose(1, 2)  # (B, 80, F) -> (B, F / 2, C)
        return F.log_softmax(self.head(self.blocks(x)), -1)


class Eye(nn.Module):
    """Lips (B, T, 24, 24) -> (B, T, CLASSES) log-probabilities at 25/s."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.picture = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, 2, 1), nn.GELU(), nn.Conv2d(16, 32, 3, 2, 1), nn.GELU()),
            *(nn.Conv2d(32, 48, 3, 2, 1), nn.GELU(), nn.Flatten(), nn.Linear(48 * 9, width), nn.GELU()),
        )
        self.blocks = nn.Sequential(*(Block(width, REACH["eye"]) for _ in range(4)))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, lips: Tensor) -> Tensor:
        rows, frames = lips.shape[:2]
        # what does not move is the face, not the speech
        moving = lips - lips.mean(1, keepdim=True)
        x = moving / moving.std((1, 2, 3), keepdim=True).clamp(min=1e-3)
        x = self.picture(x.reshape(rows * frames, 1, *lips.shape[2:])).view(rows, frames, -1)
        return F.log_softmax(self.head(self.blocks(x)), -1)


def lips_of(crops: np.ndarray) -> Tensor:
    """(T, 96, 96) uint8 -> (T, 24, 24) float32 in 0..1."""
    edge = (crops.shape[1] - LIPS) // 2
    middle = torch.from_numpy(np.ascontiguousarray(crops[:, edge : edge + LIPS, edge : edge + LIPS]))
    return F.avg_pool2d(middle[:, None].float() / 255, SHRINK)[:, 0]


# ---- the best path -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Span:
    """The moments (50/s) in which one word is said."""

    start: int
    end: int  # exclusive


def align(scores: np.ndarray, words: Sequence[str]) -> list[Span] | None:
    """Where each of `words` is said, in order, with or without rests between them.

    Args:
        scores: (T, CLASSES) float, log-probabilities at 50/s; a row of zeros says nothing about its moment.
        words: without spaces. What is not a letter may sound like anything but rest.

    Returns:
        One span per word, apart and in order; None where T moments are too few.
    """
    states, owners = _spelled(words)
    path = best_path(_emissions(scores, states), owners < 0)
    if path is None:
        return None
    said = owners[path]  # (T,) the word of each moment, -1 in rests
    edges = [np.flatnonzero(said == word) for word in range(len(words))]
    return [Span(int(frames[0]), int(frames[-1]) + 1) for frames in edges]


ANY = CLASSES  # the state of a character that is no letter
_ANY_PENALTY = float(np.log(0.2))  # so that it does not take the moments of the letters beside it


def _spelled(words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(S,) classes and (S,) index of their word, -1 for the rests before, between and after the words."""
    states, owners = [REST], [-1]
    for number, word in enumerate(words):
        letters = [LETTERS.find(character) + 1 or ANY for character in word.lower() if character not in "'’-.,!?;:"]
        letters = letters or [ANY]
        states += [*letters, REST]
        owners += [*[number] * len(letters), -1]
    return np.array(states), np.array(owners)


def _emissions(scores: np.ndarray, states: np.ndarray) -> np.ndarray:
    """(T, CLASSES) -> (T, S)."""
    speaks = np.log(np.maximum(1 - np.exp(scores[:, REST]), 1e-4)) + _ANY_PENALTY
    speaks[~scores.any(1)] = 0.0
    return np.column_stack([scores, speaks])[:, states]


def best_path(emissions: np.ndarray, optional: np.ndarray) -> np.ndarray | None:
    """(T,) the state of each moment on the best path from the first state to the last; None if T is too short.

    A path stays or moves on by one state; an `optional` state, (S,) bool, may be passed over, the first and the last
    too. Every other state takes a moment at least.
    """
    frames, count = emissions.shape
    score = np.full(count, -np.inf)
    came = np.zeros((frames, count), np.int8)  # by how many states the path moved on
    reach = np.full((3, count), -np.inf)
    over = np.flatnonzero(optional[1:-1]) + 2  # states that are entered over an optional one
    for t in range(frames):
        if t == 0:
            score[0] = emissions[0, 0]
            if optional[0] and count > 1:
                score[1] = emissions[0, 1]
            continue
        reach[0], reach[1, 1:] = score, score[:-1]
        reach[2, over] = score[over - 2]
        came[t] = reach.argmax(0)
        score = reach.max(0) + emissions[t]
    state = count - 2 if count > 1 and optional[-1] and score[-2] > score[-1] else count - 1
    if not frames or not np.isfinite(score[state]):
        return None
    path = np.empty(frames, np.int64)
    for t in range(frames - 1, -1, -1):
        path[t] = state
        state -= int(came[t, state])
    return path


# ---- both networks -----------------------------------------------------------------------------

TRUST = 0.5  # factor of what the eye says beside an ear that hears


class Aligner(nn.Module):
    """Ear and eye on one clock."""

    def __init__(self) -> None:
        super().__init__()
        self.ear, self.eye = Ear(), Eye()

    @torch.inference_mode()
    def scores(
        self, audio: np.ndarray | None, crops: np.ndarray | None = None, found: np.ndarray | None = None
    ) -> np.ndarray:
        """What is said at each moment, for `align`; the eye decides where the ear is deaf.

        Args:
            audio: (S,) float32, 16 kHz.
            crops: (T, 96, 96) uint8 at 25/s, from the same instant on.
            found: (T,) bool, where they show a face; None = everywhere.

        Returns:
            (N, CLASSES) float32 sums of log-probabilities at 50/s; zeros where there is nothing to hear or see.
        """
        heard, mute = self._heard(audio)
        seen = self._seen(crops, found)
        count = max(len(heard), len(seen))
        heard, seen = (np.pad(x, ((0, count - len(x)), (0, 0))) for x in (heard, seen))
        shows = (seen != 0).any(axis=1)
        heard[: len(mute)][mute & shows[: len(mute)]] = 0.0  # no sound, but perhaps speech
        weight = np.where(heard.any(1), TRUST, 1.0)[:, None]
        return (heard + weight * seen).astype(np.float32)

    @torch.inference_mode()
    def speaking(self, crops: np.ndarray, found: np.ndarray) -> np.ndarray:
        """(T, 96, 96) uint8 and (T,) bool -> (T,) probability that the lips speak; 0 without a face."""
        return np.where(found, -np.expm1(self._seen(crops, found)[::2, REST]), 0.0)

    def _heard(self, audio: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Scores (N, CLASSES), and (N,) where nothing was recorded."""
        if audio is None or len(audio) < SHORTEST:
            return np.zeros((0, CLASSES), np.float32), np.zeros(0, bool)
        scores = self.ear(log_mel(audio, BANDS)[None])[0].numpy()
        step = SAMPLE_RATE // RATE
        padded = np.pad(audio, (0, max(0, len(scores) * step - len(audio))))[: len(scores) * step]
        return scores, np.square(padded.reshape(len(scores), step)).mean(1) < MUTED**2

    def _seen(self, crops: np.ndarray | None, found: np.ndarray | None) -> np.ndarray:
        if crops is None or not len(crops):
            return np.zeros((0, CLASSES), np.float32)
        lips = lips_of(crops)
        if found is not None and found.any():
            lips[~found] = lips[found].mean(0)  # what is not there does not move
        scores = self.eye(lips[None])[0].numpy()
        if found is not None:
            scores[~found] = 0.0
        return scores.repeat(2, axis=0)


@lru_cache(maxsize=1)
def aligner() -> Aligner:
    """The one that comes with the package."""
    made = Aligner()
    weights = load((resources.files("omni_avsr") / "assets" / "aligner.safetensors").read_bytes())
    made.load_state_dict({key: value.float() for key, value in weights.items()})
    return made.eval()
