"""What fast mode, bfloat16 and int8 do to a model's word error rate: `evaluate` under each, beside exact mode.

    python benchmarks/compute_types.py runs/data/grid/manifest.jsonl [--model default] [--split dev] [--out FILE.json]

`omni-avsr evaluate ... --compute_type int8 --fast` measures one of them; this puts them side by side. A difference of a
fraction of a word error is chance, so the number of clips whose words differ from exact mode's is given as well.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from omni_avsr.checkpoints.folder import locate
from omni_avsr.checkpoints.native import read_config
from omni_avsr.evaluate.grid import UTTERANCES, evaluate
from omni_avsr.evaluate.measure import Options

MODES: dict[str, dict[str, Any]] = {
    "exact": {},
    "fast": {"fast": True},
    "bfloat16": {"compute_type": "bfloat16"},
    "int8": {"compute_type": "int8"},
    "int8, fast": {"compute_type": "int8", "fast": True},
}
EXACT = "exact"


def main() -> None:
    """Measures, prints a table in points of word error rate, and writes JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/compute_types.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = read_config(locate(options.model, offline=True))
    finest = {f"{m}_rates": [min(config.rates(m))] for m in config.modalities}
    asked = Options(split=options.split, **finest)
    rows: list[dict[str, Any]] = []
    said: dict[str, dict[tuple[str, str], str]] = {}
    for mode, loading in MODES.items():
        with tempfile.TemporaryDirectory() as folder:
            found = evaluate(options.manifest, options.model, folder, asked, offline=True, **loading)
            lines = map(json.loads, (Path(folder) / UTTERANCES).read_text("utf-8").splitlines())
            said[mode] = {(line["task"], line["id"]): line["hypothesis"] for line in lines}
        for row in found["rows"]:
            exact = next((r["wer"] for r in rows if r["mode"] == EXACT and r["task"] == row["task"]), row["wer"])
            others = sum(said[EXACT][key] != text for key, text in said[mode].items() if key[0] == row["task"])
            kept = {k: row[k] for k in ("task", "audio_rate", "video_rate", "wer", "wer_ci95", "words", "utterances")}
            rows.append({"mode": mode, **kept, "points": 100 * (row["wer"] - exact), "clips_that_differ": others})
            change = f"{rows[-1]['points']:+.2f} points, {others} of {row['utterances']} clips differ"
            print(f"{mode:10}  {row['task']:4}  WER {100 * row['wer']:6.2f} %  {change}", flush=True)
    meta = {k: v for k, v in found["meta"].items() if k not in ("config", "compute_type", "fast")}
    options.out.write_text(json.dumps({"meta": meta, "rows": rows}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
