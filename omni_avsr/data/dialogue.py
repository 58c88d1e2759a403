"""Several people in one picture who speak in turn: made, so the truth about who said what and when is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from omni_avsr.data.casting import random_face
from omni_avsr.data.sentences import SENTENCES
from omni_avsr.data.speech_synthesis import Phoneme, Voice, random_voice, synthesize
from omni_avsr.data.stage import Scene
from omni_avsr.data.talking_head import Rendered, render_group
from omni_avsr.types import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, Word


@dataclass(frozen=True)
class Line:
    """What one of them said."""

    speaker: int | None  # place from left to right; None = somebody who is not in the picture
    text: str
    start: float  # seconds, of the first word
    end: float  # of the last one
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Script:
    """A conversation as sound and as what the mouths do, before it is filmed."""

    audio: np.ndarray  # (S,) float32, 16 kHz; whole frames
    phonemes: tuple[tuple[Phoneme, ...], ...]  # of each person in the picture, in seconds from the beginning
    lines: tuple[Line, ...]

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.audio) / SAMPLE_RATE

    def speakers(self) -> np.ndarray:
        """(T,) int: who speaks at each frame; -1 = nobody in the picture."""
        out = np.full(round(self.duration * FPS), -1)
        for line in self.lines:
            if line.speaker is not None:
                out[round(line.start * FPS) : round(line.end * FPS)] = line.speaker
        return out


def write_script(
    lines: Sequence[tuple[int | None, str]],
    people: int,
    *,
    seed: int,
    pause: float = 0.5,
    voices: Mapping[int | None, Voice] | None = None,
) -> Script:
    """The people say `lines` one after the other; the same arguments give the same samples.

    Args:
        lines: who (place from left to right, None = out of the picture) says what.
        people: in the picture.
        seed: of voices and manner.
        pause: seconds of silence before, between and after the lines.
        voices: of whom they are given; others are drawn.
    """
    rng = np.random.default_rng(seed)
    casts = {who: random_voice(rng) for who in (*range(people), None)} | dict(voices or {})
    gap = np.zeros(round(pause * FPS) * SAMPLES_PER_FRAME, np.float32)
    parts, spoken, out = [gap], [list[Phoneme]() for _ in range(people)], []
    at = len(gap)
    for number, (who, text) in enumerate(lines):
        respellings = SENTENCES["grid"].respellings
        said = synthesize(text, casts[who], seed=seed + number, respellings=respellings)
        start = at / SAMPLE_RATE
        words = tuple(Word(w.start + start, w.end + start, w.word, w.probability) for w in said.words)
        out.append(Line(who, text, words[0].start, words[-1].end, words))
        if who is not None:
            spoken[who] += [Phoneme(p.start + start, p.end + start, p.name) for p in said.phonemes]
        filled = np.pad(said.audio, (0, -len(said.audio) % SAMPLES_PER_FRAME))
        parts += [filled, gap]
        at += len(filled) + len(gap)
    return Script(np.concatenate(parts), tuple(map(tuple, spoken)), tuple(out))


def film(
    script: Script, *, seed: int, size: tuple[int, int] = (640, 360), scene: Scene | None = None
) -> list[Rendered]:
    """The script on video; one result per person, of the same frames."""
    rng = np.random.default_rng(seed)
    cast = [(phonemes, random_face(rng)) for phonemes in script.phonemes]
    return render_group(cast, script.duration, seed=seed, size=size, scene=scene)
