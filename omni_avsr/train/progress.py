"""How a run shows itself while it runs: a bar on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import logging
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

log = logging.getLogger(__name__)


class ProgressReport:
    """Steps done, loss, time left.

    Args:
        total: optimiser steps of the whole run.
        done: steps done before this process began.
        show: draw a bar where standard error is a terminal; processes other than the first stay silent.
    """

    def __init__(self, total: int, done: int, show: bool) -> None:
        self._total, self._first, self._start = total, done, time.monotonic()
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
        )
        self._bar = Progress(*columns, console=console, disable=not (show and console.is_terminal))
        self._task = self._bar.add_task("training", total=total, completed=done, loss="-")

    def __enter__(self) -> ProgressReport:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bar.stop()

    def step(self, loss: float) -> None:
        """One more step is done."""
        self._bar.update(self._task, advance=1, loss=f"{loss:.3f}")

    def line(self, step: int, loss: float, lr: float) -> None:
        """Says where the run stands, in the log; where a bar is drawn, the bar says it."""
        if self._bar.disable:
            spent = time.monotonic() - self._start
            left = spent / max(1, step - self._first) * (self._total - step)
            log.info("step %d/%d  loss %.3f  lr %.2e  %s left", step, self._total, loss, lr, _clock(left))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
