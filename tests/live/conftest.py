"""A talk with pauses, and a transcriber that says a word for every half second it is given."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from omni_avsr.transcribe.inputs import Take
from omni_avsr.transcribe.transcriber import Request
from omni_avsr.types import SAMPLE_RATE, Segment, TranscriptionInfo
from tests.clips import silence, voice

SPOKEN = ((1.0, 4.0), (6.0, 9.0))  # seconds in which `talk` has a clip of speech; its own edges are quiet


@pytest.fixture(scope="session")
def talk() -> np.ndarray:
    """(S,) ten and a half seconds: silence, three seconds of a clip, silence, the clip again, silence."""
    return np.concatenate([silence(1), voice(), silence(2), voice(), silence(1.5)])


class Counting:
    """Instead of a `Transcriber`: says 'one' for every half second of a take, and remembers the takes."""

    offline = True
    model = SimpleNamespace(config=SimpleNamespace(tasks=("asr", "vsr", "avsr")))

    def __init__(self) -> None:
        self.takes: list[tuple[Take, Request]] = []

    def check(self, request: Request) -> None:
        """Everything can be done."""

    def transcribe(self, take: Take, **request: Any) -> tuple[Iterator[Segment], TranscriptionInfo]:
        """One segment over all of it."""
        self.takes.append((take, Request(**request)))
        seconds = self.seconds(take)
        text = " ".join(["one"] * int(seconds * 2))
        info = TranscriptionInfo(seconds, "asr", 4, None)
        return iter([Segment(0, 0.0, seconds, text)] if text else []), info

    @staticmethod
    def seconds(take: Take) -> float:
        """How long it is."""
        return len(take.audio) / SAMPLE_RATE if take.audio is not None else len(take.mouths or ()) / 25


@pytest.fixture
def counting() -> Counting:
    return Counting()
