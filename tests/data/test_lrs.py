"""LRS2 and LRS3 to rows: the corpora's own folders, and what the official code prepares."""

from __future__ import annotations

import csv
import wave
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_avsr.data.corpora import Dropped
from omni_avsr.data.dataset import load_sample
from omni_avsr.data.lrs import LONGEST, lrs2, lrs3
from omni_avsr.data.manifest import Row, read_manifest
from omni_avsr.data.mouth_store import read_store
from omni_avsr.data.prepare import prepare
from omni_avsr.types import FPS, SAMPLES_PER_FRAME

SEGMENTS = "lrs3/lrs3_video_seg16s"


def touch(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def split_up(found: object) -> tuple[list[Row], list[Dropped]]:
    items = list(found)  # type: ignore[call-overload]
    return [i for i in items if isinstance(i, Row)], [i for i in items if isinstance(i, Dropped)]


# ---- label files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["yes", "well, yes, and no", 'he said "no", twice', "a,,b", ","])
@pytest.mark.parametrize("quoted", [False, True])
def test_texts_with_commas(text: str, quoted: bool, tmp_path: Path) -> None:
    """As they are, or as Python's csv module writes them: the official code makes such files and cannot read them."""
    fields = ["lrs3", "lrs3_video_seg16s/test/ann/00001.mp4", "83", "0", text]
    media = touch(tmp_path / SEGMENTS / "test/ann/00001.mp4")
    label = touch(tmp_path / "labels" / "lrs3_test.csv", ",".join(fields) + "\n")
    if quoted:
        with label.open("w", newline="") as file:
            csv.writer(file).writerow(fields)
    name = "lrs3/lrs3_video_seg16s/test/ann/00001"
    assert list(lrs3(tmp_path)) == [Row(name, media, text, "test", "ann")]


def test_splits_come_from_the_path_or_the_name_of_the_label_file(tmp_path: Path) -> None:
    lines = {
        "lrs3_train_transcript_lengths_seg16s": [
            "lrs3,lrs3_video_seg16s/pretrain/a/00001_00.mp4,9,0,x",
            "lrs3,lrs3_video_seg16s/trainval/a/00001.mp4,9,0,x",
            "lrs2,lrs2_video_seg16s/main/1/00001.mp4,9,0,x",
        ],
        "lrs2_val_transcript_lengths_seg16s": ["lrs2,lrs2_video_seg16s/main/2/00001.mp4,9,0,x"],
        "lrs23_train": ["lrs3,lrs3_video_seg16s/trainval/a/00001.mp4,9,0,x"],
    }
    for name, rows in lines.items():
        touch(tmp_path / "labels" / f"{name}.csv", "".join(f"{row}\r\n" for row in rows))
        for row in rows:
            touch(tmp_path / row.split(",")[0] / row.split(",")[1])
    rows, dropped = split_up(lrs3(tmp_path))
    assert not dropped
    assert {row.id.partition("seg16s/")[2]: row.split for row in rows} == {
        "pretrain/a/00001_00": "train",
        "trainval/a/00001": "",  # --dev_share takes the development set from these
    }
    rows, _ = split_up(lrs2(tmp_path))
    assert [(row.media.parent.name, row.split, row.speaker) for row in rows] == [("2", "dev", ""), ("1", "train", "")]


def test_a_label_file_beside_its_media_as_the_official_example_leaves_it(tmp_path: Path) -> None:
    touch(tmp_path / "inference_test" / "talk.mp4")
    label = touch(tmp_path / "test_file.csv", "inference_test,talk.mp4,9,0,one\ninference_test,gone.mp4,9,0,two\n")
    rows, dropped = split_up(lrs3(label))
    assert [(row.text, row.split) for row in rows] == [("one", "test")]
    assert dropped[0].reason == "test_file.csv, line 2: the file does not exist"


def test_a_line_of_another_form_is_dropped_with_its_number(tmp_path: Path) -> None:
    touch(tmp_path / "labels" / "lrs3_test.csv", "lrs3,a.mp4,9,0 1 2\n")
    (dropped,) = lrs3(tmp_path)
    assert isinstance(dropped, Dropped)
    assert dropped.reason == "lrs3_test.csv, line 1: expected dataset,path,frames,_,text"


# ---- prepared segments ---------------------------------------------------------------------------


def mouth_video(path: Path, frames: int) -> np.ndarray:
    """A silent 96 x 96 mp4 whose pictures grow brighter; returns their grey values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shades = np.linspace(40, 200, frames).round().astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "1"})
        stream.width = stream.height = 96
        for shade in shades:
            picture = np.full((96, 96, 3), shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return shades


def test_prepared_mouths_need_no_face_and_get_the_sound_beside_them(
    tmp_path: Path, write_wav: Callable[[Path, np.ndarray], Path]
) -> None:
    clip = tmp_path / SEGMENTS / "test/ann/00001.mp4"
    shades = mouth_video(clip, 12)
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 12 * SAMPLES_PER_FRAME)
    write_wav(clip.with_suffix(".wav"), sound)
    touch(tmp_path / "labels/lrs3_test.csv", "lrs3,lrs3_video_seg16s/test/ann/00001.mp4,12,0,hello, there\n")
    for _ in range(2):  # the second run finds the mouth file of the first
        (row,) = read_manifest(prepare("lrs3", tmp_path, tmp_path / "out", workers=0, offline=True))
        assert (row.text, row.frames, row.split) == ("hello, there", 12, "test")
        stored = read_store(row.source)
        assert stored.crops is not None and stored.audio is not None  # noqa: PT018
        assert abs(stored.crops.mean((1, 2)) - shades).max() < 3
        assert abs(stored.audio / 32768 - sound).max() < 1e-3


def test_the_sound_beside_a_silent_video_is_heard_without_a_mouth_file(
    tmp_path: Path, write_wav: Callable[[Path, np.ndarray], Path]
) -> None:
    mouth_video(tmp_path / "a.mp4", 5)
    write_wav(tmp_path / "a.wav", np.full(5 * SAMPLES_PER_FRAME, 0.25))
    sample = load_sample(Row("a", tmp_path / "a.mp4", "x", "test"), ("audio",))
    assert sample.audio is not None
    assert sample.audio == pytest.approx(0.25, abs=1e-3)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert len(sample.audio) == file.getnframes()


# ---- the corpora's own folders -------------------------------------------------------------------

TABLE = "Text:  {}\nConf:  5\n\nWORD START END ASDSCORE\n{}"


def test_lrs3_as_it_comes(tmp_path: Path) -> None:
    for part in ("pretrain", "trainval", "test"):
        touch(tmp_path / part / "ann" / "00001.mp4")
        touch(tmp_path / part / "ann" / "00001.txt", TABLE.format("IT'S FINE ", "IT'S 0.1 0.4 2.0\nFINE 0.5 0.9 1.0\n"))
    touch(tmp_path / "test" / "ann" / "00002.mp4")
    touch(tmp_path / "other" / "ann" / "00001.mp4")
    touch(tmp_path / "test/ann/00003.mp4")
    touch(tmp_path / "test/ann/00003.txt", "IT'S FINE")
    rows, dropped = split_up(lrs3(tmp_path))
    assert [(r.id, r.text, r.split, r.speaker, r.end) for r in rows] == [
        ("pretrain/ann/00001", "it's fine", "train", "ann", None),
        ("test/ann/00001", "it's fine", "test", "ann", None),
        ("trainval/ann/00001", "it's fine", "", "ann", None),
    ]
    assert [d.reason for d in dropped] == [
        "'other' is no part of lrs3",
        "there is no transcript '00002.txt' beside it",
        "transcript '00003.txt': expected 'Text:' in its first line",
    ]


def test_lrs2_as_it_comes(tmp_path: Path) -> None:
    for folder, name in (("main", "00001"), ("main", "00002"), ("main", "00003"), ("pretrain", "00004")):
        touch(tmp_path / "mvlrs_v1" / folder / "63" / f"{name}.mp4")
        touch(tmp_path / "mvlrs_v1" / folder / "63" / f"{name}.txt", "Text:  HELLO\nConf:  4\n")
    touch(tmp_path / "train.txt", "63/00001\n")
    touch(tmp_path / "mvlrs_v1" / "test.txt", "63/00002 NF\n")
    rows, dropped = split_up(lrs2(tmp_path))
    assert [(r.id, r.split) for r in rows] == [
        ("main/63/00001", "train"), ("main/63/00002", "test"), ("pretrain/63/00004", "train"),
    ]  # fmt: skip
    assert dropped[0].reason == "no list (train.txt, val.txt, test.txt) names it"


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0.1, 2)), min_size=1, max_size=60))
def test_long_utterances_are_cut_between_words(tmp_path_factory: pytest.TempPathFactory, gaps: list) -> None:
    root = tmp_path_factory.mktemp("lrs3")
    now, words = 0.0, []
    for i, (pause, length) in enumerate(gaps):
        words.append((f"w{i}", round(now + pause, 2), round(now + pause + length, 2)))
        now = words[-1][2]
    touch(root / "pretrain/ann/00001.mp4")
    spoken = " ".join(w for w, *_ in words)
    lines = "".join(f"{w.upper()} {start} {end} 1.0\n" for w, start, end in words)
    touch(root / "pretrain/ann/00001.txt", TABLE.format(spoken.upper(), lines))
    rows, _ = split_up(lrs3(root))
    assert " ".join(row.text for row in rows) == spoken
    if now <= LONGEST:
        assert [(row.start, row.end) for row in rows] == [(0.0, None)]
    else:
        assert all(row.end is not None and row.end - row.start <= LONGEST for row in rows)
        assert all(one.end <= other.start for one, other in pairwise(rows))  # type: ignore[operator]
    assert len({row.id for row in rows}) == len(rows)
