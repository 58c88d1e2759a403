"""MuAViC as its scripts leave it; no media is opened, so empty files do."""

from __future__ import annotations

from pathlib import Path

import pytest

from omni_avsr.data.corpora import Dropped
from omni_avsr.data.manifest import Row
from omni_avsr.data.muavic import muavic
from omni_avsr.errors import DataError


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_tables_with_sound_in_files_of_its_own(tmp_path: Path) -> None:
    video = put(tmp_path / "ru" / "video" / "train" / "talk1" / "talk1_0000.mp4")
    audio = put(tmp_path / "ru" / "audio" / "train" / "talk1" / "talk1_0000.wav")
    there = "/elsewhere/muavic/ru"
    put(
        tmp_path / "ru" / "train.tsv",
        f"/\ntrain/talk1_0000\t{there}/video/train/talk1/{video.name}\t{there}/audio/train/talk1/{audio.name}\t50\t32000\n"
        "train/talk1_0001\tvideo/gone.mp4\taudio/gone.wav\t1\t1\n",
    )
    put(tmp_path / "ru" / "train.ru", "привет, мир\nнет\n")
    row, gone = muavic(tmp_path)
    assert row == Row("ru/train/talk1_0000", video, "привет, мир", "train", "talk1", audio=audio)
    assert isinstance(gone, Dropped)
    (alone, _) = muavic(tmp_path / "ru")
    assert alone.id == "train/talk1_0000"
    put(tmp_path / "ru" / "train.ru", "привет\n")
    with pytest.raises(DataError, match=r"has 2 rows, 'train\.ru' 1 lines"):
        list(muavic(tmp_path))


def test_a_folder_without_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no train\.tsv"):
        list(muavic(tmp_path))
