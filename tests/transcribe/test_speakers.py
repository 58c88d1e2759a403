"""Whose lips are read, and who is named, in windows with several faces."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from omni_avsr.data.dialogue import Script, write_script
from omni_avsr.media.mouth import Mouth
from omni_avsr.transcribe.speakers import Cast
from omni_avsr.types import FPS, SAMPLES_PER_FRAME
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
    assert [part.start for part in parts[1:]] == [part.end for part in parts[:-1]]
    assert (parts[0].start, parts[-1].end) == (0, len(frames))
    for line in script.lines:
        middle = (line.start + line.end) / 2 * FPS
        part = next(p for p in parts if p.start <= middle < p.end)
        assert part.speaker == {1: "SPEAKER_00", 0: "SPEAKER_01", None: None}[line.speaker]  # in order of speaking
        assert len(part.mouths) == part.end - part.start
        owners = {int(mouth.crop[0, 0]) for mouth in part.mouths}
        assert owners == {{1: 9, 0: 7, None: 0}[line.speaker]}
        assert all(mouth.found == (line.speaker is not None) for mouth in part.mouths)


def test_active_gives_one_mouth_that_is_always_the_speakers(script: Script) -> None:
    (part,) = Cast("active").parts(people(script, (7, 9)), script.audio)
    assert part.speaker is None
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
        spoken[part.speaker] += part.end - part.start
    assert spoken["SPEAKER_00"] > FPS
    assert spoken["SPEAKER_01"] > FPS


def test_an_empty_picture_is_one_part_of_nobody(script: Script) -> None:
    for face in ("active", "all"):
        (part,) = Cast(face).parts([{}] * 50, script.audio[: 50 * SAMPLES_PER_FRAME])
        assert (part.start, part.end, part.speaker) == (0, 50, None)
        assert not any(mouth.found for mouth in part.mouths)
    (none,) = Cast("active").parts([], np.zeros(0, np.float32))
    assert none.mouths == ()
