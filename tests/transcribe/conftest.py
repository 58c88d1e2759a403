"""A tiny random model, and eyes that need no network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from omni_avsr.checkpoints import save_model
from omni_avsr.config import ModelConfig
from omni_avsr.media.mouth import Mouth
from omni_avsr.model.omni import OmniAVSR, build_model

TEXTS = ("bin blue at f two now", "place red by z nine soon")


def mouth(number: int, found: bool = True) -> Mouth:
    """A mouth that says which frame it is of."""
    crop = np.full((96, 96), number % 251, np.uint8)
    return Mouth(crop, found, np.zeros(4, np.float32), width=40.0, opening=0.1, yaw=0.0)


@pytest.fixture(scope="session")
def tiny_model(tiny_config: Callable[..., ModelConfig]) -> OmniAVSR:
    """All three tasks, with a CTC head."""
    torch.manual_seed(0)
    return build_model(tiny_config(ctc={"units": "char"}), TEXTS).eval()


@pytest.fixture(scope="session")
def model_folder(tiny_model: OmniAVSR, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on disk."""
    return save_model(tiny_model, tmp_path_factory.mktemp("models") / "tiny", origin={"made_by": "a test"})


@pytest.fixture
def faces(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], bool]], None]:
    """`faces(lambda frame: frame < 50)`: where a face is found, and speaks, from now on; no network is needed."""

    def install(found: Callable[[int], bool]) -> None:
        def stream(frames: Iterable[np.ndarray], **_: object) -> Iterator[Mouth]:
            return (mouth(i, found(i)) for i, _ in enumerate(frames))

        def speaking(mouths: Sequence[Mouth]) -> np.ndarray:
            return np.array([float(m.found) for m in mouths])

        monkeypatch.setattr("omni_avsr.transcribe.transcriber.mouth_stream", stream)
        monkeypatch.setattr("omni_avsr.transcribe.windows.speaking", speaking)
        monkeypatch.setattr("omni_avsr.media.quality.sharpness", lambda crop: 0.2)

    return install
