"""States of a frozen ear from disk: the same run as without, computed once, and not taken for another model's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from omni_avsr.config import Recipe
from omni_avsr.data import dataset
from omni_avsr.errors import ConfigError
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.train import cache, loop
from omni_avsr.train.runlog import read_metrics

Make = Callable[..., Recipe]
SHORT = ("data.dev=[]", "train.max_steps=6", "data.augment.speed=[0.9,1.1]", "train.log_every=1")


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(folder / "metrics.jsonl")]


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SHARD", 3)


@pytest.mark.usefixtures("small_shards")
def test_a_run_from_disk_is_the_run_without(make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the first epochs, whose versions are kept; then they come again."""
    loop.train(make_recipe("omni_st", *SHORT), tmp_path / "without", progress=False)
    kept = (*SHORT, f"data.cache={tmp_path / 'cache'}", "data.variants=2")
    loop.train(make_recipe("omni_st", *kept), tmp_path / "with", progress=False)
    assert losses(tmp_path / "with") == pytest.approx(losses(tmp_path / "without"), rel=1e-5)
    (folder,) = (tmp_path / "cache").iterdir()
    assert len(list(folder.glob("*.lengths.npy"))) == 2 * 3  # versions x shards of eight rows

    heard = OmniAVSR.encode
    monkeypatch.setattr(OmniAVSR, "encode", lambda self, batch, *a, **k: heard(self, _deaf(batch), *a, **k))
    loop.train(make_recipe("omni_st", *kept), tmp_path / "again", progress=False)  # nothing is computed
    assert losses(tmp_path / "again") == losses(tmp_path / "with")


def _deaf(batch: object) -> object:
    assert batch.mel is None  # type: ignore[attr-defined]
    return batch


@pytest.mark.usefixtures("small_shards")
def test_whole_shards_are_kept_and_another_model_has_its_own(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe("omni_st", f"data.cache={tmp_path}", "data.dev=[]")
    corpus = loop.Corpus(recipe)
    model = loop.initial_model(recipe, corpus.train.texts).eval()
    one = cache.state_cache(model, corpus.train, recipe, "audio", rank=0, world=2)
    assert sorted(p.name for p in one.folder.glob("*.lengths.npy")) == ["0-00000.lengths.npy", "0-00002.lengths.npy"]
    one.path(0, 0, "lengths.npy").unlink()  # killed between the two files of a shard
    two = cache.state_cache(model, corpus.train, recipe, "audio")
    assert two == one
    for row in range(8):
        states = two(0, row)
        assert states is not None
        assert len(states) >= 25
    before = np.load(two.path(0, 1, "npy")).copy()
    with torch.no_grad():
        model.encoder("audio").whisper.conv1.bias.add_(1.0)
    other = cache.state_cache(model, corpus.train, recipe, "audio")
    assert other.folder != two.folder
    assert not np.array_equal(np.load(other.path(0, 1, "npy")), before)


FROZEN = (*SHORT, "train.parts=['projectors','llm_lora']", "train.log_every=1")


def test_frozen_lips_are_kept_too_and_then_no_file_is_opened(
    make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.train(make_recipe("omni_st", *FROZEN), tmp_path / "without", progress=False)
    kept = make_recipe("omni_st", *FROZEN, f"data.cache={tmp_path / 'cache'}", "data.variants=2")
    loop.train(kept, tmp_path / "with", progress=False)
    assert losses(tmp_path / "with") == pytest.approx(losses(tmp_path / "without"), rel=1e-5)
    assert len(list((tmp_path / "cache").iterdir())) == 2

    monkeypatch.setattr(dataset, "load_sample", lambda *_: pytest.fail("a file was opened"))
    loop.train(kept, tmp_path / "again", progress=False)
    assert losses(tmp_path / "again") == losses(tmp_path / "with")


def test_encoders_that_learn_cannot_be_kept(make_recipe: Make, tmp_path: Path) -> None:
    parts = "train.parts=['projectors','audio_encoder','video_encoder']"
    recipe = make_recipe("omni_st", parts, f"data.cache={tmp_path}", "data.dev=[]")
    with pytest.raises(ConfigError, match=r"data\.cache is for frozen encoders"):
        loop.train(recipe, tmp_path / "run", progress=False)
