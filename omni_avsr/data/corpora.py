"""Corpora as they lie on disk, found and read into rows: GRID, a table of files, a folder of media.

Nothing here opens media. What cannot become a row is handed on as `Dropped`, with the reason.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omni_avsr.data.manifest import Row
from omni_avsr.data.sidecar import Span, find_sidecar, read_sidecar
from omni_avsr.errors import ConfigError, DataError, nearest

logger = logging.getLogger(__name__)

VIDEO = {".mp4", ".mpg", ".mpeg", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".ts", ".mts", ".3gp", ".wmv", ".flv"}
AUDIO = {".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".wma", ".aif", ".aiff"}
TABLES = ("manifest.csv", "metadata.csv", "transcripts.csv")
COLUMNS = {  # field of Row -> names a table may use for it
    "media": ("path", "media", "file", "file_name", "filename", "video", "audio"),
    "text": ("transcript", "text", "sentence", "transcription"),
    "id": ("id",), "split": ("split",), "speaker": ("speaker", "speaker_id"), "start": ("start",), "end": ("end",),
}  # fmt: skip
MANY_SPEAKERS = 10  # from here on, 'auto' keeps a speaker in one split


@dataclass(frozen=True)
class Dropped:
    """An utterance that did not become a row, and why."""

    id: str
    media: str
    reason: str
    filter: str = "unusable"  # which rule: unusable, double, length, face, mouth, sync, agreement, speech


# ---- GRID --------------------------------------------------------------------------------------

GRID_CODE = (  # the six letters of a GRID file name (Cooke et al., 2006, table I)
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {c: c for c in "abcdefghijklmnopqrstuvxyz"},
    {"z": "zero", "1": "one", "2": "two", "3": "three", "4": "four",
     "5": "five", "6": "six", "7": "seven", "8": "eight", "9": "nine"},
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)  # fmt: skip


def grid(root: Path) -> Iterator[Row | Dropped]:
    """GRID: a folder with `manifest.csv`, or the corpus's own speaker folders with `.align` files.

    Without an align file the sentence is read off the file's name, which spells it.
    """
    if (root / TABLES[0]).is_file():
        yield from table(root / TABLES[0])
        return
    aligns = {(_grid_speaker(p, root), p.stem): p for p in sorted(root.rglob("*.align"))}
    for media in _media_files(root):
        speaker = _grid_speaker(media, root)
        align = aligns.get((speaker, media.stem))
        text = _align_text(align) if align else grid_sentence(media.stem)
        if text:
            yield Row(f"{speaker}/{media.stem}", media, text, split="", speaker=speaker)
        else:
            reason = "no .align file, and the name is not one of GRID's six-letter codes"
            yield Dropped(f"{speaker}/{media.stem}", str(media), reason)


def grid_sentence(stem: str) -> str | None:
    """'bbaf2n' -> 'bin blue at f two now'; None for a name that is no GRID code."""
    words = [table.get(letter) for table, letter in zip(GRID_CODE, stem.lower(), strict=False)]
    return " ".join(map(str, words)) if len(stem) == len(GRID_CODE) and None not in words else None


def _grid_speaker(path: Path, root: Path) -> str:
    parts = (root.name, *path.relative_to(root).parts[:-1])
    named = [m[1] for m in (re.match(r"(s\d{1,2})(?:_|$)", part.lower()) for part in parts) if m]
    return named[-1] if named else path.parent.name


def _align_text(path: Path) -> str:
    """Words of an align file ('start end word' a line, 25,000 units a second), silences left out."""
    fields = (line.split() for line in path.read_text("utf-8", errors="replace").splitlines())
    return " ".join(f[2] for f in fields if len(f) == 3 and f[2] not in ("sil", "sp"))


# ---- folders and tables ------------------------------------------------------------------------


def folder(root: Path) -> Iterator[Row | Dropped]:
    """A CSV file, a folder with one, or a folder of media with transcripts beside them (txt, srt, vtt, json)."""
    tables = [root] if root.is_file() else _tables(root)
    if tables:
        yield from table(tables[0])
        return
    for media in _media_files(root):
        yield from _with_sidecar(media, root)


def table(path: Path) -> Iterator[Row | Dropped]:
    """Rows of a CSV (or TSV) file with a header; paths relative to it.

    Raises:
        DataError: it cannot be read, or has no column with the files.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            columns = _columns(reader.fieldnames or (), path)
            records = [(reader.line_num, record) for record in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"'{path}' cannot be read as a UTF-8 CSV file: {error}") from None
    for line, record in records:
        yield _table_row({key: (record.get(name) or "").strip() for key, name in columns.items()}, path, line)


def _columns(names: Iterable[str], path: Path) -> dict[str, str]:
    known = {name.strip().lower(): name for name in names}
    columns = {key: known[a] for key, aliases in COLUMNS.items() for a in reversed(aliases) if a in known}
    if "media" not in columns:
        raise DataError(
            f"'{path}' has the columns {', '.join(known) or 'none'}; expected a header line with a column of files "
            f"({', '.join(COLUMNS['media'])}) and one of transcripts ({', '.join(COLUMNS['text'])})"
        )
    if "text" not in columns:
        logger.warning("'%s' has no column of transcripts (%s)", path, ", ".join(COLUMNS["text"]))
    return columns


def _table_row(record: Mapping[str, str], path: Path, line: int) -> Row | Dropped:
    media = path.parent / record["media"]
    name = record.get("id") or Path(record["media"]).with_suffix("").as_posix().lstrip("./")
    try:
        start, end = float(record.get("start") or 0), float(record["end"]) if record.get("end") else None
    except ValueError:
        return Dropped(name, str(media), f"{path.name}, line {line}: start or end is not a number of seconds")
    if not media.is_file():
        return Dropped(name, str(media), f"{path.name}, line {line}: the file does not exist")
    if not record.get("id") and record.get("start"):
        name = f"{name}-{round(start * 1000):08d}"
    return Row(name, media, record.get("text", ""), record.get("split", ""), record.get("speaker", ""), start, end)


def _tables(root: Path) -> list[Path]:
    found = [p for name in TABLES if (p := root / name).is_file()] or sorted(root.glob("*.csv"))
    if len(found) > 1 and found[0].name not in TABLES:
        names = ", ".join(p.name for p in found)
        raise DataError(f"'{root}' has {len(found)} CSV files ({names}); give the one that is meant, not the folder")
    return found


def _with_sidecar(media: Path, root: Path) -> Iterator[Row | Dropped]:
    inside = media.relative_to(root)
    name = inside.with_suffix("").as_posix()
    speaker = inside.parts[0] if len(inside.parts) > 1 else ""
    sidecar = find_sidecar(media)
    try:
        spans = read_sidecar(sidecar) if sidecar else [Span("")]
    except DataError as error:
        yield Dropped(name, str(media), str(error))
        return
    for span in spans:
        timed = span.end is not None
        row_id = f"{name}-{round(span.start * 1000):08d}" if timed else name
        yield Row(row_id, media, span.text, "", span.speaker or speaker, span.start, span.end)


def _media_files(root: Path) -> list[Path]:
    """Media under `root`, sorted; of files that differ in the suffix only (a wav beside its mp4), the video."""
    best: dict[Path, Path] = {}
    for path in sorted(root.rglob("*")):
        suffix = path.suffix.lower()
        if suffix in VIDEO | AUDIO and not any(part.startswith(".") for part in path.relative_to(root).parts):
            stem = path.with_suffix("")
            if stem not in best or (suffix in VIDEO and best[stem].suffix.lower() in AUDIO):
                best[stem] = path
    return list(best.values())


# ---- splits ------------------------------------------------------------------------------------

SPLIT_UNITS: dict[str, Callable[[Row], str]] = {
    "speaker": lambda row: row.speaker or str(row.media),
    "file": lambda row: str(row.media),
    "row": lambda row: row.id,
}


def assign_splits(rows: Sequence[Row], dev_share: float, test_share: float = 0.0, split_by: str = "auto") -> list[Row]:
    """Rows without a split get one, by the order of a hash: the same rows always give the same splits.

    Args:
        dev_share, test_share: shares of the rows, 0 to 1.
        split_by: what is kept together, a row of `SPLIT_UNITS`; 'auto': speakers if there are 10 or more, else
            files, else single rows.

    Raises:
        ConfigError: a share outside 0..1, or an unknown `split_by`.
    """
    if min(dev_share, test_share) < 0 or dev_share + test_share >= 1:
        raise ConfigError(f"dev_share {dev_share}, test_share {test_share}; expected shares that leave some for train")
    if split_by not in (*SPLIT_UNITS, "auto"):
        raise ConfigError(f"split_by '{split_by}'; {nearest(split_by, (*SPLIT_UNITS, 'auto'))}")
    undecided = [row for row in rows if not row.split]
    unit = SPLIT_UNITS[_coarsest(undecided) if split_by == "auto" else split_by]
    sizes = Counter(map(unit, undecided))
    names = {unit(row): row.id for row in sorted(undecided, key=lambda row: row.id, reverse=True)}
    # Hash ids, which do not change with the place of the corpus on this machine, as file paths do.
    ranked = sorted(sizes, key=lambda name: hashlib.sha256(names[name].encode()).digest())
    chosen: dict[str, str] = {}
    for split, share in (("dev", dev_share), ("test", test_share)):
        wanted = math.ceil(share * len(undecided))
        while wanted > 0 and len(chosen) < len(ranked) - 1:
            name = ranked[len(chosen)]
            chosen[name], wanted = split, wanted - sizes[name]
    return [row if row.split else replace(row, split=chosen.get(unit(row), "train")) for row in rows]


def _coarsest(rows: Sequence[Row]) -> str:
    if len({row.speaker for row in rows} - {""}) >= MANY_SPEAKERS:
        return "speaker"
    return "file" if len({row.media for row in rows}) > 1 else "row"
