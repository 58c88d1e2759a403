"""The nouns that cross a room's border, in the order of the data's way. Shapes are in the comments.

Letters: S samples, T video frames, F mel frames, N tokens after compression, L text tokens,
B batch rows, D encoder width, H LLM width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

SAMPLE_RATE = 16_000  # Hz; every waveform inside the project
FPS = 25  # frames per second; every video inside the project
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS  # 640
MOUTH_SIZE = 96  # pixels; side of a stored mouth crop


# ---- media -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class MediaInfo:
    """What a container says about itself, before anything is resampled."""

    name: str
    container: str
    duration: float  # seconds
    has_audio: bool
    has_video: bool
    sample_rate: int | None = None  # Hz, of the source
    channels: int | None = None
    fps: float | None = None  # average, of the source
    width: int | None = None  # as shown, after rotation
    height: int | None = None
    rotation: int = 0  # degrees clockwise that the player must turn the picture: 0, 90, 180, 270


@dataclass(frozen=True)
class Clip:
    """A stretch of media on the common clock: sample 0 and frame 0 are the same instant."""

    audio: np.ndarray | None  # (S,) float32 in [-1, 1], 16 kHz mono
    frames: np.ndarray | None  # (T, height, width, 3) uint8 RGB, 25 fps
    start: float = 0.0  # seconds from the beginning of the file


@dataclass(frozen=True)
class Mouths:
    """The mouth of one tracked face, frame by frame."""

    crops: np.ndarray  # (T, 96, 96) uint8 grey
    found: np.ndarray  # (T,) bool; True where the face was seen or bridged over a short gap
    boxes: np.ndarray  # (T, 4) float32 x, y, width, height of the face in the source frame; NaN where not found
    openings: np.ndarray  # (T,) float32 between the inner lips over the mouth's width; NaN where not found

    @property
    def share(self) -> float:
        """Share of frames with a face, 0 to 1."""
        return float(self.found.mean()) if len(self.found) else 0.0


@dataclass(frozen=True)
class Speech:
    """A stretch of speech found by voice activity detection, in seconds."""

    start: float
    end: float


@dataclass(frozen=True)
class AudioQuality:
    """How well a stretch of sound can be understood."""

    loudness: float  # LUFS, integrated; -70 = silence
    peak: float  # dBFS
    snr: float | None  # dB, the voice while it speaks over the rest; None where nobody speaks
    speech: float  # share of the time with a voice
    muted: float  # share of the time below -80 dBFS, quieter than any open microphone
    clipped: float  # share of samples within 2 % of the peak; below 0.001 unless something was cut off


@dataclass(frozen=True)
class VideoQuality:
    """How well a stretch can be lip-read; medians over the frames with the face, 0 where there are none."""

    face: float  # share of frames with the face
    mouth: float  # pixels of the source, width of the mouth at rest
    sharpness: float  # fine over coarse detail of the crops: about 0.2; blurred below 0.12
    yaw: float  # degrees by which the head is turned to either side; 0 = frontal
    brightness: float  # of the crops, 0 = black, 1 = white


# ---- what the model eats ---------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """One utterance as signals, before features: what augmentation works on."""

    id: str
    audio: np.ndarray | None  # (S,) float32, 16 kHz
    mouths: np.ndarray | None  # (T, 96, 96) uint8
    text: str = ""
    speaker: str = ""


@dataclass(frozen=True)
class Features:
    """One utterance as the encoders see it, under a model's preprocessing contract."""

    mel: Tensor | None  # (n_mels, F) float32 log-mel, 100 frames/s
    audio_frames: int  # valid encoder frames (50/s); 0 without audio
    video: Tensor | None  # (T, 88, 88) float32, normalised
    id: str = ""
    states: dict[str, Tensor] = field(default_factory=dict)  # modality -> (N, D) of its frozen encoder, computed before
    false_lips: bool = False  # the video is of another utterance, shown to be ignored

    @property
    def video_frames(self) -> int:
        """Valid video frames (25/s); 0 without video."""
        seen = self.states.get("video", self.video)
        return 0 if seen is None else len(seen)


@dataclass(frozen=True)
class Batch:
    """Rows of features, right-padded. A length of 0 says that the row lacks the stream."""

    mel: Tensor | None  # (B, n_mels, F) float32
    audio_lengths: Tensor  # (B,) int64, encoder frames at 50/s
    video: Tensor | None  # (B, T, 88, 88) float32
    video_lengths: Tensor  # (B,) int64, frames at 25/s
    texts: tuple[str, ...] = ()  # B transcripts; empty at inference
    ids: tuple[str, ...] = ()
    states: dict[str, Tensor] = field(default_factory=dict)  # modality -> (B, N, D) that take the place of mel or video
    false_lips: frozenset[int] = frozenset()  # rows whose video is of another utterance, shown to be ignored

    def __len__(self) -> int:
        return len(self.audio_lengths)

    def lengths(self, modality: str) -> Tensor:
        """(B,) valid frames of `modality`."""
        return {"audio": self.audio_lengths, "video": self.video_lengths}[modality]

    def rows(self, modalities: Sequence[str]) -> Tensor:
        """(n,) indices of the rows that have every one of `modalities`."""
        have = torch.stack([self.lengths(m) > 0 for m in modalities]).all(0)
        return have.nonzero().squeeze(1)

    def taught(self, modalities: Sequence[str]) -> list[int]:
        """The rows from which the text can be learned by `modalities`: as `rows`, but not by false lips alone."""
        rows: list[int] = self.rows(modalities).tolist()
        return [row for row in rows if row not in self.false_lips or "audio" in modalities]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`."""
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, states={m: s.to(device) for m, s in self.states.items()}, **moved)


# ---- inside the model ------------------------------------------------------------------------


@dataclass(frozen=True)
class Encoded:
    """States of one modality: of an encoder, after compression, or after projection."""

    states: Tensor  # (B, N, D)
    lengths: Tensor  # (B,) int64, valid positions

    @property
    def mask(self) -> Tensor:
        """(B, N) bool, True on valid positions."""
        return torch.arange(self.states.shape[1], device=self.lengths.device) < self.lengths[:, None]

    def only(self, rows: Sequence[int]) -> Encoded:
        """The same, but rows other than `rows` are empty."""
        kept = torch.zeros_like(self.lengths)
        kept[list(rows)] = 1
        return replace(self, lengths=self.lengths * kept)


@dataclass(frozen=True)
class Projected:
    """Modality tokens in the LLM's width, with what the projector adds to the loss."""

    tokens: dict[str, Encoded]  # modality -> states (B, N, H)
    losses: dict[str, Tensor] = field(default_factory=dict)  # already weighted scalars: 'balance', 'router_z'
    router: dict[str, Tensor] = field(default_factory=dict)  # modality -> (valid tokens, experts) float32; SMoP only


@dataclass(frozen=True)
class Losses:
    """What one training step minimises; `total` is the weighted sum of the rest."""

    total: Tensor
    tasks: dict[str, Tensor]  # unweighted token-mean cross entropy per task
    auxiliary: dict[str, Tensor] = field(default_factory=dict)  # weighted: 'balance', 'router_z', 'ctc', 'sink'


@dataclass(frozen=True)
class Hypothesis:
    """One decoded utterance."""

    text: str
    tokens: tuple[int, ...]  # new tokens, without prompt and without end of text
    token_logprobs: tuple[float, ...]  # natural log, one per token
    score: float  # sum of log-probabilities (end of text included) / number of generated tokens

    @property
    def avg_logprob(self) -> float:
        """Whisper's avg_logprob: the length-normalised score."""
        return self.score


# ---- results ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Word:
    """A word with its time in seconds from the beginning of the file."""

    start: float
    end: float
    word: str
    probability: float


@dataclass(frozen=True)
class Segment:
    """A transcribed stretch, in faster-whisper's shape; `av` holds what only this project knows."""

    id: int
    start: float  # seconds
    end: float
    text: str
    tokens: tuple[int, ...] = ()
    avg_logprob: float = 0.0
    words: tuple[Word, ...] | None = None
    speaker: str | None = None
    no_speech_prob: float = 0.0  # share of the segment in which no voice was heard; 0 where nothing was listened to
    av: dict[str, Any] = field(
        default_factory=dict
    )  # task, audio_rate, video_rate, face_share, audio_tokens, video_tokens


@dataclass(frozen=True)
class TranscriptionInfo:
    """What is known before the first segment is decoded."""

    duration: float  # seconds
    task: str
    audio_rate: int | None
    video_rate: int | None
    language: str = "en"
    media: MediaInfo | None = None


@dataclass(frozen=True)
class Transcript:
    """A finished transcription: what the writers write."""

    segments: tuple[Segment, ...]
    info: TranscriptionInfo

    @property
    def text(self) -> str:
        """All segments' text joined by one space."""
        return " ".join(s.text.strip() for s in self.segments if s.text.strip())
