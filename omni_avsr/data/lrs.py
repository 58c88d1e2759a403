"""LRS2 and LRS3 as they lie on disk: the corpora's own folders, or the segments that the official code prepares.

the corpus's own             ROOT/{pretrain,trainval,test}/ID/00001.{mp4,txt}           LRS3
                             ROOT/mvlrs_v1/{pretrain,main}/ID/00001.{mp4,txt}           LRS2, with
                             ROOT/{pretrain,train,val,test}.txt                         lists of main/ID/00001
prepared by official code    ROOT/labels/*.csv    dataset,path,frames,_,text            both
                             ROOT/dataset/path    a mouth, 96 x 96, with its sound in a .wav beside it
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from omni_avsr.data.corpora import Dropped
from omni_avsr.data.manifest import Row
from omni_avsr.errors import DataError

SPLITS = {"pretrain": "train", "train": "train", "val": "dev", "test": "test", "trainval": ""}
"""Name of a part -> split. LRS3 has no development set: `--dev_share` takes one from trainval, by speaker."""
LONGEST = 16.0  # seconds; as the official preparation, longer utterances with word times are cut between words
LABELS = "labels"
FIELDS = "dataset,path,frames,_,text"
_NAMES = ("lrs2", "lrs3")

Word = tuple[str, float, float]  # the word, and its start and end in seconds


def lrs(root: Path, name: str) -> Iterator[Row | Dropped]:
    """Rows of LRS2 or LRS3.

    Args:
        root: the corpus; or one label file.
        name: lrs2 or lrs3; label files may name other corpora beside it, the rows of the other one are left out.

    Raises:
        DataError: a label file cannot be read.
    """
    files = [root] if root.is_file() else sorted((root / LABELS).glob("*.csv"))
    if files:
        yield from _labelled(files, {*_NAMES} - {name})
    else:
        yield from _own(root, name)


lrs2 = partial(lrs, name="lrs2")
lrs3 = partial(lrs, name="lrs3")


# ---- prepared by the official code ---------------------------------------------------------------


def _labelled(files: Iterable[Path], others: set[str]) -> Iterator[Row | Dropped]:
    seen: set[tuple[str, str]] = set()  # label files of several trainings share utterances
    for file in files:
        for number, line in enumerate(_lines(file), 1):
            fields = line.split(",", FIELDS.count(","))
            if len(fields) <= FIELDS.count(","):
                yield Dropped(line[:80], str(file), f"{file.name}, line {number}: expected {FIELDS}")
            elif fields[0] not in others and (fields[0], fields[1]) not in seen:
                seen.add((fields[0], fields[1]))
                yield _segment(file, number, fields[0], fields[1], _unquoted(fields[-1]))


def _segment(file: Path, number: int, dataset: str, path: str, text: str) -> Row | Dropped:
    inside, base = Path(path), file.parent.parent if file.parent.name == LABELS else file.parent
    name = (dataset / inside).with_suffix("").as_posix()
    places = [base / dataset / inside, base / inside]  # the official code's own example leaves its label file here
    media = next((place for place in places if place.is_file()), None)
    if media is None:
        return Dropped(name, str(places[0]), f"{file.name}, line {number}: the file does not exist")
    part = next((part for part in inside.parts if part in SPLITS), None)
    named = re.search(r"(?<![a-z])(train|val|test)(?![a-z])", file.stem)
    split = SPLITS[part] if part else SPLITS[named[1]] if named else ""
    return Row(name, media, text, split, _speaker(dataset, inside))


def _speaker(corpus: str, media: Path) -> str:
    """A folder of LRS3 is a speaker; one of LRS2 is a programme with many."""
    return "" if corpus == "lrs2" else media.parent.name


def _unquoted(text: str) -> str:
    """Text with commas comes as it is, or quoted as Python's csv module writes it."""
    quoted = len(text) > 1 and text.startswith('"') and text.endswith('"')
    return next(csv.reader([text]))[0] if quoted else text


# ---- the corpora's own folders -------------------------------------------------------------------


def _own(root: Path, name: str) -> Iterator[Row | Dropped]:
    listed = {entry: part for part in SPLITS for entry in _list(root, part)}
    for media in sorted(root.rglob("*.mp4")):
        part, inside = media.parent.parent.name, f"{media.parent.name}/{media.stem}"
        split = listed.get(inside) if part == "main" else part
        where = f"{part}/{inside}"
        if split not in SPLITS:
            lists = "no list (train.txt, val.txt, test.txt) names it"
            yield Dropped(where, str(media), lists if part == "main" else f"'{part}' is no part of {name}")
        elif not media.with_suffix(".txt").is_file():
            yield Dropped(where, str(media), f"there is no transcript '{media.stem}.txt' beside it")
        else:
            yield from _transcribed(media, where, SPLITS[split], _speaker(name, media))


def _list(root: Path, part: str) -> Iterator[str]:
    """Entries 'ID/00001' of a list; some carry a mark behind."""
    files = (folder / f"{part}.txt" for folder in (root, root / "mvlrs_v1"))
    file = next((file for file in files if file.is_file()), None)
    yield from (line.split()[0] for line in _lines(file)) if file else ()


def _transcribed(media: Path, name: str, split: str, speaker: str) -> Iterator[Row | Dropped]:
    try:
        text, words = _transcript(media.with_suffix(".txt"))
    except (DataError, ValueError, IndexError) as error:
        yield Dropped(name, str(media), f"transcript '{media.stem}.txt': {error}")
        return
    if not words or words[-1][2] <= LONGEST:
        yield Row(name, media, text, split, speaker)
        return
    for group in _groups(words):
        start, end = group[0][1], group[-1][2]
        yield Row(
            f"{name}-{round(start * 1000):08d}", media, " ".join(word for word, *_ in group), split, speaker, start, end
        )


def _transcript(path: Path) -> tuple[str, list[Word]]:
    """The text of 'Text:  HELLO THERE', and the table 'WORD START END ...' where there is one; in lower case."""
    lines = _lines(path)
    key, _, text = lines[0].partition(":") if lines else ("", "", "")
    if key.strip() != "Text":
        raise DataError("expected 'Text:' in its first line")
    head = next((i for i, line in enumerate(lines) if line.split()[:3] == ["WORD", "START", "END"]), len(lines))
    table = [line.split() for line in lines[head + 1 :]]
    return " ".join(text.lower().split()), [(f[0].lower(), float(f[1]), float(f[2])) for f in table]


def _groups(words: list[Word]) -> Iterator[list[Word]]:
    """Runs of words of at most `LONGEST` seconds each."""
    group: list[Word] = []
    for word in words:
        if group and word[2] - group[0][1] > LONGEST:
            yield group
            group = []
        group.append(word)
    yield group


def _lines(path: Path) -> list[str]:
    """Lines that are not empty."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' cannot be read as UTF-8 text: {error}") from None
    return [line.strip() for line in text.split("\n") if line.strip()]
