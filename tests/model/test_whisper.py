"""Whisper's encoder: equal to transformers' at full length, and right at every other one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from omni_avsr.config import AudioEncoderConfig, PreprocessConfig
from omni_avsr.errors import AssetError, ConfigError, InputError
from omni_avsr.model.whisper import build_whisper

DIMS = {
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "max_source_positions": 40,
}
FULL = PreprocessConfig(audio_window=0.8)  # 40 states
REAL = PreprocessConfig(audio_window=0.0)


def config(**dims: object) -> AudioEncoderConfig:
    return AudioEncoderConfig(dims={**DIMS, **dims})


@torch.no_grad()
def test_the_window_is_the_computation_of_transformers() -> None:
    encoder = build_whisper(config(), FULL).eval()
    mel = torch.randn(2, 80, 80)
    reference = encoder.whisper(mel).last_hidden_state
    out = encoder(mel, torch.tensor([40, 13]))
    torch.testing.assert_close(out.states[0], reference[0])
    torch.testing.assert_close(out.states[1, :13], reference[1, :13])
    assert out.states[1, 13:].eq(0).all()


@torch.no_grad()
def test_window_rows_are_cut_to_the_longest() -> None:
    encoder = build_whisper(config(), FULL).eval()
    assert encoder(torch.randn(2, 80, 80), torch.tensor([9, 13])).states.shape == (2, 13, 16)


@torch.no_grad()
def test_real_length_is_a_whisper_of_that_length() -> None:
    """A table of 7 positions, cut out of the one of 40, gives the same states."""
    encoder = build_whisper(config(), REAL).eval()
    short = WhisperEncoder(WhisperConfig(num_mel_bins=80, **{**DIMS, "max_source_positions": 7})).eval()
    weights = encoder.whisper.state_dict()
    weights["embed_positions.weight"] = weights["embed_positions.weight"][:7]
    short.load_state_dict(weights)
    mel = torch.randn(1, 80, 14)
    torch.testing.assert_close(encoder(mel, torch.tensor([7])).states, short(mel).last_hidden_state)


@torch.no_grad()
def test_a_mel_of_odd_length_is_the_same_alone_and_in_a_batch() -> None:
    encoder = build_whisper(config(), REAL).eval()
    mel = torch.randn(1, 80, 13)
    alone = encoder(mel, torch.tensor([7])).states
    padded = torch.zeros(2, 80, 30)
    padded[1, :, :13] = mel[0]
    together = encoder(padded, torch.tensor([15, 7])).states
    torch.testing.assert_close(together[1, :7], alone[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("preprocess", "shape", "length", "word"),
    [
        (REAL, (1, 80, 90), 45, "at most 0.8 s"),
        (FULL, (1, 80, 60), 30, "audio_window"),
        (REAL, (1, 64, 20), 10, "n_mels"),
        (REAL, (1, 80, 20), 12, "24 mel frames"),
    ],
)
def test_what_does_not_fit_is_refused(
    preprocess: PreprocessConfig, shape: tuple[int, ...], length: int, word: str
) -> None:
    encoder = build_whisper(config(), preprocess)
    with pytest.raises(InputError, match=word):
        encoder(torch.randn(shape), torch.tensor([length]))


@pytest.mark.parametrize(
    ("dims", "preprocess", "word"),
    [
        ({"d_modle": 3}, REAL, "did you mean 'd_model'"),
        ({"d_model": 15}, REAL, "divisible"),
        ({"num_mel_bins": 128}, REAL, "128 bands"),
        ({}, PreprocessConfig(audio_window=30), "0.8 s"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(dims: dict[str, object], preprocess: PreprocessConfig, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        build_whisper(config(**dims), preprocess)


@pytest.mark.parametrize("kind", [WhisperModel, WhisperForConditionalGeneration])
def test_only_the_encoder_of_a_checkpoint_is_read(kind: type, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    decoder = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 8, "vocab_size": 20}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    whole = kind(WhisperConfig(**DIMS, **decoder, **tokens))
    whole.half().save_pretrained(tmp_path)
    encoder = build_whisper(AudioEncoderConfig(source=str(tmp_path)), FULL)
    expected = whole.get_encoder().float().state_dict()
    got = encoder.whisper.state_dict()
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in got)
    assert not any("decoder" in name for name, _ in encoder.named_modules())
    assert "UNEXPECTED" not in caplog.text


def test_a_source_without_a_whisper_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="cannot be read"):
        build_whisper(AudioEncoderConfig(source=str(tmp_path)), FULL)
    WhisperEncoder(WhisperConfig(**DIMS)).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    from safetensors.torch import save_file

    save_file({"lm_head.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AssetError, match="lacks"):
        build_whisper(AudioEncoderConfig(source=str(tmp_path)), FULL)


def test_positions_start_as_sinusoids_and_stay_frozen() -> None:
    table = build_whisper(config(), REAL).whisper.embed_positions.weight
    torch.testing.assert_close(table[0], torch.cat([torch.zeros(8), torch.ones(8)]))
    assert not table.requires_grad
