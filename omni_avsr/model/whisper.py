"""Whisper's encoder (Radford et al., 2022) at its own 30 s, or at the real length of the audio.

The layers are those of transformers; what is ours is the way through them. transformers accepts the full window
only, because its position table is added whole: here the table is cut to the length that is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from omni_avsr.config import AudioEncoderConfig, PreprocessConfig
from omni_avsr.errors import AssetError, ConfigError, InputError, nearest
from omni_avsr.model.encoder import Encoder, key_mask, valid_mask
from omni_avsr.types import Encoded

STATES_PER_SECOND = 50  # two mel frames per state


class WhisperAudioEncoder(Encoder):
    """Hearing states at 50/s.

    With a window every row is padded to it by the feature extraction, and all of the window is attended to, silence
    included, as Whisper was trained; rows do not meet. Without one, padding is masked in the convolutions and in the
    attention.

    Args:
        whisper: the module that holds the weights.
        window: states per row that the features are padded to; 0 = rows have their real length.

    Raises:
        ConfigError: the window exceeds the position table.
    """

    frames_per_second = STATES_PER_SECOND

    def __init__(self, whisper: WhisperEncoder, window: int = 0) -> None:
        super().__init__()
        self.limit = whisper.config.max_source_positions
        if window > self.limit:
            raise ConfigError(
                f"preprocess.audio_window is {window / STATES_PER_SECOND:g} s, but the audio encoder knows positions "
                f"up to {self.limit / STATES_PER_SECOND:g} s; shorten it, or raise dims.max_source_positions"
            )
        self.dim: int = whisper.config.d_model
        self.window = window
        self.whisper = whisper

    def forward(self, x: Tensor, lengths: Tensor) -> Encoded:
        """(B, n_mels, F) log-mel, (B,) lengths in states (two mel frames each) -> states (B, lengths.max(), D).

        Raises:
            InputError: not the mel this encoder expects, or longer than its position table.
        """
        longest = int(lengths.max())
        self._check(x, longest)
        if self.window:
            states = self._states(x, None, longest)
        else:
            # A mel of an odd number of frames lacks the second half of its last state.
            x = F.pad(x, (0, max(0, 2 * longest - x.shape[-1])))[..., : 2 * longest]
            states = self._states(x, None if bool((lengths >= longest).all()) else lengths, longest)
        return Encoded(states * valid_mask(lengths, longest)[..., None].to(states.dtype), lengths)

    def _check(self, x: Tensor, longest: int) -> None:
        bands = self.whisper.config.num_mel_bins
        if x.dim() != 3 or x.shape[1] != bands:
            raise InputError(
                f"got mel of shape {tuple(x.shape)}, expected (rows, {bands}, frames); set preprocess.n_mels to {bands}"
            )
        if self.window and x.shape[-1] != 2 * self.window:
            raise InputError(
                f"got {x.shape[-1]} mel frames, expected the {2 * self.window} of the window of "
                f"{self.window / STATES_PER_SECOND:g} s; pad audio to preprocess.audio_window before the mel"
            )
        if longest > (self.window or self.limit):
            raise InputError(
                f"got audio of {longest / STATES_PER_SECOND:g} s, this encoder takes at most "
                f"{(self.window or self.limit) / STATES_PER_SECOND:g} s; cut it into shorter stretches"
            )
        if 2 * longest > x.shape[-1] + 1:
            raise InputError(f"a length of {longest} states needs {2 * longest} mel frames, got {x.shape[-1]}")

    def _states(self, mel: Tensor, lengths: Tensor | None, wanted: int) -> Tensor:
        """(B, n_mels, 2 N) -> (B, wanted, D); frames beyond `lengths` count as zeros, None = all are valid."""
        whisper, count = self.whisper, mel.shape[-1] // 2
        if lengths is not None:  # conv1 reads one frame beyond the end; conv2, striding by two, reads none
            mel = mel * valid_mask(2 * lengths, 2 * count)[:, None].to(mel.dtype)
        x = F.gelu(whisper.conv1(mel))
        x = F.gelu(whisper.conv2(x)).transpose(1, 2) + whisper.embed_positions.weight[:count]
        x = F.dropout(x, whisper.dropout, self.training)
        mask = None if lengths is None else key_mask(lengths, count)
        cut = count > wanted and not self.training
        for layer in whisper.layers[:-1] if cut else whisper.layers:
            if not (self.training and whisper.layerdrop and torch.rand(()).item() < whisper.layerdrop):
                x = layer(x, mask)
        return whisper.layer_norm(_last(whisper.layers[-1], x, wanted) if cut else x[:, :wanted])


def _last(layer: Any, x: Tensor, wanted: int) -> Tensor:
    """The last layer, for the first `wanted` positions alone: the others are only attended to."""
    normed = layer.self_attn_layer_norm(x)
    x = x[:, :wanted] + layer.self_attn(hidden_states=normed[:, :wanted], key_value_states=normed)[0]
    return x + layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(x))))


def build_whisper(config: AudioEncoderConfig, preprocess: PreprocessConfig) -> WhisperAudioEncoder:
    """An encoder with the weights of `config.source`, or random ones of `config.dims`.

    Raises:
        ConfigError: unknown or inconsistent sizes, or a mel that differs from `preprocess.n_mels`.
        AssetError: the source cannot be read.
    """
    whisper = _pretrained(config.source) if config.source else _random(config.dims, preprocess.n_mels)
    bands = whisper.config.num_mel_bins
    if bands != preprocess.n_mels:
        raise ConfigError(
            f"preprocess.n_mels = {preprocess.n_mels}, but the audio encoder hears {bands} bands; set it so"
        )
    return WhisperAudioEncoder(whisper, round(preprocess.audio_window * STATES_PER_SECOND))


class _EncoderOnly(WhisperEncoder):
    _keys_to_ignore_on_load_unexpected = [r"^(model\.)?decoder\.", r"^proj_out\."]


def _pretrained(source: str) -> WhisperEncoder:
    try:
        # The mapping picks the encoder's tensors out of a whole Whisper: the decoder is never read.
        loaded: Any = _EncoderOnly.from_pretrained(
            source,
            key_mapping={r"^(model\.)?encoder\.": ""},
            dtype=torch.float32,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise AssetError(
            f"audio_encoder.source = '{source}' cannot be read: {error}; give a directory or hub id of a Whisper model"
        ) from error
    whisper, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise AssetError(
            f"audio_encoder.source = '{source}' lacks {len(missing)} tensors of a Whisper encoder, "
            f"such as '{missing[0]}'; give a directory or hub id of a Whisper model"
        )
    return whisper


def _random(dims: Mapping[str, Any], n_mels: int) -> WhisperEncoder:
    known = [name for name in vars(WhisperConfig()) if not name.startswith("_")]
    for name in dims:
        if name not in known:
            raise ConfigError(f"audio_encoder.dims: unknown field '{name}' of WhisperConfig; {nearest(name, known)}")
    try:
        return WhisperEncoder(WhisperConfig(**{"num_mel_bins": n_mels, **dims}))
    except ValueError as error:
        raise ConfigError(f"audio_encoder.dims: {error}") from error
