"""Sentences by speech programs: a manifest that training reads, whatever program speaks."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from omni_avsr.data.manifest import read_manifest
from omni_avsr.types import FPS, SAMPLE_RATE
from scripts import speak

PROGRAM = "import numpy, soundfile, sys; soundfile.write(sys.argv[1], numpy.pad(numpy.ones(8000) / 2, 4000), 8000)"


@pytest.mark.parametrize("cast", speak.CASTS)
def test_a_cast_speaks_by_turns(cast, tmp_path, monkeypatch):
    made = {name: lambda *arguments: [sys.executable, "-c", PROGRAM, arguments[-1]] for name in speak.PROGRAMS}
    monkeypatch.setattr(speak, "PROGRAMS", made)
    monkeypatch.setattr(sys, "argv", ["speak.py", cast, "3", "-o", str(tmp_path), "--seed", "4"])
    speak.main()
    rows = read_manifest(tmp_path / "manifest.jsonl")
    assert [row.speaker for row in rows] == list(speak.CASTS[cast][:3])
    assert {row.split for row in rows} == {speak.SPLITS[cast]}
    assert len({row.text for row in rows}) == 3
    for row in rows:
        audio, rate = soundfile.read(row.media)
        assert rate == SAMPLE_RATE
        assert row.frames == len(audio) * FPS // SAMPLE_RATE
        loud = np.flatnonzero(np.abs(audio) > 0.1)
        assert abs(loud[-1] - loud[0] - SAMPLE_RATE) < SAMPLE_RATE // 50  # the program's silence is gone


def test_a_program_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(speak, "PROGRAMS", dict.fromkeys(speak.PROGRAMS, lambda *arguments: ["no-such-program"]))
    with pytest.raises(SystemExit, match=r"'flite slt' cannot speak: .*no-such-program.*--root"):
        speak.spoken("flite slt", "bin blue", 1.0, 1.0, Path("/"))


def test_what_is_trained_on_measures_nothing():
    assert not set(speak.CASTS["met"]) & set(speak.CASTS["unmet"])
    assert {speaker.split()[0] for cast in speak.CASTS.values() for speaker in cast} == set(speak.PROGRAMS)


def test_letters_are_read_as_letters():
    assert [speak.respelled(word, "flite") for word in ("bin", "a", "z", "f")] == ["bin", "ay", "zed", "F"]
    assert speak.respelled("a", "mbrola") == "eigh"
