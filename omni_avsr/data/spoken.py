"""What passes between `speech_synthesis` and the engines that speak for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

PAUSE = ""  # name of a phoneme that is silence
STRESS = "ˈˌ"  # primary and secondary stress, before the vowel in a phoneme's name


@dataclass(frozen=True)
class SpokenWord:
    """A word as the engine gets it."""

    spelling: str
    rate: float = 1.0  # factor of the voice's rate
    pitch: float = 1.0  # factor of the voice's pitch


@dataclass(frozen=True)
class Manner:
    """How an engine speaks an utterance."""

    voice: str  # the engine's own name
    rate: float  # words a minute
    pitch: float  # 0 to 99, 50 is the voice's own
    pitch_range: float  # 0 to 99
    word_gap: float  # seconds


@dataclass(frozen=True)
class Event:
    """A phoneme begins."""

    time: float  # seconds
    word: int  # index of the word it belongs to
    phoneme: str  # IPA, `PAUSE` for silence


Engine = Callable[[Sequence[SpokenWord], Manner], tuple[np.ndarray, int, list[Event]]]
"""-> (S,) float32 sound, its rate in Hz, events in the order of time."""
