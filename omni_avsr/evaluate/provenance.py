"""On what, with what and from which code a number was measured: without it, nobody can measure it again."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import omni_avsr

PACKAGES = ("torch", "transformers", "numpy", "jiwer", "av", "opencv-python-headless")


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers were computed on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "system": platform.platform(),
        "device": str(device),
        "processor": name,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def versions() -> dict[str, str]:
    """This package, Python, and the packages that decide the numbers."""
    own = {"omni-avsr": omni_avsr.__version__, "python": platform.python_version()}
    return own | {name: metadata.version(name) for name in PACKAGES}


def commit() -> str:
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
