"""The listener that `prepare --listener` names: one of our model folders, or a Whisper of transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from omni_avsr.data.listener import Listener, WhisperListener
from omni_avsr.data.sidecar import Span
from omni_avsr.media.speech import windows
from omni_avsr.transcribe.transcriber import Transcriber
from omni_avsr.types import SAMPLE_RATE


class OurListener:
    """A model of this project, listening: `data.listener.Listener`."""

    def __init__(self, name: str, transcriber: Transcriber) -> None:
        self.name = name
        self._transcriber = transcriber

    def __call__(self, audio: np.ndarray) -> list[Span]:
        """The sentences of (S,) float32 at 16 kHz; none in silence."""
        if len(audio) < SAMPLE_RATE // 10 or next(windows(audio), None) is None:
            return []
        segments, _ = self._transcriber.transcribe(audio=audio, task="asr")
        return [Span(s.text.strip(), round(s.start, 2), round(s.end, 2)) for s in segments if s.text.strip()]


def load_listener(name: str, language: str | None, device: str, offline: bool) -> Listener:
    """`name` is 'default', one of our model folders, or a folder or hub id of a Whisper.

    Raises:
        AssetError, CheckpointError: no such model.
    """
    ours = name == "default" or (Path(name) / "adapters").is_dir() or (Path(name) / "tokenizer").is_dir()
    if ours:
        return OurListener(name, Transcriber(name, device=device, offline=offline))
    return WhisperListener(name, language, device, offline)
