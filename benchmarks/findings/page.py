"""docs/findings.md and its pictures, made of stored results alone: no number in it was typed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.findings import pictures
from benchmarks.findings.plan import HERE, RESULTS, SEEDS, STUDIES, Entry, Result, Study, stored
from benchmarks.findings.statistics import Estimate, difference, rate

PAGE = HERE.parents[1] / "docs" / "findings.md"
PICTURES = "findings"  # beside the page
FRAMES = {"audio": 50, "video": 25}  # per second, of the encoders
NOISE_TITLES = {
    "babble": "babble: the same speaker's other sentences",
    "crowd": "babble of 40 synthetic strangers",
    "white": "white",
    "music": "music-like, synthetic",
    "recorded": "recorded: a saxophone",
}
Cell = tuple[str, int | None, int | None]  # task, audio rate, video rate


@dataclass(frozen=True)
class Line:
    """An entry of a table with all that is stored of it."""

    entry: Entry
    results: Mapping[int, Result]  # by seed
    errors: Mapping[Cell, Mapping[int, np.ndarray]]  # cell -> seed -> (utterances,)

    @property
    def words(self) -> np.ndarray:
        """(utterances,) words of the references."""
        return np.array(next(iter(self.results.values()))["words"])

    def least(self, key: str) -> float:
        """The least of a number over seeds."""
        return min(float(result[key]) for result in self.results.values())


def read(entry: Entry, folder: Path = RESULTS) -> Line:
    """What is stored of `entry`."""
    results = {seed: found for seed in SEEDS if (found := stored(entry.run, seed, folder)) is not None}
    errors: dict[Cell, dict[int, np.ndarray]] = {}
    for seed, result in results.items():
        for row in result["rows"]:
            if row.get("pooled", False) == entry.pooled and _shown(row):
                cell = row["task"], row["audio_rate"], row["video_rate"]
                errors.setdefault(cell, {})[seed] = np.array(row["errors"])
    return Line(entry, results, errors)


def _shown(row: Mapping[str, object]) -> bool:
    """Of AVSR's four pairs of rates, the finest and the coarsest."""
    return row["task"] != "avsr" or (row["audio_rate"], row["video_rate"]) in ((4, 2), (16, 5))


def compared(line: Line, with_: Line) -> Estimate | None:
    """The difference over all cells and seeds that both have, in points; None where they share nothing."""
    cells = [cell for cell in line.errors if cell in with_.errors]
    seeds = sorted(set(line.results) & set(with_.results))
    if not cells or not seeds:
        return None
    ours, theirs = (np.array([sum(x.errors[c][s] for c in cells) for s in seeds]) for x in (line, with_))
    return difference(ours, theirs, line.words * len(cells))


# ---- text --------------------------------------------------------------------------------------


def render(folder: Path = RESULTS) -> str:
    """The page."""
    parts = [INTRODUCTION, *_overview(folder)]
    for name, study in STUDIES.items():
        again = f"; one row again, though it is stored: `python -m benchmarks.findings --again {study.entries[-1].run}`"
        command = f"All rows: `python -m benchmarks.findings {name}`{again}."
        parts += [f"## {study.title}", command, study.about, *_table(study, folder)]
        if name == "projectors":
            parts += _router(folder)
    parts += [*_noise(folder), *_frontier(folder), *_made(folder)]
    return "\n\n".join(parts) + "\n"


INTRODUCTION = f"""\
# Findings

What the papers claim, asked again in miniature. `make findings` runs what is missing and writes this page: every
number and sentence about a number in it is computed from the JSON in `benchmarks/results/findings`, one file per run.
The commands over a table make its rows; what is stored is not run again, unless the plan or the weights have changed.

**What is trained.** As in the papers, encoders and LLM are frozen and projectors and LoRA are trained from nothing: on
GRID's 850 train clips of one speaker, clean, ten clips a step, a step count at which the tasks are learned half-way
(the rows say how many; `benchmarks/findings/recipe.toml` has the rest). CPU seconds are of the training and the least
of the seeds, since the machine had other work and the first run of each kind also computes the frozen states. Frozen
parts are the shipped model's of a fixed commit, so they have heard these clips. **What is measured.** WER on the 50 dev
clips (300 words), by greedy search; intervals of 95 % by paired bootstrap over seeds ({len(SEEDS)} planned) and
utterances. With one seed an interval speaks of utterances only. Half-trained models tell how fast a form learns rather
than where it ends, one speaker and 51 words tell little of open speech, and of several comparisons at 95 % some are
wrong by chance."""


def _overview(folder: Path) -> Iterator[str]:
    if _groups(folder):
        yield f"![Differences of all tables with their intervals]({PICTURES}/differences.png)"


def _groups(folder: Path) -> list[tuple[str, list[tuple[str, Estimate]]]]:
    """Of every study that has results: its title, and its comparisons."""
    out = []
    for study in STUDIES.values():
        first, *others = (read(entry, folder) for entry in study.entries)
        lines = [(other.entry.label, e) for other in others if (e := compared(other, first)) is not None]
        if lines:
            out.append((f"{study.title} (against: {first.entry.label})", lines))
    return out


def _table(study: Study, folder: Path) -> Iterator[str]:
    lines = [line for entry in study.entries if (line := read(entry, folder)).results]
    if not lines:
        yield "Not run yet."
        return
    cells = sorted({cell for line in lines for cell in line.errors}, key=_order)
    head = ["", "row", "seeds", "trained", "steps", "LLM passes", "CPU s", *(_name(cell) for cell in cells)]
    rows = [head, ["---"] * len(head)]
    for line in lines:
        wers = [_wer(line, cell) for cell in cells]
        size = sum(next(iter(line.results.values()))["trained"].values())
        cost = [f"{size:,}", *(f"{line.least(key):.0f}" for key in ("steps", "llm_passes", "cpu_seconds"))]
        rows.append([line.entry.label, f"`{line.entry.run}`", str(len(line.results)), *cost, *wers])
    yield "\n".join("| " + " | ".join(row) + " |" for row in rows)
    missing = [entry.label for entry in study.entries if not read(entry, folder).results]
    if missing:
        yield f"Not run yet: {'; '.join(missing)}."
    yield "\n".join(_sentences(lines, study.entries[0]))


def _sentences(lines: Sequence[Line], baseline: Entry) -> Iterator[str]:
    first = next((line for line in lines if line.entry == baseline), None)
    for line in lines:
        found = compared(line, first) if first is not None and line is not first else None
        if found is not None and first is not None:
            seeds = len(set(line.results) & set(first.results))
            yield f"- **{line.entry.label}** against {baseline.label}: {verdict(found)}{_of(seeds)}."


def _of(seeds: int) -> str:
    return f" ({seeds} seed{'s' * (seeds > 1)})"


def verdict(found: Estimate) -> str:
    """'+2.1 points [0.3, 4.0]: worse'."""
    numbers = f"{found.value:+.1f} points [{found.low:+.1f}, {found.high:+.1f}]"
    if found.crosses_zero:
        return f"{numbers}; the interval crosses zero, so these runs do not tell the two apart"
    return f"{numbers}: {'more' if found.value > 0 else 'fewer'} errors"


def _wer(line: Line, cell: Cell) -> str:
    if cell not in line.errors:
        return "–"
    return _number(rate(np.array(list(line.errors[cell].values())), line.words))


def _number(found: Estimate) -> str:
    return f"{found.value:.1f} [{found.low:.1f}, {found.high:.1f}]"


def _order(cell: Cell) -> tuple[int, int, int]:
    return ("asr", "vsr", "avsr").index(cell[0]), cell[1] or 0, cell[2] or 0


def _name(cell: Cell) -> str:
    return f"{cell[0].upper()} {'/'.join(str(rate) for rate in cell[1:] if rate is not None)}"


# ---- router, noise, frontier -------------------------------------------------------------------


def _loads(folder: Path) -> dict[str, dict[str, list[float]]]:
    """Label -> load by modality, rate and task, of the mixtures of one pool; the first seed's."""
    out = {}
    for entry in STUDIES["projectors"].entries:
        result = stored(entry.run, SEEDS[0], folder)
        if result is not None and entry.run.startswith("pool"):
            out[entry.label] = pictures.by_task(result["router"], FRAMES)
    return out


def _router(folder: Path) -> Iterator[str]:
    loads = _loads(folder)
    if not loads:
        return
    yield f"![Share of the router's choices per expert]({PICTURES}/router.png)"
    yield (
        "Who is sent where: per cent of the choices of each modality and rate, on the dev clips, first seed. Tokens "
        "are projected once for all tasks, so the router does not know the task: a task's load is that of its "
        "modalities, weighted by their tokens."
    )
    for label, load in loads.items():
        apart = 50 * sum(abs(a - b) for a, b in zip(load["audio 4"], load["video 2"], strict=True))
        rates = 50 * sum(abs(a - b) for a, b in zip(load["audio 4"], load["audio 16"], strict=True))
        yield (
            f"- {label}: the loads of audio 4 and video 2 differ by {apart:.0f} % of the choices, those of audio 4 and "
            f"audio 16 by {rates:.0f} %; the busiest expert has {100 * max(map(max, load.values())):.0f} % of one row."
        )


def _curves(result: Result) -> pictures.Curves:
    words, out = np.array(result["words"]), dict[str, dict[str, list[tuple[float | None, Estimate]]]]()
    for kind in dict.fromkeys(row["noise"] for row in result["rows"] if row["noise"]):
        for row in result["rows"]:
            if row["noise"] in (None, kind):
                found = rate(np.array([row["errors"]]), words)
                out.setdefault(kind, {}).setdefault(row["task"], []).append((row["snr_db"], found))
    for tasks in out.values():
        for points in tasks.values():
            points.sort(key=lambda point: float("-inf") if point[0] is None else -point[0])
    return out


def _noise(folder: Path) -> Iterator[str]:
    yield "## Noise"
    yield "`python -m benchmarks.findings noise`"
    result = stored("noise", folder=folder)
    if result is None:
        yield "Not run yet."
        return
    yield (
        f"The shipped model (weights `{result['key']['weights'][:12]}`), at its finest rates, "
        f"{result['beam_size']} beams. "
        "Babble is mixed from other utterances of the dev split, so from the voice that is to be heard, and once from "
        "strangers. White and music-like noise are computed. These kinds were heard in training. The recording, a "
        "saxophone that comes with Gradio, was not; street noise and a real crowd are not at hand."
    )
    yield f"![WER against signal-to-noise ratio]({PICTURES}/noise.png)"
    for kind, tasks in _curves(result).items():
        levels = ["clean" if level is None else f"{level:g} dB" for level, _ in next(iter(tasks.values()))]
        rows = [[NOISE_TITLES[kind], *levels], ["---"] * (len(levels) + 1)]
        rows += [[task.upper(), *(_number(found) for _, found in points)] for task, points in tasks.items()]
        yield "\n".join("| " + " | ".join(row) + " |" for row in rows)
    yield "\n".join(_lips_or_both(result))


def _lips_or_both(result: Result) -> Iterator[str]:
    """Where hearing helps the lips, and where it harms them: paired over utterances."""
    words = np.array(result["words"])
    errors = {(row["task"], row["noise"], row["snr_db"]): np.array([row["errors"]]) for row in result["rows"]}
    for (task, kind, level), both in errors.items():
        lips = errors.get(("vsr", kind, level))
        if task == "avsr" and kind is not None and level in (0, -10) and lips is not None:
            found = difference(both, lips, words)
            yield f"- {kind}, {level:g} dB, AVSR against lips alone: {verdict(found)}."


def _frontier(folder: Path) -> Iterator[str]:
    yield "## The elastic frontier"
    yield "`python -m benchmarks.findings frontier`"
    result = stored("frontier", folder=folder)
    if result is None:
        yield "Not run yet."
        return
    yield (
        f"The shipped model (weights `{result['key']['weights'][:12]}`), {result['beam_size']} beams: what a second of "
        "speech costs in tokens for the LLM, in counted operations and in processor time of one thread (from features "
        "to text, one clip at a time), and what it buys."
    )
    yield f"![WER against tokens and operations per second of speech]({PICTURES}/frontier.png)"
    words = np.array(result["words"])
    head = ["", "tokens/s", "GFLOP/s", "CPU ms/s", "WER, clean", "WER, babble 0 dB"]
    rows = [head, ["---"] * len(head)]
    by_cell: dict[Cell, list[Result]] = {}
    for row in result["rows"]:
        by_cell.setdefault((row["task"], row["audio_rate"], row["video_rate"]), []).append(row)
    for cell, found in by_cell.items():
        ordered = sorted(found, key=lambda row: row["snr_db"] is not None)
        cost = found[0]
        numbers = [f"{cost['tokens_per_second']:.1f}", f"{cost['gflop_per_second']:.2f}"]
        spent = f"{1000 * cost['cpu_seconds_per_second']:.0f}"
        wers = [_number(rate(np.array([row["errors"]]), words)) for row in ordered]
        rows.append([_name(cell), *numbers, spent, *wers])
    yield "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _made(folder: Path) -> Iterator[str]:
    found = [stored(path.stem, folder=folder) for path in sorted(folder.glob("*.json"))]
    results = [result for result in found if result is not None]
    if not results:
        return
    commits = ", ".join(f"`{c}`" for c in sorted({r["commit"][:9] + "+" * r["commit"].endswith("+") for r in results}))
    machines = sorted({f"{r['machine']['processor']}, {r['machine']['cpus']} CPUs, {r['machine']['device']}, "
                       f"torch {r['versions']['torch']}" for r in results})  # fmt: skip
    seconds = sum(r["cpu_seconds"] for r in results)
    base = next((r["key"]["base"] for r in results if "base" in r["key"]), None)
    yield "## How this was made"
    yield (
        f"{len(results)} stored results, {seconds / 60:.0f} minutes of processor time, on {'; '.join(machines)}; "
        f"code of {commits} (+: with changes not committed)."
        + (
            f" The frozen base has weights `{base['weights'][:12]}` and is taken from commit `{base['commit'][:9]}` by "
            f"the command itself (`git archive {base['commit'][:9]}:omni_avsr/assets/default`)."
            if base
            else ""
        )
        + " GRID is expected in `runs/data/grid`: "
        "`omni-avsr prepare grid ../shared/data/grid -o runs/data/grid --mouths`."
    )


def write(folder: Path = RESULTS, page: Path = PAGE) -> None:
    """Writes the page and draws its pictures."""
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render(folder), "utf-8")
    pictured = page.parent / PICTURES
    if groups := _groups(folder):
        pictures.differences(groups, pictured / "differences.png")
    if loads := _loads(folder):
        pictures.router(loads, pictured / "router.png")
    if (heard := stored("noise", folder=folder)) is not None:
        titles = {kind: title.partition(":")[0].partition(",")[0] for kind, title in NOISE_TITLES.items()}
        titles |= {"crowd": "babble, strangers", "recorded": "saxophone, recorded"}
        pictures.noise(_curves(heard), titles, pictured / "noise.png")
    if (asked := stored("frontier", folder=folder)) is not None:
        words = np.array(asked["words"])
        rows = [(row, rate(np.array([row["errors"]]), words)) for row in asked["rows"]]
        pictures.frontier(rows, pictured / "frontier.png")
