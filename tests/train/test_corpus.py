"""The rows of a run: the same batches for the same seed and epoch, wherever the run stands and whoever loads them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from omni_avsr.config import Recipe
from omni_avsr.train.corpus import Corpus
from omni_avsr.types import Batch

Make = Callable[..., Recipe]


def same(one: list[list[Batch]], two: list[list[Batch]]) -> bool:
    """Whether two epochs hold the same batches, to the last bit."""
    return [[b.ids for b in g] for g in one] == [[b.ids for b in g] for g in two] and all(
        torch.equal(a.mel, b.mel) and torch.equal(a.video, b.video) and a.texts == b.texts
        for g, h in zip(one, two, strict=True)
        for a, b in zip(g, h, strict=True)
    )


def test_going_on_in_mid_epoch_gives_the_rest_of_the_epoch(make_recipe: Make) -> None:
    whole = list(Corpus(make_recipe()).groups(epoch=3))
    rest = list(Corpus(make_recipe()).groups(epoch=3, done=2))
    assert len(whole) == 4
    assert same(whole[2:], rest)
    assert not same(whole, list(Corpus(make_recipe()).groups(epoch=4)))


def test_loader_processes_change_nothing(make_recipe: Make) -> None:
    alone, helped = (Corpus(make_recipe("omni_st", f"data.workers={n}")) for n in (0, 2))
    for epoch in (0, 1):  # in the second one the loaders go on with the same processes
        assert same(list(alone.groups(epoch)), list(helped.groups(epoch)))


def test_loading_draws_nothing_from_the_generator_of_dropout(make_recipe: Make) -> None:
    corpus = Corpus(make_recipe())
    before = torch.get_rng_state()
    assert list(corpus.groups(0))
    assert list(corpus.dev_batches())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("accumulate", "sizes"), [(1, [1, 1, 1, 1]), (3, [3, 1]), (9, [4])])
def test_the_last_step_of_an_epoch_takes_what_is_left(accumulate: int, sizes: list[int], make_recipe: Make) -> None:
    corpus = Corpus(make_recipe("omni_st", f"train.accumulate={accumulate}"))
    assert [len(group) for group in corpus.groups(0)] == sizes
    assert corpus.steps_per_epoch == len(sizes)


def test_processes_share_every_row_once(make_recipe: Make) -> None:
    parts = [Corpus(make_recipe(), rank, 2) for rank in range(2)]
    trained = [name for part in parts for group in part.groups(0) for batch in group for name in batch.ids]
    measured = [name for part in parts for batch in part.dev_batches() for name in batch.ids]
    assert sorted(trained) == sorted(f"u{i}" for i in range(8))
    assert sorted(measured) == sorted(f"u{i}" for i in range(8, 12))
    assert len({len(list(part.groups(0))) for part in parts}) == 1
