"""`omni-avsr live`, fed with a file."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import Result

from omni_avsr.cli.live import picture
from omni_avsr.live.captions import Update
from omni_avsr.live.session import Session, State
from tests.clips import silence, voice, wav

Run = Callable[..., Result]

pytestmark = pytest.mark.usefixtures("says")


def test_lines_as_they_are_finished_and_files_at_the_end(run: Run, model_folder: Path, tmp_path: Path) -> None:
    wav(tmp_path / "talk.wav", np.concatenate([voice(), silence(2), voice()]))
    result = run("live", "--source", "talk.wav", "--speed", 0, "--model", model_folder, "-o", "out", "-f", "srt")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.partition("] ")[2] for line in lines] == ["bin blue at f two now"] * 2
    assert lines[1] > lines[0]
    assert (tmp_path / "out" / "talk.srt").read_text().count("bin blue at f two now") == 2
    assert "written: out/talk.srt" in result.stderr


def test_ctrl_c_ends_the_capture_and_finishes_what_was_begun(
    run: Run, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wav(tmp_path / "talk.wav", np.concatenate([voice(), silence(600)]))
    states = Session.states

    def interrupted(self: Session) -> Iterator[State]:
        for number, state in enumerate(states(self)):
            if number == 2:
                signal.raise_signal(signal.SIGINT)
            yield state

    monkeypatch.setattr(Session, "states", interrupted)
    before = signal.getsignal(signal.SIGINT)
    result = run("live", "--source", "talk.wav", "--speed", 4, "--model", model_folder, "-o", "out", "-f", "txt")
    assert result.exit_code == 0, result.stderr
    assert "bin blue at f two now" in result.stdout
    assert (tmp_path / "out" / "talk.txt").read_text() == "bin blue at f two now\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_nothing_is_stored_unless_asked_for(run: Run, model_folder: Path, tmp_path: Path) -> None:
    wav(tmp_path / "talk.wav", voice())
    assert run("live", "--source", "talk.wav", "--speed", 0, "--model", model_folder).exit_code == 0
    assert [p.name for p in tmp_path.iterdir()] == ["talk.wav"]


def test_devices_that_are_not_there(run: Run, model_folder: Path) -> None:
    result = run("live", "--camera", "/no/camera", "--microphone", "off", "--model", model_folder)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: the device '/no/camera'")
    assert len(result.stderr.splitlines()) == 1
    assert "both off" in run("live", "--camera", "off", "--microphone", "off", "--model", model_folder).stderr


def test_devices_are_listed(run: Run) -> None:
    result = run("live", "--list_devices")
    assert result.exit_code == 0
    assert {"cameras", "microphones"} == {line.split(":")[0] for line in result.stdout.splitlines() if line[0] != " "}


def test_the_screen_shows_what_stands_what_may_change_and_how_far_behind() -> None:
    console = Console(width=80, record=True, color_system=None)
    console.print(picture(State(Update(63.0, (), "bin blue", "at if"), captured=67.2, level=0.1, face=False)))
    words, status = console.export_text().splitlines()
    assert words == "bin blue at if"
    assert status.split() == ["●", "01:07", "▮▮▮▮▮▮▮▯▯▯", "face", "not", "seen", "4", "s", "behind"]
