"""Captions of speech that goes on: a rolling window of sound and mouths, partial text, then final text.

The window begins where speech begins and grows with it. At every step the stretch so far is recognised anew; what two
successive hypotheses agree on stands. When the speaker rests, or the window is as long as the model takes, the stretch
is recognised a last time with the full search and leaves the window. Everything is decided by the clock of the
capture, never by that of the machine: a slow machine says the same, later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from omni_avsr.errors import InputError
from omni_avsr.live.prefix import Prefix
from omni_avsr.media.mouth import Mouth
from omni_avsr.media.quality import MUTED
from omni_avsr.media.speech import windows as speech_windows
from omni_avsr.media.turns import turns
from omni_avsr.transcribe.inputs import Take
from omni_avsr.transcribe.transcriber import Request, Transcriber
from omni_avsr.types import FPS, SAMPLES_PER_FRAME, Segment, Speech

STEP = 0.5  # seconds of capture between two looks at what was said
REST = 0.8  # seconds of silence after which speech is over; its padding is part of them
JOIN = 0.5  # seconds of silence between two stretches that still are one
AIR = 0.4  # seconds of silence that the model gets on both sides
KEEP = 1.0  # seconds of silence that stay in the window, for the beginning of what comes next
DEAF = 0.4  # seconds without any recording after which the lips are asked
LONGEST = 12.0  # seconds of speech without a pause after which it is cut


@dataclass(frozen=True)
class Update:
    """What is new."""

    until: float  # seconds of capture that were considered
    finals: tuple[Segment, ...] = ()  # finished, in order; times in seconds of capture
    stable: str = ""  # of the stretch that goes on: what stands
    tentative: str = ""  # and what may still change


class Captions:
    """Takes sound and mouths as they come; says what is new when asked.

    Args:
        transcriber: whose model recognises.
        request: how; its search is used for final text, a greedy one for partial text.
        sound: whether sound will come.
        picture: whether mouths will come.
    """

    def __init__(self, transcriber: Transcriber, request: Request, sound: bool, picture: bool) -> None:
        transcriber.check(request)
        self._transcriber, self._request = transcriber, request
        self._audio = np.zeros(0, np.float32) if sound else None
        self._mouths: list[Mouth] | None = [] if picture else None
        self._begin = 0  # frame (1/25 s of capture) at which the window begins
        self._looked = 0.0  # seconds of capture that were considered
        self._numbers = 0
        self._prefix = Prefix()

    def hear(self, samples: np.ndarray) -> None:
        """The next samples (S,) float32, 16 kHz."""
        assert self._audio is not None
        self._audio = np.concatenate([self._audio, samples])

    def see(self, mouths: Sequence[Mouth]) -> None:
        """The mouths of the next frames, 25/s."""
        assert self._mouths is not None
        self._mouths += mouths

    def advance(self, deaf: bool = False, blind: bool = False, over: bool = False) -> Update | None:
        """Considers what came; None where that is less than a step.

        Args:
            deaf: no more sound will come.
            blind: no more mouths will come.
            over: nothing will come, so what is unfinished is finished.
        """
        until = self._until(deaf or over, blind or over)
        steps = int((until - self._looked) / STEP + 1e-6)
        if not steps and not over:
            return None
        finals: list[Segment] = []
        going_on: Speech | None = None
        for _ in range(steps):
            self._looked += STEP
            closed, going_on = self._close(self._looked, over=False)
            finals += closed
        if over:
            self._looked = max(until, self._looked)
            closed, going_on = self._close(self._looked, over=True)
            finals += closed
        stable, tentative = self._partial(going_on)
        return Update(self._looked, tuple(finals), stable, tentative)

    @property
    def pending(self) -> float:
        """Seconds that came and were not considered."""
        return (self._begin + self._length) / FPS - self._looked

    # ---- the window --------------------------------------------------------------------------

    def _until(self, deaf: bool, blind: bool) -> float:
        """Seconds of capture up to which everything is here that will come."""
        ends = [] if self._audio is None else [(self._begin + len(self._audio) / SAMPLES_PER_FRAME, deaf)]
        ends += [] if self._mouths is None else [(self._begin + len(self._mouths), blind)]
        awaited = [end for end, gone in ends if not gone]
        return (min(awaited) if awaited else max(end for end, _ in ends)) / FPS

    def _close(self, until: float, over: bool) -> tuple[list[Segment], Speech | None]:
        """Segments of the stretches that are finished at `until`, and the one that is not."""
        finals: list[Segment] = []
        stretches = self._stretches(until)
        while stretches and (over or len(stretches) > 1 or until - stretches[0].end >= REST):
            finished = stretches.pop(0)
            finals += self._final(finished, until)
            self._forget(finished.end)
            self._prefix = Prefix()
        if not stretches:
            self._forget(until - KEEP)
        return finals, stretches[0] if stretches else None

    def _stretches(self, until: float) -> list[Speech]:
        """Where somebody speaks, in seconds of capture."""
        offset = self._begin / FPS
        frames = round((until - offset) * FPS)
        heard = self._heard(frames)
        found: list[Speech] = []
        if self._audio is not None and heard:
            found += speech_windows(self._audio[: heard * SAMPLES_PER_FRAME], LONGEST, join=JOIN)
        lips = lip_speech((self._mouths or [])[heard:frames])
        found += [Speech(heard / FPS + s.start, heard / FPS + s.end) for s in lips]
        return [Speech(offset + s.start, offset + s.end) for s in _joined(found)]

    def _heard(self, frames: int) -> int:
        """How many of the first `frames` came before the microphone fell silent for good, as far as the lips tell."""
        if self._audio is None:
            return 0
        if not self._mouths:
            return frames
        sound = self._audio[: frames * SAMPLES_PER_FRAME]
        pieces = sound[: len(sound) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME].reshape(-1, SAMPLES_PER_FRAME)
        loud = np.flatnonzero(np.square(pieces).mean(1) >= MUTED**2)
        last = int(loud[-1]) + 1 if len(loud) else 0
        return frames if frames - last < DEAF * FPS else last

    def _forget(self, before: float) -> None:
        """Lets go of what lies before `before` seconds."""
        frames = max(0, round(before * FPS) - self._begin)
        self._begin += frames
        if self._audio is not None:
            self._audio = self._audio[frames * SAMPLES_PER_FRAME :]
        if self._mouths is not None:
            self._mouths = self._mouths[frames:]

    # ---- what is said in it ------------------------------------------------------------------

    def _final(self, speech: Speech, until: float) -> list[Segment]:
        segments = self._recognise(speech.start - AIR, min(speech.end + AIR, until), self._request)
        self._numbers += len(segments)
        return [replace(s, id=self._numbers - len(segments) + i) for i, s in enumerate(segments)]

    def _partial(self, speech: Speech | None) -> tuple[str, str]:
        if speech is None:
            return "", ""
        quick = replace(self._request, beam_size=1, word_timestamps=False, save_crops=None)
        segments = self._recognise(speech.start - AIR, self._looked, quick)
        return self._prefix.update([word for s in segments for word in s.text.split()])

    def _recognise(self, start: float, end: float, request: Request) -> list[Segment]:
        """Segments between two instants of the window, with times of the capture."""
        first, last = (min(max(0, round(t * FPS) - self._begin), self._length) for t in (start, end))
        take = Take(
            None if self._audio is None else self._audio[first * SAMPLES_PER_FRAME : last * SAMPLES_PER_FRAME],
            None if self._mouths is None else self._mouths[first:last],
        )
        try:
            segments, _ = self._transcriber.transcribe(take, **vars(request))
            return [_moved(segment, (self._begin + first) / FPS) for segment in segments]
        except InputError:  # nothing to hear or to see in this stretch
            return []

    @property
    def _length(self) -> int:
        """Frames in the window."""
        sound = 0 if self._audio is None else len(self._audio) // SAMPLES_PER_FRAME
        return max(sound, len(self._mouths or ()))


def lip_speech(mouths: Sequence[Mouth]) -> Iterator[Speech]:
    """Where the lips move as in speech, in seconds, cut where that is too long; for when nothing can be heard."""
    openings = np.array([[mouth.opening for mouth in mouths]])
    for turn in turns(openings, None):
        for start in range(turn.start, turn.end, round(LONGEST * FPS)) if turn.speaker is not None else ():
            yield Speech(start / FPS, min(start / FPS + LONGEST, turn.end / FPS))


def _joined(found: Sequence[Speech]) -> list[Speech]:
    """The stretches in order; what lips go on saying where a voice breaks off is one stretch with it."""
    joined: list[Speech] = []
    for speech in found:
        if joined and speech.start - joined[-1].end < JOIN and speech.end - joined[-1].start <= LONGEST:
            joined[-1] = Speech(joined[-1].start, speech.end)
        else:
            joined.append(speech)
    return joined


def _moved(segment: Segment, by: float) -> Segment:
    """`segment`, later by `by` seconds."""
    words = segment.words and tuple(replace(w, start=w.start + by, end=w.end + by) for w in segment.words)
    return replace(segment, start=segment.start + by, end=segment.end + by, words=words)
