"""Batches: within the budget, each row once, the same for the same seed, resumable, even over processes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_avsr.data.sampler import FrameBudgetSampler
from omni_avsr.errors import ConfigError

LENGTHS = st.lists(st.integers(1, 700), min_size=1, max_size=150)


def cost(batch: Sequence[int], frames: Sequence[int]) -> int:
    return len(batch) * max(frames[i] for i in batch)


@given(LENGTHS, st.integers(50, 800), st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_every_row_once_within_the_budget_and_even(
    frames: list[int], budget: int, world: int, epoch: int, shuffle: bool
) -> None:
    shares = []
    for rank in range(world):
        sampler = FrameBudgetSampler(frames, budget, 1, rank, world, shuffle)
        sampler.set_epoch(epoch)
        shares.append(list(sampler))
        assert len(sampler) == len(shares[-1]) == sampler.batches_per_epoch
    batches = [batch for share in shares for batch in share]
    seen = sorted(row for batch in batches for row in batch)
    assert len({len(share) for share in shares}) == 1
    assert len(set(seen)) == len(seen)
    assert len(seen) == len(frames) or (len(frames) - len(seen) < world and max(map(len, batches), default=1) == 1)
    assert all(cost(batch, frames) <= budget or len(batch) == 1 for batch in batches)


@given(LENGTHS, st.integers(100, 800), st.integers(0, 5))
def test_an_epoch_repeats_differs_from_the_next_and_resumes(frames: list[int], budget: int, done: int) -> None:
    sampler = FrameBudgetSampler(frames, budget, seed=3)
    sampler.set_epoch(4)
    whole = list(sampler)
    assert list(sampler) == whole
    sampler.set_epoch(4, start_batch=done)
    assert list(sampler) == whole[done:]
    assert len(sampler) == len(whole[done:])
    assert sampler.batches_per_epoch == len(whole)


def test_seed_and_epoch_change_which_rows_meet() -> None:
    def content(seed: int, epoch: int) -> set[frozenset[int]]:
        sampler = FrameBudgetSampler([75] * 200, 750, seed)
        sampler.set_epoch(epoch)
        return {frozenset(batch) for batch in sampler}

    assert content(0, 0) != content(0, 1)
    assert content(0, 0) != content(1, 0)
    assert len(content(0, 0)) == 20


def test_batches_hold_similar_lengths_and_little_padding() -> None:
    frames = [20 + (37 * i) % 300 for i in range(2000)]
    batches = list(FrameBudgetSampler(frames, 1500))
    padded = sum(cost(batch, frames) for batch in batches)
    assert padded <= 1.1 * sum(frames)
    assert sum(frames) >= 0.8 * 1500 * len(batches)


def test_without_shuffling_short_rows_come_first() -> None:
    frames = [300, 10, 200, 11, 100]
    sampler = FrameBudgetSampler(frames, 320, shuffle=False)
    order = [row for batch in sampler for row in batch]
    assert order == [1, 3, 4, 2, 0]
    sampler.set_epoch(7)
    assert [row for batch in sampler for row in batch] == order


def test_a_row_longer_than_the_budget_is_alone_and_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        batches = list(FrameBudgetSampler([900, 100, 100, 101], 300))
    assert [0] in batches
    assert sorted(map(len, batches)) == [1, 1, 2]  # three rows of 101, padded, are 303 frames
    assert "1 row(s) are longer than frames_per_batch = 300 (the longest: 900 frames)" in caplog.text


def test_fewer_rows_than_processes_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert list(FrameBudgetSampler([10], 100, rank=0, world_size=2)) == []
    assert "1 row(s) are left out of each epoch: too few for 2 processes" in caplog.text
    assert list(FrameBudgetSampler([], 100)) == []


def test_rows_left_out_are_others_in_every_epoch() -> None:
    sampler = FrameBudgetSampler([60, 70, 80], 100, world_size=2)
    seen = set()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        seen |= {row for batch in sampler for row in batch}
    assert seen == {0, 1, 2}


@pytest.mark.parametrize("arguments", [([10], 0), ([10, 0], 100), ([10], 100, 0, 2, 2), ([10], 100, 0, -1, 1)])
def test_nonsense_is_refused(arguments: tuple[object, ...]) -> None:
    with pytest.raises(ConfigError):
        FrameBudgetSampler(*arguments)  # type: ignore[arg-type]
