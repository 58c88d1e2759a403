"""What moves the weights: AdamW's parameter groups, the learning rate of each step, the mean of checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from omni_avsr.config import TrainConfig
from omni_avsr.errors import ConfigError


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over the parameters of `model` that require a gradient, each once even where it is tied.

    Matrices and kernels decay by `config.weight_decay`; vectors (biases, norms, PReLU slopes) do not. The
    official code decays everything; for a norm that pulls its gain to zero, not to simplicity.

    Raises:
        ConfigError: `config.parts` left nothing to train.
    """
    groups = _groups(model, config)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=1e-8, fused=config.fused or None)


def _groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise ConfigError(f"train.parts = {list(config.parts)}: the model has none of them; nothing would be trained")
    decayed = [p for p in trained if p.ndim >= 2]
    plain = [p for p in trained if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [g for g in groups if g["params"]]


SCHEDULES: dict[str, Callable[[float], float]] = {  # share of the way since the warm-up, 0 to 1 -> factor of the rate
    "cosine": lambda way: 0.5 * (1 + math.cos(math.pi * way)),
    "linear": lambda way: 1 - way,
    "constant": lambda way: 1.0,
    "plateau": lambda way: min(1.0, 5 * (1 - way)),
}


def lr_factor(step: int, total: int, warmup: float, schedule: str = "cosine") -> float:
    """Factor of the learning rate at optimiser step `step`, counted from 0, of `total`.

    Rises linearly over the first `warmup` share of the steps, then follows the row `schedule` of `SCHEDULES`, of
    which some would reach zero at step `total`. A function of the step alone: there is no scheduler state to save.
    """
    rising = int(warmup * total)
    if step < rising:
        return (step + 1) / rising
    return SCHEDULES[schedule]((step - rising) / max(1, total - rising))


class RunningMean:
    """The exponential mean of a model's trained weights (Polyak averaging), beside them.

    Args:
        model: whose weights; the mean begins as they are.
        decay: share of the mean that a step keeps; less in the first steps, or the beginning would never be forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._decay = decay
        self.mean = {name: p.detach().clone() for name, p in self._trained.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after optimiser step `step`, counted from 1."""
        decay = min(self._decay, step / (step + 10))
        for name, p in self._trained.items():
            self.mean[name].lerp_(p.detach(), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block the model has the mean for weights."""
        own = {name: p.detach().clone() for name, p in self._trained.items()}
        self._put(self.mean)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        for name, p in self._trained.items():
            p.copy_(weights[name])


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Gives every group of `optimizer` the learning rate `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def average(snapshots: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of several sets of weights, summed in float64.

    Tensors that count (integers, such as BatchNorm's batches) are taken from the first. A tied weight is one
    entry of a snapshot (`state.moving_tensors`), so it is divided once.
    """
    first = snapshots[0]
    if any(s.keys() != first.keys() for s in snapshots[1:]):
        raise ValueError("the snapshots to average do not hold the same tensors")
    return {name: _mean([s[name] for s in snapshots]) for name in first}


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    if len(tensors) == 1 or not tensors[0].is_floating_point():
        return tensors[0].clone()
    return torch.stack([t.double() for t in tensors]).mean(0).to(tensors[0].dtype)
