"""What five minutes of one speaker are worth: a voice and a face that the model never met, before and after adapting.

    python benchmarks/adapting.py -o benchmarks/results/adapting.json --speakers 77 78

The speakers are synthetic (voice, timbre and head drawn by their number), since real ones that the default model has
not heard are not at hand. Each says 150 different sentences: 100 to adapt with, 10 to choose by, 40 to measure.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from omni_avsr.checkpoints.folder import folder_digest, locate
from omni_avsr.config import load_recipe
from omni_avsr.data.manifest import read_manifest, write_manifest
from omni_avsr.data.prepare import prepare
from omni_avsr.train import loop
from omni_avsr.types import FPS

SPLITS = {"train": 100, "dev": 10, "test": 40}  # sentences
MEASURES = ("wer", "cer")


def recorded(seed: int, folder: Path) -> Path:
    """The manifest of one speaker: mouths as `prepare` finds them in the video."""
    root = folder / "videos"
    root.mkdir(parents=True)
    count = sum(SPLITS.values())
    described = f'sentences = "grid"\nutterances = {count}\nspeakers = 1\nseed = {seed}\nsplits = {{ train = 1.0 }}\n'
    (root / "synthetic.toml").write_text(described)
    manifest = prepare("synthetic", root, folder / "data", mouths=True, workers=0)
    names = [name for name, share in SPLITS.items() for _ in range(share)]
    rows = [replace(row, split=name) for row, name in zip(read_manifest(manifest), names, strict=False)]
    return write_manifest(folder / "data" / "own.jsonl", rows)


def measured(manifest: Path, model: str, out: Path) -> dict[str, dict[str, float]]:
    """Task -> error rates in per cent, clean, five beams, finest rates."""
    line = [sys.executable, "-m", "omni_avsr", "evaluate", str(manifest), "--model", model, "--split", "test"]
    line += ["--tasks", "asr", "vsr", "avsr", "--audio_rates", "4", "--video_rates", "2", "-o", str(out)]
    subprocess.run(line, check=True)
    rows = json.loads((out / "results.json").read_text())["rows"]
    return {row["task"]: {m: round(100 * row[m], 1) for m in MEASURES} for row in rows}


def compared(seed: int, folder: Path) -> dict[str, Any]:
    """One speaker, before and after."""
    manifest = recorded(seed, folder)
    own = [row for row in read_manifest(manifest) if row.split == "train"]
    data = [f"data.train=['{manifest}']", f"data.dev=['{manifest}']"]
    before, began = measured(manifest, "default", folder / "before"), time.process_time()
    model = loop.train(load_recipe("adapt", data), folder / "run", progress=False)
    took = time.process_time() - began
    after = measured(manifest, str(model), folder / "after")
    minutes = round(sum(row.frames for row in own) / FPS / 60, 2)
    return {"speaker": seed, "minutes": minutes, "cpu_seconds": round(took), "before": before, "after": after}


def main() -> None:
    """Prints a row for each speaker and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speakers", type=int, nargs="+", default=[77, 78])
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    rows = []
    for seed in given.speakers:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(compared(seed, Path(folder)))
        print(json.dumps(rows[-1]), flush=True)
        what = "benchmarks/adapting.py " + " ".join(sys.argv[1:])
        result = {"what": what, "weights": folder_digest(locate("default")), "rows": rows}
        given.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
