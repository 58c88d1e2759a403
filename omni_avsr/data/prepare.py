"""From a corpus on disk to `OUT/manifest.jsonl`: measured, cropped once if asked, divided into splits, reported.

An utterance that cannot be used is dropped, with its reason in `OUT/report.json`; the others go on. Run again
after an interruption: finished mouth files are found by their notes and not made twice.
"""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from omni_avsr.data.corpora import Dropped, assign_splits, folder, grid
from omni_avsr.data.manifest import Row, by_split, check_splits, write_manifest
from omni_avsr.data.mouth_store import CODECS, SUFFIX, read_note, write_store
from omni_avsr.data.synthetic import corpus_rows
from omni_avsr.errors import ConfigError, DataError, InputError, NoFaceError, OmniAVSRError, nearest
from omni_avsr.media.face import Detector, face_policy, load_detector
from omni_avsr.media.mouth import TEMPLATE, mouths
from omni_avsr.media.reader import open_media
from omni_avsr.types import FPS, SAMPLES_PER_FRAME

logger = logging.getLogger(__name__)

MANIFEST, REPORT, STORES = "manifest.jsonl", "report.json", "mouths"


@dataclass(frozen=True)
class PrepareOptions:
    """How a corpus is prepared; every field is an option of `omni-avsr prepare`."""

    mouths: bool = False  # cut the mouths out now, once, instead of in every epoch
    face: str = "largest"  # which of several faces (media.face.POLICIES)
    min_face: float = 0.8  # smallest share of frames with a face
    faceless: Literal["drop", "audio"] = "drop"  # what becomes of a video with less: nothing, or a row to listen to
    max_seconds: float = 30.0  # longer utterances are dropped; subtitles would cut them into sentences
    dev_share: float = 0.05  # of the rows that come without a split
    test_share: float = 0.0
    split_by: str = "auto"  # what stays together: speaker, file, row (corpora.SPLIT_UNITS)
    codec: str = "h264"  # of the mouth files: h264 (small) or ffv1 (lossless)
    workers: int | None = None  # processes; None = one per core, 0 = this one
    offline: bool = False  # never fetch the face networks
    progress: bool = False  # a bar on standard error


@dataclass(frozen=True)
class Outcome:
    """What became of one utterance: a row, or the reason why not."""

    id: str
    row: Row | None = None
    dropped: Dropped | None = None
    share: float | None = None  # of frames with a face
    warnings: tuple[str, ...] = field(default=())


def prepare(kind: str, root: str | Path, out: str | Path, **options: Any) -> Path:
    """Prepares the corpus under `root`.

    Args:
        kind: row of `PREPARERS`.
        out: folder for manifest.jsonl, report.json and, with mouths=True, mouths/.
        options: fields of `PrepareOptions`.

    Returns:
        The manifest.

    Raises:
        ConfigError: an unknown kind or option value.
        DataError: no such corpus, or nothing in it can be used.
        AssetError: mouths=True and the face networks are missing and cannot be fetched.
    """
    started = time.monotonic()
    chosen = _options(kind, options)
    root, out = Path(root), Path(out)
    if not root.exists():
        raise DataError(f"'{root}' does not exist; expected the folder of a corpus of kind '{kind}'")
    rows, dropped = _distinct(PREPARERS[kind](root))
    if not rows and not dropped:
        raise DataError(f"'{root}' holds nothing for 'prepare {kind}'; expected media files, or a CSV file of paths")
    out.mkdir(parents=True, exist_ok=True)
    outcomes = {outcome.id: outcome for outcome in _finished(rows, out, chosen)}
    ordered = [outcomes[row.id] for row in rows]
    dropped += [o.dropped for o in ordered if o.dropped]
    kept = assign_splits([o.row for o in ordered if o.row], chosen.dev_share, chosen.test_share, chosen.split_by)
    report = _report(kind, root, kept, dropped, ordered, time.monotonic() - started)
    (out / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if not kept:
        raise DataError(f"none of {len(dropped)} utterances in '{root}' can be used; reasons are in '{out / REPORT}'")
    check_splits(by_split(kept))
    _say(report, out)
    return write_manifest(out / MANIFEST, kept)


PREPARERS: dict[str, Callable[[Path], Iterable[Row | Dropped]]] = {
    "folder": folder,
    "grid": grid,
    "synthetic": corpus_rows,
}


# ---- one utterance -----------------------------------------------------------------------------


def finish(row: Row, out: Path, options: PrepareOptions) -> Outcome:
    """Measures one utterance and, if asked, stores its mouths; whatever is wrong with it becomes a reason."""
    try:
        return _with_mouths(row, out, options) if options.mouths else _measured(row, options)
    except (InputError, DataError) as error:
        return _drop(row, str(error))
    except OmniAVSRError:
        raise  # the set-up is wrong, not this row
    except Exception as error:  # one odd file must not end a run of hours
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise OmniAVSRError(f"no space left for '{out}'; make room and run prepare again: it goes on") from None
        logger.exception("row '%s'", row.id)
        return _drop(row, f"unexpected {type(error).__name__}: {error}")


def _measured(row: Row, options: PrepareOptions) -> Outcome:
    with open_media(row.media) as media:
        seconds = _seconds(row, media.info.duration, options)
    return Outcome(row.id, replace(row, frames=max(1, round(seconds * FPS))))


def resumed(row: Row, out: Path, options: PrepareOptions) -> Outcome | None:
    """The outcome of a row whose mouth file is there, made from the same source with the same options."""
    target = _store_of(row, out)
    note = read_note(target) if options.mouths else None
    same = note is not None and row.media.is_file() and note.get("made_from") == _made_from(row, options)
    return _outcome(row, target, note) if note is not None and same else None


def _with_mouths(row: Row, out: Path, options: PrepareOptions) -> Outcome:
    with open_media(row.media) as media:
        seconds = _seconds(row, media.info.duration, options)
        if not media.info.has_video:
            return Outcome(row.id, replace(row, frames=max(1, round(seconds * FPS))))
        blocks = list(media.audio_blocks(row.start, row.end))
        frames = media.frames(row.start, row.end)
        seen = mouths(frames, face=options.face, detector=_detector(options.offline))
    audio = np.concatenate(blocks) if blocks else None
    crops, found, audio, lost = _level(seen.crops, seen.found, audio)
    share = float(found.mean()) if len(found) else 0.0
    visible = share >= options.min_face
    if not visible and (options.faceless == "drop" or audio is None):
        wanted = f"at least {options.min_face:.0%} is wanted (--min_face)"
        raise NoFaceError(f"a face is in {share:.0%} of {len(found)} frames; {wanted}")
    note = {"made_from": _made_from(row, options), "frames": len(crops), "share": round(share, 4), "lost_frames": lost}
    target = _store_of(row, out)
    write_store(target, crops if visible else None, audio, found if visible else None, note, options.codec)
    return _outcome(row, target, note)


def _outcome(row: Row, store: Path, note: dict[str, Any]) -> Outcome:
    warnings = []
    if note["lost_frames"] > FPS // 2:
        seconds = note["lost_frames"] / FPS
        warnings.append(f"{row.id}: one stream is {seconds:.1f} s longer than the other; cut to the shorter")
    return Outcome(row.id, replace(row, mouths=store, frames=note["frames"]), None, note["share"], tuple(warnings))


def _drop(row: Row, reason: str) -> Outcome:
    return Outcome(row.id, dropped=Dropped(row.id, str(row.media), reason))


def _level(
    crops: np.ndarray, found: np.ndarray, audio: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, int]:
    """Both streams cut to the shorter, and how many frames the longer lost; within one frame nothing is cut."""
    if audio is None or not len(crops):
        return crops, found, audio, 0
    heard = -(-len(audio) // SAMPLES_PER_FRAME)
    frames = min(len(crops), heard)
    return crops[:frames], found[:frames], audio[: frames * SAMPLES_PER_FRAME], max(len(crops), heard) - frames


def _seconds(row: Row, duration: float, options: PrepareOptions) -> float:
    """Length of the row in a file of `duration` seconds."""
    seconds = min(duration, float("inf") if row.end is None else row.end) - row.start
    if seconds <= 0:
        raise DataError(f"the row is {row.start} to {row.end} s, but the file lasts {duration:.2f} s")
    if seconds > options.max_seconds:
        raise DataError(
            f"{seconds:.1f} s long; at most {options.max_seconds:g} s is wanted (--max_seconds): "
            "subtitles beside the file (srt, vtt, json) would cut it into sentences"
        )
    return seconds


def _made_from(row: Row, options: PrepareOptions) -> dict[str, Any]:
    """What decides a store's content; the file's size stands for its bytes."""
    source = {"media": row.media.name, "bytes": row.media.stat().st_size, "start": row.start, "end": row.end}
    knobs = {name: getattr(options, name) for name in ("face", "codec", "min_face", "faceless")}
    return source | knobs | {"template": TEMPLATE}


def _store_of(row: Row, out: Path) -> Path:
    return out / STORES / f"{_file_name(row.id)}{SUFFIX}"


def _file_name(row_id: str) -> str:
    """An id as a path below the stores' folder; folders stay, all else odd is replaced."""
    parts = (re.sub(r"[^\w.\-]", "_", part).lstrip(".") for part in row_id.replace("\\", "/").split("/"))
    return "/".join(part for part in parts if part) or "_"


@cache
def _detector(offline: bool) -> Detector:
    cv2.setNumThreads(1)  # the processes share the cores already
    return load_detector(offline=offline)


# ---- all of them -------------------------------------------------------------------------------


def _finished(rows: Sequence[Row], out: Path, options: PrepareOptions) -> Iterator[Outcome]:
    """Outcomes as they come, under a progress bar."""
    out = out.resolve()
    before = {row.id: outcome for row in rows if (outcome := resumed(row, out, options))}
    if before:
        logger.info("%d of %d mouth files are there already", len(before), len(rows))
    left = [row for row in rows if row.id not in before]
    if options.mouths and left:
        _detector(options.offline)  # fetched once, before the processes ask for it
    work = partial(finish, out=out, options=options)
    workers = _cores() if options.workers is None else options.workers
    outcomes = _in_processes(work, left, workers) if min(workers, len(left)) > 1 else map(work, left)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not options.progress) as bar:
        task = bar.add_task("mouths" if options.mouths else "measuring", total=len(rows))
        for outcome in chain(before.values(), outcomes):
            if outcome.dropped:
                logger.warning("dropped '%s': %s", outcome.dropped.id, outcome.dropped.reason)
            bar.advance(task)
            yield outcome


def _in_processes(work: Callable[[Row], Outcome], rows: Sequence[Row], workers: int) -> Iterator[Outcome]:
    """Every row's outcome, even where a row kills its process (a decoder's crash, no memory)."""
    left, suspects = list(rows), 0
    while left:
        alone = suspects > 0  # one process for one row: if it dies, this row did it
        batch = left[:1] if alone else left
        done = set()
        try:
            for row, outcome in _one_pool(work, batch, 1 if alone else workers):
                done.add(row.id)
                yield outcome
        except BrokenProcessPool:
            if alone:
                done.add(batch[0].id)
                reason = "its process died while reading it (a decoder's crash, or not enough memory)"
                yield _drop(batch[0], reason)
        left = [row for row in left if row.id not in done]
        # Rows start in their order, so the one that killed a pool is among the first that are left.
        suspects = suspects - 1 if alone else 2 * workers + 1


def _one_pool(work: Callable[[Row], Outcome], rows: Sequence[Row], workers: int) -> Iterator[tuple[Row, Outcome]]:
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context)
    try:
        futures: dict[Future[Outcome], Row] = {pool.submit(work, row): row for row in rows}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---- small parts -------------------------------------------------------------------------------


def _options(kind: str, options: dict[str, Any]) -> PrepareOptions:
    if kind not in PREPARERS:
        raise ConfigError(f"cannot prepare '{kind}'; {nearest(kind, PREPARERS)}")
    unknown = set(options) - set(PrepareOptions.__dataclass_fields__)
    if unknown:
        hint = nearest(min(unknown), PrepareOptions.__dataclass_fields__)
        raise ConfigError(f"unknown option '{min(unknown)}'; {hint}")
    chosen = PrepareOptions(**options)
    if chosen.codec not in CODECS:
        raise ConfigError(f"unknown codec '{chosen.codec}'; {nearest(chosen.codec, CODECS)}")
    if chosen.faceless not in ("drop", "audio"):
        raise ConfigError(f"faceless is '{chosen.faceless}'; expected drop or audio")
    face_policy(chosen.face)
    assign_splits([], chosen.dev_share, chosen.test_share, chosen.split_by)
    return chosen


def _distinct(found: Iterable[Row | Dropped]) -> tuple[list[Row], list[Dropped]]:
    """Rows with ids and store files of their own, and what fell out so far."""
    rows: list[Row] = []
    dropped: list[Dropped] = []
    taken: set[str] = set()
    for item in found:
        if isinstance(item, Dropped):
            dropped.append(item)
        elif _file_name(item.id) in taken:
            dropped.append(Dropped(item.id, str(item.media), "another row before it has the same id"))
        else:
            taken.add(_file_name(item.id))
            rows.append(item)
    return rows, dropped


def _report(
    kind: str, root: Path, kept: Sequence[Row], dropped: Sequence[Dropped], outcomes: Sequence[Outcome], seconds: float
) -> dict[str, Any]:
    shares = [o.share for o in outcomes if o.share is not None]
    mute = sum(1 for row in kept if not row.text.strip())
    warnings = [w for o in outcomes for w in o.warnings]
    if mute:
        warnings.append(f"{mute} of {len(kept)} rows have no transcript; training and evaluation leave them out")
    splits = by_split(kept)
    return {
        "kind": kind,
        "root": str(root),
        "rows": len(kept),
        "splits": {
            name: {"rows": len(rows), "hours": round(sum(r.frames for r in rows) / FPS / 3600, 4),
                   "speakers": len({r.speaker for r in rows} - {""})}
            for name, rows in splits.items()
        },
        "mean_face_share": round(float(np.mean(shares)), 4) if shares else None,
        "dropped": [asdict(d) for d in dropped],
        "warnings": warnings,
        "seconds": round(seconds, 1),
    }  # fmt: skip


def _say(report: dict[str, Any], out: Path) -> None:
    for warning in report["warnings"]:
        logger.warning("%s", warning)
    reasons = Counter(re.sub(r"\d[\d.]*", "N", d["reason"])[:80] for d in report["dropped"])
    for reason, count in reasons.most_common(5):
        logger.warning("%d utterance(s) dropped: %s ...", count, reason)
    splits = ", ".join(f"{name} {part['rows']}" for name, part in report["splits"].items())
    logger.info("prepared %d utterances (%s) in '%s', %d dropped", report["rows"], splits, out, len(report["dropped"]))
