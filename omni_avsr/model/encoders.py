"""The table of encoders, by `kind` in the configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from omni_avsr.config import ModelConfig
from omni_avsr.errors import ConfigError, nearest
from omni_avsr.model.avhubert import AVHubertEncoder
from omni_avsr.model.encoder import Encoder
from omni_avsr.model.whisper import build_whisper
from omni_avsr.tasks import Modality

__all__ = ["ENCODERS", "Encoder", "EncoderRow", "build_encoder"]


@dataclass(frozen=True)
class EncoderRow:
    """An encoder to choose.

    Attributes:
        modality: the stream it perceives.
        build: makes it, with pretrained weights where the configuration names a source.
    """

    modality: Modality
    build: Callable[[ModelConfig], Encoder]


def _avhubert(config: ModelConfig) -> Encoder:
    if config.video_encoder.source:
        raise ConfigError(
            f"video_encoder.source = '{config.video_encoder.source}' was given to the network, which reads no files; "
            "build the model with omni_avsr.checkpoints.native.build"
        )
    return AVHubertEncoder(config.video_encoder, fused=not config.compat.plain_kernels)


ENCODERS: dict[str, EncoderRow] = {
    "whisper": EncoderRow("audio", lambda c: build_whisper(c.audio_encoder, c.preprocess)),
    "avhubert": EncoderRow("video", _avhubert),
}


def build_encoder(modality: Modality, config: ModelConfig) -> Encoder:
    """The encoder that `config` names for `modality`.

    Raises:
        ConfigError: no such encoder for this modality, or sizes that do not fit together.
        AssetError: its pretrained weights cannot be read.
    """
    kind = {"audio": config.audio_encoder.kind, "video": config.video_encoder.kind}[modality]
    known = [name for name, row in ENCODERS.items() if row.modality == modality]
    if kind not in known:
        raise ConfigError(f"{modality}_encoder.kind = '{kind}'; {nearest(kind, known)}")
    return ENCODERS[kind].build(config)
