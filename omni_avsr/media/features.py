"""From signals to what the encoders see: Whisper's log-mel and the normalised mouth, under a model's contract."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from omni_avsr.config import PreprocessConfig
from omni_avsr.errors import InputError
from omni_avsr.types import MOUTH_SIZE, SAMPLE_RATE, SAMPLES_PER_FRAME, Features

N_FFT = 400  # samples, 25 ms
HOP = 160  # samples, 10 ms
SAMPLES_PER_AUDIO_FRAME = 2 * HOP  # Whisper's second convolution halves 100 mel frames/s to 50
FLOOR = 1e-10  # power below which nothing is heard
RANGE = 8.0  # decades below the loudest cell that are kept
NORM_EPSILON = 1e-8  # of the clip normalisation


def log_mel(audio: np.ndarray | Tensor, n_mels: int = 80, window: float = 0.0, bf16: bool = False) -> Tensor:
    """Whisper's features (Radford et al., 2022, section 2.2), (n_mels, F) float32, 100 frames/s.

    Args:
        audio: (S,) float, 16 kHz, at least 201 samples.
        n_mels: bands between 0 and 8 kHz.
        window: seconds to which the audio is zero-padded; 0 = its own length, F = S // 160.
        bf16: round the samples, and compute the Hann window in bfloat16, as official bf16 runs do.

    Raises:
        InputError: it is shorter than 201 samples or longer than `window`.
    """
    wave = torch.as_tensor(audio, dtype=torch.float32)
    total = round(window * SAMPLE_RATE) or len(wave)
    if len(wave) <= N_FFT // 2 or len(wave) > total:
        raise InputError(
            f"{len(wave)} samples of audio ({len(wave) / SAMPLE_RATE:.2f} s); expected more than {N_FFT // 2}"
            + (f" and at most {total} ({window:g} s): cut it first (media.speech.windows)." if window else ".")
        )
    # Beyond the audio and one transform more, zero-padding is known without computing it: every cell is FLOOR.
    wave = functional.pad(wave, (0, min(total - len(wave), 2 * N_FFT)))
    wave = wave.bfloat16().float() if bf16 else wave
    hann = _hann(torch.bfloat16 if bf16 else torch.float32)
    spectrum = torch.stft(wave, N_FFT, HOP, window=hann, return_complex=True)[:, :-1]  # (201, F)
    power = _mel_filters(n_mels) @ spectrum.abs().square()
    mel = power.clamp(min=FLOOR).log10()
    mel = functional.pad(mel, (0, total // HOP - mel.shape[1]), value=float(np.log10(FLOOR)))
    return (torch.maximum(mel, mel.max() - RANGE) + 4) / 4


def extract(
    audio: np.ndarray | None,
    mouths: np.ndarray | None,
    contract: PreprocessConfig,
    *,
    crop_at: tuple[int, int] | None = None,
    flip: bool = False,
    id: str = "",
) -> Features:
    """One utterance as a model's encoders see it. With both streams, the audio is cut or zero-padded to the video.

    Args:
        audio: (S,) float32, 16 kHz; None or empty = no audio.
        mouths: (T, 96, 96) uint8 grey at 25 fps; None or empty = no video.
        contract: the model's preprocessing.
        crop_at: upper left corner (y, x) of the crop, for augmentation; None = the centre.
        flip: mirror the picture, for augmentation.
        id: of the utterance.

    Raises:
        InputError: there is neither audio nor video, a shape does not fit, or the audio exceeds the window.
    """
    heard = audio is not None and len(audio) > 0
    seen = mouths is not None and len(mouths) > 0
    if not heard and not seen:
        raise InputError(f"Utterance '{id}' has neither audio nor video; expected at least one of them.")
    video = _video(mouths, contract, crop_at, flip) if mouths is not None and seen else None
    if audio is None or not heard:
        return Features(mel=None, audio_frames=0, video=video, id=id)
    wave = np.asarray(audio, np.float32)
    if wave.ndim != 1:
        raise InputError(f"audio of '{id}' has shape {wave.shape}; expected (samples,), 16 kHz mono.")
    if video is not None:
        wave = fit(wave, len(video) * SAMPLES_PER_FRAME)
    if contract.waveform_norm:
        wave = (wave - wave.mean()) / np.sqrt(wave.var() + NORM_EPSILON)
    frames = max(encoder_frames(len(wave), contract.length_arithmetic), contract.min_audio_frames)
    wave = fit(wave, max(len(wave), frames * SAMPLES_PER_AUDIO_FRAME))
    mel = log_mel(wave, contract.n_mels, contract.audio_window, contract.bf16)
    if not contract.audio_window:
        mel = mel[:, : 2 * frames]
    return Features(mel=mel, audio_frames=frames, video=video, id=id)


def encoder_frames(samples: int, arithmetic: str = "exact") -> int:
    """Whole encoder states (50/s) in `samples`.

    Args:
        samples: at 16 kHz.
        arithmetic: "exact", or "float32" or "bfloat16": the official formula samples / 16000 * 50, which rounds and
            so is off by one, or by up to eight, for some lengths.
    """
    if arithmetic == "exact":
        return samples // SAMPLES_PER_AUDIO_FRAME
    seconds = torch.tensor(samples, dtype=getattr(torch, arithmetic)) / SAMPLE_RATE
    return int(seconds * (SAMPLE_RATE // SAMPLES_PER_AUDIO_FRAME))


def fit(wave: np.ndarray, samples: int) -> np.ndarray:
    """`wave` (S,) cut or zero-padded at its end to exactly `samples`."""
    return wave[:samples] if len(wave) >= samples else np.pad(wave, (0, samples - len(wave)))


def _video(mouths: np.ndarray, contract: PreprocessConfig, crop_at: tuple[int, int] | None, flip: bool) -> Tensor:
    """(T, 96, 96) uint8 -> (T, crop, crop) float32."""
    if mouths.shape[1:] != (MOUTH_SIZE, MOUTH_SIZE) or mouths.dtype != np.uint8:
        raise InputError(
            f"mouths have shape {mouths.shape} and type {mouths.dtype}; "
            f"expected (frames, {MOUTH_SIZE}, {MOUTH_SIZE}) uint8 grey."
        )
    room = MOUTH_SIZE - contract.crop
    y, x = crop_at or (room // 2, room // 2)
    if not (0 <= y <= room and 0 <= x <= room):
        raise InputError(f"crop_at = {crop_at} leaves the picture; expected both from 0 to {room}.")
    part = mouths[:, y : y + contract.crop, x : x + contract.crop]
    part = part[:, :, ::-1] if flip else part
    grey = torch.from_numpy(np.ascontiguousarray(part)).float()
    grey.mul_(1 / (255 * contract.std)).sub_(contract.mean / contract.std)
    return grey.bfloat16().float() if contract.bf16 else grey


@lru_cache(maxsize=2)
def _hann(dtype: torch.dtype) -> Tensor:
    """(400,) float32, computed in `dtype`."""
    return torch.hann_window(N_FFT, periodic=True, dtype=dtype).float()


@lru_cache(maxsize=4)
def _mel_filters(n_mels: int) -> Tensor:
    """(n_mels, 201) triangles of unit area on Slaney's mel scale, 0 to 8 kHz."""
    edges = _slaney_hertz(np.linspace(0.0, _slaney_mel(SAMPLE_RATE / 2), n_mels + 2))
    bins = np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    triangles = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return torch.from_numpy(triangles).float()


# Slaney's scale: linear up to 1 kHz with 3 mel per 200 Hz; above, 27 mel per factor of 6.4.
_BREAK_HERTZ, _BREAK_MEL, _LOG_STEP = 1000.0, 15.0, np.log(6.4) / 27


def _slaney_mel(hertz: float) -> float:
    if hertz < _BREAK_HERTZ:
        return 3 * hertz / 200
    return _BREAK_MEL + float(np.log(hertz / _BREAK_HERTZ)) / _LOG_STEP


def _slaney_hertz(mel: np.ndarray) -> np.ndarray:
    logarithmic = _BREAK_HERTZ * np.exp((np.maximum(mel, _BREAK_MEL) - _BREAK_MEL) * _LOG_STEP)
    return np.where(mel < _BREAK_MEL, 200 * mel / 3, logarithmic)
