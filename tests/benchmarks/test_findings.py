"""The study: what is planned, what is skipped, what chance may have done, and a page that holds no typed number."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.findings import base, page, plan, runs, shipped
from benchmarks.findings.plan import RECIPE, RESULTS, RUNS, STUDIES, Run, is_done, ordered, path_of, store, stored
from benchmarks.findings.statistics import difference, rate
from omni_avsr.config import ModelConfig, Recipe, load_recipe
from omni_avsr.evaluate import measure
from omni_avsr.model.omni import OmniAVSR, build_model
from omni_avsr.train.loop import inherited
from omni_avsr.types import Hypothesis
from tests.clips import voice, wav

BASE = Path(base.__file__).parents[2] / "omni_avsr" / "assets" / "default"


# ---- the plan --------------------------------------------------------------------------------


def test_the_page_in_the_repository_is_what_the_stored_results_give() -> None:
    """After a change of results, plan or page: `python -m benchmarks.findings page`."""
    assert page.PAGE.read_text("utf-8") == page.render()


def test_every_stored_result_is_of_the_plan_as_it_stands() -> None:
    found = [path.stem.rpartition("-") for path in RESULTS.glob("*-*.json")]
    assert found
    for name, _, seed in found:
        assert is_done(stored(name, int(seed)), runs.key_of(RUNS[name], int(seed))), f"{name}-{seed} is stale"


def test_every_table_has_one_seed_before_any_has_two() -> None:
    assert ordered([], (1,), ["pool", "lora_t"]) == [("lora_t", 1), ("pool", 1)]
    runs_ = ordered(list(STUDIES), (0, 1, 2))
    assert [seed for _, seed in runs_] == sorted(seed for _, seed in runs_)
    assert len(set(runs_)) == len(runs_) == 3 * len(RUNS)
    assert {entry.run for study in STUDIES.values() for entry in study.entries} == set(RUNS)


def _model(name: str) -> OmniAVSR:
    recipe = load_recipe(RECIPE, [*RUNS[name].overrides(0), f"train.init={BASE}"])
    return build_model(inherited(recipe).model, ["bin blue at f two now"])


def _size(model: OmniAVSR, part: str) -> int:
    model.set_trainable([part])  # type: ignore[list-item]
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_strategies_train_equally_many_parameters() -> None:
    assert len({_size(_model(name), "llm_lora") for name in ("unified", "lora_s", "lora_t")}) == 1


@pytest.mark.parametrize("name", [n for n, run in RUNS.items() if any("smop" in s for s in run.sets)])
def test_mixtures_have_as_many_active_parameters_as_the_dense_projector(name: str) -> None:
    dense, mixture = _model("mlp_shared").projector, _model(name).projector
    pool, router = next(iter(mixture.pools.values())), next(iter(mixture.routers.values()))  # type: ignore[operator]
    active = sum(p.numel() for p in pool.parameters()) * mixture.config.top_k / mixture.config.experts
    active += sum(p.numel() for p in router.parameters())
    (of_one_token,) = {sum(p.numel() for p in mlp.parameters()) for mlp in dense.mlps.values()}  # type: ignore[operator]
    assert 1.0025 < active / of_one_token < 1.0145  # as the page says


def test_only_what_differs_from_the_plan_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Recipe] = []

    def fake(recipe: Recipe, run: Run, work: Path) -> dict[str, Any]:
        asked.append(recipe)
        return {"rows": [{"task": "asr", "errors": [1, 0]}]}

    monkeypatch.setattr(runs, "trained", fake)
    monkeypatch.setattr(runs, "inherited", lambda recipe: recipe)
    monkeypatch.setattr(base, "fetch_base", lambda: BASE)
    assert runs.perform("lora_t", 1, tmp_path)
    assert not runs.perform("lora_t", 1, tmp_path)
    assert runs.perform("lora_t", 2, tmp_path)
    monkeypatch.setitem(RUNS, "lora_t", Run(("model.lora.rank=8",)))
    assert runs.perform("lora_t", 1, tmp_path)
    assert runs.perform("lora_t", 1, tmp_path, again=True)
    assert [(r.model.lora.rank, r.train.seed) for r in asked] == [(16, 1), (16, 2), (8, 1), (8, 1)]


def test_what_is_stored_comes_back(tmp_path: Path) -> None:
    result = {"key": {"sets": ["a"]}, "rows": [{"errors": [0, 1]}, {"errors": []}], "é": 1.5}
    store(result, path_of("x", 3, tmp_path))
    assert stored("x", 3, tmp_path) == result
    assert [p.name for p in tmp_path.iterdir()] == ["x-3.json"]


# ---- one run ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sets", "pooled"),
    [(("model.projector.kind=smop_pool",), None), (("model.audio_rates=[4]", "model.video_rates=[2]"), (16, 5))],
)
def test_a_tiny_run_trains_measures_and_keeps_the_errors_of_each_utterance(
    make_recipe: Callable[..., Recipe], tmp_path: Path, sets: tuple[str, ...], pooled: tuple[int, int] | None
) -> None:
    recipe = make_recipe("omni_st", "data.dev=[]", "train.max_steps=2", *sets)
    found = runs.trained(recipe, Run(sets, ("asr", "avsr"), pooled), tmp_path)
    assert (found["steps"], found["llm_passes"]) == (2, 4)
    assert all(size > 0 for size in found["trained"].values())
    assert len(found["utterances"]) == len(found["words"]) == 4
    for row in found["rows"]:
        assert sum(row["errors"]) == row["substitutions"] + row["deletions"] + row["insertions"]
        assert row["words"] == sum(found["words"])
    asked = [(r["task"], r["audio_rate"], r["video_rate"]) for r in found["rows"] if r.get("pooled")]
    assert asked == ([("asr", 16, None), ("avsr", 16, 5)] if pooled else [])
    if not pooled:
        assert set(found["router"]) == {"audio 4", "audio 16", "video 2", "video 5"}
        assert all(sum(shares) == pytest.approx(1, abs=1e-3) for shares in found["router"].values())
    json.dumps(found)


@pytest.fixture
def small(
    tiny_config: Callable[..., ModelConfig], manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> OmniAVSR:
    """A model of a few thousand weights in the shipped one's place, and a corpus of four clips."""
    model = build_model(tiny_config(), ["bin blue at f two now"]).eval()
    monkeypatch.setattr(shipped, "load_model", lambda _: model)
    monkeypatch.setattr(shipped, "MANIFEST", str(manifest))
    monkeypatch.setattr(shipped, "WORK", tmp_path / "work")
    monkeypatch.setattr(shipped, "SNRS", (None, 0.0))
    monkeypatch.setattr(shipped, "ROUNDS", 1)
    monkeypatch.setattr(shipped, "STRANGERS", {**shipped.STRANGERS, "utterances": 3, "speakers": 3})
    # a model of random weights talks for long, and says nothing that this test asks for
    said = Hypothesis("bin blue", (), (), -0.5)
    monkeypatch.setattr(measure, "decode", lambda model, batch, *_: [said] * len(batch))
    monkeypatch.setattr(shipped, "decode", lambda m, batch, task, rates, _: m.project(m.encode(batch, [*rates]), rates))
    monkeypatch.setattr(shipped, "recording", lambda: wav(tmp_path / "hum.wav", voice()[:16_000]))
    return model


def test_the_shipped_model_is_measured_anew_when_its_weights_change(
    small: OmniAVSR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    for study in plan.SHIPPED:
        assert shipped.perform(study, results)
        assert not shipped.perform(study, results)
    assert shipped.perform("frontier", results, again=True)
    noise, frontier = (stored(study, folder=results) for study in plan.SHIPPED)
    assert noise is not None
    assert frontier is not None
    assert len(noise["rows"]) == 3 * (1 + 5)
    assert {row["noise"] for row in noise["rows"]} == {None, "babble", "crowd", "white", "music", "recorded"}
    cost = {(r["task"], r["audio_rate"], r["video_rate"]): r for r in frontier["rows"]}
    assert cost["avsr", 4, 2]["tokens_per_second"] == 25
    assert cost["avsr", 4, 2]["gflop_per_second"] > cost["asr", 4, None]["gflop_per_second"] > 0

    page.write(results, tmp_path / "docs" / "findings.md")
    drawn = sorted(p.name for p in (tmp_path / "docs" / "findings").iterdir())
    assert drawn == ["frontier.png", "noise.png"]

    monkeypatch.setattr(shipped, "folder_digest", lambda _: "of other weights")
    assert shipped.perform("frontier", results)


# ---- statistics ------------------------------------------------------------------------------


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    words = np.full(60, 6)
    held = 0
    for _ in range(100):
        found = rate(rng.binomial(6, 0.3, (1, 60)), words)
        held += found.low <= 30 <= found.high
    assert 88 <= held <= 100


def test_pairing_makes_a_small_difference_certain() -> None:
    """Utterances differ far more than systems; drawn together, their difficulty cancels."""
    rng = np.random.default_rng(0)
    theirs = rng.integers(0, 5, (3, 50))
    found = difference(theirs + (rng.random((3, 50)) < 0.5), theirs, np.full(50, 6))
    assert not found.crosses_zero
    assert found.value > 0
    assert rate(theirs, np.full(50, 6)).high - rate(theirs, np.full(50, 6)).low > found.high - found.low


def test_equal_systems_cross_zero_and_seeds_widen_the_interval() -> None:
    errors = np.tile([0, 1, 2, 3, 0], (2, 10))
    same = difference(errors, errors, np.full(50, 6))
    assert (same.value, same.low, same.high, same.crosses_zero) == (0, 0, 0, True)
    apart = np.stack([np.zeros(50), np.full(50, 3)])
    assert rate(apart, np.full(50, 6)).high - rate(apart, np.full(50, 6)).low == pytest.approx(50)


# ---- the page --------------------------------------------------------------------------------


def _stored(folder: Path, run: str, seed: int, errors: list[int]) -> None:
    row = {"task": "asr", "audio_rate": 4, "video_rate": None, "errors": errors}
    cost = {"steps": 1, "llm_passes": 3, "cpu_seconds": 60.0, "trained": {"projectors": 10, "llm_lora": 5}}
    machine = {"processor": "x", "cpus": 2, "device": "cpu"}
    made = {"commit": "abc", "machine": machine, "versions": {"torch": "2"}, "key": {}}
    store({**made, **cost, "words": [6] * len(errors), "rows": [row]}, path_of(run, seed, folder))


def test_the_page_says_how_many_seeds_a_row_has_and_where_chance_may_rule(tmp_path: Path) -> None:
    for seed in (0, 1):
        _stored(tmp_path, "unified", seed, [1, 2, 1, 2] * 5)
        _stored(tmp_path, "lora_s", seed, [2, 3, 2, 3] * 5)
    _stored(tmp_path, "lora_t", 0, [1, 2, 2, 1] * 5)
    text = page.render(tmp_path)
    assert "| ST, rank 12 | `unified` | 2 | 15 | 1 | 3 | 60 | 25.0" in text
    assert "**S, rank 48** against ST, rank 12: +16.7 points [+16.7, +16.7]: more errors (2 seeds)." in text
    assert "these runs do not tell the two apart (1 seed)" in text
    assert "Not run yet: ASR alone; VSR alone; AVSR alone." in text
    assert text.count("Not run yet") == 6  # four tables in part, noise, and the frontier
