"""The words of a recognised text: how sure the model was of each, and when each was said."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from omni_avsr.transcribe.aligner import RATE, align, aligner
from omni_avsr.types import FPS, SAMPLE_RATE, Sample

LEAST = 1e-3  # probability of a token that was said all the same


@dataclass(frozen=True)
class Said:
    """A word as the model wrote it."""

    text: str  # without spaces
    probability: float  # that it is right
    tokens: tuple[int, ...]
    alone: float = 0.0  # probability that the model gave it, after all that stands before it
    agreement: float | None = None  # share of the witnesses that have it too; None where none were asked


@dataclass(frozen=True)
class Timed:
    """A word in the file, in seconds."""

    said: Said
    start: float
    end: float

    @property
    def middle(self) -> float:
        """Halfway through the word."""
        return (self.start + self.end) / 2


def said_words(
    text: str, tokens: Sequence[int], logprobs: Sequence[float], decode: Callable[[Sequence[int]], str]
) -> tuple[Said, ...]:
    """The words of a text and the tokens that make them.

    Args:
        text: as recognised.
        tokens: L of them, that spell it.
        logprobs: their L natural log-probabilities.
        decode: tokens to text. A token that ends one word and begins the next counts for the latter.

    Returns:
        One per word; its probability is the product of its tokens', or the geometric mean of all where it has none.
    """
    texts = text.split()
    own: list[list[int]] = [[] for _ in texts]
    for position in range(len(tokens)):
        word = len(decode(tokens[: position + 1]).split()) - 1
        if 0 <= word < len(texts):
            own[word].append(position)
    usual = math.exp(sum(logprobs) / max(len(logprobs), 1))
    sure = [math.exp(sum(logprobs[i] for i in positions)) if positions else usual for positions in own]
    return tuple(
        Said(word, own_sure, tuple(tokens[i] for i in positions), own_sure)
        for word, positions, own_sure in zip(texts, own, sure, strict=True)
    )


def unsmoothed(logprobs: Sequence[float], smoothing: float, vocabulary: int) -> list[float]:
    """What a model means that was trained with label smoothing: it gives smoothing / vocabulary to every token, and
    only what is left, 1 - smoothing, by what it perceives. Undone here, since it makes a model that is sure say 0.9.

    Args:
        logprobs: natural log-probabilities of tokens.
        smoothing: with which the model was trained; 0 = nothing to undo.
        vocabulary: tokens that the model can say.
    """
    if not 0 < smoothing < 1:
        return list(logprobs)
    meant = ((math.exp(p) - smoothing / vocabulary) / (1 - smoothing) for p in logprobs)
    return [math.log(min(1.0, max(LEAST, p))) for p in meant]


def timed_words(
    words: Sequence[Said],
    start: float,
    audio: np.ndarray | None,
    crops: np.ndarray | None = None,
    found: np.ndarray | None = None,
) -> tuple[Timed, ...]:
    """When each word is said, by sound and lips.

    Args:
        words: recognised in what follows.
        start: seconds of the file at which it begins.
        audio: (S,) float32, 16 kHz, or None.
        crops: (T, 96, 96) uint8 at 25/s, or None.
        found: (T,) bool, where the crops show a face.

    Returns:
        One per word, apart and in order; spread evenly by their letters where there is less time than letters.
    """
    scores = aligner().scores(audio, crops, found)
    spans = align(scores, [word.text for word in words])
    if spans is not None:
        edges = [(span.start / RATE, span.end / RATE) for span in spans]
    else:
        letters = np.cumsum([0] + [len(word.text) for word in words])
        edges = list(pairwise((len(scores) / RATE * letters / letters[-1]).tolist()))
    return tuple(
        Timed(word, round(start + begin, 3), round(start + end, 3))
        for word, (begin, end) in zip(words, edges, strict=True)
    )


def word_edges(sample: Sample) -> np.ndarray:
    """(W + 1,) int: the frames (25/s) at which the W words of `sample.text` part, from 0 to the length of the sample.

    An edge lies halfway between the end of a word and the beginning of the next. -1 where it cannot be told: beside
    a word of one letter, whose name is longer than its spelling and whose end is not found reliably.
    """
    words = sample.text.split()
    edges = np.full(len(words) + 1, -1)
    ends = [len(sample.audio) * FPS // SAMPLE_RATE] if sample.audio is not None else []
    ends += [len(sample.mouths)] if sample.mouths is not None else []
    edges[0], edges[-1] = 0, min(ends)
    spans = align(aligner().scores(sample.audio, sample.mouths), words) or []
    for i, (a, b) in enumerate(pairwise(spans), start=1):
        if len(words[i - 1]) > 1 and len(words[i]) > 1:
            edges[i] = round((a.end + b.start) / 2 * FPS / RATE)
    return edges
