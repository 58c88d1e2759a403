"""Corpora on disk to rows, and rows to splits; no media is opened, so empty files do."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_avsr.data.corpora import GRID_CODE, Dropped, assign_splits, folder, grid, grid_sentence, table
from omni_avsr.data.manifest import Row, by_split
from omni_avsr.errors import ConfigError, DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def rows_of(found: object) -> list[Row]:
    items = list(found)  # type: ignore[call-overload]
    assert all(isinstance(item, Row) for item in items), items
    return items


# ---- GRID --------------------------------------------------------------------------------------


def test_grid_names_spell_their_sentence() -> None:
    assert grid_sentence("bbaf2n") == "bin blue at f two now"
    assert grid_sentence("swwzza") == "set white with z zero again"
    for letters in itertools.islice(itertools.product(*GRID_CODE), 0, None, 997):
        sentence = grid_sentence("".join(letters))
        assert sentence is not None
        assert len(sentence.split()) == 6
    for wrong in ("", "bbaf2", "bbaf2nn", "bbaw2n", "xbaf2n"):  # no w in GRID
        assert grid_sentence(wrong) is None


@pytest.mark.parametrize("layout", ["s3/{}.mpg align/s3/{}.align", "s3/video/mpg_6000/{}.mpg s3/align/{}.align"])
def test_the_corpus_own_folders(tmp_path: Path, layout: str) -> None:
    video, align = (name.format("bbaf2n") for name in layout.split())
    touch(tmp_path, video, align)
    (tmp_path / align).write_text("0 23750 sil\n23750 29500 bin\n29500 34000 red\n34000 35000 sp\n35000 74500 now\n")
    (row,) = rows_of(grid(tmp_path))
    assert (row.id, row.text, row.speaker, row.split) == ("s3/bbaf2n", "bin red now", "s3", "")


def test_without_align_files_names_decide(tmp_path: Path) -> None:
    root = tmp_path / "s12_processed"
    touch(root, "lgbz9s.mp4", "readme.mp4")
    good, bad = sorted(grid(root), key=lambda item: isinstance(item, Dropped))
    assert isinstance(good, Row)
    assert (good.text, good.speaker) == ("lay green by z nine soon", "s12")
    assert isinstance(bad, Dropped)
    assert "six-letter" in bad.reason


def test_a_grid_folder_with_a_table(tmp_path: Path) -> None:
    touch(tmp_path, "s1/a.mp4")
    (tmp_path / "manifest.csv").write_text("path,split,speaker,transcript\ns1/a.mp4,dev,s1,bin blue\n")
    assert rows_of(grid(tmp_path)) == [Row("s1/a", tmp_path / "s1/a.mp4", "bin blue", "dev", "s1")]


# ---- tables ------------------------------------------------------------------------------------


def test_commas_quotes_and_newlines_in_texts_are_harmless(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    (tmp_path / "t.csv").write_text('\ufefffile,Text\n"a.wav","Well, ""yes"",\nno"\n', "utf-8")
    assert [row.text for row in rows_of(table(tmp_path / "t.csv"))] == ['Well, "yes",\nno']


def test_stretches_of_one_file_get_ids_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path, "talk.mp4")
    (tmp_path / "t.tsv").write_text("media\tsentence\tstart\tend\ntalk.mp4\tone\t0.5\t2\ntalk.mp4\ttwo\t2\t3.25\n")
    rows = rows_of(table(tmp_path / "t.tsv"))
    assert [(r.id, r.start, r.end) for r in rows] == [("talk-00000500", 0.5, 2.0), ("talk-00002000", 2.0, 3.25)]


def test_lines_that_cannot_be_used_are_dropped_with_their_number(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    (tmp_path / "t.csv").write_text("path,text,start\na.wav,x,\ngone.wav,x,\na.wav,x,soon\n")
    first, *others = table(tmp_path / "t.csv")
    assert isinstance(first, Row)
    assert [o.reason for o in others if isinstance(o, Dropped)] == [
        "t.csv, line 3: the file does not exist",
        "t.csv, line 4: start or end is not a number of seconds",
    ]


def test_tables_without_a_column_of_files_or_too_many_tables(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,words\n")
    with pytest.raises(DataError, match="has the columns name, words; expected"):
        list(folder(tmp_path))
    (tmp_path / "b.csv").touch()
    with pytest.raises(DataError, match=r"2 CSV files \(a.csv, b.csv\)"):
        list(folder(tmp_path))


# ---- folders -----------------------------------------------------------------------------------


def test_media_with_transcripts_beside_them(tmp_path: Path) -> None:
    touch(tmp_path, "ann/a.mp4", "ann/a.wav", "bob/b.flac", "c.MKV", ".hidden/d.mp4", "notes.pdf")
    (tmp_path / "ann/a.srt").write_text(
        "1\n00:00:01,000 --> 00:00:02,000\nOne.\n\n2\n00:00:03,000 --> 00:00:04,000\nTwo.\n"
    )
    (tmp_path / "bob/b.txt").write_text("three")
    rows = rows_of(folder(tmp_path))
    assert [(r.id, r.media.name, r.text, r.speaker, r.end) for r in rows] == [
        ("ann/a-00001000", "a.mp4", "One.", "ann", 2.0),  # the wav beside the mp4 is the same utterance
        ("ann/a-00003000", "a.mp4", "Two.", "ann", 4.0),
        ("bob/b", "b.flac", "three", "bob", None),
        ("c", "c.MKV", "", "", None),
    ]


def test_a_broken_transcript_drops_its_file_only(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "a.json").write_text("{")
    dropped, row = folder(tmp_path)
    assert isinstance(dropped, Dropped)
    assert "not JSON" in dropped.reason
    assert isinstance(row, Row)


# ---- splits ------------------------------------------------------------------------------------


def corpus(speakers: int, each: int) -> list[Row]:
    return [Row(f"s{s}/{i}", Path(f"/d/s{s}/{i}.mp4"), "x", "", f"s{s}") for s in range(speakers) for i in range(each)]


@given(st.integers(2, 30), st.integers(1, 9), st.floats(0, 0.4), st.floats(0, 0.4))
def test_every_row_gets_a_split_and_training_is_never_empty(
    speakers: int, each: int, dev_share: float, test_share: float
) -> None:
    rows = corpus(speakers, each)
    done = assign_splits(rows, dev_share, test_share)
    splits = by_split(done)
    assert [r.id for r in done] == [r.id for r in rows]
    assert set(splits) <= {"train", "dev", "test"}
    assert splits["train"]
    if dev_share:
        assert len(splits["dev"]) >= min(dev_share * len(rows), 1)


def test_splits_do_not_depend_on_order_or_place() -> None:
    rows = corpus(20, 3)
    first = {r.id: r.split for r in assign_splits(rows, 0.2, 0.1)}
    elsewhere = [Row(r.id, Path("/other") / r.media.name, r.text, "", r.speaker) for r in reversed(rows)]
    assert {r.id: r.split for r in assign_splits(elsewhere, 0.2, 0.1)} == first


def test_many_speakers_stay_together_few_do_not() -> None:
    many = by_split(assign_splits(corpus(20, 3), 0.1))
    assert not {r.speaker for r in many["dev"]} & {r.speaker for r in many["train"]}
    assert len(many["dev"]) == 6
    assert len(by_split(assign_splits(corpus(1, 20), 0.1))["dev"]) == 2
    assert len(by_split(assign_splits(corpus(2, 20), 0.1, split_by="speaker"))["dev"]) == 20


def test_a_given_split_is_kept() -> None:
    rows = [Row("a", Path("/a"), "x", "test"), Row("b", Path("/b"), "x", ""), Row("c", Path("/c"), "x", "")]
    assert assign_splits(rows, 0)[0].split == "test"
    assert sorted(r.split for r in assign_splits(rows, 0.5)) == ["dev", "test", "train"]


@pytest.mark.parametrize("shares", [(1.0, 0.0), (-0.1, 0.0), (0.6, 0.5)])
def test_shares_that_leave_nothing_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="leave some"):
        assign_splits([], *shares)
    with pytest.raises(ConfigError, match="did you mean 'speaker'"):
        assign_splits([], 0.1, split_by="speakers")
