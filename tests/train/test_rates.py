"""Which rates a step trains."""

from __future__ import annotations

from collections import Counter

import pytest

from omni_avsr.config import ModelConfig, ProjectorConfig, TrainConfig, VideoEncoderConfig
from omni_avsr.train.rates import all_rates, may_skip_parameters, step_rates

MODEL = ModelConfig(audio_rates=(16, 4), video_rates=(2, 5))


def test_all_combinations_finest_first() -> None:
    assert all_rates(MODEL) == [
        {"audio": 4, "video": 2},
        {"audio": 4, "video": 5},
        {"audio": 16, "video": 2},
        {"audio": 16, "video": 5},
    ]
    assert all_rates(ModelConfig(tasks=("vsr",))) == [{"video": 2}, {"video": 5}]


def test_a_step_draws_one_pair_and_always_the_same() -> None:
    train = TrainConfig(seed=3)
    draws = [step_rates(MODEL, train, step) for step in range(400)]
    assert all(len(d) == 1 for d in draws)
    assert draws == [step_rates(MODEL, train, step) for step in range(400)]
    counts = Counter(tuple(d[0].values()) for d in draws)
    assert len(counts) == 4
    assert min(counts.values()) > 60  # expected 100 each
    assert draws != [step_rates(MODEL, TrainConfig(seed=4), step) for step in range(400)]


def test_all_gives_every_combination_at_every_step() -> None:
    assert step_rates(MODEL, TrainConfig(rates="all"), 17) == all_rates(MODEL)


@pytest.mark.parametrize(
    ("changes", "rates", "expected"),
    [
        ({}, "sample", True),
        ({"tasks": ("vsr",), "video_rates": (2,)}, "sample", False),
        ({"tasks": ("vsr",)}, "all", False),
        ({"tasks": ("vsr",), "projector": ProjectorConfig(kind="smop_dedr")}, "all", True),
        ({"tasks": ("vsr",), "video_encoder": VideoEncoderConfig(layer_drop=0.1)}, "all", True),
    ],
)
def test_when_ddp_must_look_for_unused_weights(changes: dict, rates: str, expected: bool) -> None:
    still = {"video_encoder": VideoEncoderConfig(layer_drop=0)}
    assert may_skip_parameters(ModelConfig(**(still | changes)), TrainConfig(rates=rates)) is expected
