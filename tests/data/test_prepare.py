"""prepare: from files to a manifest, with a reason for every drop, and resumable. Faces are found by a stand-in."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from omni_avsr.data import intake
from omni_avsr.data.manifest import Row, read_manifest
from omni_avsr.data.mouth_store import read_store
from omni_avsr.data.prepare import PREPARERS, prepare
from omni_avsr.data.synthetic import write_clip
from omni_avsr.errors import AssetError, ConfigError, DataError, OmniAVSRError
from omni_avsr.types import SAMPLES_PER_FRAME, Mouths

CODES = ("bbaf2n", "bgwb3a", "lwiz9s", "prbd5p")


def fake_mouths(frames: Iterable[np.ndarray], **_: object) -> Mouths:
    """A face is found in green pictures; the crop is the red channel's upper left corner."""
    pictures = list(frames)
    found = np.array([p[..., 1].mean() > 100 for p in pictures], bool)
    crops = np.stack([p[:96, :96, 0] for p in pictures]) if pictures else np.zeros((0, 96, 96), np.uint8)
    nothing = np.zeros((len(pictures), 4), np.float32)
    return Mouths(crops, found, nothing, nothing[:, 0])


@pytest.fixture(autouse=True)
def _faces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "mouths", fake_mouths)
    monkeypatch.setattr(intake, "load_detector", lambda **_: None)
    intake.shared_detector.cache_clear()


def clip(path: Path, frames: int = 10, seen: float = 1.0, audio_frames: int | None = None) -> Path:
    """A tiny mp4; the first `seen` of its frames show a 'face'."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = np.zeros((frames, 96, 112, 3), np.uint8)
    pictures[: round(frames * seen), ..., 1] = 200
    pictures[..., 0] = 64
    samples = SAMPLES_PER_FRAME * (frames if audio_frames is None else audio_frames)
    write_clip(
        path, pictures, np.random.default_rng(sum(path.name.encode())).normal(0, 0.1, samples).astype(np.float32)
    )
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Four clips of one speaker in GRID's layout, one of them without a face for half of the time, and some junk."""
    root = tmp_path / "corpus"
    for code in CODES[:3]:
        clip(root / "s1" / f"{code}.mp4")
    clip(root / "s1" / f"{CODES[3]}.mp4", seen=0.5)
    (root / "s1" / "swwz1a.mp4").write_bytes(b"not media at all")
    return root


def report(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def test_mouths_are_stored_and_drops_have_reasons(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rows = read_manifest(prepare("grid", corpus, out, mouths=True, workers=0, dev_share=0.3))
    assert [row.id for row in rows] == [f"s1/{code}" for code in CODES[:3]]
    assert sorted(row.split for row in rows) == ["dev", "train", "train"]
    assert all(row.frames == 10 and row.speaker == "s1" for row in rows)
    stored = read_store(rows[0].source)
    assert stored.crops is not None
    assert abs(stored.crops.astype(int) - 64).max() < 12  # mp4 colours are not exact
    assert stored.audio is not None
    assert abs(len(stored.audio) / SAMPLES_PER_FRAME - 10) <= 1
    done = report(out)
    reasons = {d["id"]: d["reason"] for d in done["dropped"]}
    assert set(reasons) == {"s1/prbd5p", "s1/swwz1a"}
    assert "a face is in 50% of 10 frames; at least 80% is wanted (--min_face)" in reasons["s1/prbd5p"]
    assert "cannot be read as media" in reasons["s1/swwz1a"]
    assert done["splits"]["train"]["rows"] == 2
    assert done["mean_face_share"] == 1.0


def test_a_second_run_makes_nothing_twice_but_what_changed(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def run(**options: object) -> tuple[list[Row], list[str]]:
        written: list[str] = []
        write = intake.write_store
        with monkeypatch.context() as patch:
            patch.setattr(intake, "write_store", lambda path, *a: (written.append(path.stem), write(path, *a)))
            return read_manifest(prepare("grid", corpus, tmp_path / "out", mouths=True, workers=0, **options)), written

    first, made = run()
    assert len(made) == 3
    with caplog.at_level(logging.INFO):
        assert run() == (first, [])
    assert "3 of 5 mouth files are there already" in caplog.text
    assert first[0].mouths is not None
    first[0].mouths.write_bytes(b"half a file")
    clip(corpus / "s1" / f"{CODES[1]}.mp4", frames=12)
    again, made = run()
    assert sorted(made) == sorted(CODES[:2])
    assert [row.frames for row in again] == [10, 12, 10]
    assert len(run(min_face=0.4)[1]) == 4  # other options, other files


def test_without_mouths_rows_are_measured(corpus: Path, tmp_path: Path) -> None:
    rows = read_manifest(prepare("grid", corpus, tmp_path / "out", workers=0))
    assert [row.frames for row in rows] == [10, 10, 10, 10]
    assert all(row.mouths is None and row.media.parent == corpus / "s1" for row in rows)


def test_faceless_videos_may_be_listened_to(corpus: Path, tmp_path: Path) -> None:
    rows = read_manifest(prepare("grid", corpus, tmp_path / "out", mouths=True, workers=0, faceless="audio"))
    stored = read_store({row.id: row for row in rows}["s1/prbd5p"].source)
    assert stored.crops is None
    assert stored.audio is not None


def test_subtitles_cut_a_talk_into_utterances(tmp_path: Path, write_wav: Callable[[Path, np.ndarray], Path]) -> None:
    root = tmp_path / "talks"
    clip(root / "talk.mp4", frames=100)
    (root / "talk.srt").write_text(
        "1\n00:00:00,400 --> 00:00:01,000\nOne.\n\n2\n00:00:02,000 --> 00:00:03,000\nTwo, \"2\".\n\n"
        "3\n00:00:09,000 --> 00:00:10,000\nBeyond.\n"
    )  # fmt: skip
    write_wav(root / "voice.wav", np.zeros(16000))
    rows = read_manifest(prepare("folder", root, tmp_path / "out", mouths=True, workers=0))
    assert [(r.text, r.frames, r.start, r.end) for r in rows] == [
        ("One.", 15, 0.4, 1.0), ('Two, "2".', 25, 2.0, 3.0), ("", 25, 0.0, None),
    ]  # fmt: skip
    assert rows[2].mouths is None  # sound alone stays where it is
    done = report(tmp_path / "out")
    assert "the row is 9.0 to 10.0 s, but the file lasts" in done["dropped"][0]["reason"]
    assert done["warnings"] == ["1 of 3 rows have no transcript; training and evaluation leave them out"]


def test_streams_of_different_length_are_cut_to_the_shorter(tmp_path: Path) -> None:
    clip(tmp_path / "c" / "a.mp4", frames=10, audio_frames=40)
    (row,) = read_manifest(prepare("folder", tmp_path / "c", tmp_path / "out", mouths=True, workers=0))
    stored = read_store(row.source)
    assert stored.crops is not None
    assert stored.audio is not None
    assert abs(len(stored.audio) / SAMPLES_PER_FRAME - len(stored.crops)) <= 1
    assert row.frames == len(stored.crops)


def test_long_utterances_and_doubles_are_dropped(corpus: Path, tmp_path: Path) -> None:
    (corpus / "t.csv").write_text(
        f"path,text,id\ns1/{CODES[0]}.mp4,x,a/b\ns1/{CODES[1]}.mp4,x,a/b\ns1/{CODES[1]}.mp4,x,../a?b\n"
    )
    rows = read_manifest(prepare("folder", corpus, tmp_path / "out", mouths=True, workers=0))
    assert [row.id for row in rows] == ["a/b", "../a?b"]
    inside = tmp_path / "out" / "mouths"
    assert [row.source for row in rows] == [inside / "a" / "b.mkv", inside / "a_b.mkv"]
    assert "same id" in report(tmp_path / "out")["dropped"][0]["reason"]
    with pytest.raises(DataError, match="none of 3 utterances"):
        prepare("folder", corpus, tmp_path / "out", workers=0, max_seconds=0.2)
    assert "at most 0.2 s is wanted" in report(tmp_path / "out")["dropped"][1]["reason"]


def test_an_odd_file_is_dropped_but_a_full_disk_and_missing_networks_stop_the_run(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(error: Exception) -> None:
        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(intake, "write_store", fail)

    failing(ZeroDivisionError("odd"))
    with pytest.raises(DataError, match="none of 5"):
        prepare("grid", corpus, tmp_path / "out", mouths=True, workers=0)
    assert report(tmp_path / "out")["dropped"][0]["reason"] == "unexpected ZeroDivisionError: odd"
    failing(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OmniAVSRError, match="no space left"):
        prepare("grid", corpus, tmp_path / "out", mouths=True, workers=0)
    failing(AssetError("the face networks are missing"))
    with pytest.raises(AssetError):
        prepare("grid", corpus, tmp_path / "out", mouths=True, workers=0)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("gird", "."), {}, ConfigError, "did you mean 'grid'"),
        (("grid", "gone"), {}, DataError, "'gone' does not exist"),
        (("grid", "."), {"mouth": True}, ConfigError, "unknown option 'mouth'; did you mean 'mouths'"),
        (("grid", "."), {"codec": "h263"}, ConfigError, "did you mean 'h264'"),
        (("grid", "."), {"faceless": "keep"}, ConfigError, "expected drop or audio"),
        (("grid", "."), {"face": "smallest"}, ConfigError, "smallest"),
        (("grid", "."), {"dev_share": 1.5}, ConfigError, "dev_share 1.5"),
        (("grid", "."), {}, DataError, "holds nothing for 'prepare grid'"),
    ],
)
def test_wrong_arguments(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, str],
    options: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        prepare(*arguments, tmp_path / "out", **options)
    assert not (tmp_path / "out" / "manifest.jsonl").exists()


@pytest.mark.parametrize("kind", PREPARERS)
def test_every_preparer_says_what_an_empty_folder_lacks(kind: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        prepare(kind, tmp_path / "empty", tmp_path / "out", workers=0)
