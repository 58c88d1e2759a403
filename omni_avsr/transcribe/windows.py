"""A file as windows that a model can take: by voice where there is sound, by the face where there is none.

Sound is read twice, once to find the voice and once per window, and faces are followed through every frame: memory
is one window, however long the file is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from omni_avsr.media.mouth import Mouth
from omni_avsr.media.speech import SpeechOptions, speech_spans
from omni_avsr.media.speech import windows as speech_windows
from omni_avsr.transcribe.inputs import Media
from omni_avsr.types import FPS, MOUTH_SIZE, SAMPLE_RATE, Speech

LONGEST = 15.0  # seconds; utterances of the corpora that models are trained on are shorter
JOIN = 0.5  # seconds of silence between two stretches of speech that still are one window
MARGIN = 2.0  # seconds of silence at the ends of a short file that stay in its windows
FACELESS = 25  # frames without the face after which a silent window ends
LACKING = 5  # frames by which a video may be shorter than the sound before it counts as over
STILL = 5  # frames over which lip movement is averaged to find the best place for a cut
# Whole clips are kept or dropped as one, so even a voice at -5 dB must count: noise alone stays below 0.1.
KEEN = SpeechOptions(threshold=0.2)
MUTE, DROWNED = 1e-3, 1e-2  # root mean square of full scale: nothing was recorded; something louder than a quiet room


@dataclass(frozen=True)
class Window:
    """A stretch of the file, and what there is to hear and see in it."""

    start: float  # seconds
    end: float
    audio: np.ndarray | None  # (S,) float32, 16 kHz
    crops: np.ndarray | None  # (T, 96, 96) uint8; None where nobody looked
    face_share: float = 0.0  # share of frames with the face
    voice_share: float = 0.0  # share of the time with a voice

    @property
    def level(self) -> float:
        """Root mean square of the sound, 1 = full scale; 0 without sound."""
        return 0.0 if self.audio is None or not len(self.audio) else float(np.sqrt(np.square(self.audio).mean()))


class Eyes:
    """The mouth of one face, read forward through a file."""

    def __init__(self, mouths: Iterator[Mouth]) -> None:
        self._mouths = mouths
        self._position = 0

    def look(self, start: float, end: float) -> tuple[np.ndarray, np.ndarray]:
        """Crops (T, 96, 96) uint8 and where the face was found (T,) bool; what lies before is passed over.

        Fewer than (end - start) * 25 frames where the video is over.
        """
        first, last = round(start * FPS), round(end * FPS)
        next(islice(self._mouths, first - self._position, first - self._position), None)
        seen = list(islice(self._mouths, last - first))
        self._position = last
        crops = np.stack([m.crop for m in seen]) if seen else np.zeros((0, MOUTH_SIZE, MOUTH_SIZE), np.uint8)
        return crops, np.array([m.found for m in seen], bool)

    def __iter__(self) -> Iterator[Mouth]:
        return self._mouths


# ---- by ear ----------------------------------------------------------------------------------


def heard(media: Media, eyes: Eyes | None, longest: float = LONGEST) -> Iterator[Window]:
    """Windows around the voice; a short file keeps its silence at both ends.

    Where nobody is heard: a short file is one window all the same, since the voice may be drowned; of a long one
    that is mute, the windows are those in which the face is seen.

    Args:
        media: with sound.
        eyes: of the same file, to see the mouth in each window; None = sound only.
        longest: seconds.
    """
    beginning = _read(media, 0.0, longest + 1)
    if len(beginning) <= longest * SAMPLE_RATE:
        total = max(len(beginning) / SAMPLE_RATE, min(media.info.duration, longest))
        for voice in _widened(list(speech_windows(beginning, longest, join=JOIN, options=KEEN)), total):
            samples = slice(round(voice.start * SAMPLE_RATE), round(voice.end * SAMPLE_RATE))
            yield _window(voice.start, voice.end, beginning[samples], eyes)
        return
    meter = _Meter(media.audio_blocks())
    empty = True
    for voice in speech_windows(meter, longest, join=JOIN):
        empty = False
        start, end = _snap(voice.start), _snap(voice.end)
        yield _window(start, end, _read(media, start, end), eyes)
    if empty and eyes is not None and meter.level < MUTE:
        yield from seen(eyes, longest)


def _widened(voices: list[Speech], total: float) -> Iterator[Speech]:
    """The windows of a file of `total` seconds, the outer ones with the silence beside them; one if there are none."""
    if not voices:
        voices = [Speech(0.0, total)]
    for number, voice in enumerate(voices):
        first, last = number == 0, number == len(voices) - 1
        start = 0.0 if first and voice.start <= MARGIN else _snap(voice.start)
        end = total if last and total - voice.end <= MARGIN else _snap(voice.end)
        yield Speech(start, end)


class _Meter:
    """Blocks of sound on their way, and how loud they were."""

    def __init__(self, blocks: Iterator[np.ndarray]) -> None:
        self._blocks = blocks
        self._energy, self._samples = 0.0, 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            self._energy += float(np.square(block, dtype=np.float64).sum())
            self._samples += len(block)
            yield block

    @property
    def level(self) -> float:
        """Root mean square so far, 1 = full scale."""
        return float(np.sqrt(self._energy / max(self._samples, 1)))


def _window(start: float, end: float, audio: np.ndarray, eyes: Eyes | None) -> Window:
    crops, found = eyes.look(start, end) if eyes else (None, np.zeros(0, bool))
    lacking = round((end - start) * FPS) - len(found)
    if crops is not None and lacking > LACKING:  # the video is over; the sound must not be cut with it
        crops = np.concatenate([crops, np.zeros((lacking, MOUTH_SIZE, MOUTH_SIZE), np.uint8)])
    face_share = float(found.sum()) / max((end - start) * FPS, 1)
    voice = sum(span.end - span.start for span in speech_spans(audio, KEEN))
    return Window(start, end, audio, crops, min(face_share, 1.0), min(voice / max(end - start, 1e-6), 1.0))


def _read(media: Media, start: float, end: float) -> np.ndarray:
    blocks = list(media.audio_blocks(start, end))
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _snap(seconds: float) -> float:
    return round(seconds * FPS) / FPS  # sound and picture are cut at the same place


# ---- by eye ----------------------------------------------------------------------------------


def seen(eyes: Eyes, longest: float = LONGEST) -> Iterator[Window]:
    """Windows while the face is seen; a longer stretch is cut where the lips are calmest in its second half."""
    begin, blind = 0, 0
    held: list[Mouth] = []
    for position, mouth in enumerate(eyes):
        blind = 0 if mouth.found else blind + 1
        if not held and mouth.found:
            begin = position
        if held or mouth.found:
            held.append(mouth)
        if held and blind > FACELESS:
            if len(held) > blind:
                yield _visual(begin, held[:-blind])
            held = []
        elif len(held) >= longest * FPS:
            middle = _calmest(held)
            yield _visual(begin, held[:middle])
            begin, held = begin + middle, held[middle:]
    if len(held) > blind:
        yield _visual(begin, held[: len(held) - blind])


def _visual(begin: int, mouths: list[Mouth]) -> Window:
    share = sum(m.found for m in mouths) / len(mouths)
    return Window(begin / FPS, (begin + len(mouths)) / FPS, None, np.stack([m.crop for m in mouths]), share)


def _calmest(mouths: list[Mouth]) -> int:
    """The frame of the second half around which the picture changes least."""
    half = len(mouths) // 2
    crops = np.stack([m.crop for m in mouths[half:]]).astype(np.int16)
    change = np.abs(np.diff(crops, axis=0)).mean((1, 2))
    return half + 1 + int(np.convolve(change, np.ones(STILL), "same")[STILL // 2 : -STILL].argmin()) + STILL // 2
