"""AV-HuBERT's parts against the plain formulas they stand for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from omni_avsr.config import ModelConfig, VideoEncoderConfig
from omni_avsr.errors import ConfigError, InputError
from omni_avsr.model import avhubert
from omni_avsr.model.avhubert import AVHUBERT_SIZES, AVHubertEncoder, PositionConv, ResNet, StemConv, frame_windows
from omni_avsr.model.encoder import valid_mask
from omni_avsr.model.encoders import build_encoder

TINY = {
    "embed_dim": 16,
    "layers": 2,
    "heads": 2,
    "ffn_dim": 24,
    "resnet_widths": (4, 4, 6, 8),
    "pos_conv": 6,
    "pos_conv_groups": 2,
}


def tiny(**changes: object) -> AVHubertEncoder:
    return AVHubertEncoder(VideoEncoderConfig(**{**TINY, **changes}))


def states(encoder: AVHubertEncoder, video: Tensor) -> Tensor:
    return encoder(video, torch.full((len(video),), video.shape[1])).states


# ---- stem and trunk --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(88, 88), (33, 47)])
def test_the_folded_stem_is_the_three_dimensional_convolution(size: tuple[int, int]) -> None:
    stem = StemConv(6)
    video, lengths = torch.randn(3, 9, *size), (9, 4, 1)
    packed = stem(frame_windows(video, valid_mask(torch.tensor(lengths), 9)))
    rows = [
        F.conv3d(video[i : i + 1, None, :n], stem.weight, stride=(1, 2, 2), padding=(2, 3, 3))[0].transpose(0, 1)
        for i, n in enumerate(lengths)
    ]
    torch.testing.assert_close(packed, torch.cat(rows), atol=1e-5, rtol=1e-5)


def test_convolutions_run_channels_last() -> None:
    windows = frame_windows(torch.randn(2, 5, 32, 32), torch.ones(2, 5, dtype=torch.bool))
    assert windows.is_contiguous(memory_format=torch.channels_last)
    assert ResNet((4, 4, 4, 4), "prelu").frontend3D(windows).is_contiguous(memory_format=torch.channels_last)


def test_relu_after_the_pool_is_relu_before_it() -> None:
    front = ResNet((4, 4, 4, 4), "relu").frontend3D
    stem, norm = front[0], front[1]
    x = torch.randn(3, 5, 40, 40)
    torch.testing.assert_close(front(x), F.max_pool2d(F.relu(norm(stem(x))), 3, 2, 1))


@torch.no_grad()
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, video = tiny().eval(), torch.randn(2, 7, 32, 32)
    whole = states(encoder, video)
    monkeypatch.setattr(avhubert, "CHUNK", 3)
    torch.testing.assert_close(states(encoder, video), whole, atol=1e-5, rtol=1e-5)


# ---- batch normalisation ---------------------------------------------------------------------


def statistics(encoder: AVHubertEncoder) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in encoder.state_dict().items() if "running_" in name}


def test_frozen_weights_keep_frozen_statistics() -> None:
    encoder = tiny(lora_rank=2).requires_grad_(False).train()
    before = statistics(encoder)
    states(encoder, torch.randn(2, 4, 32, 32))
    assert all(torch.equal(before[name], value) for name, value in statistics(encoder).items())


def test_trained_statistics_come_from_valid_frames_only() -> None:
    video, lengths = torch.randn(2, 6, 32, 32), (6, 2)
    padded, plain = tiny(dropout=0.0), tiny(dropout=0.0)
    plain.load_state_dict(padded.state_dict())
    before = statistics(padded)
    padded.train()(video, torch.tensor(lengths))
    plain.train()
    windows = [frame_windows(video[i : i + 1, :n], torch.ones(1, n, dtype=torch.bool)) for i, n in enumerate(lengths)]
    plain.feature_extractor_video(torch.cat(windows))
    for name, value in statistics(padded).items():
        assert not torch.equal(value, before[name])
        torch.testing.assert_close(value, plain.state_dict()[name], atol=1e-5, rtol=1e-5)


# ---- transformer -----------------------------------------------------------------------------


@pytest.mark.parametrize("taps", [5, 8])
def test_position_convolution_is_a_weight_normed_one(taps: int) -> None:
    ours = PositionConv(8, taps, 2, 0.1)
    nn.init.uniform_(ours.weight_g, 0.5, 2)
    reference = weight_norm(nn.Conv1d(8, 8, taps, padding=taps // 2, groups=2), dim=2)
    reference.load_state_dict(
        {
            "bias": ours.bias.data,
            "parametrizations.weight.original0": ours.weight_g.data,
            "parametrizations.weight.original1": ours.weight_v.data,
        }
    )
    x = torch.randn(2, 11, 8)
    expected = F.gelu(reference(x.transpose(1, 2))[..., :11]).transpose(1, 2)
    torch.testing.assert_close(ours(x), expected)


@torch.no_grad()
def test_a_fresh_adapter_changes_nothing_and_a_trained_one_merges() -> None:
    plain, adapted = tiny().eval(), tiny(lora_rank=3, lora_scale=2.0).eval()
    adapted.load_state_dict(plain.state_dict(), strict=False)
    video = torch.randn(1, 5, 32, 32)
    expected = states(plain, video)
    torch.testing.assert_close(states(adapted, video), expected, atol=0, rtol=0)
    for layer, target in zip(adapted.encoder.layers, plain.encoder.layers, strict=True):
        source, merged = layer.self_attn, target.self_attn
        for up, down, name in (
            (source.lora_up_Q, source.lora_down_Q, "q_proj"),
            (source.lora_up_V, source.lora_down_V, "v_proj"),
        ):
            nn.init.normal_(up.weight)
            getattr(merged, name).weight += 2.0 * up.weight @ down.weight
    changed = states(adapted, video)
    assert not torch.allclose(changed, expected, atol=1e-3)
    torch.testing.assert_close(changed, states(plain, video), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_attention_is_the_textbook_formula() -> None:
    attention = tiny().encoder.layers[0].self_attn
    x = torch.randn(1, 4, 16)
    q, k, v = (f(x).view(4, 2, 8).transpose(0, 1) for f in (attention.q_proj, attention.k_proj, attention.v_proj))
    scores = (q * 8**-0.5 @ k.transpose(1, 2)).softmax(-1)
    expected = attention.out_proj((scores @ v).transpose(0, 1).reshape(1, 4, 16))
    torch.testing.assert_close(attention.eval()(x, None), expected)


@pytest.mark.parametrize("first", [True, False])
@torch.no_grad()
def test_norm_before_or_after(first: bool) -> None:
    layer = tiny(layer_norm_first=first).encoder.layers[0].eval()
    x = torch.randn(1, 4, 16)
    norms = (layer.self_attn_layer_norm, layer.final_layer_norm)

    def feed(y: Tensor) -> Tensor:
        return layer.fc2(F.gelu(layer.fc1(y)))

    if first:
        middle = x + layer.self_attn(norms[0](x), None)
        expected = middle + feed(norms[1](middle))
    else:
        middle = norms[0](x + layer.self_attn(x, None))
        expected = norms[1](middle + feed(middle))
    torch.testing.assert_close(layer(x, None), expected)


@torch.no_grad()
def test_post_norm_rows_are_independent() -> None:
    encoder, video = tiny(layer_norm_first=False).eval(), torch.randn(2, 6, 32, 32)
    together = encoder(video, torch.tensor([6, 4])).states
    torch.testing.assert_close(together[1:, :4], states(encoder, video[1:, :4]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_dropout_and_layer_drop_act_in_training_only() -> None:
    encoder, video = tiny(layer_drop=1.0, dropout=0.0), torch.randn(1, 4, 32, 32)
    encoder.requires_grad_(False)  # keeps the statistics of batch normalisation out of this
    trained, used = states(encoder.train(), video), states(encoder.eval(), video)
    assert not torch.allclose(trained, used)
    encoder.encoder.layers = nn.ModuleList()
    torch.testing.assert_close(states(encoder, video), trained)
    noisy = tiny(dropout=0.5).requires_grad_(False)
    assert not torch.equal(states(noisy.train(), video), states(noisy, video))
    assert torch.equal(states(noisy.eval(), video), states(noisy, video))


# ---- the whole -------------------------------------------------------------------------------


@torch.no_grad()
def test_the_absent_audio_half_is_zeros_before_the_norm() -> None:
    encoder, video = tiny().eval(), torch.randn(1, 3, 32, 32)
    seen: list[Tensor] = []
    encoder.layer_norm.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    states(encoder, video)
    assert seen[0].shape == (3, 32)
    assert seen[0][:, :16].eq(0).all()
    assert seen[0][:, 16:].abs().sum() > 0


@pytest.mark.parametrize(("relu", "slopes"), [("prelu", 17), ("relu", 0)])
def test_names_are_those_of_the_published_checkpoints(relu: str, slopes: int) -> None:
    shapes = {name: tuple(value.shape) for name, value in tiny(relu=relu, lora_rank=3).state_dict().items()}
    front = "feature_extractor_video.resnet"
    expected = {
        f"{front}.frontend3D.0.weight": (4, 1, 5, 7, 7),
        f"{front}.frontend3D.1.running_mean": (4,),
        f"{front}.trunk.layer1.0.conv1.weight": (4, 4, 3, 3),
        f"{front}.trunk.layer3.0.downsample.0.weight": (6, 4, 1, 1),
        f"{front}.trunk.layer4.1.bn2.num_batches_tracked": (),
        "feature_extractor_video.proj.weight": (16, 8),
        "layer_norm.weight": (32,),
        "post_extract_proj.weight": (16, 32),
        "encoder.pos_conv.0.weight_g": (1, 1, 6),
        "encoder.pos_conv.0.weight_v": (16, 8, 6),
        "encoder.pos_conv.0.bias": (16,),
        "encoder.layers.1.self_attn.lora_down_Q.weight": (3, 16),
        "encoder.layers.1.self_attn.lora_up_V.weight": (16, 3),
        "encoder.layers.0.self_attn_layer_norm.bias": (16,),
        "encoder.layers.0.final_layer_norm.weight": (16,),
        "encoder.layers.0.fc1.weight": (24, 16),
        "encoder.layer_norm.weight": (16,),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    assert sum(".relu" in name or name.endswith("frontend3D.2.weight") for name in shapes) == slopes


def test_published_sizes() -> None:
    """Large: exactly the tensors that are used of an official checkpoint. Base: 103 M with its pre-training parts."""
    counts = {}
    for size, fields in AVHUBERT_SIZES.items():
        with torch.device("meta"):
            encoder = AVHubertEncoder(VideoEncoderConfig(**fields))
        counts[size] = sum(parameter.numel() for parameter in encoder.parameters())
    assert counts["large"] == 324_515_456
    assert counts["base"] == pytest.approx(103e6, abs=1e6)


@torch.no_grad()
def test_downsampling_averages_the_picture() -> None:
    half, whole = tiny(downsample=2).eval(), tiny().eval()
    whole.load_state_dict(half.state_dict())
    video = torch.randn(1, 3, 88, 88)
    torch.testing.assert_close(states(half, video), states(whole, F.avg_pool2d(video, 2)))


@pytest.mark.parametrize("shape", [(1, 4, 31, 88), (1, 1, 4, 88, 88)])
def test_other_pictures_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="at least 32"):
        tiny()(torch.randn(shape), torch.tensor([4]))


@pytest.mark.parametrize("knob", ["heads", "pos_conv_groups"])
def test_widths_that_do_not_divide_are_refused(knob: str) -> None:
    with pytest.raises(ConfigError, match=f"{knob} = 3"):
        tiny(**{knob: 3})


def test_a_source_is_not_ignored() -> None:
    with pytest.raises(ConfigError, match="checkpoints"):
        build_encoder("video", ModelConfig(video_encoder=VideoEncoderConfig(**TINY, source="x.pt")))
