"""Reading recipes: what is merged, what is refused, and what the refusal says."""

from __future__ import annotations

from pathlib import Path

import pytest

from omni_avsr.config import AugmentConfig, ModelConfig, Recipe, TrainConfig, load_recipe, parse, recipes
from omni_avsr.errors import ConfigError


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_recipe_says_only_what_differs_from_its_base(tmp_path: Path) -> None:
    written(tmp_path, "mine", 'extends = "older"\n[train]\nlr = 0.5')
    written(tmp_path, "older", 'extends = "tiny"\n[train]\nlr = 0.25\nepochs = 77')
    recipe = load_recipe(tmp_path / "mine.toml")
    tiny = load_recipe(recipes()["omni_st"], tiny=True)
    assert (recipe.name, recipe.train.lr, recipe.train.epochs) == ("mine", 0.5, 77)
    assert recipe.model.llm == tiny.model.llm


def test_tiny_replaces_the_size_and_keeps_the_idea(tmp_path: Path) -> None:
    full, tiny = load_recipe("omni_t"), load_recipe("omni_t", tiny=True)
    assert full.model.lora.strategy == tiny.model.lora.strategy == "T"
    assert full.model.llm.source
    assert not tiny.model.llm.source


@pytest.mark.parametrize(
    ("override", "get", "value"),
    [
        ("train.lr=1e-4", lambda r: r.train.lr, 1e-4),
        ("train.epochs = 3", lambda r: r.train.epochs, 3),
        ("model.tasks=['asr']", lambda r: r.model.tasks, ("asr",)),
        ("model.audio_rates=[2,8]", lambda r: r.model.audio_rates, (2, 8)),
        ("model.lora.strategy=S", lambda r: r.model.lora.strategy, "S"),
        ("data.train=['a b/m.jsonl']", lambda r: r.data.train, ("a b/m.jsonl",)),
        ("model.llm.dims.hidden_size=64", lambda r: r.model.llm.dims["hidden_size"], 64),
        ("data.augment.random_crop=false", lambda r: r.data.augment.random_crop, False),
        ("description=a = b", lambda r: r.description, "a = b"),
    ],
)
def test_overrides_are_typed_values(override: str, get: object, value: object) -> None:
    assert get(load_recipe("omni_st", [override], tiny=True)) == value


def test_the_last_override_wins() -> None:
    assert load_recipe("omni_st", ["train.lr=1", "train.lr=2"]).train.lr == 2


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.epoch=3", "unknown key 'train.epoch'; did you mean 'epochs'?"),
        ("model.lora.stategy=S", "unknown key 'model.lora.stategy'; did you mean 'strategy'?"),
        ("data.augment.flipp=1", "unknown key 'data.augment.flipp'; did you mean 'flip'?"),
        ("modle.tasks=['asr']", "unknown key 'modle'; did you mean 'model'?"),
        ("train.lr", "expected dotted.key=value"),
        ("train.lr.x=1", "'lr' is a value, not a group of knobs"),
        ("train.lr=-1", "train.lr"),
        ("train.epochs=0", "train.epochs"),
        ("train.precision=fp8", r"'no', 'bf16' or 'fp16' \(got 'fp8'\)"),
        ("model.tasks=['avs']", "unknown task 'avs'; did you mean 'avsr'?"),
        ("model.audio_rates=[]", "give at least one rate, each once"),
        ("model.video_rates=[2,2]", "give at least one rate, each once"),
        ("model.projector.top_k=5", r"top_k = 5 exceeds experts = 4"),
    ],
)
def test_what_cannot_be_is_refused_with_its_name(override: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_recipe("omni_st", [override])


def test_an_unknown_key_in_a_file_suggests_the_nearest(tmp_path: Path) -> None:
    path = written(tmp_path, "mine", "[train]\nlearning_rte = 1\nwarm_up = 0.1")
    with pytest.raises(ConfigError, match=r"unknown key 'train.warm_up'; did you mean 'warmup'\?") as error:
        load_recipe(path)
    assert "learning_rte" in str(error.value)  # every wrong key, not the first alone


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recipe 'omni_sst'.*did you mean 'omni_s"):
        load_recipe("omni_sst")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_recipe(written(tmp_path, "broken", "lr = = 1"))
    with pytest.raises(ConfigError, match="no base 'huge'"):
        load_recipe(written(tmp_path, "lost", 'extends = "huge"'))
    with pytest.raises(ConfigError, match="no base 'self'"):
        load_recipe(written(tmp_path, "self", 'extends = "self"'))


def test_bases_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    written(tmp_path, "a", 'extends = "b"')
    written(tmp_path, "b", 'extends = "a"')
    with pytest.raises(ConfigError, match="extend each other"):
        load_recipe(tmp_path / "a.toml")


def test_a_recipe_survives_json() -> None:
    recipe = load_recipe("smop_jedr")
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_knobs_are_frozen_and_documented_defaults_are_valid() -> None:
    with pytest.raises(ValueError, match="frozen"):
        TrainConfig().lr = 2
    assert parse(ModelConfig, {}, "nothing") == ModelConfig()
    assert ModelConfig(tasks=("vsr",)).modalities == ("video",)
    assert ModelConfig(prompts={"asr": "Listen."}).prompt("asr") == "Listen."


def test_augmentation_grows_to_what_was_asked_for() -> None:
    asked = AugmentConfig(ramp_epochs=4, noise_probability=0.8, video_corruption=0.2, flip=0.5)
    quiet, half = asked.at(0), asked.at(2)
    assert (quiet.noise_probability, quiet.video_corruption, quiet.audio_time_masks) == (0, 0, 0)
    assert (half.noise_probability, half.video_corruption, half.audio_time_masks) == (0.4, 0.1, 0.5)
    assert quiet.flip == half.flip == 0.5
    assert asked.at(4) == asked.at(9) == asked
    assert AugmentConfig(noise_probability=0.8).at(0).noise_probability == 0.8
