"""What the dev split measures does not depend on batches, processes, chance, or the mode of the model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from omni_avsr.config import Recipe
from omni_avsr.model.omni import OmniAVSR, build_model
from omni_avsr.train.corpus import Corpus
from omni_avsr.train.dev import DevScores, dev_sums, scores

Make = Callable[..., Recipe]


@pytest.fixture(scope="module")
def model(make_recipe: Make) -> OmniAVSR:
    torch.manual_seed(0)
    recipe = make_recipe("omni_smop", "model.video_encoder.dropout=0.3")
    return build_model(recipe.model, ["bin blue", "place red"]).train()


def test_means_do_not_depend_on_batches_or_processes(model: OmniAVSR, make_recipe: Make) -> None:
    big, small = (make_recipe("omni_smop", f"data.frames_per_batch={n}") for n in (200, 30))
    whole = scores([dev_sums(model, Corpus(big).dev_batches(), greedy=True)])
    parts = [dev_sums(model, Corpus(small, rank, 2).dev_batches(), greedy=True) for rank in range(2)]
    assert len(list(Corpus(big).dev_batches())) == 1
    assert len(list(Corpus(small).dev_batches())) == 4
    assert scores(parts).losses == pytest.approx(whole.losses, rel=1e-5)
    assert scores(parts).wer == pytest.approx(whole.wer)
    assert len(whole.losses) == 2 + 2 + 4


def test_measuring_is_repeatable_and_leaves_no_trace(model: OmniAVSR, make_recipe: Make) -> None:
    corpus = Corpus(make_recipe("omni_smop"))
    before, weights = torch.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    assert dev_sums(model, corpus.dev_batches(), greedy=True) == dev_sums(model, corpus.dev_batches(), greedy=True)
    assert torch.equal(before, torch.get_rng_state())
    assert model.training
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_every_task_counts_alike_in_the_score() -> None:
    found = DevScores({"asr@4": 1.0, "asr@16": 3.0, "vsr@2": 6.0}, {"asr": 10.0, "vsr": 30.0})
    assert found.loss == pytest.approx((2 + 6) / 2)
    assert (found.score("loss"), found.score("wer")) == (pytest.approx(4), pytest.approx(20))
    assert found.row()["loss/vsr@2"] == 6.0
