"""What divided training refuses, and says; that it is the same training is in `test_loop`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from torch import nn

from omni_avsr.config import Recipe, TrainConfig
from omni_avsr.errors import ConfigError, DataError
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.train import loop, parallel
from omni_avsr.train.corpus import Corpus


def test_fp16_has_no_shards() -> None:
    two = cast(Any, SimpleNamespace(num_processes=2))
    with pytest.raises(ConfigError, match=r"fp16.*use 'bf16'"):
        parallel.spread(cast(OmniAVSR, nn.Linear(1, 1)), TrainConfig(parallel="fsdp2", precision="fp16"), two)


def test_accelerate_s_own_fsdp_is_refused(
    make_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match=r"switch it off and set train.parallel = 'fsdp2'"):
        loop.train(make_recipe("omni_st"), tmp_path / "run", progress=False)


def test_a_batch_without_a_task_is_refused_where_layers_are_divided(
    make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = next(Corpus(make_recipe("omni_st")).groups(0))[0]
    mute = replace(batch, mel=None, audio_lengths=0 * batch.audio_lengths)
    model, tasks = nn.Linear(1, 1), {"asr": 1.0, "vsr": 1.0}
    parallel.check_same_passes(model, mute, tasks)
    monkeypatch.setattr(parallel, "FSDPModule", nn.Linear)
    parallel.check_same_passes(model, batch, tasks)
    parallel.check_same_passes(model, mute, {"asr": 0.0, "vsr": 1.0})
    with pytest.raises(DataError, match=r"no row for the task 'asr'.*train.parallel = 'ddp'"):
        parallel.check_same_passes(model, mute, tasks)
