"""Packing: nothing is lost, nothing is mixed, little is padded, and the losses are those of separate passes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omni_avsr.model.omni import IGNORE, OmniAVSR
from omni_avsr.model.packing import Piece, bins, pack
from omni_avsr.types import Batch


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_bins_hold_each_once_and_are_nearly_full(lengths: list[int]) -> None:
    capacity = max(lengths)
    packed = bins(lengths, capacity)
    assert sorted(i for b in packed for i in b) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in b) <= capacity for b in packed)
    assert len(packed) <= 1.7 * sum(lengths) / capacity + 1  # first fit decreasing


def test_attention_stays_inside_a_sequence() -> None:
    pieces = [Piece("a", torch.full((n, 2), float(n)), torch.arange(n)) for n in (5, 3, 2, 1)]
    packed = pack([*pieces, Piece("b", torch.zeros(2, 2), torch.arange(2))], IGNORE)
    assert packed.groups == ("a", "a", "b")  # 5 + 1, 3 + 2, 2: of all widths the one with the least padding
    for row in range(len(packed.groups)):
        for i in range(packed.mask.shape[-1]):
            seen = packed.mask[row, 0, i].nonzero().flatten().tolist()
            same = (packed.owner[row] == packed.owner[row, i]).nonzero().flatten().tolist()
            assert seen == [j for j in same if j <= i]
    assert packed.labels[packed.owner < 0].unique().tolist() in ([IGNORE], [])
    assert (packed.owner >= 0).sum() == 5 + 3 + 2 + 1 + 2


@pytest.mark.parametrize("strategy", ["S", "T", "ST", "none"])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_losses_and_gradients_are_those_of_separate_passes(
    strategy: str, family: str, tiny_model: Callable[..., OmniAVSR], batch: Batch
) -> None:
    model = tiny_model(lora={"strategy": strategy}, llm={"family": family})
    rates = [{"audio": 4, "video": 2}, {"audio": 16, "video": 2}]
    found = []
    for packed in (False, True):
        model.zero_grad()
        losses = model(batch, rates, label_smoothing=0.1, packed=packed)
        losses.total.backward()
        grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        found.append((losses, grads))
    (one, grads), (other, others) = found
    assert one.tasks.keys() == other.tasks.keys()
    for task in one.tasks:
        torch.testing.assert_close(one.tasks[task], other.tasks[task], rtol=1e-5, atol=1e-6)
    assert grads.keys() == others.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(others[name], grad, rtol=2e-3, atol=2e-5, msg=name)
