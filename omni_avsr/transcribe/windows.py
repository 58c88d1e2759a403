"""A file as windows that a model can take.

The ear finds the voices. Where it is deaf because nothing was recorded, the eyes look for lips that speak. Speech
that had to be cut lies in two windows that overlap, whose words `stitch` joins.

Sound is read twice, once to find the voice and once per window, and faces are followed through every frame: memory
is a few windows, however long the file is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise, zip_longest
from typing import Any, Generic, TypeVar

import numpy as np

from omni_avsr.media.mouth import Mouth
from omni_avsr.media.quality import MUTED, audio_quality, video_quality
from omni_avsr.media.speech import SpeechOptions, speech_spans, stretches
from omni_avsr.media.speech import windows as speech_windows
from omni_avsr.transcribe.aligner import aligner
from omni_avsr.transcribe.inputs import Media
from omni_avsr.types import FPS, MOUTH_SIZE, SAMPLE_RATE, SAMPLES_PER_FRAME, AudioQuality, VideoQuality

LONGEST = 15.0  # seconds; utterances of the corpora that models are trained on are shorter
OVERLAP = 0.8  # seconds by which a window reaches over a cut
MARGIN = 2.0  # seconds of silence at the ends of a short file that stay in its windows
AIR = 0.5  # seconds of silence, at most, that a window gets on both sides
NEAR = 0.4  # seconds between a voice and lips that go on speaking without sound, or the other way round
DEAF = 0.4  # seconds without a recording from which the ear counts as deaf
LACKING = 5  # frames by which a video may be shorter than the sound before it counts as over
# Whole clips are kept or dropped as one, so even a voice at -5 dB must count: noise alone stays below 0.1.
KEEN = SpeechOptions(threshold=0.2)
FIRM = SpeechOptions(threshold=0.35, min_silence=0.4)
LIPS = SpeechOptions(threshold=0.6, min_speech=0.4)


@dataclass(frozen=True)
class Window:
    """A stretch of the file, and what there is to hear and see in it."""

    start: float  # seconds
    end: float
    audio: np.ndarray | None  # (S,) float32, 16 kHz
    crops: np.ndarray | None  # (T, 96, 96) uint8; None where nobody looked
    found: np.ndarray | None = None  # (T,) bool, where the face was; None where nobody looked
    hearing: AudioQuality | None = None
    sight: VideoQuality | None = None
    by_lips: bool = False  # it is here because lips were seen to speak, not because a voice was heard
    cut_before: float | None = None  # seconds at which the speech was cut; what was cut before it reaches over that
    cut_after: float | None = None  # the same at its end; both are the same for all parts in which people take turns
    speaker: str | None = None  # who speaks, where several faces are told apart

    @property
    def face_share(self) -> float:
        """Share of the frames with the face."""
        return 0.0 if self.sight is None else self.sight.face

    @property
    def voice_share(self) -> float:
        """Share of the time with a voice."""
        return 0.0 if self.hearing is None else self.hearing.speech

    @property
    def level(self) -> float:
        """Root mean square of the sound, 1 = full scale; 0 without sound."""
        return 0.0 if self.audio is None or not len(self.audio) else float(np.sqrt(np.square(self.audio).mean()))


def windows(media: Media, eyes: Gaze[Any] | None, listens: bool = True, longest: float = LONGEST) -> Iterator[Window]:
    """Windows around speech; those of a short file keep the silence at its ends.

    A short file in which nobody is heard or seen to speak is one window all the same: the voice may be drowned. The
    last window is empty and tells whether there was a face at all, which may only have listened.

    Args:
        media: what is transcribed.
        eyes: of the same file, to see the mouth in each window; None = sound only.
        listens: whether the sound is used.
        longest: seconds that a window may have.
    """
    beginning = _read(media, 0.0, longest + 1) if listens else np.zeros(0, np.float32)
    total = max(len(beginning) / SAMPLE_RATE, media.info.duration)
    room = longest - 2 * max(OVERLAP, AIR)
    short = total <= longest
    speech = _speech(media, eyes, listens, room, KEEN if short else FIRM)
    speech = _widened(list(speech), total) if short else speech
    for cut in _overlapping(speech):
        yield from _windows(media, eyes, listens, cut)
    if eyes is not None and eyes.sight.face:
        yield Window(total, total, None, None, sight=eyes.sight)


# ---- where somebody speaks -------------------------------------------------------------------


@dataclass(frozen=True)
class Stretch:
    """Part of the file, in seconds; of speech, or for the eyes to look into."""

    start: float
    end: float
    deaf: bool = False  # nothing can be heard here


def _speech(
    media: Media, eyes: Gaze[Any] | None, listens: bool, longest: float, options: SpeechOptions
) -> Iterator[Stretch]:
    told = _heard(media, longest, options) if listens else iter([Stretch(0.0, media.info.duration, deaf=True)])
    return _merged(_looked_into(told, eyes, longest), longest)


def _heard(media: Media, longest: float, options: SpeechOptions) -> Iterator[Stretch]:
    """Voices, and between them the stretches in which the ear is deaf; in order."""
    meter = _Meter(media.audio_blocks())
    told = 0.0
    for voice in speech_windows(meter, longest, join=0.0, options=options):
        yield from meter.deaf(told, voice.start)
        yield Stretch(voice.start, voice.end)
        told = voice.end
    ended = meter.seconds
    yield from meter.deaf(told, ended)
    if media.info.has_video and media.info.duration - ended > DEAF:
        yield Stretch(max(told, ended), media.info.duration, deaf=True)


class _Meter:
    """Blocks of sound on their way, and where they were mute."""

    def __init__(self, blocks: Iterator[np.ndarray]) -> None:
        self._blocks = blocks
        self._rest = np.zeros(0, np.float32)
        self._mute: list[bool] = []  # one per video frame, from `_first` on
        self._first = 0
        self.seconds = 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            self._rest = np.concatenate([self._rest, block])
            whole = len(self._rest) - len(self._rest) % SAMPLES_PER_FRAME
            frames = self._rest[:whole].reshape(-1, SAMPLES_PER_FRAME)
            self._mute += (np.square(frames).mean(1) < MUTED**2).tolist()
            self._rest = self._rest[whole:]
            self.seconds += len(block) / SAMPLE_RATE
            yield block

    def deaf(self, start: float, end: float) -> Iterator[Stretch]:
        """Mute stretches between `start` and `end`; what lies before is forgotten."""
        first = max(round(start * FPS), self._first)
        mute = np.array(self._mute[first - self._first : round(end * FPS) - self._first], bool)
        self._mute, self._first = self._mute[first + len(mute) - self._first :], first + len(mute)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], mute, [False]])))
        for begin, over in edges.reshape(-1, 2):
            if over - begin >= DEAF * FPS:
                yield Stretch((first + begin) / FPS, (first + over) / FPS, deaf=True)


def _looked_into(told: Iterable[Stretch], eyes: Gaze[Any] | None, longest: float) -> Iterator[Stretch]:
    """Where the ear is deaf, the stretches in which lips speak."""
    for stretch in told:
        if not stretch.deaf:
            yield stretch
        elif eyes is not None:
            for speech in stretches(eyes.speaking(stretch.start, stretch.end), FPS, LIPS, longest):
                yield Stretch(stretch.start + speech.start, stretch.start + speech.end, deaf=True)


def _merged(speech: Iterator[Stretch], longest: float) -> Iterator[Stretch]:
    """A voice and lips that speak on without it are one."""
    held: Stretch | None = None
    for stretch in speech:
        if held is None:
            held = stretch
        elif (held.deaf or stretch.deaf) and stretch.start - held.end < NEAR and stretch.end - held.start <= longest:
            held = Stretch(held.start, stretch.end, held.deaf and stretch.deaf)
        else:
            yield held
            held = stretch
    if held is not None:
        yield held


def _widened(speech: list[Stretch], total: float) -> Iterator[Stretch]:
    """The stretches of a file of `total` seconds, the outer ones with the silence beside them; at least one."""
    speech = speech or [Stretch(0.0, total)]
    if speech[0].start <= MARGIN:
        speech[0] = replace(speech[0], start=0.0)
    if total - speech[-1].end <= MARGIN:
        speech[-1] = replace(speech[-1], end=total)
    return iter(speech)


@dataclass(frozen=True)
class _Cut:
    """A window to be read."""

    start: float
    end: float
    by_lips: bool
    before: float | None
    after: float | None


def _overlapping(speech: Iterator[Stretch]) -> Iterator[_Cut]:
    """Stretches that touch are one speech that was cut; their windows reach over the cut. Others get some silence."""
    ended, before = 0.0, None
    last: list[Stretch | None] = [None]
    for stretch, following in pairwise(chain(speech, last)):
        assert stretch is not None
        gap = AIR * 2 if following is None else following.start - stretch.end
        after = _snap(stretch.end + gap / 2) if gap < NEAR / 4 else None
        start = stretch.start - min(AIR, (stretch.start - ended) / 2) if before is None else before - OVERLAP
        yield _Cut(
            max(0.0, _snap(start)),
            _snap(stretch.end + min(AIR, gap / 2)) if after is None else after + OVERLAP,
            stretch.deaf,
            before,
            after,
        )
        ended, before = stretch.end, after


# ---- what is there ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A part of a window with one mouth to read."""

    start: int  # frames from the window's beginning
    mouths: Sequence[Mouth] | None  # to the beginning of the next part, or to where the video is over; None: not looked
    speaker: str | None = None


def _windows(media: Media, eyes: Gaze[Any] | None, listens: bool, cut: _Cut) -> Iterator[Window]:
    """The window, or one after the other its parts in which different people speak."""
    audio = _read(media, cut.start, cut.end) if listens else None
    end = min(cut.end, max(media.info.duration, cut.start + (0 if audio is None else len(audio)) / SAMPLE_RATE))
    parts = eyes.parts(cut.start, end, None if cut.by_lips else audio) if eyes else [Part(0, None)]
    for part, following in zip_longest(parts, parts[1:]):
        own = replace(
            cut,
            start=cut.start + part.start / FPS,
            end=end if following is None else cut.start + following.start / FPS,
        )
        samples = slice(part.start * SAMPLES_PER_FRAME, following and following.start * SAMPLES_PER_FRAME)
        yield _window(own, part, None if audio is None else audio[samples])


def _window(cut: _Cut, part: Part, audio: np.ndarray | None) -> Window:
    crops = found = hearing = sight = None
    if audio is not None:
        hearing = audio_quality(audio, speech_spans(audio, replace(KEEN, pad=0.0)))
    if part.mouths is not None:
        crops, found = _pictures(part.mouths, round((cut.end - cut.start) * FPS))
        sight = replace(video_quality(part.mouths), face=float(found.mean()) if len(found) else 0.0)
    qualities = (audio, crops, found, hearing, sight)
    return Window(cut.start, cut.end, *qualities, cut.by_lips, cut.before, cut.after, part.speaker)


def _pictures(mouths: Sequence[Mouth], frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Crops (T, 96, 96) and where the face was found (T,); black where the video is over and the sound goes on."""
    missing = frames - len(mouths)
    missing = missing if missing > LACKING else 0
    black = np.zeros((missing, MOUTH_SIZE, MOUTH_SIZE), np.uint8)
    crops = np.concatenate([np.stack([m.crop for m in mouths]), black]) if mouths else black
    return crops, np.array([m.found for m in mouths] + [False] * missing, bool)


def _read(media: Media, start: float, end: float) -> np.ndarray:
    blocks = list(media.audio_blocks(start, end))
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _snap(seconds: float) -> float:
    return round(seconds * FPS) / FPS  # sound and picture are cut at the same place


# ---- eyes ------------------------------------------------------------------------------------

Seen = TypeVar("Seen")  # what is kept of a frame: one mouth, or those of several people


class Gaze(ABC, Generic[Seen]):
    """Frames read forward through a file; what was seen lately can be looked at again.

    Args:
        frames: from the beginning of the file.
        kept: seconds that can be looked at again.
    """

    CHUNK = 4.0  # seconds that are judged together
    REACH = 0.4  # seconds before and after, for the frames at their ends

    def __init__(self, frames: Iterator[Seen], kept: float = 3 * LONGEST) -> None:
        self._frames = frames
        self._seen: deque[Seen] = deque(maxlen=round(kept * FPS))
        self._position = 0  # frames read so far
        self._found = 0

    @abstractmethod
    def parts(self, start: float, end: float, audio: np.ndarray | None) -> list[Part]:
        """What is to be read between `start` and `end` seconds, in order and without gaps; at least one.

        Args:
            start: seconds.
            end: seconds.
            audio: (S,) what is heard there; None = nothing.
        """

    @abstractmethod
    def lips(self, seen: Sequence[Seen]) -> np.ndarray:
        """(T,) probability that the lips speak; 0 where there is no face."""

    @abstractmethod
    def is_face(self, seen: Seen) -> bool:
        """Is there a face in this frame?"""

    @property
    def sight(self) -> VideoQuality:
        """In how many of the frames read so far a face was found."""
        return VideoQuality(self._found / max(self._position, 1), 0.0, 0.0, 0.0, 0.0)

    def look(self, start: float, end: float) -> list[Seen]:
        """The frames between `start` and `end` seconds; fewer where the video is over."""
        first, last = round(start * FPS), round(end * FPS)
        for seen in islice(self._frames, max(0, last - self._position)):
            self._seen.append(seen)
            self._position += 1
            self._found += self.is_face(seen)
        kept = self._position - len(self._seen)
        return list(islice(self._seen, max(0, first - kept), max(0, last - kept)))

    def speaking(self, start: float, end: float) -> Iterator[float]:
        """For each frame between `start` and `end` seconds, the probability that the lips speak."""
        position = start
        while position < end:
            before = max(0.0, position - self.REACH)
            stop = min(position + self.CHUNK, end)
            seen = self.look(before, stop + self.REACH)
            first, last = round((position - before) * FPS), round((stop - before) * FPS)
            if len(seen) <= first:
                return
            yield from self.lips(seen)[first:last].tolist()
            position = stop


class Eyes(Gaze[Mouth]):
    """The mouth of one face."""

    def parts(self, start: float, end: float, audio: np.ndarray | None) -> list[Part]:
        """The one mouth."""
        return [Part(0, self.look(start, end))]

    def lips(self, seen: Sequence[Mouth]) -> np.ndarray:
        """By the aligner."""
        return speaking(seen)

    def is_face(self, seen: Mouth) -> bool:
        """Where it was found or bridged."""
        return seen.found


def speaking(mouths: Sequence[Mouth]) -> np.ndarray:
    """(T,) probability that these lips speak; 0 where there is no face."""
    found = np.array([mouth.found for mouth in mouths], bool)
    return aligner().speaking(np.stack([mouth.crop for mouth in mouths]), found)
