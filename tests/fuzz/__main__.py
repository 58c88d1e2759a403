"""`make fuzz`: thousands of damaged containers, each of which must give text or a sentence.

    python -m tests.fuzz OUT [CASES]

Goes on where it was stopped: OUT/results.jsonl holds one line per case. What failed is kept in OUT/failures. Exit code
1 if the program crashed, hung, exceeded the memory or raised what is not its own.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import torch
from rich.progress import track

from omni_avsr.checkpoints import save_model
from omni_avsr.config import ModelConfig
from omni_avsr.model.omni import build_model
from tests.conftest import TEXTS, TINY
from tests.fuzz.mutants import make_seeds, mutant
from tests.fuzz.watch import Verdict, Watch


def main(out: Path, cases: int) -> int:
    """Exit code."""
    out.mkdir(parents=True, exist_ok=True)
    model = out / "model"
    torch.manual_seed(0)
    save_model(build_model(ModelConfig.model_validate(TINY), TEXTS), model, origin={"made_by": "make fuzz"})
    paths = make_seeds(out / "seeds")
    results = out / "results.jsonl"
    done = {json.loads(line)["case"] for line in results.read_text().splitlines()} if results.exists() else set()
    with Watch.transcriber(model) as watch, results.open("a") as file:
        for path in paths:
            intact = watch.file(path)
            assert intact.outcome == "text", f"{path} is intact: {intact}"
        for case in track(sorted(set(range(cases)) - done), "damaging", disable=not sys.stderr.isatty()):
            verdict = run(case, paths, out, watch)
            file.write(json.dumps({"case": case, **vars(verdict)}) + "\n")
            file.flush()
    return summary(results)


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


def summary(results: Path) -> int:
    """Prints the counts; 1 if any case failed."""
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    counts = Counter(row["outcome"] for row in rows)
    print(f"{len(rows)} damaged files: " + ", ".join(f"{n} {outcome}" for outcome, n in counts.most_common()))
    print(
        f"slowest {max(r['seconds'] for r in rows):.1f} s, peak memory {max(r['peak'] for r in rows) / 2**30:.2f} GiB"
    )
    return int(not set(counts) <= {"text", "refused"})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2000))
