"""A file played as if it were captured now, and ffmpeg's own test devices in place of a camera and a microphone."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from omni_avsr.errors import InputError, MediaError
from omni_avsr.live.devices import DeviceSource, System, device_names, this_system
from omni_avsr.live.session import Session, State
from omni_avsr.live.sources import FileSource
from omni_avsr.media.mouth import Mouth
from omni_avsr.transcribe.transcriber import Request
from omni_avsr.types import FPS, SAMPLE_RATE
from tests.clips import grey, silence, video, wav
from tests.live.conftest import SPOKEN, Counting

REQUEST = Request(beam_size=1)


@pytest.fixture(autouse=True)
def faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every picture shows a face; no network is needed."""

    def stream(pictures: object, **_: object) -> object:
        return (Mouth(np.zeros((96, 96), np.uint8), True, np.zeros(4, np.float32)) for _ in pictures)  # type: ignore

    monkeypatch.setattr("omni_avsr.live.session.mouth_stream", stream)


def texts(states: list[State]) -> list[str]:
    return [s.text for state in states for s in state.update.finals]


@pytest.mark.parametrize("speed", [0.0, 8.0])
def test_a_file_becomes_captions_at_any_speed(
    tmp_path: Path, talk: np.ndarray, counting: Counting, speed: float
) -> None:
    path = video(tmp_path / "talk.mkv", grey(len(talk) / SAMPLE_RATE), talk)
    source = FileSource(path, speed)
    began = time.monotonic()
    states = list(Session(source, counting, REQUEST).states())  # type: ignore[arg-type]
    found = [s for state in states for s in state.update.finals]
    assert len(found) == len(SPOKEN)
    assert states[-1].update.until == pytest.approx(len(talk) / SAMPLE_RATE, abs=0.1)
    assert states[-1].behind == 0
    assert states[-1].face is True
    if speed:
        assert time.monotonic() - began > 0.9 * len(talk) / SAMPLE_RATE / speed, "it did not wait for its time"


def test_a_slow_model_loses_nothing_and_says_how_far_behind_it_is(
    tmp_path: Path, talk: np.ndarray, counting: Counting
) -> None:
    path = wav(tmp_path / "talk.wav", talk)
    expected = texts(list(Session(FileSource(path, 0.0), counting, REQUEST).states()))  # type: ignore[arg-type]
    quick = counting.transcribe

    def slow(*arguments: object, **options: object) -> object:
        time.sleep(0.5)
        return quick(*arguments, **options)  # type: ignore[arg-type]

    counting.transcribe = slow  # type: ignore[assignment, method-assign]
    states = list(Session(FileSource(path, 10.0), counting, REQUEST).states())  # type: ignore[arg-type]
    assert texts(states) == expected
    assert max(state.behind for state in states) > 2.0


def test_stopping_finishes_what_was_begun(tmp_path: Path, talk: np.ndarray, counting: Counting) -> None:
    source = FileSource(wav(tmp_path / "talk.wav", talk), 4.0)
    session = Session(source, counting, REQUEST)  # type: ignore[arg-type]
    states = []
    for state in session.states():
        states.append(state)
        if state.update.tentative:
            session.stop()
    (segment,) = (s for state in states for s in state.update.finals)
    assert SPOKEN[0][0] - 0.7 < segment.start < segment.end < SPOKEN[0][1]


def test_an_error_of_a_stream_ends_the_session(tmp_path: Path, counting: Counting) -> None:
    source = FileSource(wav(tmp_path / "a.wav", silence(2)), 0.0)

    def broken() -> object:
        yield silence(1)
        raise MediaError("the microphone is gone")

    source.sound = broken  # type: ignore[assignment, method-assign]
    with pytest.raises(MediaError, match="gone"):
        list(Session(source, counting, REQUEST).states())  # type: ignore[arg-type]


def test_only_what_the_task_perceives_is_captured(tmp_path: Path, talk: np.ndarray, counting: Counting) -> None:
    path = video(tmp_path / "talk.mkv", grey(len(talk) / SAMPLE_RATE), talk)
    request = Request(task="asr", beam_size=1)
    states = list(Session(FileSource(path, 0.0), counting, request).states())  # type: ignore[arg-type]
    assert {state.face for state in states} == {None}
    assert all(take.mouths is None for take, _ in counting.takes)
    with pytest.raises(InputError, match="nothing that the task 'vsr' perceives"):
        Session(FileSource(wav(tmp_path / "a.wav", talk)), counting, Request(task="vsr"))  # type: ignore[arg-type]


# ---- devices ---------------------------------------------------------------------------------

TONE = "sine=frequency=440:sample_rate=48000:duration=1.5"
BARS = "testsrc=size=64x48:rate=30:duration=1.5"
APART = System("lavfi", "lavfi", {"video": BARS, "audio": TONE}, {"video": "{video}", "audio": "{audio}"})
BOTH = System("lavfi", "lavfi", {"video": BARS, "audio": TONE}, {}, both="{video}[out0];{audio}[out1]")


@pytest.mark.parametrize("system", [APART, BOTH], ids=["two devices", "one device with both"])
def test_devices_give_both_streams_on_one_clock(system: System) -> None:
    source = DeviceSource(system=system)
    assert (source.has_sound, source.has_picture) == (True, True)
    sound: list[np.ndarray] = []
    listener = threading.Thread(target=lambda: sound.extend(source.sound()))
    listener.start()
    pictures = list(source.pictures())
    listener.join(30)
    samples = np.concatenate(sound)
    assert len(samples) == pytest.approx(1.5 * SAMPLE_RATE, abs=20)
    assert len(pictures) == pytest.approx(1.5 * FPS, abs=1)
    assert pictures[0].shape == (48, 64, 3)
    crossings = int((np.diff(np.signbit(samples[1000:-1000]).astype(int)) != 0).sum())
    assert crossings == pytest.approx(2 * 440 * (len(samples) - 2000) / SAMPLE_RATE, rel=0.01)


def test_one_device_may_be_off(counting: Counting) -> None:
    source = DeviceSource(camera="off", system=APART)
    assert (source.has_sound, source.has_picture) == (True, False)
    assert sum(map(len, source.sound())) == pytest.approx(1.5 * SAMPLE_RATE, abs=20)
    states = list(Session(DeviceSource(microphone="off", system=APART), counting, REQUEST).states())  # type: ignore
    assert states[-1].captured >= 1.5
    with pytest.raises(InputError, match="both off"):
        DeviceSource("off", "off", system=APART)


def test_an_endless_device_ends_when_it_is_closed() -> None:
    endless = System("lavfi", "lavfi", {"audio": "sine"}, {"audio": "{audio}"})
    source = DeviceSource(camera="off", system=endless)
    got = 0
    for samples in source.sound():
        got += len(samples)
        if got > SAMPLE_RATE:
            source.close()
    assert got > SAMPLE_RATE


def test_a_device_that_is_not_there_is_one_sentence() -> None:
    missing = System("lavfi", "lavfi", {"audio": "nosuchfilter"}, {"audio": "{audio}"})
    with pytest.raises(InputError, match=r"'nosuchfilter' \(lavfi\) cannot be opened .* --list_devices"):
        DeviceSource(camera="off", system=missing)
    none = System("lavfi", "lavfi", {}, {"audio": "{audio}"})
    with pytest.raises(InputError, match="there is no microphone; do without it: --microphone off"):
        DeviceSource(camera="off", system=none)
    assert device_names(none) == {"camera": [], "microphone": []}


def test_ffmpegs_devices_of_this_system_are_built_in() -> None:
    system = this_system()
    built_in = {part for name in av.formats_available for part in name.split(",")}
    assert {system.camera, system.microphone} <= built_in
