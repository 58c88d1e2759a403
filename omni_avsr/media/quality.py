"""How well a stretch can be heard and seen: measures without a model, for the choice of a task and for `doctor`."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from omni_avsr.media.mouth import Mouth
from omni_avsr.media.speech import SpeechOptions, speech_spans
from omni_avsr.types import SAMPLE_RATE, SAMPLES_PER_FRAME, AudioQuality, Speech, VideoQuality

SILENT = -70.0  # LUFS, and dBFS of peaks; the gate of BS.1770, below which nothing is measured
MUTED = 1e-4  # root mean square of full scale (-80 dBFS), below the hiss of any open microphone
CLEAN = 60.0  # dB; higher ratios cannot be told apart
TOP = 0.98  # of the peak; where clipped samples lie, and hardly any others
WINDOW, HOP = 512, 256  # samples of the spectra that noise is estimated from
REST = 0.3  # share of the time in which a band holds noise alone: speech leaves every band for longer than that
KEEN = SpeechOptions(threshold=0.3, pad=0.0)  # also a voice in noise counts
BLOCK, STEP = 6400, 1600  # samples: BS.1770 gates blocks of 400 ms every 100 ms


# ---- sound -------------------------------------------------------------------------------------


def audio_quality(audio: np.ndarray, speech: Sequence[Speech] | None = None) -> AudioQuality:
    """How well a stretch of sound can be understood.

    Args:
        audio: (S,) float32 in [-1, 1], 16 kHz.
        speech: where somebody speaks, in seconds from sample 0; None = it is found here.
    """
    spans = speech_spans(audio, KEEN) if speech is None else speech
    peak = float(np.abs(audio).max(initial=0.0))
    seconds = len(audio) / SAMPLE_RATE
    return AudioQuality(
        loudness=loudness(block_powers(audio)),
        peak=_decibels(peak**2, SILENT),
        snr=speech_to_noise(audio, spans),
        speech=min(sum(span.end - span.start for span in spans) / seconds, 1.0) if seconds else 0.0,
        muted=_muted(audio),
        clipped=float((np.abs(audio) > TOP * peak).mean()) if peak else 0.0,
    )


def speech_to_noise(audio: np.ndarray, speech: Sequence[Speech]) -> float | None:
    """Power of the voice while it speaks over that of what else there is, dB in -20..60; None where nobody speaks.

    The noise of each frequency is what it falls to for `REST` of the time, as if it were Gaussian there: its power is
    then distributed exponentially. Steady noise is measured well; babble and music, which rest too, as too weak.

    Args:
        audio: (S,) float32, 16 kHz.
        speech: in seconds from sample 0.
    """
    power = _spectra(audio)  # (frames, bins)
    voiced = np.zeros(len(power), bool)
    for span in speech:
        voiced[round(span.start * SAMPLE_RATE / HOP) : round(span.end * SAMPLE_RATE / HOP)] = True
    if not voiced.any():
        return None
    noise = float(np.quantile(power, REST, axis=0).sum() / -np.log(1 - REST))
    heard = float(power[voiced].sum(1).mean())
    if heard <= noise:
        return -20.0
    return float(np.clip(_decibels((heard - noise) / max(noise, 1e-12 * heard)), -20, CLEAN))


def block_powers(audio: np.ndarray) -> np.ndarray:
    """(n,) float64 powers of K-weighted blocks of 400 ms, one per 100 ms; shorter sound is one block."""
    if not len(audio):
        return np.zeros(0)
    starts = np.arange(0, max(len(audio) - BLOCK, 0) + 1, STEP)
    size = min(BLOCK, len(audio))
    weights = _k_weights(size)
    powers = [float((np.abs(np.fft.rfft(audio[s : s + size])) ** 2) @ weights) for s in starts]
    return np.array(powers)


def loudness(powers: np.ndarray) -> float:
    """Integrated loudness in LUFS (ITU-R BS.1770) of `block_powers`; `SILENT` where no block is louder.

    Sound above 8 kHz is gone by then, which takes less than half a unit from speech.
    """
    units = -0.691 + 10 * np.log10(np.maximum(powers, 1e-12))
    loud = powers[units > SILENT]
    if not len(loud):
        return SILENT
    kept = loud[loud > loud.mean() / 10]  # 10 units below the mean
    return max(SILENT, -0.691 + 10 * float(np.log10(kept.mean())))


def _k_weights(size: int) -> np.ndarray:
    """(size // 2 + 1,) factors that turn |rfft|^2 into mean power, heard as BS.1770's head and ear hear it."""
    s = 2j * np.pi * np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    shelf, high = 2 * np.pi * 1681.9745, 2 * np.pi * 38.13547  # rad/s; the filters' analogue originals
    gain = 10 ** (3.99984385 / 20)
    head = (gain * s**2 + gain**0.49966677 * shelf / 0.70717524 * s + shelf**2) / (
        s**2 + shelf / 0.70717524 * s + shelf**2
    )
    ear = s**2 / (s**2 + high / 0.50032704 * s + high**2)
    twice = np.full(len(s), 2.0)  # both halves of the spectrum
    twice[0] = 1.0
    if size % 2 == 0:
        twice[-1] = 1.0
    return twice * np.abs(head * ear) ** 2 / size**2


def _spectra(audio: np.ndarray) -> np.ndarray:
    padded = np.pad(audio, (0, max(0, WINDOW - len(audio))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    return np.abs(np.fft.rfft(frames * np.hanning(WINDOW).astype(np.float32))) ** 2


def _muted(audio: np.ndarray) -> float:
    whole = len(audio) - len(audio) % SAMPLES_PER_FRAME
    if not whole:
        return 0.0
    frames = audio[:whole].reshape(-1, SAMPLES_PER_FRAME).astype(np.float64)
    return float((np.sqrt(np.square(frames).mean(1)) < MUTED).mean())


def _decibels(power: float, floor: float = -np.inf) -> float:
    return max(floor, 10 * float(np.log10(power))) if power > 0 else floor


# ---- picture -----------------------------------------------------------------------------------


def video_quality(mouths: Sequence[Mouth]) -> VideoQuality:
    """How well a stretch can be lip-read; medians over the frames in which the face was found."""
    seen = [mouth for mouth in mouths if mouth.found]
    if not seen:
        return VideoQuality(0.0, 0.0, 0.0, 0.0, 0.0)
    return VideoQuality(
        face=len(seen) / len(mouths),
        mouth=float(np.median([mouth.width for mouth in seen])),
        sharpness=float(np.median([sharpness(mouth.crop) for mouth in seen])),
        yaw=float(np.median([abs(mouth.yaw) for mouth in seen])),
        brightness=float(np.median([mouth.crop.mean() / 255 for mouth in seen])),
    )


def sharpness(crop: np.ndarray) -> float:
    """Detail of a mouth crop one to two pixels wide over all that is wider: about 0.2 sharp, below 0.12 blurred.

    Contrast and brightness cancel out. A crop enlarged from few pixels is as blurred as one out of focus.

    Args:
        crop: (96, 96) uint8.
    """
    picture = crop.astype(np.float32)
    fine, coarse, base = (cv2.GaussianBlur(picture, (0, 0), s) for s in (0.7, 1.4, 6.0))
    rough = float((coarse - base).std())
    return float((fine - coarse).std()) / rough if rough else 0.0
