from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_avsr.errors import ConfigError
from omni_avsr.transcribe.budget import (
    BUDGETS,
    Setting,
    check_budget,
    choose,
    costs_file,
    measure,
    recall,
    remember,
    sample,
    settings,
)
from omni_avsr.transcribe.transcriber import Transcriber

BEST_FIRST = [
    Setting("avsr", 4, 2),
    Setting("avsr", 4, 5),
    Setting("avsr", 16, 2),
    Setting("avsr", 16, 5),
    Setting("asr", 4, None),
    Setting("asr", 16, None),
    Setting("vsr", None, 2),
    Setting("vsr", None, 5),
]
costs = st.lists(st.floats(0.01, 10), min_size=8, max_size=8).map(lambda c: dict(zip(BEST_FIRST, c, strict=True)))


def test_settings_are_those_that_were_trained_the_best_first(tiny_config):
    assert settings(tiny_config()) == BEST_FIRST
    assert settings(tiny_config(), ["vsr"]) == BEST_FIRST[-2:]
    assert str(BEST_FIRST[0]) == "avsr with audio rate 4 and video rate 2"
    assert BEST_FIRST[0].tokens == 25.0


@given(costs=costs)
def test_a_smaller_budget_never_costs_more(costs):
    fast, balanced, accurate = (choose(costs, budget) for budget in BUDGETS)
    assert costs[fast] == min(costs.values())
    assert accurate == BEST_FIRST[0]
    assert costs[fast] <= costs[balanced] <= max(costs[accurate], costs[fast]) + 1e-9


@given(costs=costs, target=st.floats(0.001, 20))
def test_a_target_gets_the_best_that_meets_it(costs, target):
    chosen = choose(costs, None, target)
    meets = [setting for setting in BEST_FIRST if costs[setting] <= target]
    assert chosen == (meets[0] if meets else min(costs, key=costs.get))


def test_a_target_that_nothing_meets_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        assert choose({BEST_FIRST[4]: 0.5}, None, 0.1) == BEST_FIRST[4]
    assert "nothing is as fast as 0.1 here; the fastest is asr with audio rate 4, at 0.5" in caplog.text


@pytest.mark.parametrize(
    ("budget", "target", "message"),
    [("cheap", None, "'cheap' is unknown"), (None, 0.0, "target_rtf = 0"), ("fast", 1.0, "give one")],
)
def test_what_is_no_budget_is_refused(budget, target, message):
    with pytest.raises(ConfigError, match=message):
        check_budget(budget, target)


def test_costs_are_measured_and_remembered(tmp_path, monkeypatch, tiny_config):
    ran = []
    found = measure(lambda setting: ran.append(setting) or 2.0, BEST_FIRST, repeats=3)
    assert len(ran) == 1 + 3 * 8
    assert list(found) == BEST_FIRST
    path = tmp_path / "deep" / "costs.json"
    assert recall(path) is None
    remember(found, path)
    assert list(recall(path)) == BEST_FIRST
    assert list(recall(path).values()) == pytest.approx(list(found.values()), abs=1e-5)
    path.write_text("{", "utf-8")
    assert recall(path) is None
    other = tiny_config(lora={"rank": 3})
    assert costs_file(tiny_config(), ["cpu"]) != costs_file(other, ["cpu"]) != costs_file(other, ["cuda"])


# ---- in a transcription ----------------------------------------------------------------------


@pytest.fixture
def transcriber(tiny_model, faces, monkeypatch):
    """One for which listening is cheap and every finer rate dearer; a face is always there."""
    faces(lambda frame: True)
    transcriber = Transcriber(tiny_model)
    known = {s: s.tokens * (0.01 if s.task == "asr" else 0.1) for s in BEST_FIRST}
    monkeypatch.setattr(transcriber, "costs", lambda beam_size: known)
    return transcriber


@pytest.mark.parametrize(
    ("wanted", "setting"),
    [
        ({"budget": "accurate"}, BEST_FIRST[0]),
        ({"budget": "fast"}, BEST_FIRST[5]),
        ({"budget": "fast", "task": "avsr"}, BEST_FIRST[3]),
        ({"budget": "fast", "task": "avsr", "audio_rate": 4}, BEST_FIRST[1]),
        ({"target_rtf": 1.8}, BEST_FIRST[1]),
        ({"target_rtf": 0.1, "task": "vsr"}, BEST_FIRST[7]),
    ],
)
def test_the_budget_chooses_task_and_rates_and_the_output_says_so(transcriber, wanted, setting, caplog):
    with caplog.at_level(logging.INFO):
        segments, info = transcriber.transcribe(sample(), beam_size=1, **wanted)
    assert (info.task, info.audio_rate, info.video_rate) == (setting.task, setting.audio_rate, setting.video_rate)
    assert f"{setting}, which costs" in caplog.text
    for segment in segments:
        assert segment.av["budget"] == wanted.get("budget", wanted.get("target_rtf"))
        assert segment.av["task"] == setting.task


def test_costs_are_measured_once(tiny_model, faces, monkeypatch, tmp_path):
    monkeypatch.setenv("OMNI_AVSR_CACHE", str(tmp_path))
    faces(lambda frame: True)
    transcriber = Transcriber(tiny_model)
    ran = []
    monkeypatch.setattr(transcriber, "_cost", lambda beam_size, setting: ran.append(setting) or 1.0)
    found = transcriber.costs(2)
    assert list(found) == BEST_FIRST
    count = len(ran)
    assert list(transcriber.costs(2)) == BEST_FIRST
    assert len(ran) == count
    transcriber.costs(2, anew=True)
    assert len(ran) == 2 * count
