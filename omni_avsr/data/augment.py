"""What is done to an utterance in training, in turn: voice, speed, warp, corruption, time masks, noise, crop, mirror.

What joins several utterances comes before (`crossover.py`). All chance comes from the generator that is passed in:
the same generator state gives the same sample. What is passed in is never changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import soxr

from omni_avsr.config import AugmentConfig
from omni_avsr.data.corrupt import AUDIO_CORRUPTIONS, VIDEO_CORRUPTIONS, Corruption
from omni_avsr.data.noise import NOISES, Noise, Utterances, load_noises, mix_noise
from omni_avsr.data.revoice import revoice
from omni_avsr.types import FPS, MOUTH_SIZE, SAMPLE_RATE, Sample

__all__ = ["NOISES", "augment", "change_speed", "load_noises", "mix_noise", "time_masks", "warp"]

Rng = np.random.Generator


def augment(
    sample: Sample,
    config: AugmentConfig,
    rng: Rng,
    noises: Sequence[Noise] = (),
    utterances: Utterances | None = None,
    crop: int = 88,
) -> tuple[Sample, tuple[int, int] | None, bool]:
    """One augmented copy of `sample`.

    Args:
        noises: of `load_noises(config.noise)`; empty = no noise.
        utterances: where babble takes its voices from.
        crop: side of the picture that will be cut out, pixels.

    Returns:
        The sample, the upper left corner (y, x) of the crop (None = the centre), and whether to mirror it:
        the last three arguments of `media.features.extract`.
    """
    audio, mouths = sample.audio, sample.mouths
    if audio is not None and config.revoice and rng.random() < config.revoice:
        audio = revoice(audio, rng)
    slowest, fastest = config.speed
    if (slowest, fastest) != (1.0, 1.0):
        audio, mouths = change_speed(audio, mouths, round(float(rng.uniform(slowest, fastest)), 2))
    if mouths is not None and len(mouths):
        mouths = _video(mouths, config, rng)
    if audio is not None and len(audio):
        audio = _audio(audio, config, rng, noises, utterances)
    room = MOUTH_SIZE - crop
    y, x = rng.integers(0, room + 1, 2)
    mirrored = bool(rng.random() < config.flip)
    return replace(sample, audio=audio, mouths=mouths), (int(y), int(x)) if config.random_crop else None, mirrored


def change_speed(
    audio: np.ndarray | None, mouths: np.ndarray | None, factor: float
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Both streams `factor` times as fast, still in step: S / factor samples, T / factor frames."""
    if factor == 1:
        return audio, mouths
    if audio is not None and len(audio):
        audio = soxr.resample(audio, SAMPLE_RATE * factor, SAMPLE_RATE, "MQ")
    if mouths is not None and len(mouths):
        frames = max(1, round(len(mouths) / factor))
        nearest = np.rint(np.arange(frames) * factor).astype(int)
        mouths = mouths[nearest.clip(0, len(mouths) - 1)]
    return audio, mouths


def warp(mouths: np.ndarray, most: float, rng: Rng) -> np.ndarray:
    """(T, 96, 96) uint8 -> the same, turned by up to `most` radians and each axis scaled by 1 -+ `most`, one draw."""
    angle, wide, high = rng.uniform(-most, most, 3)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn * (1 + wide, 1 + high)
    centre = np.full(2, (MOUTH_SIZE - 1) / 2)
    matrix = np.column_stack([matrix, centre - matrix @ centre])  # the middle stays where it is
    size = (MOUTH_SIZE, MOUTH_SIZE)
    return np.stack([cv2.warpAffine(frame, matrix, size, borderMode=cv2.BORDER_REPLICATE) for frame in mouths])


def time_masks(length: int, per_second: int, rate: float, longest: float, rng: Rng) -> list[slice]:
    """Stretches to blank out: `rate` a second, each of uniform length up to `longest` seconds, anywhere.

    Adaptive in Park et al. (2020): their number grows with the signal, as AV-HuBERT's fine-tuning has it.

    Args:
        length: of the signal, in its own unit, `per_second` of which make a second.
    """
    wanted = rate * length / per_second
    count = int(wanted) + int(rng.random() < wanted % 1)
    lengths = (rng.uniform(0, longest * per_second, count)).astype(int).clip(max=length)
    starts = (rng.random(count) * (length - lengths + 1)).astype(int)
    return [slice(int(a), int(a + n)) for a, n in zip(starts, lengths, strict=True)]


# ---- small parts -------------------------------------------------------------------------------


def _video(mouths: np.ndarray, config: AugmentConfig, rng: Rng) -> np.ndarray:
    if config.warp:
        mouths = warp(mouths, config.warp, rng)
    if rng.random() < config.video_corruption:
        mouths = _one_of(VIDEO_CORRUPTIONS, rng)(mouths, rng)
    masks = time_masks(len(mouths), FPS, config.video_time_masks, config.mask_seconds, rng)
    return _masked(mouths, masks)  # black, as frames without a face are


def _audio(
    audio: np.ndarray, config: AugmentConfig, rng: Rng, noises: Sequence[Noise], utterances: Utterances | None
) -> np.ndarray:
    if rng.random() < config.audio_corruption:
        audio = _one_of(AUDIO_CORRUPTIONS, rng)(audio, rng)
    masks = time_masks(len(audio), SAMPLE_RATE, config.audio_time_masks, config.mask_seconds, rng)
    audio = _masked(audio, masks)
    if noises and rng.random() < config.noise_probability:  # after the masks: noise does not stop for them
        noise = noises[int(rng.integers(len(noises)))]
        snr_db = float(rng.uniform(*config.snr_db))
        audio = mix_noise(audio, noise(len(audio), rng, utterances), snr_db)
    return audio


def _one_of(table: dict[str, Corruption], rng: Rng) -> Corruption:
    return list(table.values())[int(rng.integers(len(table)))]


def _masked(signal: np.ndarray, masks: Sequence[slice]) -> np.ndarray:
    if not masks:
        return signal
    out = signal.copy()
    for mask in masks:
        out[mask] = 0
    return out
