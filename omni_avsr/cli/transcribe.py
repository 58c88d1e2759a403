"""`omni-avsr transcribe FILE|DIR...`: each file on its own; one that fails is reported, the rest go on."""

from __future__ import annotations

import glob
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omni_avsr.cli.options import BatchSize, BeamSize, Device, Model, Offline, Out, Verbose
from omni_avsr.errors import ConfigError, OmniAVSRError
from omni_avsr.transcribe.subtitles import WRITERS, formats, output_stems, save, timestamp

if TYPE_CHECKING:
    from omni_avsr.transcribe.transcriber import Request, Transcriber
    from omni_avsr.types import Segment, TranscriptionInfo

log = logging.getLogger("omni_avsr.cli")


@dataclass(frozen=True)
class Job:
    """One file and where its outputs go."""

    source: Path
    stem: str


def transcribe(
    inputs: Annotated[list[str], typer.Argument(metavar="FILE|DIR...", help="Audio or video files, folders, globs.")],
    model: Model = "default",
    task: Annotated[
        str,
        typer.Option("--task", metavar="auto|asr|vsr|avsr", help="Listen, read lips, or both; auto = what is there."),
    ] = "auto",
    audio_rate: Annotated[
        int | None,
        typer.Option("--audio_rate", min=1, show_default="the finest", help="Audio frames (50/s) per token."),
    ] = None,
    video_rate: Annotated[
        int | None,
        typer.Option("--video_rate", min=1, show_default="the finest", help="Video frames (25/s) per token."),
    ] = None,
    beam_size: BeamSize = 5,
    device: Device = "auto",
    batch_size: BatchSize = 8,
    output_dir: Out = Path("."),
    output_format: Annotated[
        str, typer.Option("--output_format", "-f", metavar="|".join((*WRITERS, "all")), help="What is written.")
    ] = "all",
    word_timestamps: Annotated[
        bool, typer.Option("--word_timestamps/--no_word_timestamps", help="Time of every word.")
    ] = False,
    face: Annotated[str, typer.Option("--face", metavar="largest|x,y,w,h", help="Which of several faces.")] = "largest",
    save_crops: Annotated[
        Path | None, typer.Option("--save_crops", metavar="DIR", help="Keep what the model saw, as small videos.")
    ] = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip_existing/--no_skip_existing", help="Leave files alone whose outputs are all there.")
    ] = False,
    offline: Offline = False,
    verbose: Verbose = False,
) -> None:
    """Turn speech into text: subtitles, JSON and plain text, from any audio or video file."""
    kinds = formats(output_format)
    jobs = find_jobs(inputs)
    if skip_existing:
        jobs = [job for job in jobs if not all((output_dir / f"{job.stem}.{kind}").exists() for kind in kinds)]
    if not jobs:
        log.warning("nothing to do: every output exists already")
        return
    from omni_avsr.transcribe.transcriber import Request, Transcriber

    request = Request(task, audio_rate, video_rate, beam_size, face, batch_size, word_timestamps, save_crops)
    transcriber = Transcriber(model, device=device, offline=offline)
    transcriber.check(request)
    failed = sum(not _attempt(transcriber, job, request, output_dir, kinds, verbose) for job in jobs)
    if failed:
        typer.echo(f"{failed} of {len(jobs)} files failed", err=True)
        raise typer.Exit(1)


def find_jobs(inputs: Sequence[str]) -> list[Job]:
    """Files, the media in folders (at any depth) and what globs match, each once, with names that do not collide.

    Raises:
        ConfigError: a folder without media, or a pattern that matches nothing.
    """
    found: dict[Path, Path] = {}
    for text in inputs:
        for path in _expand(text):
            found.setdefault(path.resolve(), path)
    sources = list(found.values())
    return [Job(source, stem) for source, stem in zip(sources, output_stems(sources), strict=True)]


def _expand(text: str) -> list[Path]:
    path = Path(text).expanduser()
    if path.is_dir():
        files = _media_in(path)
        if not files:
            raise ConfigError(f"'{text}' holds no audio or video file; give a folder with media, or the files")
        return files
    if path.exists() or not glob.has_magic(text):
        return [path]  # what does not exist is reported when its turn comes; the rest goes on
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    if not matches:
        raise ConfigError(f"'{text}' matches no file")
    return [file for match in matches for file in (_media_in(match) if match.is_dir() else [match])]


def _media_in(folder: Path) -> list[Path]:
    from omni_avsr.data.corpora import AUDIO, VIDEO

    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in AUDIO | VIDEO and p.is_file())


# ---- one file --------------------------------------------------------------------------------


def _attempt(
    transcriber: Transcriber, job: Job, request: Request, folder: Path, kinds: Sequence[str], verbose: bool
) -> bool:
    """Whether the file was transcribed; otherwise one line on standard error says why not."""
    try:
        _transcribe_one(transcriber, job, request, folder, kinds)
    except BrokenPipeError:
        raise
    except (OmniAVSRError, OSError) as error:
        if verbose or os.environ.get("OMNI_AVSR_DEBUG"):
            traceback.print_exc()
        typer.echo(f"failed: {job.source}: {error}", err=True)
        return False
    return True


def _transcribe_one(transcriber: Transcriber, job: Job, request: Request, folder: Path, kinds: Sequence[str]) -> None:
    from omni_avsr.types import Transcript

    if request.save_crops:
        request = replace(request, save_crops=request.save_crops / job.stem)
    segments, info = transcriber.transcribe(job.source, **vars(request))
    done = []
    with _progress(job, info) as advance:
        for segment in segments:
            done.append(segment)
            typer.echo(line(segment))
            advance(segment.end)
    save(Transcript(tuple(done), info), folder, job.stem, kinds)


def line(segment: Segment) -> str:
    """As whisper prints it: [00:00.000 --> 00:02.960] text."""
    return f"[{timestamp(segment.start)} --> {timestamp(segment.end)}] {segment.text}"


@contextmanager
def _progress(job: Job, info: TranscriptionInfo) -> Iterator[Any]:
    """A bar over the file's seconds on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f}%"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    bar = Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal, redirect_stdout=sys.stdout.isatty()
    )
    with bar:
        number = bar.add_task(job.source.name, total=info.duration or None)
        yield lambda seconds: bar.update(number, completed=seconds)
