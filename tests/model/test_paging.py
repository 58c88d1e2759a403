"""Pages of weights that lie mapped from a file: dropped, and read again when touched."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from omni_avsr.checkpoints.folder import read_tensors
from omni_avsr.checkpoints.native import load_for_inference, save_model
from omni_avsr.model import compute
from omni_avsr.model.paging import Mapped

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells which pages are resident")
VALUES = torch.arange(1 << 20, dtype=torch.float32).view(1024, 1024)


def resident(path: Path) -> int:
    """Bytes of the mapped file that are in memory."""
    kilobytes, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line[0].isdigit() or line[0] in "abcdef":
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            kilobytes += int(line.split()[1])
    return kilobytes * 1024


@pytest.fixture
def weights(tmp_path):
    save_file({"w": VALUES}, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


@pytest.mark.parametrize("kept", [True, False])
def test_pages_go_and_come_back(weights, kept):
    tensor = read_tensors(weights)["w"]
    assert torch.equal(tensor, VALUES)
    before = resident(weights)
    assert before >= tensor.nbytes
    Mapped().release(tensor, kept)
    assert kept or resident(weights) < before / 4  # a folder in memory (tmpfs) has nowhere to put what is kept
    assert torch.equal(tensor, VALUES)


def test_what_was_written_and_is_kept_stays(weights):
    tensor = read_tensors(weights)["w"]
    tensor[5] = -1.0
    Mapped().release(tensor, kept=True)
    assert (tensor[5] == -1.0).all()
    assert torch.equal(tensor[6:], VALUES[6:])


def test_memory_of_no_file_is_left_alone():
    tensor = VALUES.clone()
    assert tensor not in Mapped()
    Mapped().release(tensor, kept=False)
    assert torch.equal(tensor, VALUES)


def test_weights_are_not_held_twice(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(compute, "SMALL", 0)
    wide = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4, "num_key_value_heads": 4}
    made = tiny_model(llm={"dims": {**wide, "num_hidden_layers": 2}})
    save_model(made, tmp_path, origin={}, full=True)
    model, file = load_for_inference(tmp_path, "cpu"), tmp_path / "model.safetensors"
    packed = sum(m.bytes for m in model.modules() if isinstance(m, compute.PackedLinear))
    assert packed > file.stat().st_size / 2
    assert resident(file) < file.stat().st_size - packed / 2
