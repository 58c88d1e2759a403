"""One HTML file that shows an evaluation: curves, the table, and the utterances that went wrong."""

from __future__ import annotations

import html
import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omni_avsr.evaluate.metrics import difference
from omni_avsr.tasks import TASKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]  # one of results.json's rows, or one line of utterances.jsonl

WORST = 25  # utterances shown
COLOURS = dict(zip(TASKS, ("#0072b2", "#d55e00", "#009e73"), strict=True))  # told apart by colour-blind readers too
MARKERS = "osD^vPX*"
FRAMES_PER_SECOND = {"audio": 50, "video": 25}  # of the encoders, before compression
log = logging.getLogger(__name__)

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; max-width: 1040px; margin: 2.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2.4rem; }
.sub { color: #5b6675; margin-top: 0; } figure { margin: 0; max-width: 780px; }
figure svg { width: 100%; height: auto; } table { border-collapse: collapse; width: 100%; }
.wide { overflow-x: auto; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #e3e7ec; white-space: nowrap; }
.worst { display: flex; flex-wrap: wrap; gap: 0 1rem; padding: .3rem .6rem; border-bottom: 1px solid #e3e7ec; }
.worst > :first-child { flex: 0 1 22rem; overflow-wrap: anywhere; } .worst > :last-child { flex: 1 1 20rem; }
th { color: #5b6675; font-weight: 600; } .text { text-align: left; } .ci { color: #6b7684; font-size: .85em; }
.pair { display: inline-block; margin-right: .45em; vertical-align: top; line-height: 1.35; color: #6b7684; }
ins, del { display: block; padding: 0 .2em; min-height: 1.35em; text-decoration: none; color: #1c2430; }
del { background: #fde0dc; } ins { background: #d6f3e3; }
pre { background: #f5f7f9; padding: 1rem; overflow-x: auto; font-size: .82rem; } code { overflow-wrap: anywhere; }
@media (max-width: 600px) { body { margin: 1rem auto; } th, td { padding: .25rem .4rem; } }
"""


def render(results: Mapping[str, Any], utterances: Sequence[Row]) -> str:
    """The report as one self-contained page.

    Args:
        results: what results.json holds: `rows` and `meta`.
        utterances: the lines of utterances.jsonl.
    """
    rows, meta = results["rows"], results["meta"]
    title = f"{meta['model']} on {meta['manifest']}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p class=sub>{_subtitle(rows, meta)}</p>",
        *_figures(rows),
        "<h2>All conditions</h2>",
        _table(rows),
        *_worst(utterances),
        *_left_out(meta.get("left_out", {})),
        "<h2>How this was made</h2>",
        f"<p><code>{html.escape(meta.get('command', ''))}</code></p>",
        f"<details><summary>Everything: model, weights, noise, machine, versions</summary>"
        f"<pre>{html.escape(json.dumps(meta, indent=2, ensure_ascii=False))}</pre></details>",
    ]
    view = "<meta name=viewport content='width=device-width, initial-scale=1'>"
    head = f"<!doctype html><html lang=en><meta charset=utf-8>{view}<title>{html.escape(title)}</title>"
    return "\n".join([f"{head}<style>{STYLE}</style>", *parts, "</html>\n"])


def _subtitle(rows: Sequence[Row], meta: Mapping[str, Any]) -> str:
    size = max((row["utterances"] for row in rows), default=0)
    when = str(meta["date"]).replace("T", " ")[:16]
    return html.escape(f"{size} utterances · {len(rows)} conditions · seed {meta['seed']} · {when}")


def _left_out(rows: Mapping[str, str]) -> list[str]:
    if not rows:
        return []
    told = "".join(f"<li><b>{html.escape(id)}</b>: {html.escape(reason)}" for id, reason in rows.items())
    return [f"<h2>Left out: {len(rows)} row(s) that cannot be read</h2><ul>{told}</ul>"]


def condition(row: Row) -> str:
    """'-5 dB babble' or 'clean'; a recording by the name of its file or folder."""
    return "clean" if row["snr_db"] is None else f"{row['snr_db']:g} dB {_short(row['noise'])}"


def _short(noise: str) -> str:
    kind, equals, path = noise.rpartition("=")
    return f"{kind}{equals}{Path(path).name or path}"


def system(row: Row) -> str:
    """'avsr 4/2': the task and its rates."""
    rates = [str(row[f"{m}_rate"]) for m in TASKS[row["task"]].modalities]
    return f"{row['task']} {'/'.join(rates)}"


# ---- the table -------------------------------------------------------------------------------


def _table(rows: Sequence[Row]) -> str:
    head = "<tr><th class=text>task, rates<th class=text>noise<th>WER %<th>CER %<th>sub<th>del<th>ins<th>words</tr>"
    return f"<div class=wide><table>{head}{''.join(_table_row(row) for row in rows)}</table></div>"


def _table_row(row: Row) -> str:
    low, high = row["wer_ci95"]
    interval = f"<span class=ci>{100 * low:.1f}–{100 * high:.1f}</span>"
    counts = "".join(f"<td>{row[key]}" for key in ("substitutions", "deletions", "insertions", "words"))
    names = f"<td class=text>{html.escape(system(row))}<td class=text>{html.escape(condition(row))}"
    return f"<tr>{names}<td><b>{100 * row['wer']:.1f}</b> {interval}<td>{100 * row['cer']:.1f}{counts}</tr>"


def _worst(utterances: Sequence[Row]) -> list[str]:
    # noise explains its own errors; what fails with the least of it is what one can learn from
    quiet = max((_quietness(u) for u in utterances), default=0.0)
    wrong = [u for u in utterances if _quietness(u) == quiet and u["wer"] > 0]
    if not wrong:
        return ["<h2>Worst utterances</h2><p>None: with the least noise, every word is right.</p>"]
    wrong.sort(key=lambda u: (-u["wer"], u["id"]))
    title = f"<h2>Worst utterances: {html.escape(condition(wrong[0]))}</h2>"
    return [f"{title}<p class=sub>What was said; below it what was heard instead.</p>", *map(_worst_row, wrong[:WORST])]


def _quietness(u: Row) -> float:
    return float("inf") if u["snr_db"] is None else float(u["snr_db"])


def _worst_row(u: Row) -> str:
    names = f"{html.escape(u['id'])} <span class=ci>{html.escape(system(u))}, WER {100 * u['wer']:.0f} %</span>"
    return f"<div class=worst><div>{names}</div><div>{aligned(u['reference'], u['hypothesis'])}</div></div>"


def aligned(reference: str, hypothesis: str) -> str:
    """Word by word in HTML: what was said, <del>, over what was heard in its place, <ins>; right words plain."""
    out = []
    for edit in difference(reference, hypothesis):
        for said, heard in zip_longest(edit.reference.split(), edit.hypothesis.split(), fillvalue=""):
            wrong = f"<del>{html.escape(said)}</del><ins>{html.escape(heard)}</ins>"
            out.append(f"<span class=pair>{html.escape(said) if edit.kind == 'equal' else wrong}</span>")
    return " ".join(out)


# ---- the curves ------------------------------------------------------------------------------


def _figures(rows: Sequence[Row]) -> list[str]:
    try:
        import matplotlib  # noqa: F401  # of the extra 'train'; the numbers do not need it
    except ImportError:
        log.warning("the report has no curves: matplotlib is not installed (pip install 'omni-avsr[train]')")
        return ["<p>No curves: matplotlib is not installed (pip install 'omni-avsr[train]').</p>"]
    out = []
    for noise in _unique(row["noise"] for row in rows if row["noise"] is not None):
        heard = [row for row in rows if row["noise"] in (noise, None)]
        out += [f"<h2>Word error rate in noise: {html.escape(_short(noise))}</h2>", _svg(heard, _plot_noise)]
    if len({system(row) for row in rows}) > 1:
        out += ["<h2>Word error rate and token budget</h2>", _svg(rows, _plot_budget)]
    return out


def _svg(rows: Sequence[Row], draw: Callable[[Axes, Sequence[Row]], None]) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    # no pyplot: it keeps global state, and may look for a screen
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "omni-avsr", "font.size": 10}):
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        axes = figure.add_subplot()
        draw(axes, rows)
        axes.set_ylabel("WER %")
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
        if axes.get_legend_handles_labels()[0]:
            figure.legend(loc="outside lower center", frameon=False, ncols=4)
        page = io.StringIO()
        figure.savefig(page, format="svg", metadata={"Date": None})
    return f"<figure>{page.getvalue()[page.getvalue().index('<svg') :]}</figure>"


def _plot_noise(axes: Axes, rows: Sequence[Row]) -> None:
    levels: list[float | None] = sorted({row["snr_db"] for row in rows if row["snr_db"] is not None})
    if any(row["snr_db"] is None for row in rows):
        levels.append(None)
    for name in _unique(system(row) for row in rows):
        line = sorted((r for r in rows if system(r) == name), key=lambda r: levels.index(r["snr_db"]))
        x = [levels.index(row["snr_db"]) for row in line]
        style = _style(line[0], rows)
        axes.plot(x, [100 * row["wer"] for row in line], label=name, **style)
        low, high = zip(*([100 * v for v in row["wer_ci95"]] for row in line), strict=True)
        axes.fill_between(x, low, high, color=style["color"], alpha=0.1, linewidth=0)
    axes.set_xticks(range(len(levels)), ["clean" if level is None else f"{level:g}" for level in levels])
    axes.set_xlabel("signal-to-noise ratio, dB")


def _plot_budget(axes: Axes, rows: Sequence[Row]) -> None:
    hardest = min((r["snr_db"] for r in rows if r["snr_db"] is not None), default=None)
    noise = next((r["noise"] for r in rows if r["snr_db"] == hardest), None)
    shown = _unique((snr, kind) for snr, kind in ((None, None), (hardest, noise)))
    for snr, kind in shown:
        for task in _unique(row["task"] for row in rows):
            points = [r for r in rows if (r["task"], r["snr_db"], r["noise"]) == (task, snr, kind)]
            points.sort(key=tokens_per_second)
            if points:
                x, y = [tokens_per_second(r) for r in points], [100 * r["wer"] for r in points]
                dash, label = "-" if snr is None else ":", f"{task}, {condition(points[0])}"
                axes.plot(x, y, label=label, linestyle=dash, marker="o", color=COLOURS[task])
    axes.set_xlabel("tokens per second of speech")


def tokens_per_second(row: Row) -> float:
    """Tokens that the LLM reads per second of input under this row's rates."""
    return sum(FRAMES_PER_SECOND[m] / row[f"{m}_rate"] for m in TASKS[row["task"]].modalities)


def _style(row: Row, rows: Sequence[Row]) -> dict[str, Any]:
    # colour = task; marker and dash = which of that task's rates
    number = _unique(system(r) for r in rows if r["task"] == row["task"]).index(system(row))
    dash = ("-", "--", ":", "-.")[number % 4]
    return {"color": COLOURS[row["task"]], "marker": MARKERS[number % len(MARKERS)], "linestyle": dash, "markersize": 5}


def _unique(items: Any) -> list[Any]:
    return list(dict.fromkeys(items))
