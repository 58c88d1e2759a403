"""Lips against sound: whose mouth moves as the voice sounds, and whether sound and picture are in step.

A voice tells how far the lips of its speaker are open: a linear map from a fifth of a second of log-mel bands, fitted
by `scripts/fit_lips.py` to synthetic speech and one real speaker (288 numbers, `assets/lips.npz`). What it expects is
compared with what the face shows, both without their slow part: that a sentence begins is no proof, its syllables are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np

from omni_avsr.types import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME

BANDS = 16
HOP, WINDOW = SAMPLES_PER_FRAME // 2, SAMPLES_PER_FRAME  # samples; two spectra per video frame
REACH = 8  # spectra on either side of a frame's two that the map looks at
DEPTH = 50.0  # dB below the loudest band that still count
SLOW = 4.0  # frames, standard deviation of what is taken away
LOCAL = 10.0  # frames, standard deviation of the window in which lips and sound are compared: 0.4 s
NOW = 3.0  # the same of the window in which lips must move at all
TREMBLE = 0.01  # of the mouth's width; lips that move less are still
FARTHEST = FPS  # frames by which sound may be early or late
PEAK = 4  # frames around the best offset that belong to its peak
BELIEVED = 0.15  # confidence from which an offset is more than chance


@dataclass(frozen=True)
class Offset:
    """How sound and picture lie against each other."""

    seconds: float  # by which the sound is late; negative = early
    confidence: float  # correlation at that place less the best elsewhere, 0 to 1; see BELIEVED


def expected_opening(audio: np.ndarray, frames: int) -> np.ndarray:
    """(frames,) float32: how far the lips should be open for this sound, in standard deviations.

    Args:
        audio: (S,) float32, 16 kHz; sample 0 belongs to frame 0.
        frames: 25 per second.
    """
    mean, weights = _map()
    return ((context(audio, frames) - mean) @ weights).astype(np.float32)


def context(audio: np.ndarray, frames: int) -> np.ndarray:
    """(frames, 288) float64: log-mel bands around each frame, in tens of dB about their mean."""
    spectra = 2 * frames
    padded = np.zeros((spectra - 1) * HOP + WINDOW)
    inside = audio[: len(padded) - (WINDOW - HOP) // 2]
    padded[(WINDOW - HOP) // 2 :][: len(inside)] = inside
    pieces = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(pieces * np.hanning(WINDOW))) ** 2 @ _filters()
    level = 10 * np.log10(power + 1e-9)
    level = np.maximum(level, level.max(initial=-90.0) - DEPTH)
    level = np.pad((level - level.mean()) / 10, ((REACH, REACH), (0, 0)), mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(level, 2 * REACH + 2, axis=0)[::2]  # (frames, bands, 18)
    return np.ascontiguousarray(around.transpose(0, 2, 1)).reshape(frames, -1)


def activity(openings: np.ndarray, audio: np.ndarray) -> np.ndarray:
    """(K, T) float32, -1 to 1: how well each mouth fits the sound about each frame; about 0 where it is still.

    Args:
        openings: (K, T) float, of K mouths over their widths; NaN where a face is not seen.
        audio: (S,) float32, 16 kHz, of the same T frames.
    """
    wanted = quick(expected_opening(audio, openings.shape[1]))
    return np.stack([_fit(quick(opening), wanted, np.isfinite(opening)) for opening in openings])


def movement(openings: np.ndarray) -> np.ndarray:
    """(K, T) float32, 0 to 1: how much each mouth moves about each frame, where there is no sound to tell more.

    Args:
        openings: as for `activity`.
    """
    moves = [_smooth(quick(opening) ** 2 * np.isfinite(opening), LOCAL) for opening in openings]
    return np.array([m / (m + (3 * TREMBLE) ** 2) for m in moves], np.float32)


def offset(openings: np.ndarray, audio: np.ndarray) -> Offset | None:
    """By how much the sound is late, to within ±1 s; None where there is nothing to compare.

    Args:
        openings: (K, T) float, of K mouths over their widths, of which one speaks at a time while the others are
            still; NaN where a face is not seen.
        audio: (S,) float32, 16 kHz, of the same T frames.
    """
    return peak(curve(openings, audio))


def curve(openings: np.ndarray, audio: np.ndarray) -> np.ndarray:
    """(51,) correlation of lips and sound at -25 … 25 frames of delay of the sound; curves of one film may be averaged.

    Args:
        openings, audio: as for `offset`; the scale of the openings does not matter.

    Returns:
        Zeros where there is nothing to compare: silence, still lips, less than two seconds with a face.
    """
    seen, shown = np.isfinite(openings).any(0), np.sum([quick(opening) for opening in openings], axis=0)
    wanted = quick(expected_opening(audio, openings.shape[1]))
    lags = range(-FARTHEST, FARTHEST + 1)
    if seen.sum() < 2 * FARTHEST or np.square(wanted).mean() < 1e-6 or np.square(shown).mean() < 1e-8:
        return np.zeros(len(lags))
    return np.array([_correlation(shown, wanted, seen, lag) for lag in lags])


def peak(curve: np.ndarray) -> Offset | None:
    """Where a curve is highest; None for zeros."""
    if not curve.any():
        return None
    best = int(curve.argmax())
    elsewhere = curve[np.abs(np.arange(len(curve)) - best) > PEAK].max()
    return Offset((best - FARTHEST + _vertex(curve, best)) / FPS, float(np.clip(curve[best] - elsewhere, 0, 1)))


def quick(signal: np.ndarray) -> np.ndarray:
    """(T,) `signal` without its slow part; gaps (NaN) are bridged first, and all of them is zero."""
    seen = np.flatnonzero(np.isfinite(signal))
    if not len(seen):
        return np.zeros(len(signal), np.float32)
    whole = np.interp(np.arange(len(signal)), seen, signal[seen])
    return (whole - _smooth(whole, SLOW)).astype(np.float32)


def _fit(shown: np.ndarray, wanted: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(T,) correlation in a sliding window, less where the lips are still now."""
    both, own, theirs = (_smooth(x * seen, LOCAL) for x in (shown * wanted, shown**2, wanted**2))
    moves = _smooth(shown**2 * seen, NOW)
    fit = both / np.sqrt((own + TREMBLE**2) * theirs + 1e-12)
    return (fit * moves / (moves + TREMBLE**2)).astype(np.float32)


def _correlation(shown: np.ndarray, wanted: np.ndarray, seen: np.ndarray, lag: int) -> float:
    """Of the lips at a frame with the sound `lag` frames later."""
    length = len(shown) - abs(lag)
    lips, at = shown[max(-lag, 0) :][:length], seen[max(-lag, 0) :][:length]
    lips, sound = lips[at], wanted[max(lag, 0) :][:length][at]
    return float(lips @ sound / np.sqrt((lips @ lips) * (sound @ sound) + 1e-12))


def _vertex(curve: np.ndarray, best: int) -> float:
    """Where between its neighbours the peak lies, -0.5 to 0.5, by a parabola through the three."""
    if not 0 < best < len(curve) - 1:
        return 0.0
    left, middle, right = curve[best - 1 : best + 2]
    bend = left - 2 * middle + right
    return float(0.5 * (left - right) / bend) if bend else 0.0


def _smooth(signal: np.ndarray, deviation: float) -> np.ndarray:
    """Gaussian mean over (T,), the ends weighted by what there is."""
    reach = int(3 * deviation)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    # not "same", which returns the kernel's length where that is longer
    summed, weight = (np.convolve(x, kernel)[reach : reach + len(signal)] for x in (signal, np.ones(len(signal))))
    return np.asarray(summed / weight)


@lru_cache(maxsize=1)
def _filters() -> np.ndarray:
    """(WINDOW // 2 + 1, BANDS) triangles, evenly spaced in mel from 80 to 7600 Hz."""
    mel = 2595 * np.log10(1 + np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE) / 700)[:, None]
    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (80, 7600))
    edges = np.linspace(low, high, BANDS + 2)
    rising = (mel - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel) / (edges[2:] - edges[1:-1])
    return np.asarray(np.clip(np.minimum(rising, falling), 0, None))


@lru_cache(maxsize=1)
def _map() -> tuple[np.ndarray, np.ndarray]:
    """The mean (288,) of contexts and the weights (288,) of the fit."""
    with (resources.files("omni_avsr") / "assets" / "lips.npz").open("rb") as file:
        stored = np.load(file)
        return stored["mean"].astype(np.float64), stored["weights"].astype(np.float64)
