"""prepare with a listener and with filters: labels, doubts, sizes, shifts, doubles, and a reason for each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from omni_avsr.data import filters, intake
from omni_avsr.data.intake import Outcome, PrepareOptions
from omni_avsr.data.manifest import Row, read_manifest
from omni_avsr.data.mouth_store import read_store, write_store
from omni_avsr.data.prepare import prepare
from omni_avsr.data.sidecar import Span
from omni_avsr.data.synthetic import write_clip
from omni_avsr.types import FPS

WriteWav = Callable[[Path, np.ndarray], Path]


class Echo:
    """Hears a number of words that is the length of the sound in half seconds; counts how often it is asked."""

    name = "echo"

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, audio: np.ndarray) -> list[Span]:
        self.asked += 1
        halves = len(audio) // 8000
        return [Span(f"word {i}", i / 2, (i + 1) / 2) for i in range(halves)]


def sound(seconds: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(16_000 * seconds))


def test_what_has_no_transcript_gets_the_listeners_and_only_once(tmp_path: Path, write_wav: WriteWav) -> None:
    root = tmp_path / "root"
    root.mkdir()
    write_wav(root / "long.wav", sound(1.5, 0))
    write_wav(root / "short.wav", sound(0.3, 1))
    write_wav(root / "told.wav", sound(1.0, 2))
    (root / "told.txt").write_text("Told.")
    listener = Echo()
    manifest = prepare("folder", root, tmp_path / "out", listener, workers=0)
    rows = [(r.id, r.text, r.start, r.end) for r in read_manifest(manifest)]
    assert rows == [
        ("long-00000000", "word 0", 0.0, 0.5), ("long-00000500", "word 1", 0.5, 1.0),
        ("long-00001000", "word 2", 1.0, 1.5), ("told", "Told.", 0.0, None),
    ]  # fmt: skip
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["pseudo_labelled"] == 3
    assert report["dropped_by"] == {"speech": 1}
    assert "echo hears no speech" in report["dropped"][0]["reason"]
    asked = listener.asked
    before = manifest.read_bytes()
    assert prepare("folder", root, tmp_path / "out", listener, workers=0).read_bytes() == before
    assert listener.asked == asked == 2


def test_transcripts_that_the_listener_doubts_are_dropped(tmp_path: Path, write_wav: WriteWav) -> None:
    (tmp_path / "root").mkdir()
    for number, text in enumerate(("Word 0, word 1!", "something else entirely")):
        write_wav(tmp_path / "root" / f"{number}.wav", sound(1.0, number))
        (tmp_path / "root" / f"{number}.txt").write_text(text)
    (row,) = read_manifest(prepare("folder", tmp_path / "root", tmp_path / "out", Echo(), workers=0, max_wer=0.5))
    assert row.text == "Word 0, word 1!"
    (gone,) = json.loads((tmp_path / "out" / "report.json").read_text())["dropped"]
    assert gone["filter"] == "agreement"
    assert "WER 1.33 between the transcript and what is heard, 'word 0 word 1'" in gone["reason"]


def test_one_recording_under_two_names_is_used_once(tmp_path: Path, write_wav: WriteWav) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("a", "b"):
        write_wav(root / f"{name}.wav", sound(1.0, 7))
        (root / f"{name}.txt").write_text(name)
    write_wav(root / "c.wav", sound(1.0, 8))
    rows = read_manifest(prepare("folder", root, tmp_path / "out", workers=0))
    assert [r.id for r in rows] == ["a", "c"]
    (gone,) = json.loads((tmp_path / "out" / "report.json").read_text())["dropped"]
    assert (gone["filter"], gone["id"]) == ("double", "b")


def test_leakage_between_splits_is_counted(tmp_path: Path, write_wav: WriteWav) -> None:
    lines = ["path,text,speaker,split"]
    for i, (text, speaker, split) in enumerate([("Yes.", "s1", "train"), ("yes", "s1", "dev"), ("no", "s2", "dev")]):
        write_wav(tmp_path / f"{i}.wav", sound(0.5, i))
        lines.append(f"{i}.wav,{text},{speaker},{split}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    prepare("folder", tmp_path / "t.csv", tmp_path / "out", workers=0)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["leakage"] == {"dev": {"speakers": 1, "sentences": 0.5}}


def outcome(number: int, **measured: object) -> Outcome:
    row = Row(f"u{number}", Path("talk.mp4" if number < 6 else "other.mp4"), "x", "", frames=3 * FPS)
    return replace(Outcome(row.id, row), **measured)  # type: ignore[arg-type]


def test_small_mouths_and_shifted_files() -> None:
    late, level = np.zeros(51), np.full(51, 0.4)
    late[25 - 8], late[25] = 0.6, 0.1
    level[25 + 8] = 0.43  # no lag is clearly better
    outcomes = [outcome(i, mouth=40.0, sync=tuple(late)) for i in range(6)]
    outcomes += [outcome(i, mouth=40.0, sync=tuple(level)) for i in range(6, 12)]
    outcomes += [outcome(12, mouth=12.0), outcome(13)]
    rows, dropped = filters.sift(outcomes, PrepareOptions(min_mouth=20), None)
    assert [r.id for r in rows] == [f"u{i}" for i in (6, 7, 8, 9, 10, 11, 13)]
    assert {(d.filter, d.reason) for d in dropped} == {
        ("mouth", "the mouth is 12 pixels wide in the video; at least 20 are wanted (--min_mouth)"),
        ("sync", "the picture is 0.32 s late (confidence 0.50); at most 0.2 s is wanted (--max_offset)"),
    }
    assert len(filters.sift(outcomes, PrepareOptions(max_offset=0), None)[0]) == 14
    assert len(filters.sift(outcomes[:2], PrepareOptions(), None)[0]) == 2  # 6 s say too little


def test_videos_that_are_mouths_already_are_taken_as_they_are(tmp_path: Path, write_wav: WriteWav) -> None:
    """MuAViC's: 96 x 96, mute, the sound beside it; frames that it left black have no face."""
    pictures = (
        np.random.default_rng(0).integers(0, 255, (50, 12, 12, 1), np.uint8).repeat(8, 1).repeat(8, 2).repeat(3, 3)
    )
    pictures[40:] = 0
    folder = tmp_path / "de"
    folder.mkdir()
    write_clip(folder / "v.mp4", pictures, np.zeros(50 * 640, np.float32))
    write_wav(folder / "a.wav", sound(2.0, 3))
    (folder / "train.tsv").write_text("/\ntrain/u\tv.mp4\ta.wav\t50\t32000\n")
    (folder / "train.de").write_text("Grüß Gott\n")
    (row,) = read_manifest(prepare("muavic", tmp_path, tmp_path / "out", mouths=True, workers=0, offline=True))
    stored = read_store(row.source)
    assert stored.crops is not None
    assert stored.found is not None
    assert stored.audio is not None
    assert stored.found.tolist() == [True] * 40 + [False] * 10
    assert np.abs(stored.crops[:40].astype(int) - pictures[:40, ..., 0]).mean() < 12
    assert np.abs(stored.audio).max() > 10_000
    assert row.text == "Grüß Gott"


def test_stores_without_measurements_pass(tmp_path: Path) -> None:
    """Those of an older version say nothing about size and shift."""
    row = Row("u", tmp_path / "u.mp4", "x", "")
    row.media.write_bytes(b"x")
    options = PrepareOptions(mouths=True)
    note = {"made_from": intake._made_from(row, options), "frames": 50, "share": 1.0, "lost_frames": 0}
    crops = np.zeros((50, 96, 96), np.uint8)
    write_store(tmp_path / "mouths" / "u.mkv", crops, None, note=note)
    before = intake.resumed(row, tmp_path, options)
    assert before is not None
    assert filters.sift([before], PrepareOptions(min_mouth=50), None)[1] == []


@pytest.mark.parametrize("name", filters.FILTERS)
def test_every_filter_passes_an_empty_corpus(name: str) -> None:
    assert list(filters.FILTERS[name]([], PrepareOptions(), None)) == []
