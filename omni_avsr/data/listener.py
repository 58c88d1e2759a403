"""A recogniser that labels what has no transcript and doubts the transcripts there are: any Whisper, or our own model.

`Listener` is what preparation needs of one. Ours is a model of this project behind `transcribe.Transcriber`, which
this room does not know: the command line hands it in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from omni_avsr.data.sidecar import LONGEST, Span
from omni_avsr.errors import AssetError
from omni_avsr.media.speech import windows
from omni_avsr.types import SAMPLE_RATE

BATCH = 8  # windows of up to 15 s that are recognised together


class Listener(Protocol):
    """Turns sound into words with their times."""

    name: str  # which weights; what it said is found again under this name

    def __call__(self, audio: np.ndarray) -> list[Span]:
        """The sentences of (S,) float32 at 16 kHz, in seconds from its beginning; none in silence."""
        ...


class WhisperListener:
    """A Whisper of transformers, greedy, on the stretches of speech that voice activity detection finds.

    Args:
        source: directory or hub id, such as 'openai/whisper-large-v3'.
        language: of the speech, such as 'ru'; None = Whisper guesses, or knows English only.
        device: where it runs; "auto" = a GPU if there is one.
        offline: never fetch it.

    Raises:
        AssetError: no Whisper model there, or it may not be fetched.
    """

    def __init__(self, source: str, language: str | None = None, device: str = "auto", offline: bool = False) -> None:
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        self.name = f"{source} {language or ''}".strip()
        device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self._device = device
        self._options: dict[str, Any] = {"language": language, "task": "transcribe"} if language else {}
        try:
            self._processor = WhisperProcessor.from_pretrained(source, local_files_only=offline)
            model: Any = WhisperForConditionalGeneration.from_pretrained(source, local_files_only=offline)
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise AssetError(f"no Whisper model in '{source}': {reason}; give a directory or a hub id") from None
        half = torch.bfloat16 if device.startswith("cuda") else torch.float32
        self._model = model.to(device, half).eval()

    def __call__(self, audio: np.ndarray) -> list[Span]:
        """As `Listener` says; a sentence is a stretch of speech of at most 15 s."""
        stretches = list(windows(audio, LONGEST, join=0.5))
        said: list[str] = []
        for first in range(0, len(stretches), BATCH):
            some = stretches[first : first + BATCH]
            said += self._said([audio[round(s.start * SAMPLE_RATE) : round(s.end * SAMPLE_RATE)] for s in some])
        pairs = zip(stretches, said, strict=True)
        return [Span(text, round(s.start, 2), round(s.end, 2)) for s, text in pairs if text]

    @torch.inference_mode()
    def _said(self, sounds: Sequence[np.ndarray]) -> list[str]:
        features = self._processor.feature_extractor(
            list(sounds), sampling_rate=SAMPLE_RATE, return_tensors="pt", return_attention_mask=True
        ).to(self._device, self._model.dtype)
        tokens = self._model.generate(**features, do_sample=False, num_beams=1, **self._options)
        return [text.strip() for text in self._processor.batch_decode(tokens, skip_special_tokens=True)]
