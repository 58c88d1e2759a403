"""Manifests: JSON lines, one utterance a row, paths relative to the manifest's folder.

    {"id": "s1/bbaf2n", "media": "s1/bbaf2n.mp4", "text": "bin blue at f two now", "split": "train",
     "speaker": "s1", "mouths": "mouths/s1/bbaf2n.mkv", "frames": 75}

`start`, `end` (seconds in `media`), `audio` (a file of its own with the sound), `mouths` and `frames` may be missing.
Keys not named here are left alone.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from omni_avsr.errors import DataError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.jsonl"  # its name in a prepared folder
REQUIRED = ("id", "media", "text", "split")


@dataclass(frozen=True)
class Row:
    """One utterance: where its signals are, and what is said."""

    id: str
    media: Path  # absolute once read
    text: str
    split: str
    speaker: str = ""
    start: float = 0.0  # seconds in `media`
    end: float | None = None  # seconds; None = to the end of `media`
    mouths: Path | None = None  # file of data.mouth_store with the crops and the audio of this row
    frames: int = 0  # length at 25/s; 0 = not measured
    audio: Path | None = None  # a file of its own with the sound; None = it is in `media`
    shard: str = ""  # path or URL of a tar file that holds the mouth file (data.shards), at
    offset: int = 0  # this byte, with
    size: int = 0  # so many

    @property
    def source(self) -> Path:
        """The file that the row's signals are read from."""
        return self.mouths or self.media


def read_manifest(path: str | Path) -> list[Row]:
    """All rows of a manifest, checked.

    Raises:
        DataError: no such manifest; or, with the row's number: not JSON, a key missing or of the wrong type,
            an id used before, a file that does not exist.
    """
    try:
        lines = manifest_bytes(path).decode("utf-8-sig").split("\n")  # not splitlines: a text may hold U+2028
    except FileNotFoundError:
        raise DataError(f"no manifest '{path}'; make one with: omni-avsr prepare folder ROOT -o OUT") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"manifest '{path}' cannot be read as UTF-8 text: {error}") from None
    rows: list[Row] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, row {number}"
        row = _parse(line, str(path).rpartition("/")[0] if is_url(path) else Path(path).parent, where)
        if row.id in seen:
            raise DataError(f"{where}: id '{row.id}' was used in row {seen[row.id]}; every row needs its own id")
        if not row.shard and not row.source.is_file():
            key = "mouths" if row.mouths else "media"
            raise DataError(f"{where}: {key} file '{row.source}' does not exist; paths are relative to the manifest")
        seen[row.id] = number
        rows.append(row)
    return rows


def is_url(path: str | Path) -> bool:
    """Whether `path` names a place in an object store, such as s3://bucket/manifest.jsonl."""
    return "://" in str(path)


def manifest_bytes(path: str | Path) -> bytes:
    """The content of a manifest, from a disk or through fsspec."""
    if not is_url(path):
        return Path(path).read_bytes()
    import fsspec

    with fsspec.open(str(path), "rb") as file:
        content: bytes = file.read()
    return content


def write_manifest(path: str | Path, rows: Iterable[Row]) -> Path:
    """Writes `rows` beside `path`, then renames: a reader never sees half a manifest."""
    path = Path(path)
    folder = path.parent.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(_plain(row, folder), ensure_ascii=False) + "\n" for row in rows]
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text("".join(lines), "utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def by_split(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each split, in their order."""
    splits: dict[str, list[Row]] = {}
    for row in rows:
        splits.setdefault(row.split, []).append(row)
    return splits


def check_splits(splits: Mapping[str, Sequence[Row]]) -> None:
    """Refuses splits that share an utterance: the same id, or overlapping stretches of the same file.

    A speaker in two splits is only logged as a warning: some corpora are divided that way on purpose.

    Raises:
        DataError: two splits share an utterance; names both rows.
    """
    for one, other in combinations(sorted(splits), 2):
        shared = _shared(splits[one], splits[other])
        if shared:
            first, second = shared[0]
            raise DataError(
                f"splits '{one}' and '{other}' share {len(shared)} utterance(s): '{first.id}' and '{second.id}' "
                f"(both from '{second.media}'); a result on them would be worthless: keep each in one split"
            )
        speakers = {r.speaker for r in splits[one]} & {r.speaker for r in splits[other]} - {""}
        if speakers:
            some = ", ".join(sorted(speakers)[:5])
            logger.warning("splits '%s' and '%s' share %d speaker(s): %s", one, other, len(speakers), some)


# ---- small parts -------------------------------------------------------------------------------


def _parse(line: str, folder: Path | str, where: str) -> Row:
    try:
        tree = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg}, column {error.colno}); expected one object a line") from None
    if not isinstance(tree, dict):
        raise DataError(f"{where}: got {type(tree).__name__}, expected a JSON object")
    missing = [key for key in REQUIRED if key not in tree]
    if missing:
        raise DataError(f"{where}: missing key {', '.join(map(repr, missing))}; a row needs {', '.join(REQUIRED)}")
    named = [key for key in (*REQUIRED, "speaker", "audio", "mouths", "shard") if tree.get(key) is not None]
    texts = {key: _typed(tree, key, str, where) for key in named}
    empty = [key for key in ("id", "media", "split") if not texts.get(key)]
    if empty or "text" not in texts:
        raise DataError(f"{where}: '{(empty or ['text'])[0]}' is empty; expected a string")
    start, end = (_typed(tree, key, (int, float), where, default) for key, default in (("start", 0.0), ("end", None)))
    if start < 0 or (end is not None and end <= start):
        raise DataError(f"{where}: start {start}, end {end}; expected 0 <= start < end, in seconds")
    frames = _typed(tree, "frames", int, where, 0)
    if frames < 0:
        raise DataError(f"{where}: frames {frames}; expected the length at 25 frames per second")
    mouths, shard = texts.get("mouths"), texts.get("shard", "")
    if isinstance(folder, str):
        if not shard:
            raise DataError(f"{where}: a manifest in an object store needs shards; make them with: prepare shards")
        shard, folder = (shard if is_url(shard) else f"{folder}/{shard}"), Path()
    elif shard and not is_url(shard):
        shard = str(_absolute(folder, shard))
    return Row(
        id=texts["id"],
        media=_absolute(folder, texts["media"]),
        text=texts["text"],
        split=texts["split"],
        speaker=texts.get("speaker", ""),
        start=float(start),
        end=None if end is None else float(end),
        audio=_absolute(folder, texts["audio"]) if texts.get("audio") else None,
        shard=shard,
        offset=_typed(tree, "offset", int, where, 0),
        size=_typed(tree, "size", int, where, 0),
        mouths=_absolute(folder, mouths) if mouths else None,
        frames=frames,
    )


def _typed(tree: Mapping[str, Any], key: str, kind: Any, where: str, default: Any = None) -> Any:
    value = tree.get(key)
    if value is None:
        return default
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = {str: "a string", int: "a whole number"}.get(kind, "a number")
        raise DataError(f"{where}: '{key}' is {value!r}; expected {wanted}")
    return value


def _plain(row: Row, folder: Path) -> dict[str, Any]:
    """The row as JSON keys; what has its default is left out."""
    out: dict[str, Any] = {"id": row.id, "media": _relative(row.media, folder), "text": row.text}
    out |= {"split": row.split, "speaker": row.speaker}
    if row.start:
        out["start"] = row.start
    if row.end is not None:
        out["end"] = row.end
    if row.audio is not None:
        out["audio"] = _relative(row.audio, folder)
    if row.mouths is not None:
        out["mouths"] = _relative(row.mouths, folder)
    if row.shard:
        place = row.shard if is_url(row.shard) else _relative(Path(row.shard), folder)
        out |= {"shard": place, "offset": row.offset, "size": row.size}
    if row.frames:
        out["frames"] = row.frames
    return out


def _absolute(folder: Path, path: str) -> Path:
    return Path(os.path.normpath(folder.resolve() / path))


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path.absolute(), folder)).as_posix()
    except ValueError:  # another drive, on Windows
        return path.absolute().as_posix()


def _shared(one: Sequence[Row], other: Sequence[Row]) -> list[tuple[Row, Row]]:
    ids = {row.id: row for row in one}
    files: dict[Path, list[Row]] = {}
    for row in one:
        files.setdefault(row.media.resolve(), []).append(row)
    pairs = []
    for row in other:
        match = ids.get(row.id) or next((r for r in files.get(row.media.resolve(), []) if _overlap(r, row)), None)
        if match:
            pairs.append((match, row))
    return pairs


def _overlap(a: Row, b: Row) -> bool:
    infinity = float("inf")
    return a.start < (infinity if b.end is None else b.end) and b.start < (infinity if a.end is None else a.end)
