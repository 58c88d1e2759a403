"""Optimiser groups, the learning rate's shape, and the mean of weights."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from omni_avsr.config import TrainConfig
from omni_avsr.errors import ConfigError
from omni_avsr.train.optim import SCHEDULES, RunningMean, average, build_optimizer, lr_factor
from omni_avsr.train.state import moving_tensors, restore_tensors


@given(total=st.integers(2, 500), warmup=st.floats(0, 0.9))
def test_rate_rises_to_one_then_falls_towards_zero(total: int, warmup: float) -> None:
    factors = [lr_factor(step, total, warmup) for step in range(total)]
    peak = max(range(total), key=factors.__getitem__)
    assert factors[peak] == pytest.approx(1)
    assert all(0 < f <= 1 for f in factors)
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert lr_factor(total, total, warmup) == pytest.approx(0, abs=1e-12)


def test_rate_at_known_steps() -> None:
    assert [lr_factor(s, 10, 0.4) for s in (0, 1, 3, 4, 7)] == pytest.approx([0.25, 0.5, 1, 1, 0.5])


def test_vectors_do_not_decay_and_frozen_weights_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    model[2].requires_grad_(False)
    optimizer = build_optimizer(model, TrainConfig(weight_decay=0.3))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: decay.get(id(p)) for name, p in model.named_parameters()} == {
        "0.weight": 0.3, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0, "2.weight": None, "2.bias": None,
    }  # fmt: skip


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nothing would be trained"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(False), TrainConfig())


class Tied(nn.Module):
    """An embedding and an output layer that are one matrix, and a BatchNorm for its counter."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.norm = nn.BatchNorm1d(3)


def test_mean_of_tied_weights_is_their_mean() -> None:
    models = [Tied(seed) for seed in range(3)]
    expected = torch.stack([m.embed.weight.detach() for m in models]).mean(0)
    mean = average([moving_tensors(m) for m in models])
    restore_tensors(models[0], mean, where=None)
    torch.testing.assert_close(models[0].head.weight, expected)
    assert models[0].head.weight is models[0].embed.weight
    assert mean["norm.num_batches_tracked"].dtype == torch.int64


def test_mean_of_one_is_itself_and_a_copy() -> None:
    weights = {"w": torch.randn(4, dtype=torch.bfloat16)}
    mean = average([weights])
    assert torch.equal(mean["w"], weights["w"])
    assert mean["w"].data_ptr() != weights["w"].data_ptr()


def test_mean_is_taken_beyond_the_weights_precision() -> None:
    some = [{"w": torch.tensor([1.0 + i * 2**-23])} for i in range(3)]
    assert average(some)["w"].item() == 1.0 + 2**-23


def test_snapshots_of_different_models_are_not_averaged() -> None:
    with pytest.raises(ValueError, match="same tensors"):
        average([{"a": torch.zeros(1)}, {"b": torch.zeros(1)}])


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_begins_at_the_full_rate_and_never_rises(name: str) -> None:
    factors = [lr_factor(step, 100, 0.1, name) for step in range(100)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == 1.0
    assert all(0 <= b <= a for a, b in pairwise(factors[10:]))
    assert (factors[-1] < 0.06) == (name != "constant")
    assert (factors[80] == 1.0) == (name in ("constant", "plateau"))


def test_the_running_mean_follows_and_gives_the_weights_back() -> None:
    model = nn.Linear(2, 1)
    mean = RunningMean(model, decay=0.9)
    expected = model.weight.detach().clone()
    for step in range(1, 6):
        with torch.no_grad():
            model.weight.add_(1.0)
        mean.update(step)
        decay = min(0.9, step / (step + 10))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    now = model.weight.detach().clone()
    with mean.in_place():
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight, now)


def test_one_kernel_gives_the_same_steps() -> None:
    weights = []
    for fused in (False, True):
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        optimizer = build_optimizer(model, TrainConfig(fused=fused, lr=0.1))
        for _ in range(3):
            model(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        weights.append(model.weight.detach())
    torch.testing.assert_close(weights[0], weights[1])
