from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from omni_avsr.cli import options
from omni_avsr.errors import ConfigError
from omni_avsr.model import compute
from omni_avsr.model.batch import collate
from omni_avsr.model.compute import COMPUTE, Int8Linear, PackedLinear, compute_type, prepare, without_window
from omni_avsr.model.decode import DecodeOptions, decode
from omni_avsr.tasks import TASKS

CPU = torch.device("cpu")
OPTIONS = DecodeOptions(3, max_new_tokens=6)
on_cpu = pytest.mark.parametrize("name", [row.name for row in COMPUTE.values() if "cpu" in row.devices])
shapes = pytest.mark.parametrize("shape", [(7, 48), (1, 48), (2, 3, 48)])
bias = pytest.mark.parametrize("bias", [torch.linspace(-1, 1, 33), None])


@shapes
@bias
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_packed_layers_give_the_same_numbers(shape, bias, dtype):
    x, weight = torch.randn(shape).to(dtype), torch.randn(33, 48).to(dtype)
    b = None if bias is None else bias.to(dtype)
    out = PackedLinear(weight, b)(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out, F.linear(x, weight, b))


@shapes
@bias
@torch.no_grad()
def test_int8_layers_are_within_two_percent(shape, bias):
    x, weight = torch.randn(shape), torch.randn(33, 48)
    exact = F.linear(x, weight, bias)
    out = Int8Linear(weight, bias)(x)
    assert out.shape == exact.shape
    assert (out - exact).norm() / exact.norm() < 0.02


@torch.no_grad()
def test_int8_positions_do_not_depend_on_their_neighbours():
    layer = Int8Linear(torch.randn(33, 48), None)
    x = torch.randn(5, 48) * torch.tensor([1.0, 1e-3, 1e3, 0.0, 1.0])[:, None]
    together = layer(x)
    for row in range(5):
        assert torch.equal(layer(x[row : row + 1])[0], together[row])
    assert not together[3].any()


@on_cpu
@torch.no_grad()
def test_a_prepared_model_says_nearly_the_same(talkative, make_features, name, monkeypatch):
    monkeypatch.setattr(compute, "SMALL", 0)  # so that even a tiny model's layers are replaced
    monkeypatch.setattr(compute, "PAYS", 0)
    model = talkative()
    batch = collate([make_features(20, seed=1), make_features(33, seed=2), make_features(25, seed=3)])
    expected = model.encode(batch)
    said = decode(model, batch, list(TASKS), {}, OPTIONS)
    row = compute_type(name, CPU)
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data = tensor.data.to(row.dtype) if tensor.is_floating_point() else tensor.data
    prepare(model, row)
    replaced = {type(module) for module in model.modules()} & {PackedLinear, Int8Linear}
    assert replaced == {Int8Linear if name == "int8" else PackedLinear}
    assert not any(type(module) is torch.nn.Linear for module in model.modules())
    for modality, states in model.encode(batch).items():
        error = (states.states.float() - expected[modality].states).norm() / expected[modality].states.norm()
        assert error < (1e-5 if name in ("default", "float32") else 0.1)
    found = decode(model, batch, list(TASKS), {}, OPTIONS)
    if name in ("default", "float32"):
        assert [h.tokens for h in found] == [h.tokens for h in said]
    assert all(h.tokens for h in found)


@torch.no_grad()
def test_what_is_merged_and_laid_out_says_the_same(talkative, make_features, monkeypatch):
    monkeypatch.setattr(compute, "SMALL", 0)
    model = talkative()
    batch = collate([make_features(20, seed=1), make_features(33, seed=2)])
    said = decode(model, batch, "avsr", {}, OPTIONS)
    model.adapters.merge("avsr")
    found = decode(prepare(model, COMPUTE["default"]), batch, "avsr", {}, OPTIONS)
    assert [h.tokens for h in found] == [h.tokens for h in said]
    with pytest.raises(ConfigError, match="'avsr' is merged"):
        decode(model, batch, "asr", {}, OPTIONS)


def test_what_is_laid_out_cannot_be_merged(tiny_model, monkeypatch):
    monkeypatch.setattr(compute, "SMALL", 0)
    model = prepare(tiny_model(), COMPUTE["default"])
    with pytest.raises(ConfigError, match="merge before"):
        model.adapters.merge("asr")


def test_layers_are_replaced_where_it_pays(tiny_model, monkeypatch):
    model = prepare(tiny_model(), COMPUTE["int8"])
    assert not any(isinstance(module, (Int8Linear, PackedLinear)) for module in model.modules())
    monkeypatch.setattr(compute, "SMALL", 0)
    monkeypatch.setattr(compute, "PAYS", 48 * 32)  # the LLM's feed-forward layers
    model = prepare(tiny_model(), COMPUTE["int8"])
    for name, module in model.llm.named_modules():
        if isinstance(module, (Int8Linear, PackedLinear)):
            assert isinstance(module, Int8Linear) == ("mlp" in name or "lm_head" in name)


def test_what_does_not_pay_is_refused():
    with pytest.raises(ConfigError, match="'int4' is unknown"):
        compute_type("int4", CPU)
    with pytest.raises(ConfigError, match="'float16' is slow or impossible on 'cpu'; use default, float32, bfloat16"):
        compute_type("float16", CPU)
    with pytest.raises(ConfigError, match="'int8'"):
        compute_type("int8", torch.device("cuda"))


def test_the_command_line_offers_every_row():
    assert options.ComputeType.__metadata__[0].metavar.split("|") == list(COMPUTE)


@torch.no_grad()
def test_without_its_window_whisper_hears_the_real_length(tiny_model, make_features):
    model = tiny_model(preprocess={"audio_window": 2.0})
    real = make_features(20)
    padded = torch.full((80, 200), -1.5)
    padded[:, : real.mel.shape[1]] = real.mel
    windowed = model.encode(collate([type(real)(padded, real.audio_frames, real.video)]))["audio"]
    without_window(model)
    assert model.config.preprocess.audio_window == 0
    heard = model.encode(collate([real]))["audio"]
    assert heard.states.shape == windowed.states.shape == (1, 40, model.encoder("audio").dim)
    assert not torch.equal(heard.states, windowed.states)
