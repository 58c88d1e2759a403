"""The frozen model under all trained runs: the shipped one of a fixed commit, since the package's own will change."""

from __future__ import annotations

import io
import subprocess
import tarfile
from functools import lru_cache
from pathlib import Path

from benchmarks.findings.plan import HERE
from omni_avsr.checkpoints.folder import folder_digest
from omni_avsr.errors import CheckpointError

COMMIT = "09773c957517c67bf26d6c50d4b69ff25a3df6d5"
WEIGHTS = "8692b78e97404f115de89f30b4cbcb6d29107d11b7b2f4a6156f76e15cf5202a"  # as results name models
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
    return folder_digest(folder)
