"""The contract of every row of ENCODERS; a new row is tested by being there (its tiny sizes are in conftest)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from omni_avsr.config import ModelConfig
from omni_avsr.errors import ConfigError
from omni_avsr.model.encoders import ENCODERS, Encoder, build_encoder
from omni_avsr.types import Encoded

LENGTHS = (11, 4, 0, 7)
ConfigMaker = Callable[..., ModelConfig]

pytestmark = pytest.mark.parametrize("kind", ENCODERS)


def tiny(kind: str, make: ConfigMaker, **changes: dict[str, object]) -> Encoder:
    modality = ENCODERS[kind].modality
    part = f"{modality}_encoder"
    encoder = build_encoder(modality, make(**{**changes, part: {"kind": kind, **changes.get(part, {})}}))
    for name, parameter in encoder.named_parameters():
        if "lora_up" in name:  # zero in a fresh adapter, which would hide its other half
            torch.nn.init.normal_(parameter, std=0.1)
    return encoder.eval()


def features(kind: str, rows: int, states: int) -> Tensor:
    """Noise of `states` states for each row."""
    shape = {"audio": (80, 2 * states), "video": (states, 88, 88)}[ENCODERS[kind].modality]
    return torch.randn(rows, *shape)


def cut(kind: str, row: Tensor, states: int) -> Tensor:
    """The first `states` states of one row, as a batch of its own."""
    return {"audio": row[:, : 2 * states], "video": row[:states]}[ENCODERS[kind].modality][None]


def test_lengths_and_shapes(kind: str, tiny_config: ConfigMaker) -> None:
    encoder = tiny(kind, tiny_config)
    out = encoder(features(kind, len(LENGTHS), max(LENGTHS)), torch.tensor(LENGTHS))
    assert out.states.shape == (len(LENGTHS), max(LENGTHS), encoder.dim)
    assert out.lengths.tolist() == list(LENGTHS)
    assert encoder.frames_per_second == {"audio": 50, "video": 25}[ENCODERS[kind].modality]
    assert out.states.isfinite().all()
    assert out.states[~out.mask].eq(0).all()
    assert out.states[out.mask].abs().sum(-1).gt(0).all()


@torch.no_grad()
def test_a_row_does_not_see_its_neighbours_or_its_padding(kind: str, tiny_config: ConfigMaker) -> None:
    encoder = tiny(kind, tiny_config)
    x = features(kind, len(LENGTHS), max(LENGTHS))  # the padding is noise, not zeros
    together = encoder(x, torch.tensor(LENGTHS)).states
    for row, length in enumerate(LENGTHS):
        if length:
            alone = encoder(cut(kind, x[row], length), torch.tensor([length])).states
            torch.testing.assert_close(together[row, :length], alone[0], atol=1e-5, rtol=1e-5)


def test_gradient_reaches_every_weight(kind: str, tiny_config: ConfigMaker) -> None:
    encoder = tiny(kind, tiny_config, video_encoder={"layer_drop": 0.0}).train()
    out = encoder(features(kind, len(LENGTHS), max(LENGTHS)), torch.tensor(LENGTHS))
    out.states.square().mean(1).sub(torch.randn(encoder.dim)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            # a key bias shifts all scores of a query alike: softmax forgets it
            assert name.endswith("k_proj.bias") or parameter.grad.abs().max() > 0, name


@torch.no_grad()
def test_state_dict_round_trip(kind: str, tiny_config: ConfigMaker) -> None:
    first, second = tiny(kind, tiny_config), tiny(kind, tiny_config)
    x, lengths = features(kind, 2, 6), torch.tensor([6, 5])
    assert not torch.allclose(first(x, lengths).states, second(x, lengths).states)
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(first(x, lengths).states, second(x, lengths).states, atol=0, rtol=0)


@torch.no_grad()
def test_runs_in_bfloat16(kind: str, tiny_config: ConfigMaker) -> None:
    encoder = tiny(kind, tiny_config)
    x, lengths = features(kind, 2, 8), torch.tensor([8, 3])
    exact = encoder(x, lengths).states
    with torch.autocast("cpu", torch.bfloat16):
        mixed = encoder(x, lengths).states
    half = encoder.bfloat16()(x.bfloat16(), lengths).states
    for states in (mixed, half):
        assert (states.float() - exact).abs().max() < 0.1 * exact.abs().max()
    assert half.dtype == torch.bfloat16


def test_a_kind_of_the_other_modality_is_refused(kind: str, tiny_config: ConfigMaker) -> None:
    modality = ENCODERS[kind].modality
    other = "video" if modality == "audio" else "audio"
    config = tiny_config()
    part = getattr(config, f"{other}_encoder").model_copy(update={"kind": kind})
    with pytest.raises(ConfigError, match=kind):
        build_encoder(other, config.model_copy(update={f"{other}_encoder": part}))


def test_equal_lengths_need_no_mask(kind: str, tiny_config: ConfigMaker) -> None:
    encoder = tiny(kind, tiny_config)
    out: Encoded = encoder(features(kind, 2, 5), torch.tensor([5, 5]))
    assert out.mask.all()
