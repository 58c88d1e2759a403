"""`omni-avsr live`: microphone and camera in, captions out; Ctrl-C ends it and finishes what was begun."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omni_avsr.cli.logs import watched
from omni_avsr.cli.options import (
    AudioRate,
    BeamSize,
    ComputeType,
    Device,
    Face,
    Fast,
    Hotwords,
    Model,
    Offline,
    Task,
    VideoRate,
    choices,
)
from omni_avsr.cli.transcribe import line
from omni_avsr.transcribe.subtitles import WRITERS, formats, save

if TYPE_CHECKING:
    from rich.console import RenderableType

    from omni_avsr.live.session import Session, State
    from omni_avsr.live.sources import LiveSource
    from omni_avsr.types import Segment

BEHIND = 1.5  # seconds from which the delay is worth saying
QUIETEST = -60.0  # decibels of full scale at the left end of the level


def live(
    camera: Annotated[str, typer.Option(metavar="default|off|NAME", help="Where pictures come from.")] = "default",
    microphone: Annotated[str, typer.Option(metavar="default|off|NAME", help="Where sound comes from.")] = "default",
    source: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Play a file instead, as if it were captured now.")
    ] = None,
    speed: Annotated[float, typer.Option(min=0.0, help="Of --source: 1 = real time, 0 = without waiting.")] = 1.0,
    list_devices: Annotated[bool, typer.Option("--list_devices", help="Name what there is, and end.")] = False,
    model: Model = "default",
    task: Task = "auto",
    audio_rate: AudioRate = None,
    video_rate: VideoRate = None,
    beam_size: BeamSize = 5,
    device: Device = "auto",
    face: Face = "largest",
    hotwords: Hotwords = "",
    output_dir: Annotated[
        Path | None, typer.Option("--output_dir", "-o", metavar="DIR", help="Also write the captions when it ends.")
    ] = None,
    output_format: Annotated[
        str, typer.Option("--output_format", "-f", **choices(*WRITERS, "all"), help="What is written.")
    ] = "all",
    compute_type: ComputeType = "default",
    fast: Fast = False,
    offline: Offline = False,
) -> None:
    """Caption what is said now, by microphone and camera. Nothing is stored but what -o asks for."""
    if list_devices:
        _list()
        return
    kinds = formats(output_format)
    from omni_avsr.live.devices import OFF, DeviceSource
    from omni_avsr.live.session import Session, modalities
    from omni_avsr.live.sources import FileSource
    from omni_avsr.transcribe.transcriber import Request, Transcriber

    request = Request(task, audio_rate, video_rate, beam_size, face, hotwords=hotwords)
    transcriber = Transcriber(model, device=device, offline=offline, compute_type=compute_type, fast=fast)
    transcriber.check(request)
    used = modalities(task, transcriber)
    camera, microphone = camera if "video" in used else OFF, microphone if "audio" in used else OFF
    capture: LiveSource = FileSource(source, speed) if source else DeviceSource(camera, microphone)
    typer.echo(f"{capture.name}; Ctrl-C ends", err=True)
    session = Session(capture, transcriber, request)
    with _stopped_by_ctrl_c(session):
        segments, seconds = _follow(session)
    if output_dir is not None:
        from omni_avsr.types import Transcript, TranscriptionInfo

        info = TranscriptionInfo(seconds, task, audio_rate, video_rate)
        for path in save(Transcript(tuple(segments), info), output_dir, _stem(source), kinds):
            typer.echo(f"written: {path}", err=True)


def _stem(source: Path | None) -> str:
    from datetime import datetime

    return source.stem if source else f"live-{datetime.now():%Y%m%d-%H%M%S}"


def _list() -> None:
    from omni_avsr.live.devices import device_names

    for kind, devices in device_names().items():
        typer.echo(f"{kind}s:" if devices else f"{kind}s: none")
        for name, description in devices:
            typer.echo(f"  {name}  {description}".rstrip())


@contextmanager
def _stopped_by_ctrl_c(session: Session) -> Iterator[None]:
    """The first Ctrl-C stops the capture, the second everything."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def stop(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        session.stop()

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# ---- what is on the screen -------------------------------------------------------------------


def _follow(session: Session) -> tuple[list[Segment], float]:
    """All final segments, shown as they come, and the seconds that were captured."""
    segments: list[Segment] = []
    seconds = 0.0
    with _screen() as show:
        for state in session.states():
            for segment in state.update.finals:
                segments.append(segment)
                typer.echo(line(segment))
            show(state)
            seconds = state.captured
    return segments, seconds


@contextmanager
def _screen() -> Iterator[Callable[[State], None]]:
    """What goes on, redrawn below the finished lines; nothing where nobody watches."""
    if not (watched() and sys.stdout.isatty()):
        yield lambda state: None
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(), transient=True, refresh_per_second=8) as screen:
        yield lambda state: screen.update(picture(state))


def picture(state: State) -> RenderableType:
    """Two lines: what is being said, the part that may still change dim; and what is captured."""
    from rich.console import Group
    from rich.text import Text

    update = state.update
    words = Text.assemble((update.stable, "bold"), " " if update.stable else "", (update.tentative, "dim italic"))
    minutes, seconds = divmod(int(state.captured), 60)
    status = Text.assemble(("● ", "red"), f"{minutes:02d}:{seconds:02d}  ", _level(state.level))
    if state.face is not None:
        status.append("  face " + ("seen" if state.face else "not seen"), "green" if state.face else "yellow")
    if state.behind > BEHIND:
        status.append(f"  {state.behind:.0f} s behind", "yellow")
    return Group(words, status)


def _level(level: float) -> str:
    """A bar of ten for root mean square `level`."""
    import math

    decibels = 20 * math.log10(max(level, 1e-9))
    filled = round(10 * min(max(1 - decibels / QUIETEST, 0.0), 1.0))
    return "▮" * filled + "▯" * (10 - filled)
