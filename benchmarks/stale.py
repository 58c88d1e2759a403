"""Which stored results are not of the shipped weights, and which documents quote them.

    python benchmarks/stale.py

Prints a line per stored result; exits with 1 if one that measures the default model names other weights.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from omni_avsr.checkpoints.folder import folder_digest, locate

ROOT = Path(__file__).resolve().parents[1]
STORED = [*ROOT.glob("benchmarks/results/**/*.json"), ROOT / "docs" / "calibration.json"]
ABOUT = ("meta", "about", "key")  # where results say what they are of, if not at the top


def measured(path: Path) -> str:
    """The digest of the weights that a result names; "" if it is of another model, or does not say."""
    found = json.loads(path.read_text("utf-8"))
    about = found | {name: value for part in ABOUT for name, value in found.get(part, {}).items()}
    return str(about.get("weights", "")) if about.get("model", "default") == "default" else ""


def quotes(name: str) -> list[str]:
    """`file:line` of every document that names the result."""
    pages = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
    return [
        f"{page.relative_to(ROOT)}:{number}"
        for page in pages
        for number, line in enumerate(page.read_text("utf-8").splitlines(), 1)
        if name in line and page.name != "LOG.md"  # the lab book says what was, not what is
    ]


def main() -> int:
    """Prints what was found; 1 if a result is of other weights."""
    shipped, stale = folder_digest(locate("default")), 0
    print(f"shipped weights {shipped[:12]}")
    for path in sorted(STORED):
        weights = measured(path)
        if "base" in json.loads(path.read_text("utf-8")).get("key", {}):
            continue  # a run of the study, on frozen weights of its own
        if weights == shipped:
            print(f"  {path.name}: of these weights")
        elif weights:
            stale += 1
            print(
                f"  {path.name}: of weights {weights[:12]}, measure it again; quoted in {', '.join(quotes(path.name))}"
            )
        else:
            print(f"  {path.name}: names no weights of the default model")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
