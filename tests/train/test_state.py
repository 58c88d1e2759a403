"""A run on disk: whole or not there, and the same run again."""

from __future__ import annotations

import random
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from omni_avsr.errors import CheckpointError
from omni_avsr.train.state import (
    Position,
    Snapshot,
    checkpoints,
    load_checkpoint,
    load_snapshot,
    moving_tensors,
    prune,
    rng_state,
    save_checkpoint,
    save_snapshot,
    set_rng_state,
)


def made(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2), nn.Linear(2, 2))
    model[4].requires_grad_(False)
    return model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model(torch.randn(6, 3)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_the_next_steps_are_the_same_to_the_last_bit(tmp_path: Path) -> None:
    model, optimizer = made()
    step(model, optimizer)
    at = Position(step=1, epoch=2, batch=3, best=[Snapshot(0.1 + 0.2, 1)], ranks=[{"rng": rng_state(), "window": {}}])
    path = save_checkpoint(tmp_path, model, optimizer, at)
    step(model, optimizer)
    step(model, optimizer)

    again, other = made(seed=1)
    again[4].load_state_dict(model[4].state_dict())  # frozen: not of the checkpoint
    found = load_checkpoint(path, again, other)
    assert found == at
    set_rng_state(found.ranks[0]["rng"])
    step(again, other)
    step(again, other)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_all_generators_are_restored() -> None:
    state = rng_state()
    draw = lambda: (random.random(), random.gauss(0, 1), np.random.normal(), torch.randn(3).tolist())  # noqa: E731
    first = draw()
    assert draw() != first
    set_rng_state(state)
    assert draw() == first


def test_only_what_moves_is_stored() -> None:
    model, _ = made()
    names = set(moving_tensors(model))
    assert "4.weight" not in names
    assert {"0.weight", "1.running_mean", "1.num_batches_tracked"} <= names


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 512 bytes: the system's own answer to a write, as with a full disk.

    No fixture: pytest writes its own progress, perhaps into a file, before fixtures are torn down.
    """
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_full_disk_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    model, optimizer = made()
    first = save_checkpoint(tmp_path, model, optimizer, Position(step=1))
    step(model, optimizer)
    with pytest.raises(CheckpointError, match="could not be written") as error, full_disk():
        save_checkpoint(tmp_path, model, optimizer, Position(step=2))
    assert "step-00000001" in str(error.value)  # says what survives
    assert checkpoints(tmp_path) == [first]
    assert [p.name for p in first.parent.iterdir()] == [first.name]  # no half file either
    assert load_checkpoint(first, *made()).step == 1


def test_a_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, *made(), Position(step=1))
    other = nn.Sequential(nn.Linear(3, 9))
    with pytest.raises(CheckpointError, match="differ by name"):
        load_checkpoint(path, other, torch.optim.AdamW(other.parameters()))
    model, optimizer = made()
    model[0] = nn.Linear(4, 8)
    with pytest.raises(CheckpointError, match=r"'0.weight' is \(8, 3\), expected \(8, 4\)"):
        load_checkpoint(path, model, optimizer)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(path, *made())


def test_prune_keeps_the_newest_and_the_snapshots_they_speak_of(tmp_path: Path) -> None:
    model, optimizer = made()
    for number in range(1, 6):
        save_snapshot(tmp_path, model, number)
        save_checkpoint(tmp_path, model, optimizer, Position(step=number, best=[Snapshot(0, (number + 1) // 2)]))
    prune(tmp_path, keep=2)
    assert [p.stem for p in checkpoints(tmp_path)] == ["step-00000005", "step-00000004"]
    assert sorted(p.stem for p in (tmp_path / "best").iterdir()) == ["step-00000002", "step-00000003"]
    assert torch.equal(load_snapshot(tmp_path, Snapshot(0, 3))["0.weight"], model[0].weight)
