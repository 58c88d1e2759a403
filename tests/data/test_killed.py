"""prepare, killed without warning again and again, ends where a run that nobody disturbed ends."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from omni_avsr.data.synthetic import make_corpus

ALONE = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def tree(folder: Path) -> dict[str, bytes]:
    """What was made: manifest and mouth files, byte for byte."""
    kept = [folder / "manifest.jsonl", *sorted((folder / "mouths").rglob("*"))]
    return {str(p.relative_to(folder)): p.read_bytes() for p in kept if p.is_file()}


@pytest.mark.slow
def test_killed_at_random_points_and_run_again_it_is_the_same(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    make_corpus(root, utterances=6, seed=5, splits={"train": 0.7, "dev": 0.3}, size=(192, 160))
    line = [sys.executable, "-m", "omni_avsr", "prepare", "folder", str(root / "media"), "--mouths", "--workers", "0",
            "--dev_share", "0.3", "--offline", "-o"]  # fmt: skip
    subprocess.run([*line, str(tmp_path / "straight")], env=ALONE, check=True, capture_output=True)
    chance, kills = random.Random(0), 0
    stores = tmp_path / "killed" / "mouths"
    for wanted in range(1, 6):  # not before one more mouth file is there, or it would take forever
        process = subprocess.Popen([*line, str(tmp_path / "killed")], env=ALONE, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(stores.rglob("*.mkv"))) < wanted:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.5))
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert kills >= 3
    subprocess.run([*line, str(tmp_path / "killed")], env=ALONE, check=True, capture_output=True)
    straight, killed = tree(tmp_path / "straight"), tree(tmp_path / "killed")
    assert len(straight) == 7
    debris = {name for name in killed if Path(name).name.startswith(".")}  # half files of killed runs
    assert {name: content for name, content in killed.items() if name not in debris} == straight
