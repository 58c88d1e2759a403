"""Where a model comes from: recipe, data, commit, machine and versions, for `origin.json` beside the weights."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import omni_avsr
from omni_avsr.config import Recipe

_PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "tokenizers", "numpy")


def describe(recipe: Recipe, manifests: dict[str, str]) -> dict[str, Any]:
    """All that is needed to train the same model again.

    Args:
        recipe: the whole recipe, bases and overrides resolved.
        manifests: path -> SHA-256 of the data's manifests.
    """
    return {
        "made_by": f"omni-avsr {omni_avsr.__version__}, train",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "seed": recipe.train.seed,
        "recipe": recipe.model_dump(mode="json"),
        "manifests": manifests,
        "machine": _machine(),
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES},
    }


def _machine() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"system": platform.platform(), "cpus": os.cpu_count(), "threads": torch.get_num_threads(), "gpus": gpus}


def _commit() -> str:
    """The commit of the source tree this package runs from, '+' where files differ from it; empty if installed."""
    here = Path(omni_avsr.__file__).parent.parent
    if not (here / ".git").exists():
        return ""
    try:
        run = ["git", "-C", str(here)]
        commit = subprocess.run([*run, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*run, "diff", "--quiet", "HEAD", "--", "omni_avsr"], check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + "+" * bool(changed)
