"""The contract of every row of COMPRESSORS."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_avsr.config import ModelConfig
from omni_avsr.model.compress import COMPRESSORS, compressed_dim
from omni_avsr.types import Encoded


def test_the_knob_knows_every_row() -> None:
    knob = ModelConfig.model_fields["compression"].annotation
    assert set(knob.__args__) == set(COMPRESSORS)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", COMPRESSORS)
@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(0, 23), min_size=1, max_size=4), rate=st.integers(1, 9), seed=st.integers(0, 99))
def test_contract(name: str, lengths: list[int], rate: int, seed: int) -> None:
    states = torch.randn(len(lengths), max(lengths), 3, generator=torch.Generator().manual_seed(seed))
    out = COMPRESSORS[name](Encoded(states, torch.tensor(lengths)), rate)
    assert out.states.shape == (len(lengths), max(lengths) // rate, compressed_dim(name, 3, rate))
    assert out.lengths.tolist() == [n // rate for n in lengths]
    assert out.states[~out.mask].eq(0).all()
    for row, length in enumerate(lengths):  # the same as alone, whatever the padding holds
        alone = COMPRESSORS[name](Encoded(states[row : row + 1, :length], torch.tensor([length])), rate)
        torch.testing.assert_close(out.states[row, : length // rate], alone.states[0])


def test_average_is_average_pooling() -> None:
    states = torch.randn(2, 17, 5)
    out = COMPRESSORS["average"](Encoded(states, torch.tensor([17, 17])), 4).states
    torch.testing.assert_close(out, F.avg_pool1d(states.transpose(1, 2), 4).transpose(1, 2))


def test_stack_keeps_every_state_in_order() -> None:
    states = torch.arange(12.0).view(1, 6, 2)
    out = COMPRESSORS["stack"](Encoded(states, torch.tensor([6])), 3).states
    assert out.tolist() == [[[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]]


@pytest.mark.parametrize("name", COMPRESSORS)
def test_rate_one_changes_nothing(name: str) -> None:
    states = torch.randn(1, 5, 3)
    torch.testing.assert_close(COMPRESSORS[name](Encoded(states, torch.tensor([5])), 1).states, states)
