"""The page's pictures, drawn from stored results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.findings.plan import Result
from benchmarks.findings.statistics import Estimate
from omni_avsr.evaluate.report import COLOURS
from omni_avsr.tasks import TASKS

PLAIN = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "axes.titlesize": 10}
HEADING: Any = {"weight": "bold", "bbox": {"color": "white", "pad": 1.5}, "zorder": 3}
Curves = dict[str, dict[str, list[tuple[float | None, Estimate]]]]  # noise -> task -> (level, WER)


def _plotting() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update(PLAIN)
    return pyplot


def differences(groups: Sequence[tuple[str, Sequence[tuple[str, Estimate]]]], path: Path) -> None:
    """A line per comparison: difference and interval, in colour where it does not cross zero."""
    plt = _plotting()
    count = sum(len(lines) + 1 for _, lines in groups)
    figure, axes = plt.subplots(figsize=(9, 0.27 * count + 0.8))
    ticks: list[tuple[float, str]] = []
    at = 0.0
    for title, lines in groups:
        axes.text(0.0, at, title, transform=axes.get_yaxis_transform(), va="center", **HEADING)
        at += 1
        for label, estimate in lines:
            colour = "#9aa3ad" if estimate.crosses_zero else ("#d55e00" if estimate.value > 0 else "#0072b2")
            axes.plot([estimate.low, estimate.high], [at, at], color=colour, lw=2)
            axes.plot(estimate.value, at, "o", color=colour, ms=5)
            ticks.append((at, label))
            at += 1
    axes.axvline(0, color="#1c2430", lw=0.8)
    axes.set_yticks([y for y, _ in ticks], [label for _, label in ticks])
    axes.set_ylim(at - 0.3, -0.8)
    axes.set_xlabel("WER less that of the table's first row, points (95 % interval); right of zero is worse")
    _save(figure, path)


def noise(curves: Curves, titles: dict[str, str], path: Path) -> None:
    """A panel per noise, a curve per task."""
    plt = _plotting()
    figure, panels = plt.subplots(1, len(curves), figsize=(2.7 * len(curves), 3.0), sharey=True, squeeze=False)
    for axes, (kind, tasks) in zip(panels[0], curves.items(), strict=True):
        for task, points in tasks.items():
            x = range(len(points))
            axes.plot(x, [e.value for _, e in points], "o-", color=COLOURS[task], ms=4, label=task.upper())
            axes.fill_between(
                x, [e.low for _, e in points], [e.high for _, e in points], color=COLOURS[task], alpha=0.15
            )
            axes.set_xticks(x, ["clean" if level is None else f"{level:g}" for level, _ in points])
        axes.set_title(titles[kind])
        axes.set_xlabel("SNR, dB")
        axes.grid(axis="y", alpha=0.25)
    panels[0][0].set_ylim(bottom=0)  # after the last curve: the panels share their scale
    panels[0][0].set_ylabel("WER, %")
    panels[0][0].legend(frameon=False)
    _save(figure, path)


def frontier(rows: Sequence[tuple[Result, Estimate]], path: Path) -> None:
    """WER against tokens and against operations per second of speech; clean is filled, babble is not."""
    plt = _plotting()
    figure, panels = plt.subplots(1, 2, figsize=(8.6, 3.6), sharey=True)
    axis_names = {"tokens_per_second": "tokens per second of speech", "gflop_per_second": "GFLOP per second of speech"}
    for axes, (name, label) in zip(panels, axis_names.items(), strict=True):
        for row, estimate in rows:
            colour, clean = COLOURS[row["task"]], row["snr_db"] is None
            face = colour if clean else "white"
            # a resample may round to a hair beyond a rate that none differs from
            bars = [[max(0.0, estimate.value - estimate.low)], [max(0.0, estimate.high - estimate.value)]]
            axes.errorbar(row[name], estimate.value, yerr=bars, fmt="o", ms=6, color=colour, mfc=face, elinewidth=1)
        axes.set_xlabel(label)
        axes.grid(alpha=0.25)
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel("WER, %")
    for task in dict.fromkeys(row["task"] for row, _ in rows):
        panels[1].plot([], [], "o", color=COLOURS[task], label=task.upper())
    panels[1].plot([], [], "o", color="#5b6675", label="clean")
    panels[1].plot([], [], "o", color="#5b6675", mfc="white", label="babble, 0 dB")
    panels[1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _save(figure, path)


def router(loads: dict[str, dict[str, list[float]]], path: Path) -> None:
    """A panel per mixture: who is sent to which expert, as a share of the choices."""
    plt = _plotting()
    widths = [len(next(iter(load.values()))) for load in loads.values()]
    rows = max(len(load) for load in loads.values())
    figure, panels = plt.subplots(
        1, len(loads), figsize=(1.6 + sum(0.5 * w + 0.4 for w in widths), 0.32 * rows + 1.1),
        width_ratios=widths, sharey=True, squeeze=False,
    )  # fmt: skip
    for axes, (title, load) in zip(panels[0], loads.items(), strict=True):
        table = list(load.values())
        axes.imshow(table, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for y, shares in enumerate(table):
            for x, share in enumerate(shares):
                axes.text(x, y, f"{100 * share:.0f}", ha="center", va="center", fontsize=7,
                          color="white" if share > 0.55 else "#1c2430")  # fmt: skip
        axes.set_title(title, fontsize=9)
        axes.set_xticks(range(len(table[0])), [str(e + 1) for e in range(len(table[0]))])
        axes.set_yticks(range(len(load)), list(load))
        axes.tick_params(length=0)
        axes.set_xlabel("expert")
    _save(figure, path)


def by_task(load: dict[str, list[float]], frames: dict[str, int]) -> dict[str, list[float]]:
    """The load of each modality and rate, and of each task at its finest and coarsest rates, in which both modalities
    count by their tokens.

    Args:
        load: 'audio 4' -> shares.
        frames: modality -> encoder frames per second.
    """
    out = dict(load)
    rates = {m: sorted(int(name.split()[1]) for name in load if name.startswith(m)) for m in frames}
    for task in TASKS.values():
        for position in (0, -1):
            own = {m: rates[m][position] for m in task.modalities}
            weight = {m: frames[m] / rate for m, rate in own.items()}
            parts = [[weight[m] * share for share in load[f"{m} {rate}"]] for m, rate in own.items()]
            name = f"{task.name.upper()} {'/'.join(str(rate) for rate in own.values())}"
            out[name] = [sum(shares) / sum(weight.values()) for shares in zip(*parts, strict=True)]
    return out


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)
