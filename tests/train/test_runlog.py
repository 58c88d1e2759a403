"""metrics.jsonl and what is drawn from it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from omni_avsr.train.runlog import RunLog, draw_curves, read_metrics


def train_row(step: int) -> dict[str, float | str]:
    return {"kind": "train", "step": step, "epoch": 0, "lr": 1e-3, "loss": 3 / step, "loss/asr": 2 / step}


def dev_row(step: int) -> dict[str, float | str]:
    return {"kind": "dev", "step": step, "epoch": 1, "loss/asr@4": 2 / step, "wer/asr": 50.0}


def test_resuming_drops_the_rows_that_will_be_written_again(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    for step in (1, 2, 3):
        log.write(train_row(step))
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tr')  # a crash in the middle of a line
    log = RunLog(tmp_path, step=2)
    log.write(train_row(3))
    log.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [train_row(s) for s in (1, 2, 3)]


def test_a_new_run_starts_empty(tmp_path: Path) -> None:
    RunLog(tmp_path).write(train_row(1))
    RunLog(tmp_path)
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_a_row_that_cannot_be_written_costs_a_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = RunLog(tmp_path)
    log.path.unlink()
    log.path.mkdir()
    log.write(train_row(1))
    assert "a row is lost" in caplog.text


def test_curves_are_a_picture_with_a_panel_per_measure(tmp_path: Path) -> None:
    import cv2

    rows = [train_row(s) for s in range(1, 40)] + [dev_row(s) for s in (10, 20, 30)]
    draw_curves(rows, tmp_path / "all.png")
    draw_curves(rows[:39], tmp_path / "train.png")
    wide, narrow = (cv2.imread(str(tmp_path / name)) for name in ("all.png", "train.png"))
    assert wide.shape[1] == 2 * narrow.shape[1]  # four panels, two panels
    for half in np.array_split(narrow, 2, axis=1):
        coloured = half.max(2).astype(int) - half.min(2) > 60
        assert coloured.sum() > 200  # a line is drawn in each


class Writer:
    """What TensorBoard would be told."""

    made: ClassVar[list[Writer]] = []

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step = folder, purge_step
        self.scalars: list[tuple[str, float, int]] = []
        self.shown = 0  # scalars that a reader would see by now
        self.closed = False
        self.made.append(self)

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.append((tag, value, step))

    def flush(self) -> None:
        self.shown = len(self.scalars)

    def close(self) -> None:
        self.closed = True


def test_tensorboard_gets_every_number_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Writer, "made", [])
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    log = RunLog(tmp_path, step=4)
    log.write(train_row(5))
    log.write(dev_row(6))
    (board,) = Writer.made
    assert (board.folder, board.purge_step) == (str(tmp_path / "tensorboard"), 5)
    assert board.scalars == [
        *[("train/lr", 1e-3, 5), ("train/loss", 0.6, 5), ("train/loss/asr", 0.4, 5)],
        *[("dev/loss/asr@4", 2 / 6, 6), ("dev/wer/asr", 50.0, 6)],
    ]
    assert board.shown == 5
    assert not board.closed
    log.close()
    assert board.closed


def test_without_tensorboard_nothing_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    log = RunLog(tmp_path)
    log.write(train_row(1))
    log.close()
    assert read_metrics(log.path) == [train_row(1)]
    assert not (tmp_path / "tensorboard").exists()


def test_nothing_to_draw_draws_nothing(tmp_path: Path) -> None:
    draw_curves([], tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


def test_numbers_survive_the_file(tmp_path: Path) -> None:
    row = train_row(7) | {"loss": 0.1 + 0.2}
    RunLog(tmp_path).write(row)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == row
