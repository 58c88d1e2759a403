"""A run on disk: one safetensors file holds all that the next step depends on, so a resumed run is the same run.

    checkpoints/step-00000120.safetensors    weights, their running mean, optimiser moments, random generators, place in
                                             the data
    best/step-00000100.safetensors           weights only; the final model is the mean of these

A file is written beside its place, flushed to the disk, and renamed: what is there is whole, always.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from omni_avsr.errors import CheckpointError
from omni_avsr.train.parallel import like, whole

_MODEL, _OPTIMIZER, _MEAN = "model.", "optimizer.", "mean."
_STEM = "step-{:08d}.safetensors"


@dataclass(frozen=True)
class Snapshot:
    """Weights worth averaging: what the dev split said of them (lower is better) and when."""

    score: float
    step: int


@dataclass
class Position:
    """Where a run stands: all of its state that is not a tensor."""

    step: int = 0  # optimiser steps done
    epoch: int = 0
    batch: int = 0  # batches of this epoch done, per process
    best: list[Snapshot] = field(default_factory=list)  # best first
    ranks: list[dict[str, Any]] = field(default_factory=list)  # per process: 'rng' and 'window'
    scaler: dict[str, Any] = field(default_factory=dict)  # of fp16


# ---- tensors of a module and its optimiser -----------------------------------------------------


def moving_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Name -> the tensors that training may change: trained parameters and stored buffers (BatchNorm statistics).

    A tied weight appears once, under its first name.
    """
    stored = model.state_dict(keep_vars=True).keys()
    moving = {name: p.data for name, p in model.named_parameters() if p.requires_grad}
    return moving | {name: b for name, b in model.named_buffers() if name in stored}


def restore_tensors(model: nn.Module, tensors: Mapping[str, Tensor], where: Path) -> None:
    """Copies `tensors` (of `moving_tensors`) into `model`; CheckpointError unless names and shapes are the same."""
    moving = moving_tensors(model)
    if moving.keys() != tensors.keys():
        odd = sorted(moving.keys() ^ tensors.keys())
        raise CheckpointError(f"{where} does not fit this model: {len(odd)} weights differ by name, first '{odd[0]}'")
    with torch.no_grad():
        for name, tensor in tensors.items():
            if moving[name].shape != tensor.shape:
                got, want = tuple(tensor.shape), tuple(moving[name].shape)
                raise CheckpointError(f"{where} does not fit this model: '{name}' is {got}, expected {want}")
            moving[name].copy_(like(tensor, moving[name]))


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}:{key}": value
        for name, p in model.named_parameters()
        for key, value in optimizer.state.get(p, {}).items()
    }


def _restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for key, tensor in tensors.items():
        name, _, kind = key.rpartition(":")
        parameter = parameters[name]
        # moments are divided as their weights are; AdamW keeps its step count on the CPU unless fused
        counter = parameter.device if optimizer.defaults.get("fused") else "cpu"
        placed = like(tensor, parameter) if tensor.shape == parameter.shape else tensor.to(counter)
        optimizer.state.setdefault(parameter, {})[kind] = placed


# ---- random generators -------------------------------------------------------------------------


def rng_state() -> dict[str, Any]:
    """The global generators of python, numpy and torch (every GPU too), as plain JSON values."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    version, words, gauss = random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
        "cuda": [s.numpy().tobytes().hex() for s in cuda],
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """The inverse of `rng_state`."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(_bytes(state["torch"]))
    if state["cuda"]:
        torch.cuda.set_rng_state_all([_bytes(s) for s in state["cuda"]])


def _bytes(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)


# ---- files -------------------------------------------------------------------------------------


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    at: Position,
    mean: Mapping[str, Tensor] | None = None,
    writes: bool = True,
) -> Path:
    """Writes `checkpoints/step-N`, whole tensors, in the process that `writes`; the others give their shares.

    Raises:
        CheckpointError: the disk refuses; the older checkpoints are untouched.
    """
    tensors = {_MODEL + k: v for k, v in moving_tensors(model).items()}
    tensors |= {_OPTIMIZER + k: v for k, v in _optimizer_tensors(model, optimizer).items()}
    tensors |= {_MEAN + k: v for k, v in (mean or {}).items()}
    path = folder / "checkpoints" / _STEM.format(at.step)
    return _write(path, tensors, {"position": json.dumps(asdict(at))}, writes)


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, mean: Mapping[str, Tensor] | None = None
) -> Position:
    """Puts weights, optimiser moments and the running mean of weights, if any, back in place; where the run stood."""
    tensors = read_tensors(path)
    for name, tensor in _under(_MEAN, tensors).items():
        if mean is not None and name in mean:
            mean[name].copy_(like(tensor, mean[name]))
    restore_tensors(model, _under(_MODEL, tensors), path)
    _restore_optimizer(model, optimizer, _under(_OPTIMIZER, tensors))
    return _position(path)


def save_snapshot(folder: Path, model: nn.Module, step: int, writes: bool = True) -> Path:
    """Writes `best/step-N`, weights without optimiser, as `save_checkpoint` does."""
    return _write(folder / "best" / _STEM.format(step), moving_tensors(model), {}, writes)


def load_snapshot(folder: Path, snapshot: Snapshot) -> dict[str, Tensor]:
    """The tensors of `best/step-N`."""
    return read_tensors(folder / "best" / _STEM.format(snapshot.step))


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a run, newest first."""
    return sorted((folder / "checkpoints").glob("step-*.safetensors"), reverse=True)


def prune(folder: Path, keep: int) -> None:
    """Deletes all but the newest `keep` checkpoints, and the snapshots that none of those speaks of."""
    kept, dropped = checkpoints(folder)[:keep], checkpoints(folder)[keep:]
    wanted = {_STEM.format(s.step) for path in kept for s in _position(path).best}
    for path in [*dropped, *(p for p in (folder / "best").glob("step-*.safetensors") if p.name not in wanted)]:
        path.unlink()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; CheckpointError when it is missing or broken."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); delete it to go on from an older one") from None


def _position(path: Path) -> Position:
    with safe_open(path, framework="pt") as file:
        tree = json.loads(file.metadata()["position"])
    return Position(**(tree | {"best": [Snapshot(**s) for s in tree["best"]]}))


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str], writes: bool) -> Path:
    given = ((name, whole(tensor.detach())) for name, tensor in tensors.items())  # one at a time
    content = {name: tensor.cpu().contiguous() for name, tensor in given if writes}
    if not writes:
        return path
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(content, partial, metadata)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        older = checkpoints(path.parent.parent)
        kept = f"the last whole checkpoint is {older[0].name}" if older else "there is no checkpoint before it"
        raise CheckpointError(f"{path} could not be written: {error}; {kept}. Make room, then --resume") from error
    return path
