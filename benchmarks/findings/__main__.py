"""The study: `python -m benchmarks.findings` does what is missing of every table and makes docs/findings.md anew.

python -m benchmarks.findings lora              one table: trains and measures what is not stored yet
python -m benchmarks.findings lora --seeds 0    with one seed only
python -m benchmarks.findings --again lora_s    one row, though it is stored: to see whether it comes out the same
python -m benchmarks.findings noise frontier    the shipped model, whatever its weights are now; nothing is trained
python -m benchmarks.findings page              docs/findings.md and its pictures from what is stored; nothing is run
"""

from __future__ import annotations

import argparse
import logging
import time

from benchmarks.findings.plan import RUNS, SEEDS, SHIPPED, STUDIES, ordered


def main() -> None:
    """Runs what was asked for, then writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", choices=[*STUDIES, *SHIPPED, "page", []], metavar="STUDY", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--again", nargs="+", choices=[*SHIPPED, *RUNS], metavar="ROW", default=[])
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    asked = given.studies or ([] if given.again else [*SHIPPED, *STUDIES])

    from benchmarks.findings import page, runs, shipped

    for study in (name for name in SHIPPED if name in (*asked, *given.again)):
        done = shipped.perform(study, again=study in given.again)
        print(f"{study}: {'measured' if done else 'nothing to do'}", flush=True)
    plan = ordered([name for name in STUDIES if name in asked], tuple(given.seeds), given.again)
    for number, (name, seed) in enumerate(plan, 1):
        began = time.monotonic()
        done = runs.perform(name, seed, again=name in given.again)
        took = f"{time.monotonic() - began:.0f} s" if done else "is there"
        print(f"{number}/{len(plan)} {name}, seed {seed}: {took}", flush=True)
    page.write()
    print(f"wrote {page.PAGE}")


if __name__ == "__main__":
    main()
