"""A camera and a microphone through ffmpeg's input devices, which come with PyAV; times are those of the capture."""

from __future__ import annotations

import math
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.container import InputContainer

from omni_avsr.errors import InputError
from omni_avsr.media.clock import AudioClock, Frame, VideoClock, decoded, timestamp

DEFAULT, OFF = "default", "off"
PATIENCE = 15.0  # seconds for the first frame of a device: cameras warm up
WAIT = 0.1  # seconds between two looks at whether a stream was stopped
HELD = 250  # decoded frames that wait for their reader, per stream
APART = 5  # seconds between the first timestamps of two devices beyond which they do not count the same time
FOREVER = Fraction(10**12)  # seconds; a capture has no length that a timestamp could exceed
KINDS = {"audio": "microphone", "video": "camera"}


@dataclass(frozen=True)
class System:
    """How an operating system names its devices to ffmpeg."""

    camera: str  # input format of pictures
    microphone: str  # and of sound
    defaults: dict[str, str]  # kind -> the device meant by 'default'
    names: dict[str, str]  # kind -> what is opened, from a device's name
    both: str = ""  # what is opened for both, where one format gives both on one clock
    options: tuple[tuple[str, str], ...] = ()  # of the camera


SYSTEMS = {
    "linux": System(
        camera="v4l2",
        microphone="alsa",
        defaults={"video": "/dev/video0", "audio": "default"},
        names={"video": "{video}", "audio": "{audio}"},
        options=(("timestamps", "abs"),),  # wall-clock time, as alsa tells, instead of the kernel's own count
    ),
    "darwin": System(
        camera="avfoundation",
        microphone="avfoundation",
        defaults={"video": "0", "audio": "0"},
        names={"video": "{video}:none", "audio": "none:{audio}"},
        both="{video}:{audio}",
        options=(("framerate", "30"),),
    ),
    "win32": System(
        camera="dshow",
        microphone="dshow",
        defaults={},  # the first that is there
        names={"video": "video={video}", "audio": "audio={audio}"},
        both="video={video}:audio={audio}",
    ),
}


class DeviceSource:
    """A camera and a microphone, or one of them; a `LiveSource`.

    Args:
        camera: ffmpeg's name of the device, 'default', or 'off'.
        microphone: likewise.
        system: of `SYSTEMS`; None = this one.

    Raises:
        InputError: both are off, or a device is not there or gives nothing.
    """

    def __init__(self, camera: str = DEFAULT, microphone: str = DEFAULT, system: System | None = None) -> None:
        wanted = {k: n for k, n in (("video", camera), ("audio", microphone)) if n != OFF}
        if not wanted:
            raise InputError("the camera and the microphone are both off; leave at least one of them on")
        system = system or this_system()
        devices = {kind: _device(kind, name, system) for kind, name in wanted.items()}
        self.name = " and ".join(f"{KINDS[kind]} {name}" for kind, name in devices.items())
        self.has_sound, self.has_picture = "audio" in devices, "video" in devices
        self._stopped = threading.Event()
        self._streams: dict[str, _Stream] = {}
        try:
            for container, kinds in _opened(devices, system):
                streams = {kind: _Stream(self._stopped) for kind in kinds}
                self._streams |= streams
                threading.Thread(target=_read, args=(container, streams, self._stopped), daemon=True).start()
            self._first = {kind: stream.first(KINDS[kind], devices[kind]) for kind, stream in self._streams.items()}
        except BaseException:
            self._stopped.set()
            raise
        self._began, self._closed = time.monotonic(), math.inf

    @property
    def seconds(self) -> float:
        """Since the first frames came, until it was closed."""
        return min(time.monotonic(), self._closed) - self._began

    def sound(self) -> Iterator[np.ndarray]:
        """As the microphone gives it; a gap in its timestamps is silence."""
        clock = AudioClock(self._origin("audio"), self._first["audio"], FOREVER)
        yield from clock.samples(cast(Iterator[av.AudioFrame], iter(self._streams["audio"])), 0)

    def pictures(self) -> Iterator[np.ndarray]:
        """For each 1/25 s the camera's picture nearest to it; a gap in its timestamps repeats the last one."""
        clock = VideoClock(self._origin("video"), FOREVER, Fraction(30), None)
        for _, picture in clock.grid(cast(Iterator[av.VideoFrame], iter(self._streams["video"])), 0):
            yield picture

    def close(self) -> None:
        """Lets go of the devices; what was captured can still be read."""
        self._closed = min(self._closed, time.monotonic())
        self._stopped.set()

    def _origin(self, kind: str) -> Fraction:
        """Seconds of the devices' time at which ours begins: the earlier first frame, if they count the same time."""
        firsts = self._first.values()
        return min(firsts) if max(firsts) - min(firsts) < APART else self._first[kind]


def this_system() -> System:
    """The row of `SYSTEMS` for this machine."""
    if sys.platform not in SYSTEMS:
        raise InputError(f"no way is known to capture on '{sys.platform}'; use --source FILE")
    return SYSTEMS[sys.platform]


def device_names(system: System | None = None) -> dict[str, list[tuple[str, str]]]:
    """'camera' and 'microphone' -> (name, description) of what is there."""
    system = system or this_system()
    _help_alsa()
    found: dict[str, list[tuple[str, str]]] = {}
    for kind, form in (("video", system.camera), ("audio", system.microphone)):
        try:
            devices = av.enumerate_input_devices(form)
        except (ValueError, OSError):  # the format is not built in, or cannot list
            devices = []
        fitting = [d for d in devices if kind in (d.media_types or [kind])]
        found[KINDS[kind]] = [(d.name, d.description or "") for d in fitting]
    return found


# ---- opening and reading ---------------------------------------------------------------------


class _Stream:
    """Decoded frames of one stream on their way from the thread that reads the device."""

    def __init__(self, stopped: threading.Event) -> None:
        self._frames: queue.Queue[Frame] = queue.Queue(HELD)
        self._stopped, self._ended = stopped, threading.Event()
        self._begun: Frame | None = None

    def first(self, what: str, name: str) -> Fraction:
        """The timestamp of the first frame, in seconds of the device's time."""
        self._begun = self._next(PATIENCE)
        if self._begun is None:
            raise InputError(f"the {what} '{name}' gives nothing; omni-avsr live --list_devices names what there is")
        return timestamp(self._begun) or Fraction(0)

    def put(self, frame: Frame) -> None:
        """Hands on a frame; waits while the reader is far behind."""
        while not self._stopped.is_set():
            with suppress(queue.Full):
                self._frames.put(frame, timeout=WAIT)
                return

    def end(self) -> None:
        """No more frames will be put."""
        self._ended.set()

    def __iter__(self) -> Iterator[Frame]:
        frame = self._begun
        while frame is not None:
            yield frame
            frame = self._next()

    def _next(self, patience: float = math.inf) -> Frame | None:
        """A frame; None where none will come, or none comes in time."""
        given_up = time.monotonic() + patience
        while time.monotonic() < given_up and not (self._ended.is_set() and self._frames.empty()):
            with suppress(queue.Empty):
                return self._frames.get(timeout=WAIT)
        return None


def _opened(devices: dict[str, str], system: System) -> Iterator[tuple[InputContainer, list[str]]]:
    """Containers, and the kinds of stream that each gives."""
    _help_alsa()
    if system.both and len(devices) == 2:
        yield _container(system.both.format(**devices), system.camera, dict(system.options)), list(devices)
        return
    for kind, form in (("video", system.camera), ("audio", system.microphone)):
        if kind in devices:
            options = dict(system.options) if kind == "video" else {}
            yield _container(system.names[kind].format(**devices), form, options), [kind]


def _container(name: str, form: str, options: dict[str, str]) -> InputContainer:
    try:
        return av.open(name, format=form, options=options)
    except (av.FFmpegError, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"the device '{name}' ({form}) cannot be opened ({reason}); omni-avsr live --list_devices names what is "
            "there, --camera off and --microphone off do without one"
        ) from None


def _device(kind: str, name: str, system: System) -> str:
    if name != DEFAULT:
        return name
    if kind in system.defaults:
        return system.defaults[kind]
    there = device_names(system)[KINDS[kind]]
    if not there:
        raise InputError(f"there is no {KINDS[kind]}; do without it: --{KINDS[kind]} off")
    return there[0][0]


def _read(container: InputContainer, streams: dict[str, _Stream], stopped: threading.Event) -> None:
    """Runs in a thread of its own until the device ends or the source is closed."""
    try:
        with container:
            chosen = [next(iter(getattr(container.streams, kind))) for kind in streams]
            for frame in decoded(container, chosen, "the device"):
                if stopped.is_set():
                    break
                streams["audio" if isinstance(frame, av.AudioFrame) else "video"].put(frame)
    finally:
        for stream in streams.values():
            stream.end()


def _help_alsa() -> None:
    """PyAV's own copy of alsa-lib looks for the system's files where it was built; it is told where they are."""
    places = {
        "ALSA_CONFIG_PATH": Path("/usr/share/alsa").glob("alsa.conf"),
        "ALSA_PLUGIN_DIR": Path("/usr/lib").glob("*/alsa-lib"),
    }
    for variable, found in places.items():
        path = next(found, None)
        if path is not None:
            os.environ.setdefault(variable, str(path))
