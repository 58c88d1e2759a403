"""Adapting: the model is that of the folder, only the LoRA of its tasks moves, and it moves towards the speaker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from omni_avsr.checkpoints import model_info, native, save_model
from omni_avsr.config import Recipe, load_recipe
from omni_avsr.data.manifest import read_manifest, write_manifest
from omni_avsr.train import loop
from omni_avsr.train.corpus import Corpus
from tests.parity.goldens import Golden


@pytest.mark.slow
def test_a_speaker_s_own_version(make_recipe: Callable[..., Recipe], manifest: Path, tmp_path: Path) -> None:
    parts = "train.parts=['projectors','llm_lora','llm']"
    first = make_recipe("omni_st", parts, "data.dev=[]", "train.max_steps=12")
    start = loop.train(first, tmp_path / "a", progress=False)
    own = [r for r in read_manifest(manifest) if r.split == "train"][:3]
    speaker = write_manifest(tmp_path / "own" / "manifest.jsonl", own)
    quiet = ("data.augment.noise_probability=0", "data.augment.speed=[1.0,1.0]", "train.precision=no")
    once = ("train.epochs=30", "train.average=1", "train.eval_every=30", "train.save_every=30")
    quick = (*once, "data.dev=[]", "train.lr=2e-2")
    recipe = load_recipe("adapt", [f"train.init={start}", f"data.train=['{speaker}']", *quiet, *quick])
    assert recipe.train.parts == ("task_lora",)
    adapted = native.load_model(loop.train(recipe, tmp_path / "b", progress=False))
    before = native.load_model(start)
    assert adapted.config.lora == before.config.lora
    moved = {n for n, p in before.named_parameters() if not torch.equal(p, dict(adapted.named_parameters())[n])}
    assert moved
    assert all(".lora_" in name and name.rpartition(".")[2] in ("asr", "vsr", "avsr") for name in moved)
    (group,) = list(Corpus(loop.inherited(recipe)).groups(0))[:1]
    with torch.no_grad():
        losses = [float(m(group[0], {"audio": 4, "video": 2}).total) for m in (before, adapted)]
    assert losses[1] < losses[0] - 0.03


def test_an_import_that_is_trained_further_keeps_its_quirks_and_licences(
    make_recipe: Callable[..., Recipe], manifest: Path, tmp_path: Path
) -> None:
    case = Golden("stack", tmp_path / "golden")
    case.imported()
    imported = case.folder / "stack"
    quick = (
        "train.parts=['llm_lora']",
        "train.max_steps=1",
        "data.dev=[]",
        "train.precision=no",
        "train.average=1",
        "data.frames_per_batch=50",
    )
    recipe = load_recipe("adapt", [f"train.init={imported}", f"data.train=['{manifest}']", *quick])
    trained = loop.train(recipe, tmp_path / "run", progress=False)
    again = save_model(native.load_model(trained), tmp_path / "small", origin={"from": "me"}, dtype=torch.float16)
    before = model_info(imported)
    assert "non-commercial" in before["origin"]["licences"][0]
    for folder in (trained, again):
        found = model_info(folder)
        assert found["quirks"] == before["quirks"]
        assert {"rank_divisor", "prompts", "token_order_llama", "added_rows", "float_grey", "sampled_beams"} <= found[
            "quirks"
        ].keys()
        for field in ("official", "licences"):
            assert found["origin"][field] == before["origin"][field]
        for adapter in (folder / "adapters").iterdir():
            assert "non-commercial" in (adapter / "README.md").read_text()
    assert model_info(again)["origin"]["from"] == "me"
    assert model_info(trained)["origin"]["recipe"]["name"] == "adapt"
