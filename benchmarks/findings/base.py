"""The frozen model under all trained runs: the shipped one of a fixed commit, since the package's own will change."""

from __future__ import annotations

import io
import subprocess
import tarfile
from functools import lru_cache
from pathlib import Path

from benchmarks.findings.plan import HERE
from omni_avsr.checkpoints import load_model
from omni_avsr.checkpoints.weights import digest
from omni_avsr.errors import CheckpointError

COMMIT = "09773c957517c67bf26d6c50d4b69ff25a3df6d5"
WEIGHTS = "421b1707d799146cce3c5a7a0d4a84adf4f037662754f7d56e54e227bff25b96"
FOLDER = Path("runs/findings/base")
_ASSET = f"{COMMIT}:omni_avsr/assets/default"


def fetch_base() -> Path:
    """The base's folder, taken out of the project's history if it is not there.

    Raises:
        CheckpointError: the history does not reach back to COMMIT, or the folder holds other weights.
    """
    if not FOLDER.is_dir():
        command = ["git", "-C", str(HERE.parents[1]), "archive", _ASSET]
        found = subprocess.run(command, capture_output=True, check=False)
        if found.returncode:
            reason = found.stderr.decode().strip()
            raise CheckpointError(f"the study's base cannot be had from commit {COMMIT[:8]}: {reason}")
        with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
            archive.extractall(FOLDER, filter="data")
    if _digest(FOLDER) != WEIGHTS:
        raise CheckpointError(f"'{FOLDER}' does not hold the weights of commit {COMMIT[:8]}; remove the folder")
    return FOLDER


@lru_cache(maxsize=1)
def _digest(folder: Path) -> str:
    return digest(load_model(folder))
