"""A run that nobody watches on a terminal says where it stands in the log."""

from __future__ import annotations

import logging
import re

import pytest

from omni_avsr.train.progress import ProgressReport


def test_a_line_with_loss_and_time_left(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.INFO, "omni_avsr")
    with ProgressReport(total=100, done=0, show=True) as report:
        for _ in range(10):
            report.step(2.5)
        report.line(10, 2.5, 1e-3)
    assert re.search(r"step 10/100  loss 2\.500  lr 1\.00e-03  \d+:\d\d:\d\d left", caplog.text)
    assert capsys.readouterr() == ("", "")  # not a terminal: nothing is drawn


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with ProgressReport(total=4, done=1, show=True) as report:
        report.step(1.25)
        report.line(2, 1.25, 1e-3)
    drawn = capsys.readouterr().err
    assert "2/4" in drawn
    assert "loss 1.250" in drawn
    assert "left" in drawn


def test_other_processes_are_silent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with ProgressReport(total=4, done=0, show=False) as report:
        report.step(1.25)
    assert capsys.readouterr() == ("", "")
