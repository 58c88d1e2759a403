"""Packs a trained model for the package: `python scripts/ship.py runs/default/model`, in half precision."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from omni_avsr.checkpoints.native import load_model, save_model

TARGET = Path(__file__).parents[1] / "omni_avsr" / "assets" / "default"


def main(source: Path) -> None:
    """Rewrites `source` as float16 in the package's assets, its origin kept."""
    origin = json.loads((source / "origin.json").read_text("utf-8"))
    save_model(load_model(source), TARGET, origin=origin, full=True, dtype=torch.float16)
    size = sum(path.stat().st_size for path in TARGET.rglob("*") if path.is_file())
    print(f"{TARGET}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
