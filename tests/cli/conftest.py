"""A model folder whose answers are known, and the command line run in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from omni_avsr.checkpoints import save_model
from omni_avsr.cli import app
from omni_avsr.config import ModelConfig
from omni_avsr.model.omni import OmniAVSR, build_model
from omni_avsr.types import Batch, Hypothesis

Run = Callable[..., "Result"]


@pytest.fixture(scope="session")
def model_folder(tiny_config: Callable[..., ModelConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model on disk."""
    torch.manual_seed(0)
    model = build_model(tiny_config(), ("bin blue at f two now",))
    return save_model(model, tmp_path_factory.mktemp("models") / "tiny", origin={"made_by": "a test"})


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("transcribe", "a.mp4")` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMNI_AVSR_DEBUG", raising=False)
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is heard, it is these words."""

    def fake(model: OmniAVSR, batch: Batch, tasks: Sequence[str], *_: object, **__: object) -> list[Hypothesis]:
        return [Hypothesis("bin blue at f two now", (1,), (-0.1,), -0.1)] * len(batch)

    monkeypatch.setattr("omni_avsr.transcribe.recognition.decode", fake)
    monkeypatch.setattr("omni_avsr.evaluate.measure.decode", fake)
