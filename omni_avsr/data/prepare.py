"""From a corpus on disk to `OUT/manifest.jsonl`: measured, cropped once if asked, divided into splits, reported.

An utterance that cannot be used is dropped, with its reason in `OUT/report.json`; the others go on. Run again
after an interruption: finished mouth files are found by their notes and not made twice, and what a listener heard
stands in its journal. The manifest is written last, and is the same however often the way there was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from omni_avsr.data.corpora import Dropped, assign_splits, folder, grid
from omni_avsr.data.filters import sift
from omni_avsr.data.intake import Outcome, PrepareOptions, drop, file_name, finish, resumed, shared_detector
from omni_avsr.data.labels import Ear
from omni_avsr.data.listener import Listener
from omni_avsr.data.lrs import lrs2, lrs3
from omni_avsr.data.manifest import MANIFEST, Row, by_split, check_splits, write_manifest
from omni_avsr.data.mouth_store import CODECS
from omni_avsr.data.muavic import muavic
from omni_avsr.data.normalize import basic
from omni_avsr.data.pool import cores, each
from omni_avsr.data.synthetic import corpus_rows
from omni_avsr.errors import ConfigError, DataError, nearest
from omni_avsr.media.face import face_policy
from omni_avsr.types import FPS

logger = logging.getLogger(__name__)

REPORT = "report.json"
ENDS = 1 << 16  # bytes of a file's beginning and end that tell it from others


def prepare(kind: str, root: str | Path, out: str | Path, listener: Listener | None = None, **options: Any) -> Path:
    """Prepares the corpus under `root`.

    Args:
        kind: row of `PREPARERS`.
        out: folder for manifest.jsonl, report.json and, with mouths=True, mouths/.
        listener: labels what has no transcript, and doubts transcripts (`max_wer`); None = neither.
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
    ear = None if listener is None else Ear(listener, out)
    rows, dropped = _distinct(PREPARERS[kind](root))
    if ear is not None:
        rows, unheard = _distinct(ear.label(rows))
        dropped += unheard
    if not rows and not dropped:
        raise DataError(f"'{root}' holds nothing for 'prepare {kind}'; expected media files, or a CSV file of paths")
    out.mkdir(parents=True, exist_ok=True)
    outcomes = {outcome.id: outcome for outcome in _finished(rows, out, chosen)}
    ordered = [outcomes[row.id] for row in rows]
    passed, refused = sift(ordered, chosen, ear)
    dropped += refused
    kept = assign_splits(passed, chosen.dev_share, chosen.test_share, chosen.split_by)
    report = _report(kind, root, kept, dropped, ordered, time.monotonic() - started)
    report["pseudo_labelled"] = sum(1 for row in kept if ear is not None and row.id in ear.labelled)
    (out / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if not kept:
        raise DataError(f"none of {len(dropped)} utterances in '{root}' can be used; reasons are in '{out / REPORT}'")
    check_splits(by_split(kept))
    _say(report, out)
    return write_manifest(out / MANIFEST, kept)


PREPARERS: dict[str, Callable[[Path], Iterable[Row | Dropped]]] = {
    "folder": folder,
    "grid": grid,
    "lrs2": lrs2,
    "lrs3": lrs3,
    "muavic": muavic,
    "synthetic": corpus_rows,
}


# ---- small parts -------------------------------------------------------------------------------


def _finished(rows: Sequence[Row], out: Path, options: PrepareOptions) -> Iterator[Outcome]:
    """Outcomes as they come, under a progress bar."""
    out = out.resolve()
    before = {row.id: outcome for row in rows if (outcome := resumed(row, out, options))}
    if before:
        logger.info("%d of %d mouth files are there already", len(before), len(rows))
    left = [row for row in rows if row.id not in before]
    if options.mouths and left:
        shared_detector(options.offline)  # fetched once, before the processes ask for it
    workers = cores() if options.workers is None else options.workers
    workers = min(workers, len(left) // 8)  # a process takes seconds to start
    outcomes = each(partial(finish, out=out, options=options), left, workers)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not options.progress) as bar:
        task = bar.add_task("mouths" if options.mouths else "measuring", total=len(rows), completed=len(before))
        yield from before.values()
        for row, result in outcomes:
            outcome = result or drop(row, "its process died while reading it (a decoder's crash, or not enough memory)")
            if outcome.dropped:
                logger.warning("dropped '%s': %s", row.id, outcome.dropped.reason)
            bar.advance(task)
            yield outcome


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
    """Rows with ids, store files and media of their own, and what fell out so far.

    The same recording under two names would be trained on and tested with, whatever the split.
    """
    rows: list[Row] = []
    dropped: list[Dropped] = []
    taken: set[str] = set()
    first: dict[str, Path] = {}  # content -> the file that came first
    for item in found:
        if isinstance(item, Dropped):
            dropped.append(item)
            continue
        content = _print(item.media)
        if file_name(item.id) in taken:
            dropped.append(Dropped(item.id, str(item.media), "another row before it has the same id", "double"))
        elif first.setdefault(content, item.media) != item.media:
            reason = f"the same recording as '{first[content]}'"
            dropped.append(Dropped(item.id, str(item.media), reason, "double"))
        else:
            taken.add(file_name(item.id))
            rows.append(item)
    return rows, dropped


@lru_cache(maxsize=4096)
def _print(path: Path) -> str:
    """A fingerprint of a file's content: its size, its first and its last 64 kB."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(ENDS)
        file.seek(max(0, size - ENDS))
        return hashlib.sha256(head + file.read(ENDS)).hexdigest() + f" {size}"


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
        "leakage": _leakage(splits),
        "dropped_by": dict(Counter(d.filter for d in dropped).most_common()),
        "dropped": [asdict(d) for d in dropped],
        "warnings": warnings,
        "seconds": round(seconds, 1),
    }  # fmt: skip


def _leakage(splits: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """What the training split shares with each other one; shared recordings were refused before."""
    train = splits.get("train", ())
    texts, speakers = {basic(row.text) for row in train}, {row.speaker for row in train} - {""}
    return {
        name: {"speakers": len(speakers & {row.speaker for row in rows}),
               "sentences": round(sum(basic(row.text) in texts for row in rows) / len(rows), 4)}
        for name, rows in splits.items() if name != "train"
    }  # fmt: skip


def _say(report: dict[str, Any], out: Path) -> None:
    for warning in report["warnings"]:
        logger.warning("%s", warning)
    examples = {d["filter"]: d["reason"] for d in reversed(report["dropped"])}
    for name, count in report["dropped_by"].items():
        logger.warning("%d utterance(s) dropped (%s), the first one: %s", count, name, examples[name])
    splits = ", ".join(f"{name} {part['rows']}" for name, part in report["splits"].items())
    logger.info("prepared %d utterances (%s) in '%s', %d dropped", report["rows"], splits, out, len(report["dropped"]))
