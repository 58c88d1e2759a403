"""On what, with what and from which code a number or a model was made: without it, nobody can make it again."""

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

PACKAGES = (
    *("torch", "transformers", "accelerate", "tokenizers", "safetensors", "numpy"),
    *("jiwer", "av", "opencv-python-headless"),
)


def provenance(device: torch.device) -> dict[str, Any]:
    """Machine, versions, commit and date of what is computed on `device` now; ready for JSON."""
    return {
        "machine": _machine(device),
        "versions": _versions(),
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _machine(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "system": platform.platform(),
        "device": str(device),
        "processor": name,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    """As Linux names it, elsewhere the architecture."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text("utf-8").splitlines() if known.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _versions() -> dict[str, str]:
    """This package, Python, and those of PACKAGES that are installed."""
    own = {"omni-avsr": omni_avsr.__version__, "python": platform.python_version()}
    there = {found.metadata["Name"].lower() for found in metadata.distributions()}
    return own | {name: metadata.version(name) for name in PACKAGES if name in there}


def _commit() -> str:
    """The commit of the source tree this package runs from, '+' where files differ from it; empty if installed."""
    here = Path(omni_avsr.__file__).parent.parent
    if not (here / ".git").exists():
        return ""
    git = ["git", "-C", str(here)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        clean = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "omni_avsr"], check=False).returncode == 0
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head if clean else f"{head}+"
