"""`evaluate`: word error rates over a grid of tasks, rates and noises, with all that lies behind them."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from omni_avsr.checkpoints import model_info
from omni_avsr.checkpoints.folder import folder_digest, locate
from omni_avsr.checkpoints.native import load_for_inference
from omni_avsr.checkpoints.weights import digest
from omni_avsr.data.journal import Journal
from omni_avsr.data.manifest import Row, read_manifest
from omni_avsr.data.normalize import normalize
from omni_avsr.errors import ConfigError, DataError
from omni_avsr.evaluate import report
from omni_avsr.evaluate.measure import Answers, Grid, Options
from omni_avsr.evaluate.metrics import Counts, word_errors
from omni_avsr.evaluate.provenance import provenance
from omni_avsr.model.omni import OmniAVSR

RESULTS, UTTERANCES, REPORT, JOURNAL = "results.json", "utterances.jsonl", "report.html", ".answers.jsonl"
log = logging.getLogger(__name__)


def evaluate(
    manifest: str | Path,
    model: str | Path | OmniAVSR,
    out: str | Path,
    options: Options | None = None,
    *,
    device: str = "auto",
    compute_type: str = "default",
    fast: bool = False,
    offline: bool = False,
    command: str = "",
    progress: bool = False,
) -> dict[str, Any]:
    """Measures a model on a manifest, and writes results.json, utterances.jsonl and report.html to `out`.

    A run that was killed goes on where it stopped when it is asked for again: answers are written down as they come.
    A row that cannot be read is reported, named in `meta.left_out`, and asked for again next time; the others go on.

    Args:
        model: "default", a model folder, a hub id, or a loaded model, which stays as it is.
        device, compute_type, fast, offline: of a model that is not loaded, as `load_for_inference`.
        command: what was typed, for the record.
        progress: a bar on standard error.

    Returns:
        What results.json holds: {"rows": [...], "meta": {...}}. Rates of error are fractions.

    Raises:
        DataError: a manifest that cannot be used, or none of its rows.
        ConfigError: an unknown task or noise, or `out` is a file.
        RateError: a rate the model was not trained for.
    """
    options = options or Options()
    if Path(out).is_file():
        raise ConfigError(f"'{out}' is a file; results need a folder of their own")
    name = "given" if isinstance(model, OmniAVSR) else str(model)
    weights = digest(model) if isinstance(model, OmniAVSR) else folder_digest(locate(model, offline))
    if not isinstance(model, OmniAVSR):
        model = load_for_inference(model, device, compute_type, fast, offline)
    normalizer = options.normalizer or model.config.preprocess.normalizer
    options = replace(options, normalizer=normalizer)
    rows = _rows(Path(manifest), options.split, normalizer)
    grid = Grid(model, rows, options)
    journal = Path(out) / JOURNAL
    answers = grid.measure(progress, Journal(journal), f"{weights} {compute_type} {fast}")
    table, lines = _tabulate(grid, answers, options.seed)
    meta = {
        "model": name,
        "manifest": str(manifest),
        "split": options.split or None,
        "noises": grid.recorded(),
        "left_out": grid.left_out,
        "weights": weights,
        "origin": {} if name == "given" else model_info(name, offline=offline)["origin"],
        "config": model.config.model_dump(mode="json"),
        "normalizer": normalizer,
        "compute_type": None if name == "given" else compute_type,
        "fast": None if name == "given" else fast,
        "beam_size": options.beam_size,
        "seed": options.seed,
        "command": command,
        **provenance(model.device),
    }
    results = {"rows": table, "meta": meta}
    _write(Path(out) / UTTERANCES, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    _write(Path(out) / RESULTS, json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    _write(Path(out) / REPORT, report.render(results, lines))
    if not grid.left_out:
        journal.unlink(missing_ok=True)
    return results


def _rows(manifest: Path, split: str, normalizer: str) -> list[tuple[Row, str]]:
    """The rows of `split` with their normalised texts, the longest first: memory runs out at once or never."""
    found = read_manifest(manifest)
    wanted = [row for row in found if split in ("", row.split)]
    rows = [(row, text) for row in wanted if (text := normalize(row.text, normalizer))]
    if not rows:
        have = ", ".join(sorted({row.split for row in found})) or "none"
        raise DataError(
            f"'{manifest}' has no row with a transcript" + f" in split '{split}'; splits: {have}" * bool(split)
        )
    if len(rows) < len(wanted):
        log.warning("%d row(s) have no transcript and are left out", len(wanted) - len(rows))
    if not split and any(row.split == "train" for row, _ in rows):
        log.warning("'%s' holds rows of the split 'train'; choose one with --split", manifest)
    return sorted(rows, key=lambda pair: -pair[0].frames)


# ---- writing -----------------------------------------------------------------------------------


def _tabulate(grid: Grid, answers: Answers, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of results.json and the lines of utterances.jsonl."""
    rows, lines = [], []
    for system, condition in itertools.product(grid.systems, grid.conditions):
        heard = [answers[system, condition][row.id] for row, _ in grid.rows if row.id in answers[system, condition]]
        if not heard:
            continue  # Grid.measure has said so
        rates = word_errors([h.reference for h in heard], [h.hypothesis for h in heard], seed)
        where = {**vars(system), **vars(condition)}
        rows.append(
            {
                **where,
                "wer": rates.words.rate,
                "cer": rates.characters.rate,
                **_edits(rates.words),
                "utterances": len(heard),
                "wer_ci95": list(rates.interval),
            }
        )
        for h, counts in sorted(zip(heard, rates.utterances, strict=True), key=lambda pair: pair[0].row.id):
            said = {"reference": h.reference, "hypothesis": h.hypothesis, "wer": counts.rate, **_edits(counts)}
            sure = {"avg_logprob": round(h.avg_logprob, 4)}
            lines.append({"id": h.row.id, "speaker": h.row.speaker, **where, **said, **sure})
    if not rows and grid.left_out:
        raise DataError(f"no row of the manifest can be used: {next(iter(grid.left_out.values()))}")
    if not rows:
        tasks = ", ".join(dict.fromkeys(system.task for system in grid.systems))
        raise DataError(f"no row of the manifest has the streams that {tasks} need{'s' * (',' not in tasks)}")
    return rows, lines


def _edits(counts: Counts) -> Mapping[str, int]:
    return {
        "substitutions": counts.substitutions,
        "deletions": counts.deletions,
        "insertions": counts.insertions,
        "words": counts.length,
    }


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, "utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
