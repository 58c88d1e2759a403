"""One recording, looked at once and recognised again and again: by ear, by lips, by both, at any rate, in any noise."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omni_avsr.data.noise import NOISES, mix_noise
from omni_avsr.errors import InputError
from omni_avsr.media.features import extract
from omni_avsr.media.mouth import mouths
from omni_avsr.media.reader import open_media, read_clip
from omni_avsr.model.decode import DecodeOptions
from omni_avsr.serve.settings import Limits
from omni_avsr.serve.worker import Worker
from omni_avsr.tasks import TASKS
from omni_avsr.transcribe.perception import MIN_FACE
from omni_avsr.transcribe.recognition import Utterance
from omni_avsr.transcribe.windows import LONGEST
from omni_avsr.transcribe.words import timed_words
from omni_avsr.types import Clip, MediaInfo, Mouths, Segment, Transcript, TranscriptionInfo, Word

QUIET = -30.0  # dB of noise against the voice, at and below which there is none
ALIKE = 0  # seed: the same setting gives the same noise, so that what changes is what was dragged


@dataclass(frozen=True)
class Recording:
    """What there is to hear and to see."""

    info: MediaInfo
    audio: np.ndarray | None  # (S,) float32, 16 kHz
    mouths: Mouths | None
    lasts: float  # seconds that are used

    @property
    def cut(self) -> bool:
        """Whether it is longer than what is used."""
        return self.info.duration > self.lasts + 1

    def lacks(self, task: str) -> str:
        """Why `task` cannot be done; empty where it can."""
        for modality in TASKS[task].modalities:
            if modality == "audio" and (self.audio is None or not len(self.audio)):
                return "no sound was recorded"
            if modality == "video" and self.mouths is None:
                return "there is no picture"
            if modality == "video" and self.mouths is not None and self.mouths.share < MIN_FACE:
                return f"a face was found in {self.mouths.share:.0%} of the pictures"
        return ""


@dataclass(frozen=True)
class Answer:
    """What one task makes of a recording; `problem` says why it made nothing."""

    task: str
    text: str = ""
    words: tuple[Word, ...] = ()
    tokens: int = 0  # that the language model read
    seconds: float = 0.0  # from features to text
    problem: str = ""


def look(path: Path, limits: Limits, offline: bool) -> tuple[Recording, Clip]:
    """Reads the first `windows.LONGEST` seconds and finds the mouth.

    Returns:
        What recognition needs, and the clip, for showing.

    Raises:
        Refusal: more pixels than allowed.
        MediaError: it cannot be read.
        InputError: there is nothing in it.
    """
    with path.open("rb") as file:
        Limits(limits.bytes, float("inf"), limits.pixels).check(file)
    with open_media(path) as media:
        info = media.info
    clip = read_clip(path, 0.0, LONGEST)
    if clip.audio is None and clip.frames is None:
        raise InputError("the recording is empty")
    found = None if clip.frames is None else mouths(clip.frames, offline=offline)
    return Recording(info, clip.audio, found, min(LONGEST, info.duration)), clip


def in_noise(audio: np.ndarray, level: float, kind: str) -> np.ndarray:
    """`audio` with noise that is `level` dB louder than it; (S,) float32, not clipped.

    Args:
        audio: (S,) float32.
        level: dB; `QUIET` and less = none.
        kind: a row of NOISES that needs no other voices.
    """
    if level <= QUIET:
        return audio
    rng = np.random.default_rng(ALIKE)
    return mix_noise(audio, NOISES[kind](len(audio), rng, None), -level)


def answers(
    worker: Worker,
    recording: Recording,
    audio: np.ndarray | None,
    tasks: Sequence[str],
    rates: Mapping[str, int],
    options: DecodeOptions,
) -> Iterator[Answer]:
    """One answer per task, each when it is ready.

    Args:
        worker: with a model.
        recording: of `look`.
        audio: (S,) float32, what is to be heard instead of the recording's own sound.
        tasks: what is to be done.
        rates: modality -> rate, for both.
        options: of the search.
    """
    assert worker.model is not None
    crops = None if recording.mouths is None else recording.mouths.crops
    for task in tasks:
        problem = recording.lacks(task)
        if problem:
            yield Answer(task, problem=problem)
            continue
        began = time.perf_counter()
        modalities = TASKS[task].modalities
        features = extract(
            audio if "audio" in modalities else None,
            crops if "video" in modalities else None,
            worker.model.config.preprocess,
        )
        own: dict[str, int] = {modality: rates[modality] for modality in modalities}
        (future,) = worker.submit([Utterance(features, task, own)], options)
        found = future.result()
        seconds = time.perf_counter() - began
        timed = timed_words(
            found.words,
            0.0,
            audio if "audio" in modalities else None,
            crops if "video" in modalities else None,
            recording.mouths.found if recording.mouths is not None and "video" in modalities else None,
        )
        words = tuple(Word(w.start, w.end, f" {w.said.text}", w.said.probability) for w in timed)
        text = " ".join(word.said.text for word in timed)
        yield Answer(task, text, words, sum(found.tokens.values()), seconds)


def transcript(recording: Recording, answer: Answer, rates: Mapping[str, int]) -> Transcript:
    """An answer as the writers write it."""
    info = TranscriptionInfo(
        recording.info.duration, answer.task, rates.get("audio"), rates.get("video"), media=recording.info
    )
    segment = Segment(0, 0.0, recording.lasts, answer.text, words=answer.words or None)
    return Transcript((segment,) if answer.text else (), info)
