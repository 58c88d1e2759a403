"""A run that is killed without warning, again and again, ends where an undisturbed one ends."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from omni_avsr.config import Recipe
from omni_avsr.train import state


def command(recipe: Recipe, out: Path) -> list[str]:
    """The command line that trains `recipe`."""

    def flat(tree: dict, above: str = "") -> dict:
        parts = (flat(v, f"{above}{k}.") if isinstance(v, dict) else {above + k: v} for k, v in tree.items())
        return {key: value for part in parts for key, value in part.items()}

    file = out.with_suffix(".toml")
    lines = flat(recipe.model_dump(mode="json")).items()
    file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in lines))
    return [sys.executable, "-m", "omni_avsr", "train", str(file), "-o", str(out)]


@pytest.mark.slow
def test_killed_at_random_points_and_resumed_it_is_the_same(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    recipe = make_recipe("omni_st", "train.epochs=12", "train.average=2", "model.video_encoder.dropout=0.2")
    subprocess.run(command(recipe, tmp_path / "straight"), env=alone, check=True, capture_output=True)
    out, chance, kills = tmp_path / "killed", random.Random(1), 0
    for wanted in (4, 16, 28):  # not before there is something to go on from
        line = command(recipe, out) + (["--resume"] if out.exists() else [])
        process = subprocess.Popen(line, env=alone, stderr=subprocess.DEVNULL)
        while process.poll() is None and (state.checkpoints(out) or [Path("0")])[0].stem < f"step-{wanted:08d}":
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.3))
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert kills >= 2
    subprocess.run([*command(recipe, out), "--resume"], env=alone, check=True, capture_output=True)
    name = "model/model.safetensors"
    assert (out / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    last, other = (state.read_tensors(state.checkpoints(folder)[0]) for folder in (out, tmp_path / "straight"))
    assert last.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in last.items())
