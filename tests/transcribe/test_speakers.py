"""Whose lips are read, and who is named, in windows with several faces."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from omni_avsr.data.dialogue import Script, film, write_script
from omni_avsr.errors import ConfigError
from omni_avsr.media.assets import ensure_face_models
from omni_avsr.media.mouth import Mouth
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.transcribe import recognition
from omni_avsr.transcribe.inputs import open_input
from omni_avsr.transcribe.speakers import Cast, Crowd
from omni_avsr.transcribe.transcriber import Transcriber
from omni_avsr.transcribe.windows import windows
from omni_avsr.types import FPS, SAMPLES_PER_FRAME, Batch, Hypothesis
from tests.clips import video
from tests.media.test_sync import LINES, lips


def people(script: Script, ids: tuple[int, ...]) -> list[dict[int, Mouth]]:
    """The mouths of the script's people under these ids; a crop's grey is its owner's id."""
    openings = [lips(script, place) for place in range(len(ids))]
    crops = {id: np.full((96, 96), id, np.uint8) for id in ids}
    box = np.zeros(4, np.float32)
    return [
        {id: Mouth(crops[id], True, box, 40.0, float(o[t]), 0.0) for id, o in zip(ids, openings, strict=True)}
        for t in range(len(openings[0]))
    ]


@pytest.fixture(scope="module")
def script() -> Script:
    return write_script([(1, LINES[0]), (0, LINES[1]), (None, LINES[2]), (1, LINES[3])], 2, seed=42)


def test_all_gives_each_turn_its_mouth_and_name(script: Script) -> None:
    frames = people(script, (7, 9))
    parts = Cast("all").parts(frames, script.audio)
    ends = np.cumsum([len(part.mouths or ()) for part in parts])
    assert [part.start for part in parts] == [0, *ends[:-1]]
    assert ends[-1] == len(frames)
    for line in script.lines:
        middle = (line.start + line.end) / 2 * FPS
        part = next(p for p, end in zip(parts, ends, strict=True) if middle < end)
        assert part.speaker == {1: "SPEAKER_00", 0: "SPEAKER_01", None: None}[line.speaker]  # in order of speaking
        assert part.mouths is not None
        owners = {int(mouth.crop[0, 0]) for mouth in part.mouths}
        assert owners == {{1: 9, 0: 7, None: 0}[line.speaker]}
        assert all(mouth.found == (line.speaker is not None) for mouth in part.mouths)


def test_active_gives_one_mouth_that_is_always_the_speakers(script: Script) -> None:
    (part,) = Cast("active").parts(people(script, (7, 9)), script.audio)
    assert part.speaker is None
    assert part.mouths is not None
    owners = np.array([int(mouth.crop[0, 0]) for mouth in part.mouths])
    truth = script.speakers()
    assert len(owners) == len(truth)
    assert (owners == np.where(truth == 1, 9, 7))[truth >= 0].mean() > 0.9


def test_names_stay_from_window_to_window(script: Script) -> None:
    frames, cast = people(script, (7, 9)), Cast("all")
    half = round(script.lines[1].end * FPS) + 6
    first = cast.parts(frames[:half], script.audio[: half * SAMPLES_PER_FRAME])
    second = cast.parts(frames[half:], script.audio[half * SAMPLES_PER_FRAME :])
    assert [part.speaker for part in first] == ["SPEAKER_00", "SPEAKER_01"]
    assert second[-1].speaker == "SPEAKER_00"


def test_without_sound_the_lips_alone_tell() -> None:
    script = write_script([(0, LINES[0]), (1, LINES[1])], 2, seed=29)
    parts = Cast("all").parts(people(script, (0, 1)), None)
    spoken = Counter[str | None]()
    for part in parts:
        spoken[part.speaker] += len(part.mouths or ())
    assert spoken["SPEAKER_00"] > FPS
    assert spoken["SPEAKER_01"] > FPS


def test_an_empty_picture_is_one_part_of_nobody(script: Script) -> None:
    for face in ("active", "all"):
        (part,) = Cast(face).parts([{}] * 50, script.audio[: 50 * SAMPLES_PER_FRAME])
        assert (part.start, part.speaker) == (0, None)
        assert part.mouths is not None
        assert len(part.mouths) == 50
        assert not any(mouth.found for mouth in part.mouths)
    (none,) = Cast("active").parts([], np.zeros(0, np.float32))
    assert none.mouths == []


# ---- whole files -----------------------------------------------------------------------------


def black(script: Script) -> np.ndarray:
    """A picture with nothing in it, as long as the script."""
    return np.zeros((round(script.duration * FPS), 32, 32, 3), np.uint8)


def test_windows_are_cut_where_the_speaker_changes(script: Script) -> None:
    media = open_input(audio=script.audio, video=black(script), fps=FPS)
    cut = list(windows(media, Crowd(iter(people(script, (7, 9))), "all"), longest=30.0))[:-1]
    assert [window.speaker for window in cut] == ["SPEAKER_00", "SPEAKER_01", None, "SPEAKER_00"]
    assert [window.start for window in cut[1:]] == [window.end for window in cut[:-1]]
    for window, line in zip(cut, script.lines, strict=True):
        assert window.start - 0.05 <= line.start < line.end <= window.end + 0.05
        assert window.audio is not None
        assert window.crops is not None
        assert len(window.audio) == len(window.crops) * SAMPLES_PER_FRAME
        assert window.face_share == (line.speaker is not None)
    assert np.array_equal(np.concatenate([w.audio for w in cut if w.audio is not None]), script.audio)


def test_segments_say_who_speaks(script: Script, tiny_model: OmniAVSR, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(model: OmniAVSR, batch: Batch, *_: object) -> list[Hypothesis]:
        return [Hypothesis("so", (1,), (-0.1,), -0.1) for _ in range(len(batch))]

    monkeypatch.setattr(recognition, "decode", fake)
    monkeypatch.setattr("omni_avsr.transcribe.transcriber.all_mouths", lambda *_, **__: iter(people(script, (7, 9))))
    monkeypatch.setattr("omni_avsr.media.quality.sharpness", lambda crop: 0.2)
    given = {"audio": script.audio, "video": black(script), "fps": FPS}
    segments, _ = Transcriber(tiny_model).transcribe(**given, face="all")
    assert [(s.speaker, s.av["task"]) for s in segments] == [
        ("SPEAKER_00", "avsr"),
        ("SPEAKER_01", "avsr"),
        (None, "asr"),
        ("SPEAKER_00", "avsr"),
    ]
    segments, _ = Transcriber(tiny_model).transcribe(**given, face="active")
    assert {segment.speaker for segment in segments} == {None}


def test_a_face_that_cannot_be_chosen_is_refused_with_what_can(tiny_model: OmniAVSR) -> None:
    with pytest.raises(ConfigError, match=r"face = 'al' is unknown; did you mean 'all'\? known: active, all, largest"):
        Transcriber(tiny_model).transcribe("nothing.mp4", face="al")


@pytest.mark.slow
def test_two_people_in_a_file(tmp_path: Path, tiny_model: OmniAVSR, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_face_models(offline=True)
    script = write_script(list(zip((0, 1, 1, 0), LINES, strict=True)), 2, seed=23)
    heads = film(script, seed=4)
    path = video(tmp_path / "talk.mkv", heads[0].frames, script.audio)
    monkeypatch.setattr(recognition, "decode", lambda m, b, *_: [Hypothesis("so", (1,), (-0.1,), -0.1)] * len(b))
    segments, _ = Transcriber(tiny_model, offline=True).transcribe(path, face="all")
    found = [(s.av["window"][0], s.speaker) for s in segments]
    assert [speaker for _, speaker in found] == ["SPEAKER_00", "SPEAKER_01", "SPEAKER_00"]
    assert found[1][0] == pytest.approx((script.lines[0].end + script.lines[1].start) / 2, abs=0.4)
    assert found[2][0] == pytest.approx((script.lines[2].end + script.lines[3].start) / 2, abs=0.4)
