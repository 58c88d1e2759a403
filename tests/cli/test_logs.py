"""What a command says on standard error: all, little, or JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from omni_avsr.media.mouth import Mouth
from tests.clips import grey, video, voice, wav

Run = Callable[..., Result]

pytestmark = pytest.mark.usefixtures("says")


@pytest.fixture
def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good file, one whose picture shows no face, and an empty one."""

    def stream(frames: Iterable[np.ndarray], **_: object) -> Iterator[Mouth]:
        return (Mouth(np.zeros((96, 96), np.uint8), False, np.zeros(4, np.float32)) for _ in frames)

    monkeypatch.setattr("omni_avsr.transcribe.transcriber.mouth_stream", stream)
    folder = tmp_path / "in"
    folder.mkdir()
    wav(folder / "good.wav", voice())
    video(folder / "faceless.mkv", grey(3), voice())
    (folder / "empty.wav").touch()
    return folder


def test_one_line_for_each_file_with_a_problem(run: Run, model_folder: Path, mixed: Path) -> None:
    result = run("transcribe", "in", "--model", model_folder, "-f", "txt")
    assert result.exit_code == 1
    failed, note, total = result.stderr.splitlines()
    assert note == "note: in/faceless.mkv: no face was found, so it was only listened to"
    assert failed.startswith("failed: in/empty.wav: 'in/empty.wav' is empty")
    assert total == "1 of 3 files failed"


def test_quiet_says_only_what_failed(run: Run, model_folder: Path, mixed: Path) -> None:
    result = run("transcribe", "in", "--model", model_folder, "-f", "txt", "--quiet")
    failed, total = result.stderr.splitlines()
    assert failed.startswith("failed: in/empty.wav")
    assert total == "1 of 3 files failed"


def test_json_is_an_object_a_line_with_facts(run: Run, model_folder: Path, mixed: Path) -> None:
    result = run("transcribe", "in", "--model", model_folder, "-f", "srt", "--log-format", "json")
    rows = [json.loads(line) for line in result.stderr.splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(row) for row in rows)
    done = {Path(row["file"]).name: row for row in rows if row["message"].startswith("done")}
    assert set(done) == {"good.wav", "faceless.mkv"}
    assert done["good.wav"]["outputs"] == ["good.srt"]
    assert done["good.wav"]["duration"] == 3.0
    (note,) = (row for row in rows if row["level"] == "warning")
    assert note["notes"] == ["no face was found, so it was only listened to"]
    failed, total = (row for row in rows if row["level"] == "error")
    assert Path(failed["file"]).name == "empty.wav"
    assert "is empty" in failed["error"]
    assert (total["failed"], total["files"]) == (1, 3)


def test_people_are_not_told_what_is_for_programs(run: Run, model_folder: Path, tmp_path: Path) -> None:
    wav(tmp_path / "a.wav", voice())
    quiet = run("transcribe", "a.wav", "--model", model_folder, "-f", "txt")
    verbose = run("transcribe", "a.wav", "--model", model_folder, "-f", "txt", "--verbose")
    assert (quiet.stderr, "done: a.wav" in verbose.stderr) == ("", True)


def test_an_unknown_format_is_a_usage_error(run: Run) -> None:
    result = run("info", "--log_format", "xml")
    assert result.exit_code == 2
    assert "known: json, text" in result.stderr


def test_what_nobody_foresaw_fails_the_file_and_the_rest_goes_on(
    run: Run, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Path, *_: object, **__: object) -> int:
        if "a.txt" in self.name:
            raise KeyError("x")
        return 0

    for name in ("a", "b"):
        wav(tmp_path / f"{name}.wav", voice())
    monkeypatch.setattr(Path, "write_text", broken)
    monkeypatch.setattr("os.replace", lambda *_: None)
    result = run("transcribe", "a.wav", "b.wav", "--model", model_folder, "-f", "txt")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "failed: a.wav: unexpected KeyError: 'x'; this is a bug in omni-avsr: run it again with --verbose for the "
        "traceback",
        "1 of 2 files failed",
    ]


def test_what_nobody_foresaw_elsewhere_is_one_sentence_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("omni_avsr.checkpoints.model_info", broken)
    short, long = run("info"), run("info", "--verbose")
    assert (short.exit_code, long.exit_code) == (1, 1)
    assert short.stderr.startswith("error: unexpected ZeroDivisionError; this is a bug")
    assert len(short.stderr.splitlines()) == 1
    assert "Traceback" in long.stderr


def test_the_logger_is_given_back_as_it_was(run: Run) -> None:
    log = logging.getLogger("omni_avsr")
    before = log.level, list(log.handlers)
    run("train", "list", "--verbose")
    assert (log.level, list(log.handlers)) == before
