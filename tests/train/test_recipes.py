"""Every recipe is read, built in its tiny size and trained for two steps; the full sizes are the published ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from omni_avsr.checkpoints import load_model
from omni_avsr.config import ModelConfig, Recipe, load_recipe, recipes
from omni_avsr.model.omni import PARTS, build_model
from omni_avsr.train import loop, state
from omni_avsr.train.runlog import read_metrics

PUBLISHED = (
    "omni_s", "omni_t", "omni_st", "smop_dedr", "smop_jedr", "smop_jejr", "omni_smop",
    "llama_avsr", "llama_mtsk", "llama_mt",
)  # fmt: skip


def test_all_that_were_promised_are_there() -> None:
    assert set(PUBLISHED) <= set(recipes())


@pytest.mark.parametrize("name", sorted(recipes()))
def test_two_steps_change_exactly_what_is_to_be_trained(
    name: str, make_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    knobs = ("train.max_steps=2", "train.accumulate=1", "train.log_every=1", "train.select_by=loss")
    recipe = make_recipe(name, *knobs, "train.ctc_epochs=0")  # every part moves from the first step on
    before: dict[str, torch.Tensor] = {}
    build = loop.initial_model

    def remembered(*given: object) -> torch.nn.Module:
        model = build(*given)
        before.update({k: v.clone() for k, v in model.state_dict().items()})
        return model

    monkeypatch.setattr(loop, "initial_model", remembered)
    accelerator = loop._accelerator(recipe)
    trainer = loop.Trainer(recipe, tmp_path, accelerator)
    model = trainer.model
    trainer.run(progress=False)

    after = model.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    parameters = {k for k, _ in model.named_parameters()}
    trained = {part: {k for k in parameters if PARTS[part](k)} for part in recipe.train.parts}
    present = {part: names for part, names in trained.items() if names}
    assert present
    for part, names in present.items():
        assert changed & names, f"'{part}' did not move"
    assert not (changed & parameters) - set().union(*present.values())
    if "video_encoder" not in recipe.train.parts:  # BatchNorm statistics of a frozen encoder rest, too
        assert changed <= parameters

    rows = [r for r in read_metrics(tmp_path / "metrics.jsonl") if r["kind"] == "train"]
    assert [r["step"] for r in rows] == [1, 2]
    assert all(f"loss/{task}" in rows[0] for task in recipe.model.tasks)
    loaded = load_model(tmp_path / "model")
    batch = next(trainer.corpus.groups(0))[0]
    rates = {modality: recipe.model.rates(modality)[0] for modality in recipe.model.modalities}
    with torch.no_grad():
        wanted, got = (each.eval()(batch, rates) for each in (model, loaded))
    assert torch.equal(wanted.total, got.total)
    assert wanted.tasks == got.tasks
    assert len(state.checkpoints(tmp_path)) >= 1


WHISPER_MEDIUM = {"d_model": 1024, "encoder_layers": 24, "encoder_attention_heads": 16, "encoder_ffn_dim": 4096}
LLAMA_1B = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": True,
}


def full_size(name: str) -> tuple[Recipe, ModelConfig]:
    """A recipe in its full size, with the sources' dimensions in place of the sources, without LayerNorms."""
    sources = [f"model.{part}.source=''" for part in ("llm", "audio_encoder", "video_encoder")]
    recipe = load_recipe(name, [*sources, "model.projector.layer_norm=false"])
    config = recipe.model
    llm = config.llm.model_copy(update={"dims": LLAMA_1B})
    ear = config.audio_encoder.model_copy(update={"dims": WHISPER_MEDIUM})
    return recipe, config.model_copy(update={"llm": llm, "audio_encoder": ear})


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("omni_s", 38.29),  # counted in the official code (SPEC, section 2.2)
        ("omni_t", 51.92),
        ("omni_st", 58.74),
        ("smop_jejr", 32.0),  # Llama-SMoP's released form: 25.2 projectors, 6.8 LoRA
        ("smop_jedr", 32.0),
        ("llama_mt", 25.7),  # omni_s without its second pair of projectors
    ],
)
def test_full_size_trains_as_many_weights_as_published(name: str, millions: float) -> None:
    recipe, config = full_size(name)
    with torch.device("meta"):
        model = build_model(config, ["a b"])
    model.set_trainable(recipe.train.parts)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("name", PUBLISHED)
def test_full_size_names_its_sources_and_the_published_optimisation(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.description
    assert recipe.model.llm.source == "meta-llama/Llama-3.2-1B"
    assert recipe.model.audio_encoder.source == "openai/whisper-medium.en"
    assert recipe.model.video_encoder.source
    train = recipe.train
    assert (train.lr, train.betas, train.weight_decay, train.clip) == (1e-3, (0.9, 0.98), 0.1, 10)


def test_what_each_recipe_is_about() -> None:
    about = {
        name: (
            r.model.lora.strategy,
            r.model.projector.kind,
            r.train.rates,
            len(r.model.tasks),
            len(r.model.audio_rates),
        )
        for name in PUBLISHED
        for r in [load_recipe(name)]
    }
    assert about == {
        "omni_s": ("S", "mlp_per_rate", "sample", 3, 2),
        "omni_t": ("T", "mlp_per_rate", "sample", 3, 2),
        "omni_st": ("ST", "mlp_per_rate", "sample", 3, 2),
        "omni_smop": ("ST", "smop_pool", "sample", 3, 2),
        "smop_dedr": ("S", "smop_dedr", "sample", 1, 1),
        "smop_jedr": ("S", "smop_jedr", "sample", 1, 1),
        "smop_jejr": ("S", "smop_jejr", "sample", 1, 1),
        "llama_avsr": ("S", "mlp_per_rate", "sample", 1, 1),
        "llama_mtsk": ("S", "mlp_per_rate", "all", 1, 2),
        "llama_mt": ("S", "mlp_per_rate", "sample", 3, 1),
    }
    assert {name: load_recipe(name, tiny=True).model.lora.strategy for name in about} == {
        name: row[0] for name, row in about.items()
    }
