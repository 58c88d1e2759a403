"""What moves the weights: AdamW's parameter groups, the learning rate of each step, the mean of checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

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
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise ConfigError(f"train.parts = {list(config.parts)}: the model has none of them; nothing would be trained")
    decayed = [p for p in trained if p.ndim >= 2]
    plain = [p for p in trained if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=config.betas, eps=1e-8)


def lr_factor(step: int, total: int, warmup: float) -> float:
    """Factor of the learning rate at optimiser step `step`, counted from 0, of `total`.

    Rises linearly over the first `warmup` share of the steps, then follows half a cosine that would reach zero at
    step `total`. A function of the step alone: there is no scheduler state to save.
    """
    rising = int(warmup * total)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


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
