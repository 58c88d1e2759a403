"""A plan counts what the model is, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from omni_avsr.config import Recipe
from omni_avsr.train import loop
from omni_avsr.train.plan import plan


def test_what_is_counted(make_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = make_recipe("omni_st", "data.dev=[]", "train.epochs=3")
    found = plan(recipe, probes=2)
    assert not list(tmp_path.iterdir())
    model = loop.initial_model(recipe, ["words"])
    model.set_trainable(recipe.train.parts)
    assert sum(count for count, _ in found.parameters.values()) == sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(count for _, count in found.parameters.values()) == trained
    assert found.moments == pytest.approx(2 * found.gradients) == pytest.approx(8 * trained / 2**20)
    assert found.steps == 3 * 4
    assert 0 < found.padding < 0.5
    packed = plan(make_recipe("omni_st", "data.dev=[]", "train.pack=true"), probes=2)
    assert 0 <= packed.padding < 0.4
    less = plan(make_recipe("omni_st", "data.dev=[]", "train.checkpointing=true"), probes=2)
    assert less.activations < found.activations
    lines = "\n".join(found.lines(3, hours_of_data=100))
    assert "llm_lora" in lines
    assert f"{found.hours_for(100, 3):.2f} h" in lines
