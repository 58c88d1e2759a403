"""Manifests: what is written is read back, whatever is wrong names its row, overlapping splits are refused."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omni_avsr.data.manifest import Row, by_split, check_splits, read_manifest, write_manifest
from omni_avsr.errors import DataError


@pytest.fixture
def media(tmp_path: Path) -> Path:
    path = tmp_path / "clips" / "a.mp4"
    path.parent.mkdir()
    path.touch()
    return path


def written(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
    return path


GOOD = {"id": "a", "media": "clips/a.mp4", "text": "hi", "split": "train", "speaker": "s"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"])),
    row_id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    span=st.tuples(st.floats(0, 100), st.none() | st.floats(101, 1e4)),
    frames=st.integers(0, 10**6),
)
def test_what_is_written_is_read_back(
    media: Path, text: str, row_id: str, span: tuple[float, float | None], frames: int
) -> None:
    row = Row(row_id, media, text, "train", "s,\"1'", *span, mouths=media, frames=frames)
    assert read_manifest(write_manifest(media.parent / "out" / "m.jsonl", [row])) == [row]


def test_paths_are_relative_so_a_folder_can_move(tmp_path: Path, media: Path) -> None:
    write_manifest(tmp_path / "m.jsonl", [Row("a", media, "hi", "train")])
    assert json.loads((tmp_path / "m.jsonl").read_text())["media"] == "clips/a.mp4"
    moved = tmp_path.parent / f"{tmp_path.name}_moved"
    shutil.copytree(tmp_path, moved)
    assert read_manifest(moved / "m.jsonl")[0].media == moved / "clips" / "a.mp4"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([GOOD, {**GOOD, "id": "b", "media": "clips/gone.mp4"}], r"row 2: media file '.*gone.mp4' does not exist"),
        ([GOOD, {**GOOD, "id": "b", "mouths": "b.mkv"}], r"row 2: mouths file '.*b.mkv' does not exist"),
        ([GOOD, "", '{"id": "b", '], r"row 3: not JSON"),
        (["[1, 2]"], r"row 1: got list, expected a JSON object"),
        ([{k: v for k, v in GOOD.items() if k != "text"}], r"row 1: missing key 'text'"),
        ([GOOD, GOOD], r"row 2: id 'a' was used in row 1"),
        ([{**GOOD, "text": 5}], r"row 1: 'text' is 5; expected a string"),
        ([{**GOOD, "split": ""}], r"row 1: 'split' is empty"),
        ([{**GOOD, "frames": 1.5}], r"row 1: 'frames' is 1.5; expected a whole number"),
        ([{**GOOD, "frames": -1}], r"row 1: frames -1"),
        ([{**GOOD, "start": 2, "end": 1}], r"row 1: start 2, end 1"),
        ([{**GOOD, "start": True}], r"row 1: 'start' is True; expected a number"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, media: Path, rows: list[object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_manifest(written(tmp_path, *rows))


def test_a_missing_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="omni-avsr prepare"):
        read_manifest(tmp_path / "none.jsonl")


def test_media_may_be_gone_once_the_mouths_are_stored(tmp_path: Path, media: Path) -> None:
    row = {**GOOD, "media": "gone.mp4", "mouths": "clips/a.mp4", "note": "unknown keys are left alone"}
    assert read_manifest(written(tmp_path, row))[0].source == media


def test_a_failed_write_leaves_the_old_manifest_and_no_litter(
    tmp_path: Path, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_manifest(tmp_path / "m.jsonl", [Row("a", media, "old", "train")])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_manifest(path, [Row("a", media, "new", "train")])
    assert read_manifest(path)[0].text == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clips", "m.jsonl"]


def row(row_id: str, media: str, split: str, start: float = 0.0, end: float | None = None, speaker: str = "") -> Row:
    return Row(row_id, Path("/data") / media, "hi", split, speaker, start, end)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (row("a", "x.mp4", "train"), row("a", "y.mp4", "dev")),  # the same id
        (row("a", "x.mp4", "train"), row("b", "x.mp4", "dev")),  # the same file
        (row("a", "x.mp4", "train"), row("b", "z/../x.mp4", "dev")),  # the same file by another path
        (row("a", "x.mp4", "test", 0, 5), row("b", "x.mp4", "dev", 4.9, 8)),  # overlapping stretches
        (row("a", "x.mp4", "train", 3), row("b", "x.mp4", "test", 0, 3.1)),
    ],
)
def test_splits_that_share_an_utterance_are_refused(one: Row, other: Row) -> None:
    with pytest.raises(DataError, match=r"share 1 utterance\(s\): '[ab]' and '[ab]'"):
        check_splits(by_split([one, row("c", "c.mp4", "train"), other]))


def test_neighbouring_stretches_are_fine_and_a_shared_speaker_is_only_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = [row("a", "x.mp4", "train", 0, 5, "ann"), row("b", "x.mp4", "dev", 5, 8, "ann")]
    with caplog.at_level(logging.WARNING):
        check_splits(by_split(rows))
    assert "share 1 speaker(s): ann" in caplog.text
