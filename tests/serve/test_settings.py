"""What a server is told when it starts reaches the model and every request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from omni_avsr.checkpoints import save_model
from omni_avsr.errors import ConfigError
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.serve.desk import Desk
from omni_avsr.serve.metrics import Metrics
from omni_avsr.serve.settings import Settings
from omni_avsr.transcribe.budget import Costs, settings
from omni_avsr.transcribe.transcriber import Transcriber
from tests.serve.conftest import Serve, Server


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"compute_type": "int9"}, "'int9' is unknown"),
        ({"compute_type": "float16", "device": "cpu"}, "slow or impossible on 'cpu'"),
        ({"device": "moon"}, "device 'moon'"),
        ({"budget": "cheap"}, "'cheap' is unknown"),
        ({"budget": "fast", "target_rtf": 1.0}, "give one"),
        ({"beam_size": 0}, "beam_size = 0"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings(**given)  # type: ignore[arg-type]


def test_the_model_computes_as_the_server_was_told(tiny_model: Callable[..., OmniAVSR], tmp_path: Path) -> None:
    folder = save_model(tiny_model(tasks=["asr"], preprocess={"audio_window": 30.0}), tmp_path / "m", origin={})
    desk = Desk(Settings(str(folder), compute_type="bfloat16", fast=True, offline=True), Metrics())
    desk.start()
    try:
        desk.wait_ready()
        model = desk.check_ready()
        assert model.llm.dtype == torch.bfloat16
        assert model.config.preprocess.audio_window == 0
    finally:
        desk.stop()


# ---- a budget ----------------------------------------------------------------------------------


@pytest.fixture
def frugal(serve: Serve, spoken: list[list[str]], faces: None, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server with a small budget, on a machine where listening is cheap and every finer rate dearer."""
    measured: list[int] = []

    def costs(self: Transcriber, beam_size: int = 5, anew: bool = False) -> Costs:
        measured.append(beam_size)
        assert len(measured) == 1, "costs are measured when the server starts, and never in a request"
        return {s: s.tokens * (0.01 if s.task == "asr" else 0.1) for s in settings(self.model.config)}

    monkeypatch.setattr(Transcriber, "costs", costs)
    return serve(budget="fast")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "asr 16"),
        ({"task": "avsr"}, "avsr 16 5"),
        ({"task": "avsr", "audio_rate": 4}, "avsr 4 5"),
        ({"task": "vsr", "video_rate": 2}, "vsr 2"),
    ],
)
def test_the_budget_chooses_what_a_request_leaves_open(
    frugal: Server, clip: bytes, fields: dict[str, object], said: str
) -> None:
    assert frugal.post(clip, **fields).json()["text"] == said


def test_what_the_budget_chose_is_in_the_answer(frugal: Server, clip: bytes) -> None:
    (segment,) = frugal.post(clip, response_format="verbose_json").json()["segments"]
    assert segment["av"]["budget"] == "fast"
    assert segment["av"]["audio_rate"] == 16
