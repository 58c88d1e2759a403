"""`omni-avsr transcribe FILE|DIR...`: each file on its own; one that fails is reported, the rest go on."""

from __future__ import annotations

import glob
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omni_avsr.cli.logs import facts, gathered, watched
from omni_avsr.cli.options import (
    Address,
    Agreement,
    AnyFace,
    AudioRate,
    BatchSize,
    BeamSize,
    Budget,
    ComputeType,
    Device,
    Engine,
    Fast,
    Hotwords,
    Model,
    Offline,
    Out,
    TargetRtf,
    Task,
    VideoRate,
    choices,
)
from omni_avsr.errors import ConfigError, MissingExtraError, nearest, reason
from omni_avsr.transcribe.cues import Lines
from omni_avsr.transcribe.subtitles import WRITERS, formats, output_stems, save, spoken, timestamp

if TYPE_CHECKING:
    from omni_avsr.transcribe.transcriber import Request, Transcriber
    from omni_avsr.types import Segment

log = logging.getLogger("omni_avsr.cli")

_subtitles = partial(typer.Option, rich_help_panel="Lines of srt and vtt (with --word_timestamps)")
Advance = Callable[[float], None]  # seconds of the file that are done


@dataclass(frozen=True)
class Job:
    """One file and where its outputs go."""

    source: Path
    stem: str


@dataclass(frozen=True)
class Outputs:
    """What is written."""

    folder: Path
    kinds: tuple[str, ...]
    lines: Lines

    def paths(self, job: Job) -> list[Path]:
        """The files of a job."""
        return [self.folder / f"{job.stem}.{kind}" for kind in self.kinds]


def transcribe(
    inputs: Annotated[list[str], typer.Argument(metavar="FILE|DIR...", help="Audio or video files, folders, globs.")],
    model: Model = "default",
    task: Task = "auto",
    audio_rate: AudioRate = None,
    video_rate: VideoRate = None,
    beam_size: BeamSize = 5,
    device: Device = "auto",
    compute_type: ComputeType = "default",
    fast: Fast = False,
    batch_size: BatchSize = 8,
    output_dir: Out = Path("."),
    output_format: Annotated[
        str, typer.Option("--output_format", "-f", **choices(*WRITERS, "all"), help="What is written.")
    ] = "all",
    word_timestamps: Annotated[
        bool, typer.Option("--word_timestamps/--no_word_timestamps", help="Time of every word.")
    ] = False,
    max_line_width: Annotated[int | None, _subtitles("--max_line_width", help="Characters in a line.", min=1)] = None,
    max_line_count: Annotated[int | None, _subtitles("--max_line_count", help="Lines in a cue.", min=1)] = None,
    max_words_per_line: Annotated[int | None, _subtitles("--max_words_per_line", help="Words in a cue.", min=1)] = None,
    highlight_words: Annotated[
        bool, _subtitles("--highlight_words/--no_highlight_words", help="Underline the word that is being said.")
    ] = False,
    face: AnyFace = "largest",
    hotwords: Hotwords = "",
    save_crops: Annotated[
        Path | None, typer.Option("--save_crops", metavar="DIR", help="Keep what the model saw, as small videos.")
    ] = None,
    budget: Budget = None,
    target_rtf: TargetRtf = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip_existing/--no_skip_existing", help="Leave files alone whose outputs are all there.")
    ] = False,
    agreement: Agreement = None,
    engine: Engine = "local",
    address: Address = None,
    offline: Offline = False,
) -> None:
    """Turn speech into text: subtitles, JSON and plain text, from any audio or video file."""
    lines = _lines(max_line_width, max_line_count, max_words_per_line, highlight_words, word_timestamps)
    outputs = Outputs(output_dir, formats(output_format), lines)
    jobs = find_jobs(inputs)
    if skip_existing:
        jobs = [job for job in jobs if not all(path.exists() for path in outputs.paths(job))]
    if not jobs:
        log.warning("nothing to do: every output exists already")
        return
    from omni_avsr.transcribe.transcriber import Request

    request = Request(
        task, audio_rate, video_rate, beam_size, face, batch_size, word_timestamps, save_crops, hotwords, agreement
    )
    request = replace(request, budget=budget, target_rtf=target_rtf)
    loading = {"model": model, "device": device, "offline": offline, "compute_type": compute_type, "fast": fast}
    failed = ENGINES[_engine(engine)](jobs, request, outputs, loading, address)
    if failed:
        log.error("%d of %d files failed", failed, len(jobs), extra=facts(failed=failed, files=len(jobs)))
        raise typer.Exit(1)


def _engine(name: str) -> str:
    if name not in ENGINES:
        raise ConfigError(f"unknown engine '{name}'; {nearest(name, ENGINES)}")
    return name


def _here(jobs: Sequence[Job], request: Request, outputs: Outputs, loading: dict[str, Any], address: str | None) -> int:
    """One file after the other in this process; how many failed."""
    from omni_avsr.transcribe.transcriber import Transcriber

    transcriber = Transcriber(**loading)
    transcriber.check(request)
    return _failures(transcriber, jobs, request, outputs)


def _on_ray(
    jobs: Sequence[Job], request: Request, outputs: Outputs, loading: dict[str, Any], address: str | None
) -> int:
    """Many files at once on a cluster; how many failed."""
    try:
        from omni_avsr.scale.ray_batch import Order, transcribe_files
    except ModuleNotFoundError as missing:
        raise MissingExtraError(missing.name or "ray", "scale") from None
    # a worker stands in another folder
    crops = request.save_crops and request.save_crops.resolve()
    folder = Path(loading["model"]).expanduser()
    own = loading | ({"model": str(folder.resolve())} if loading["model"] != "default" and folder.is_dir() else {})
    order = Order(replace(request, save_crops=crops), outputs.folder.resolve(), outputs.kinds, outputs.lines, own)
    found = {job.source.resolve(): job for job in jobs}
    failed = 0
    for outcome in transcribe_files([(path, job.stem) for path, job in found.items()], order, address):
        job = found[outcome.source]
        error, *notes = (said.replace(str(outcome.source), str(job.source)) for said in (outcome.error, *outcome.notes))
        if error:
            failed += 1
            _say_failed(job, error)
            log.debug("%s", outcome.traceback)
            continue
        _say_noted(job, notes)
        typer.echo(str(job.source))
        news = facts(file=job.source, outputs=outputs.paths(job), duration=outcome.duration, seconds=outcome.seconds)
        log.info("done: %s: %.1f s in %.1f s", job.source, outcome.duration, outcome.seconds, extra=news)
    return failed


ENGINES = {"local": _here, "ray": _on_ray}
"""Where files are transcribed."""


def _lines(width: int | None, count: int | None, words: int | None, highlight: bool, timed: bool) -> Lines:
    """The layout; refused or warned of as whisper does, where it could have no effect."""
    lines = Lines(width, count, words, highlight)
    if lines != Lines() and not timed:
        given = next(name for name, value in vars(lines).items() if value)
        raise ConfigError(f"--{given} needs the times of words: add --word_timestamps True")
    if count and not width:
        log.warning("--max_line_count has no effect without --max_line_width")
    if words and not lines.keeps_segments:
        log.warning("--max_words_per_line has no effect beside --max_line_width and --max_line_count")
    return lines


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


def _failures(transcriber: Transcriber, jobs: Sequence[Job], request: Request, outputs: Outputs) -> int:
    """How many of `jobs` failed."""
    failed = 0
    with _bar() as begin:
        for number, job in enumerate(jobs, start=1):
            title = job.source.name if len(jobs) == 1 else f"[{number}/{len(jobs)}] {job.source.name}"
            failed += not _attempt(transcriber, job, request, outputs, partial(begin, title))
    return failed


def _attempt(transcriber: Transcriber, job: Job, request: Request, outputs: Outputs, advance: Advance) -> bool:
    """Whether the file was transcribed. A file with a problem is one line on standard error, whatever it has."""
    try:
        with gathered() as notes:
            _transcribe_one(transcriber, job, request, outputs, advance)
    except BrokenPipeError:
        raise
    except Exception as error:
        _say_failed(job, reason(error), exc_info=True)
        return False
    _say_noted(job, notes)
    return True


def _say_failed(job: Job, error: str, exc_info: bool = False) -> None:
    log.error("failed: %s: %s", job.source, error, exc_info=exc_info, extra=facts(file=job.source, error=error))


def _say_noted(job: Job, notes: Sequence[str]) -> None:
    if notes:
        # what is said of a file names it already; here the name stands in front
        said = [note.removeprefix(f"'{job.source}'").removeprefix(":").strip() for note in dict.fromkeys(notes)]
        log.warning("note: %s: %s", job.source, "; ".join(said), extra=facts(file=job.source, notes=said))


def _transcribe_one(transcriber: Transcriber, job: Job, request: Request, outputs: Outputs, advance: Advance) -> None:
    from omni_avsr.types import Transcript

    began = time.perf_counter()
    advance(0.0)

    def told(seconds: float) -> None:
        advance(seconds / info.duration if info.duration else 0.0)

    segments, info = transcriber.transcribe(job.source, **vars(request.of_file(job.stem)), progress=told)
    done = []
    for segment in segments:
        done.append(segment)
        typer.echo(line(segment))
    paths = save(Transcript(tuple(done), info), outputs.folder, job.stem, outputs.kinds, outputs.lines)
    seconds = round(time.perf_counter() - began, 3)
    news = facts(file=job.source, outputs=paths, segments=len(done), duration=info.duration, seconds=seconds)
    log.info("done: %s: %.1f s in %.1f s", job.source, info.duration, seconds, extra=news)


def line(segment: Segment) -> str:
    """As whisper prints it: [00:00.000 --> 00:02.960] text."""
    text = spoken(segment.speaker, segment.text)
    return f"[{timestamp(segment.start)} --> {timestamp(segment.end)}] {text}"


@contextmanager
def _bar() -> Iterator[Callable[[str, float], None]]:
    """A bar on standard error, where somebody watches it: `show(title, share)` share = how much of a file is done."""
    if not watched():
        yield lambda title, share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("", total=1.0, visible=False)

        def show(title: str, share: float) -> None:
            if share == 0.0:
                bar.reset(task, description=title, visible=True)
            bar.update(task, completed=share)

        yield show
