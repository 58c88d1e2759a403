"""`make fuzz`: thousands of damaged containers, each of which must give text or a sentence.

    python -m tests.fuzz OUT [CASES] [SUMMARY.json]

Goes on where it was stopped: OUT/results.jsonl holds one line per case. What failed is kept in OUT/failures. Exit code
1 if the program crashed, hung, exceeded the memory or raised what is not its own.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from omni_avsr.checkpoints import save_model
from omni_avsr.config import ModelConfig
from omni_avsr.evaluate.provenance import provenance
from omni_avsr.model.omni import build_model
from tests.conftest import TEXTS, TINY
from tests.fuzz.mutants import make_seeds, mutant
from tests.fuzz.watch import MEMORY, PATIENCE, Verdict, Watch


def main(out: Path, cases: int, stored: Path | None = None) -> int:
    """Exit code."""
    out.mkdir(parents=True, exist_ok=True)
    model = out / "model"
    torch.manual_seed(0)
    save_model(build_model(ModelConfig.model_validate(TINY), TEXTS), model, origin={"made_by": "make fuzz"})
    paths = make_seeds(out / "seeds")
    results = out / "results.jsonl"
    done = {json.loads(line)["case"] for line in results.read_text().splitlines()} if results.exists() else set()
    here = provenance(torch.device("cpu"))
    with Watch.transcriber(model) as watch, results.open("a") as file:
        for path in paths:
            intact = watch.file(path)
            assert intact.outcome == "text", f"{path} is intact: {intact}"
        for case in track(sorted(set(range(cases)) - done), "damaging", disable=not sys.stderr.isatty()):
            verdict = run(case, paths, out, watch)
            file.write(json.dumps({"case": case, **vars(verdict), "commit": here["commit"]}) + "\n")
            file.flush()
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    found = summary([row for row in rows if row["case"] < cases])
    print(json.dumps(found, indent=1))
    if stored:
        about = {"machine": here["machine"], "versions": here["versions"], "date": here["date"]}
        stored.write_text(json.dumps(found | about, indent=1) + "\n")
    return int(not set(found["outcomes"]) <= {"text", "refused"})


def run(case: int, seeds: list[Path], out: Path, watch: Watch) -> Verdict:
    """The verdict on one case; its file is kept where the program failed."""
    number, data = mutant(case, [path.read_bytes() for path in seeds])
    damaged = out / "failures" / f"{case:06d}{seeds[number].suffix}"
    damaged.parent.mkdir(exist_ok=True)
    damaged.write_bytes(data)
    verdict = watch.file(damaged)
    if verdict.good:
        damaged.unlink()
    else:
        print(f"{damaged}: {verdict.outcome}: {verdict.message.splitlines()[-1]}", file=sys.stderr)
    return verdict


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What became of all cases, the slowest, the one that took most memory, and the commits that they ran on."""
    slowest, hungriest = (max(rows, key=lambda row: row[key]) for key in ("seconds", "peak"))
    return {
        "cases": len(rows),
        "outcomes": dict(Counter(row["outcome"] for row in rows).most_common()),
        "slowest": {"case": slowest["case"], "seconds": slowest["seconds"]},
        "peak": {"case": hungriest["case"], "mib": round(hungriest["peak"] / 2**20, 1)},
        "limits": {"seconds": PATIENCE, "mib": MEMORY / 2**20},
        "commits": sorted({row["commit"] for row in rows}),
    }


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("out", type=Path)
    options.add_argument("cases", type=int, nargs="?", default=2000)
    options.add_argument("stored", type=Path, nargs="?")
    sys.exit(main(**vars(options.parse_args())))
