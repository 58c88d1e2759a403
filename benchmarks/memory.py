"""What a model takes of memory, loaded and serving, apart from the pages of its weight file that the kernel may drop.

    python benchmarks/memory.py MODEL [--compute_type bfloat16] [--beam_size 5] [--out FILE.json]   (Linux)

A folder of the published size with random weights: `tests/checkpoints/test_full_size.py` builds and imports one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from omni_avsr.evaluate.provenance import provenance
from omni_avsr.transcribe.budget import sample
from omni_avsr.transcribe.transcriber import Transcriber

KINDS = {"peak": "VmHWM", "own": "RssAnon", "file": "RssFile"}


def memory() -> dict[str, float]:
    """GiB of this process, by kind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {name: rest.split()[0] for name, _, rest in (line.partition(":") for line in lines) if rest.strip()}
    return {kind: round(int(found[name]) / 2**20, 2) for kind, name in KINDS.items()}


def main() -> None:
    """Prints memory before, loaded and after a transcription, and writes JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--compute_type", default="bfloat16")
    parser.add_argument("--beam_size", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("memory.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps = {"imported": memory()}
    transcriber = Transcriber(options.model, "cpu", True, options.compute_type)
    steps["loaded"] = memory()
    segments, info = transcriber.transcribe(sample(), beam_size=options.beam_size)
    list(segments)
    steps["served"] = memory()
    for step, kinds in steps.items():
        print(f"{step:9}" + "".join(f"  {kind} {gib:5.2f} GiB" for kind, gib in kinds.items()))
    meta = {"compute_type": options.compute_type, "beam_size": options.beam_size, "task": info.task}
    meta |= provenance(transcriber.device)
    options.out.write_text(json.dumps({"meta": meta, "gib": steps}, indent=1) + "\n")


if __name__ == "__main__":
    main()
