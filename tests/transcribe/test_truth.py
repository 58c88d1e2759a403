"""A long file of synthetic speech whose words and times are known, with a recogniser that knows what is said.

What is tested is all around the model: where windows lie, that no word is lost or doubled by cuts, and that times
stay right after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest

from omni_avsr.data.dialogue import write_script
from omni_avsr.data.synthetic import utterances
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.transcribe import recognition as module
from omni_avsr.transcribe import transcriber as rooms
from omni_avsr.transcribe.transcriber import Transcriber
from omni_avsr.types import FPS, SAMPLE_RATE, Batch, Hypothesis, Word
from tests.media.test_sync import LINES
from tests.transcribe.test_speakers import people


def talk(pauses: Sequence[float], grammar: str = "phrases", seed: int = 31) -> tuple[np.ndarray, list[Word]]:
    """Sentences with a pause after each, and all their words on the clock of the whole."""
    parts, words, now = [], [], 0.0
    for pause, utterance in zip(pauses, islice(utterances(grammar, seed=seed), len(pauses)), strict=True):
        first, last = utterance.words[0].start, utterance.words[-1].end
        spoken = utterance.audio[round(first * SAMPLE_RATE) : round(last * SAMPLE_RATE)]
        words += [replace(w, start=w.start - first + now, end=w.end - first + now) for w in utterance.words]
        hush = np.random.default_rng(len(words)).standard_normal(round(pause * SAMPLE_RATE)) * 1e-3
        parts += [spoken, hush.astype(np.float32)]
        now += (len(spoken) + len(hush)) / SAMPLE_RATE
    return np.concatenate(parts), words


def knowing(monkeypatch: pytest.MonkeyPatch, truth: list[Word]) -> None:
    """The model says every word that lies in its window, and stammers half of one that is cut off."""

    def decode(model: OmniAVSR, batch: Batch, *_: object) -> list[Hypothesis]:
        out = []
        for row, name in enumerate(batch.ids):
            start = float(name.split()[0])
            end = start + float(batch.audio_lengths[row]) / 50
            inside = [w.word if start <= w.start and w.end <= end else w.word[: len(w.word) // 2] for w in truth
                      if w.end > start + 0.1 and w.start < end - 0.1]  # fmt: skip
            out.append(Hypothesis(" ".join(w for w in inside if w), (), (), -0.1))
        return out

    monkeypatch.setattr(module, "decode", decode)


def said(transcriber: Transcriber, audio: np.ndarray) -> list[Word]:
    segments, _ = transcriber.transcribe(audio, word_timestamps=True, agreement=False)
    found = list(segments)
    assert len(found) > 1
    for before, after in pairwise(found):
        assert before.end <= after.start + 0.021
    return [word for segment in found for word in segment.words or ()]


def test_times_stay_right_after_cuts(tiny_model: OmniAVSR, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = [0.8, 3.0, 1.2, 0.7, 6.0, 1.0, 2.0, 0.9, 1.5, 4.0]
    audio, truth = talk(pauses)
    knowing(monkeypatch, truth)
    words = said(Transcriber(tiny_model), audio)
    assert [w.word.strip() for w in words] == [w.word for w in truth]
    off = np.abs([[a.start - b.start, a.end - b.end] for a, b in zip(words, truth, strict=True)])
    assert np.median(off) <= 0.05
    ends = [i for i in range(len(truth)) if i + 1 == len(truth) or truth[i + 1].start - truth[i].end > 0.5]
    starts = [0, *(i + 1 for i in ends[:-1])]
    assert max(off[i, 0] for i in starts) <= 0.1
    assert max(off[i, 1] for i in ends) <= 0.1


def test_speech_without_pauses_keeps_every_word(tiny_model: OmniAVSR, monkeypatch: pytest.MonkeyPatch) -> None:
    audio, truth = talk([0.02] * 9)
    assert len(audio) / SAMPLE_RATE > 14
    knowing(monkeypatch, truth)
    monkeypatch.setattr(rooms, "LONGEST", 8.0)
    words = said(Transcriber(tiny_model), audio)
    assert [w.word.strip() for w in words] == [w.word for w in truth]
    off = np.abs([[a.start - b.start, a.end - b.end] for a, b in zip(words, truth, strict=True)])
    assert np.median(off) <= 0.05


def test_two_people_take_turns_and_each_keeps_their_words(
    tiny_model: OmniAVSR, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [(1, LINES[0]), (0, LINES[1]), (1, LINES[2]), (0, LINES[3]), (1, LINES[1])]
    script = write_script(lines, 2, seed=42, pause=0.12)
    truth = [
        (f"SPEAKER_0{1 - who}", word) for (who, _), line in zip(lines, script.lines, strict=True) for word in line.words
    ]
    knowing(monkeypatch, [word for _, word in truth])
    monkeypatch.setattr(rooms, "all_mouths", lambda *_, **__: iter(people(script, (7, 9))))
    monkeypatch.setattr("omni_avsr.media.quality.sharpness", lambda crop: 0.2)
    black = np.zeros((round(script.duration * FPS), 32, 32, 3), np.uint8)
    for longest in (30.0, 7.0, 6.0):  # whole, and cut at different places
        monkeypatch.setattr(rooms, "LONGEST", longest)
        segments, _ = Transcriber(tiny_model).transcribe(
            audio=script.audio, video=black, fps=FPS, face="all", word_timestamps=True, agreement=False
        )
        found = [(s.speaker, word) for s in segments for word in s.words or ()]
        assert [(who, w.word.strip()) for who, w in found] == [(who, w.word) for who, w in truth]
        off = [[a.start - b.start, a.end - b.end] for (_, a), (_, b) in zip(found, truth, strict=True)]
        assert np.median(np.abs(off)) <= 0.06
