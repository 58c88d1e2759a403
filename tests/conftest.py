"""Shared by all rooms: tiny models and features made in place, and no network."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, settings

from omni_avsr.config import ModelConfig
from omni_avsr.types import Batch, Features

if TYPE_CHECKING:  # the model room imports transformers, for which tests of other rooms should not wait
    from omni_avsr.model.llm import Tokenizer
    from omni_avsr.model.omni import OmniAVSR

# No deadlines: a busy machine is not a bug. The same examples every time: neither is chance.
settings.register_profile("quiet", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("quiet")

TEXTS = ("bin blue at f two now", "place red by z nine soon", "set white with k four again")

TINY: dict[str, object] = {
    "audio_encoder": {
        "dims": {"d_model": 24, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    },
    "video_encoder": {
        "embed_dim": 24,
        "layers": 1,
        "heads": 2,
        "ffn_dim": 32,
        "resnet_widths": (4, 4, 4, 8),
        "pos_conv": 8,
        "pos_conv_groups": 4,
        "lora_rank": 2,
    },
    "projector": {"hidden": 32},
    "llm": {
        "dims": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        },
        "vocab_size": 300,
    },
    "lora": {"rank": 2, "scale": 0.5},
    "preprocess": {"audio_window": 0.0},
}
"""A whole model of a few thousand parameters; every part is there."""


def merged(base: dict[str, object], top: dict[str, object]) -> dict[str, object]:
    """`base` with `top` laid over it, group by group."""
    out = dict(base)
    for key, value in top.items():
        below = out.get(key)
        out[key] = merged(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return out


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets reach this machine only."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if self.family != socket.AF_UNIX and host not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a test tried to reach {address}; tests are offline")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Random weights and inputs are the same in every run and every order."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., ModelConfig]:
    """`tiny_config(lora={"strategy": "S"})`: the tiny model's configuration with some knobs changed."""
    return lambda **changes: ModelConfig.model_validate(merged(TINY, changes))


@pytest.fixture(scope="session")
def make_features() -> Callable[..., Features]:
    """`make_features(frames=20)`: noise of 20 video frames and the sound that goes with it."""

    def make(frames: int = 20, audio: bool = True, video: bool = True, seed: int = 0, name: str = "clip") -> Features:
        noise = torch.Generator().manual_seed(seed)
        return Features(
            mel=torch.randn(80, 4 * frames, generator=noise) if audio else None,
            audio_frames=2 * frames if audio else 0,
            video=torch.randn(frames, 88, 88, generator=noise) if video else None,
            id=name,
        )

    return make


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A tokenizer of the Llama family that knows the words of TEXTS."""
    from omni_avsr.model.llm import train_tokenizer

    return train_tokenizer(TEXTS, 300)


@pytest.fixture(scope="session")
def tiny_model(tiny_config: Callable[..., ModelConfig]) -> Callable[..., OmniAVSR]:
    """`tiny_model(lora={"strategy": "S"})`: a fresh tiny model in eval mode whose adapters are not the identity."""
    from omni_avsr.model.omni import build_model

    def build(**changes: object) -> OmniAVSR:
        model = build_model(tiny_config(**changes), TEXTS)
        for layer in model.adapters.layers.values():
            for factor in layer.lora_B.values():
                torch.nn.init.normal_(factor)
        return model.eval()

    return build


@pytest.fixture
def batch(make_features: Callable[..., Features]) -> Batch:
    """Three clips of different lengths with the three texts."""
    from omni_avsr.model.batch import collate

    return collate([make_features(frames, seed=frames) for frames in (20, 13, 31)], TEXTS)
