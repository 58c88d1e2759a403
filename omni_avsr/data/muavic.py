"""MuAViC (Anwar et al., 2023): nine languages of TED talks, as its scripts leave them on disk.

    <language>/{train,valid,test}.tsv         a line with the root, then: id, video, audio, frames, samples
    <language>/{train,valid,test}.<language>  a transcript a line

Its videos are mouths of 96 x 96 pixels already, and its sound lies in files of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from omni_avsr.data.corpora import Dropped
from omni_avsr.data.manifest import Row
from omni_avsr.errors import DataError

SPLITS = {"train": "train", "valid": "dev", "test": "test"}  # theirs -> ours


def muavic(root: Path) -> Iterator[Row | Dropped]:
    """One language (`root` has train.tsv), or all languages below `root`; the speaker is the talk.

    Raises:
        DataError: no table, or one that does not fit its transcripts.
    """
    tables = [path for name in SPLITS for path in sorted({*root.glob(f"{name}.tsv"), *root.glob(f"*/{name}.tsv")})]
    if not tables:
        raise DataError(f"'{root}' has no train.tsv, valid.tsv or test.tsv, nor a folder of a language with them")
    for table in tables:
        yield from _rows(table, table.parent.name, root)


def _rows(table: Path, language: str, root: Path) -> Iterator[Row | Dropped]:
    transcripts = table.with_suffix(f".{language}")
    if not transcripts.is_file():
        raise DataError(f"'{table}' has no transcripts beside it; expected '{transcripts.name}'")
    top, *lines = [line for line in table.read_text("utf-8").split("\n") if line.strip()]
    texts = transcripts.read_text("utf-8").rstrip("\n").split("\n")
    if len(lines) != len(texts):
        raise DataError(f"'{table}' has {len(lines)} rows, '{transcripts.name}' {len(texts)} lines; expected as many")
    prefix = "" if table.parent == root else f"{language}/"
    for line, text in zip(lines, texts, strict=True):
        name, *paths = line.split("\t")
        found = [_found(path, top, table.parent) for path in paths[:2]]
        video, audio = (*found, None, None)[:2]
        row_id = f"{prefix}{SPLITS[table.stem]}/{name.rpartition('/')[2] or name}"
        media = video or audio
        if media is None:
            yield Dropped(row_id, " ".join(paths[:2]), f"{table.name}: neither its video nor its audio file exists")
        else:
            speaker = media.parent.name
            yield Row(row_id, media, text.strip(), SPLITS[table.stem], speaker, audio=audio if video else None)


def _found(path: str, top: str, folder: Path) -> Path | None:
    """A path of the table where it is now: as written, below the root it names, or below the table's folder."""
    inside = Path(path)
    tail = Path(*inside.parts[inside.parts.index(folder.name) + 1 :]) if folder.name in inside.parts else inside
    candidates = (inside, Path(top) / inside, folder / inside, folder / tail)
    return next((p for p in candidates if p.is_absolute() and p.is_file()), None)
