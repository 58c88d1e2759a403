"""Which task a window gets, and which error an input."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pytest

from omni_avsr.errors import ConfigError, NoAudioError, NoFaceError, NoVideoError
from omni_avsr.transcribe.perception import PATIENCE, allowed, choose, plan, wanted_tasks
from omni_avsr.transcribe.windows import Window
from omni_avsr.types import AudioQuality, MediaInfo, VideoQuality

ALL = ("asr", "vsr", "avsr")
LOUD, ROOM, MUTE = 0.1, 0.003, 0.0


def info(audio: bool = True, video: bool = True) -> MediaInfo:
    return MediaInfo("clip.mp4", "mp4", 3.0, audio, video)


CROPS = np.zeros((75, 96, 96), np.uint8)


def sight(face: float, mouth: float = 40.0, sharpness: float = 0.2, yaw: float = 5.0) -> VideoQuality:
    return VideoQuality(face, mouth, sharpness, yaw, 0.5)


def window(
    face: float = 1.0,
    voice: float = 0.6,
    level: float = LOUD,
    start: float = 0.0,
    by_lips: bool = False,
    snr: float = 20.0,
    clipped: float = 0.0,
    **seen: float,
) -> Window:
    audio = np.full(16_000, level, np.float32)
    hearing = AudioQuality(-20.0, -3.0, snr, voice, float(level == MUTE), clipped)
    return Window(start, start + 3.0, audio, CROPS, hearing=hearing, sight=sight(face, **seen), by_lips=by_lips)


def silent_film(face: float = 1.0, by_lips: bool = True) -> Window:
    return Window(0.0, 3.0, None, CROPS, sight=sight(face), by_lips=by_lips)


def listener() -> Window:
    """The empty window that tells of a face."""
    return Window(9.0, 9.0, None, None, sight=sight(1.0, 0.0, 0.0, 0.0))


# ---- streams ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "audio", "video", "tasks"),
    [
        ("auto", True, True, ("avsr", "asr", "vsr")),
        ("auto", True, False, ("asr",)),
        ("auto", False, True, ("vsr",)),
        ("avsr", True, True, ("avsr", "asr")),
        ("asr", True, True, ("asr",)),
        ("vsr", True, True, ("vsr",)),
    ],
)
def test_tasks_are_those_the_streams_allow(task: str, audio: bool, video: bool, tasks: Sequence[str]) -> None:
    assert allowed(task, ALL, info(audio, video)) == tasks


@pytest.mark.parametrize(
    ("task", "audio", "video", "error"),
    [
        ("asr", False, True, NoAudioError),
        ("avsr", False, True, NoAudioError),
        ("vsr", True, False, NoVideoError),
        ("avsr", True, False, NoVideoError),
    ],
)
def test_a_missing_stream_is_named(task: str, audio: bool, video: bool, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"clip.mp4.*'{task}'"):
        allowed(task, ALL, info(audio, video))


def test_a_model_of_one_task_stays_with_it() -> None:
    assert allowed("auto", ("asr",), info()) == ("asr",)
    with pytest.raises(NoAudioError):
        allowed("auto", ("asr",), info(audio=False))
    with pytest.raises(ConfigError, match="does not perform 'vsr'"):
        wanted_tasks("vsr", ("asr",))


def test_unknown_task_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'avsr'"):
        wanted_tasks("avsrr", ALL)


# ---- windows ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "chosen"),
    [
        (window(), "avsr"),
        (window(face=0.0), "asr"),
        (window(face=0.2), "asr"),
        (window(voice=0.0, level=MUTE, by_lips=True), "vsr"),  # the microphone was off
        (window(voice=0.0, level=MUTE), None),  # and nobody spoke
        (window(snr=-20.0), "avsr"),  # noise and overload leave ear and lips as good as the lips alone
        (window(clipped=0.6), "avsr"),
        (window(face=0.0, snr=-20.0), "asr"),
        (window(mouth=5.0), "asr"),  # too far away
        (window(sharpness=0.03), "asr"),  # out of focus
        (window(yaw=80.0), "asr"),  # from the side
        (window(voice=0.0, level=LOUD), "avsr"),  # a voice may be drowned
        (window(voice=0.0, level=ROOM), None),  # somebody listens
        (window(face=0.0, voice=0.0), None),
        (silent_film(), "vsr"),
        (silent_film(by_lips=False), None),
        (silent_film(face=0.0), None),
        (listener(), None),
    ],
)
def test_auto_hears_reads_or_does_both(seen: Window, chosen: str | None) -> None:
    assert choose(seen, ("avsr", "asr", "vsr"), sure=False) == chosen


def test_a_task_by_name_reads_the_lips_whatever_is_heard() -> None:
    assert choose(window(voice=0.0, level=ROOM), ("avsr", "asr"), sure=True) == "avsr"
    assert choose(window(face=0.0), ("avsr", "asr"), sure=True) == "asr"
    assert choose(window(voice=0.0), ("asr",), sure=True) is None
    assert choose(window(mouth=5.0), ("vsr",), sure=True) == "vsr"
    assert choose(listener(), ("vsr",), sure=True) is None


# ---- files -----------------------------------------------------------------------------------


def planned(windows: list[Window], task: str) -> list[str]:
    return [p.task for p in plan(iter(windows), task, allowed(task, ALL, info()), "clip.mp4")]


@pytest.mark.parametrize("task", ["vsr", "avsr"])
def test_lips_asked_for_and_no_face(task: str) -> None:
    with pytest.raises(NoFaceError, match=r"no face was found in 'clip\.mp4'"):
        planned([window(face=0.0)], task)


def test_a_mute_film_without_a_face() -> None:
    with pytest.raises(NoFaceError):
        list(plan(iter([]), "auto", ("vsr",), "clip.mp4"))


def test_a_mute_film_in_which_a_face_only_listens_says_nothing() -> None:
    assert planned([listener()], "vsr") == []


def test_auto_without_a_face_warns_and_listens(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert planned([window(face=0.0)], "auto") == ["asr"]
    assert "clip.mp4': no face was found, so it was only listened to" in caplog.text


def test_a_face_that_comes_late_loses_no_words() -> None:
    windows = [window(face=0.0), window(face=0.0, start=4.0), window(start=8.0), window(face=0.0, start=12.0)]
    assert planned(windows, "avsr") == ["asr", "asr", "avsr", "asr"]


def test_words_already_given_are_not_taken_back_by_an_error(caplog: pytest.LogCaptureFixture) -> None:
    windows = [window(face=0.0, start=start) for start in (0.0, PATIENCE, 2 * PATIENCE)]
    with caplog.at_level(logging.WARNING):
        assert planned(windows, "avsr") == ["asr"] * 3
    assert "no face was found" in caplog.text


def test_sound_alone_is_no_reason_to_warn(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert planned([window(face=0.0)], "asr") == ["asr"]
    assert caplog.text == ""
