"""What a run leaves to read: metrics.jsonl, curves.png, and TensorBoard's files where it is installed."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Row = Mapping[str, Any]


class RunLog:
    """Appends rows to `metrics.jsonl`; a row is {"kind": "train" | "dev", "step", "epoch", name: number …}.

    Args:
        folder: the run's folder.
        step: rows after this step are dropped first: a resumed run writes them again.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        self.path = folder / "metrics.jsonl"
        rows = [row for row in read_metrics(self.path) if row["step"] <= step]
        self.path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        self._board = _tensorboard(folder / "tensorboard", step)

    def write(self, row: Row) -> None:
        """Adds one row. A full disk costs the row, not the run."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            log.error("%s: a row is lost (%s)", self.path, error)
        if self._board is not None:
            for name, value in row.items():
                if isinstance(value, int | float) and name not in ("step", "epoch"):
                    self._board.add_scalar(f"{row['kind']}/{name}", value, row["step"])
            self._board.flush()

    def draw(self) -> None:
        """Draws `curves.png` anew from all rows so far."""
        try:
            draw_curves(read_metrics(self.path), self.path.with_name("curves.png"))
        except OSError as error:
            log.error("the curves are not drawn: %s", error)

    def close(self) -> None:
        """Closes TensorBoard's file."""
        if self._board is not None:
            self._board.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a last line cut short by a crash is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text("utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            log.warning("%s: a broken line is left out", path)
    return rows


def draw_curves(rows: Sequence[Row], path: Path) -> None:
    """Losses per task, word error rates where measured, and the learning rate, over steps, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    train = [r for r in rows if r["kind"] == "train"]
    dev = [r for r in rows if r["kind"] == "dev"]
    panels = [
        ("training loss", train, "loss/", "log"),
        ("dev loss", dev, "loss/", "log"),
        ("dev word error rate, %", dev, "wer/", "linear"),
        ("learning rate", train, "lr", "linear"),
    ]
    panels = [p for p in panels if _names(p[1], p[2])]
    if not panels:
        return
    figure = Figure(figsize=(5.0 * len(panels), 3.6), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display
    for i, (title, some, prefix, scale) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), i + 1)
        for name in _names(some, prefix):
            points = [(r["step"], r[name]) for r in some if name in r and math.isfinite(r[name])]
            marker = "o" if len(points) < 30 else ""
            axes.plot(*zip(*points, strict=True), label=name.removeprefix(prefix) or name, marker=marker, markersize=3)
        axes.set(title=title, xlabel="step", yscale=scale)
        for ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter)[: 1 + (scale == "log")]:
            ticks("{x:g}")  # 0.5, not 5 x 10^-1
        axes.grid(visible=True, alpha=0.3)
        if prefix.endswith("/"):
            axes.legend(fontsize="small")
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, format="png", dpi=110)
    partial.replace(path)


def _names(rows: Sequence[Row], prefix: str) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row if name.startswith(prefix)))


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
