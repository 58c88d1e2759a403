"""What goes wrong with pictures and sound, each a function (signal, rng) -> a new signal of the same shape.

To add one, write it and touch its table.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from omni_avsr.data.noise import fast_length
from omni_avsr.types import FPS, MOUTH_SIZE, SAMPLE_RATE

Rng = np.random.Generator
Corruption = Callable[[np.ndarray, Rng], np.ndarray]


# ---- pictures: (T, 96, 96) uint8 ----------------------------------------------------------------


def blur(mouths: np.ndarray, rng: Rng) -> np.ndarray:
    """Out of focus: Gaussian, standard deviation 0.8 to 3 pixels."""
    deviation = rng.uniform(0.8, 3.0)
    return np.stack([cv2.GaussianBlur(frame, (0, 0), deviation) for frame in mouths])


def low_resolution(mouths: np.ndarray, rng: Rng) -> np.ndarray:
    """A face far away: 16 to 48 pixels, enlarged again."""
    size = (int(rng.integers(16, 49)),) * 2
    small = (cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in mouths)
    return np.stack([cv2.resize(frame, (MOUTH_SIZE, MOUTH_SIZE), interpolation=cv2.INTER_LINEAR) for frame in small])


def light(mouths: np.ndarray, rng: Rng) -> np.ndarray:
    """Another exposure: gamma 0.5 to 2, contrast 0.5 to 1.5, brightness +-40 of 255."""
    values = (np.arange(256) / 255) ** 2 ** rng.uniform(-1, 1) * 255
    values = (values - 128) * rng.uniform(0.5, 1.5) + 128 + rng.uniform(-40, 40)
    return values.clip(0, 255).astype(np.uint8)[mouths]


def grain(mouths: np.ndarray, rng: Rng) -> np.ndarray:
    """A noisy sensor: Gaussian, standard deviation 5 to 25 of 255."""
    pixels = MOUTH_SIZE * MOUTH_SIZE
    # One pool of noise, read from another place for each frame: drawing all of it would take longer than the rest.
    pool = (rng.standard_normal(3 * pixels, np.float32) * rng.uniform(5, 25)).astype(np.int16)
    starts = rng.integers(0, 2 * pixels, len(mouths))
    return np.stack([
        (frame + pool[at : at + pixels].reshape(frame.shape)).clip(0, 255).astype(np.uint8)
        for frame, at in zip(mouths, starts, strict=True)
    ])  # fmt: skip


def occlude(mouths: np.ndarray, rng: Rng) -> np.ndarray:
    """A hand or a microphone: a flat patch over part of the mouth, for half of the clip or more."""
    out = mouths.copy()
    height, width = rng.integers(16, 49, 2)
    y, x = rng.integers(0, MOUTH_SIZE - height + 1), rng.integers(0, MOUTH_SIZE - width + 1)
    stretch = _stretch(len(mouths), rng, 0.5, 1.0)
    out[stretch, y : y + height, x : x + width] = rng.integers(0, 256)
    return out


def freeze(mouths: np.ndarray, rng: Rng) -> np.ndarray:
    """A stalled stream: one frame stands for up to 0.8 s."""
    out = mouths.copy()
    stretch = _stretch(len(mouths), rng, 0.0, 0.8 * FPS / len(mouths))
    out[stretch] = mouths[stretch.start]
    return out


def stutter(mouths: np.ndarray, rng: Rng) -> np.ndarray:
    """A slow camera: every second to fourth frame only, held."""
    every = int(rng.integers(2, 5))
    return mouths[np.arange(len(mouths)) // every * every]


def blank(mouths: np.ndarray, rng: Rng) -> np.ndarray:
    """No face for a stretch, as the face stage leaves it: black."""
    out = mouths.copy()
    out[_stretch(len(mouths), rng, 0.1, 0.6)] = 0
    return out


def backwards(mouths: np.ndarray, rng: Rng) -> np.ndarray:
    """Lips that say something else: the clip from its end to its beginning. Teaches when not to trust them."""
    return mouths[::-1].copy()


VIDEO_CORRUPTIONS: dict[str, Corruption] = {
    f.__name__: f for f in (blur, low_resolution, light, grain, occlude, freeze, stutter, blank, backwards)
}


# ---- sound: (S,) float32 ------------------------------------------------------------------------


def telephone(audio: np.ndarray, rng: Rng) -> np.ndarray:
    """A narrow band: 200..400 Hz to 2.8..3.6 kHz."""
    return _band(audio, rng.uniform(200, 400), rng.uniform(2800, 3600))


def muffle(audio: np.ndarray, rng: Rng) -> np.ndarray:
    """Through a wall or a mask: nothing above 1 to 3 kHz."""
    return _band(audio, 0, rng.uniform(1000, 3000))


def overdrive(audio: np.ndarray, rng: Rng) -> np.ndarray:
    """A recording level set too high: the loudest 0.5 to 10 % of samples are cut off."""
    if not len(audio):
        return audio.copy()
    top = np.float32(np.quantile(np.abs(audio), 1 - rng.uniform(0.005, 0.1)))
    return audio.clip(-top, top) if top else audio.copy()


def reverb(audio: np.ndarray, rng: Rng) -> np.ndarray:
    """A small room: an exponentially dying tail, -60 dB after 0.15 to 0.5 s; the loudness stays."""
    seconds = rng.uniform(0.15, 0.5)
    time = np.arange(int(seconds * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE
    tail = rng.standard_normal(len(time), np.float32) * np.exp(-6.9 * time / np.float32(seconds))
    tail[: SAMPLE_RATE // 500] = 0  # 2 ms: the nearest wall
    response = tail * np.float32(10 ** (-rng.uniform(0, 12) / 20) / np.sqrt(np.square(tail).sum()))
    response[0] = 1  # the direct sound, in its place: lips and speech stay in step
    length = fast_length(len(audio) + len(response))
    wet = np.fft.irfft(np.fft.rfft(audio, length) * np.fft.rfft(response, length), length)[: len(audio)]
    return _as_loud(wet.astype(np.float32), audio)


def microphone(audio: np.ndarray, rng: Rng) -> np.ndarray:
    """Another microphone, or a brighter or duller voice: up to 6 dB an octave above 500 Hz, and up to four bumps."""
    length = fast_length(len(audio) + SAMPLE_RATE // 50)
    octaves = np.log2(np.fft.rfftfreq(length, 1 / SAMPLE_RATE).clip(20) / 500).astype(np.float32)
    decibels = octaves.clip(0) * np.float32(rng.uniform(-6, 6))
    for centre, width, height in rng.uniform((-2, 0.3, -8), (4, 1.2, 8), (int(rng.integers(5)), 3)):
        decibels += np.float32(height) * np.exp(-0.5 * ((octaves - np.float32(centre)) / np.float32(width)) ** 2)
    response = 10 ** (decibels.clip(-30, 20) / 20)
    return _as_loud(np.fft.irfft(np.fft.rfft(audio, length) * response, length)[: len(audio)].astype(np.float32), audio)


def mute(audio: np.ndarray, rng: Rng) -> np.ndarray:
    """A lost connection: silence for a stretch."""
    out = audio.copy()
    out[_stretch(len(audio), rng, 0.1, 0.5)] = 0
    return out


def gain(audio: np.ndarray, rng: Rng) -> np.ndarray:
    """Another level: -25 to +5 dB."""
    return audio * np.float32(10 ** (rng.uniform(-25, 5) / 20))


AUDIO_CORRUPTIONS: dict[str, Corruption] = {
    f.__name__: f for f in (telephone, muffle, microphone, overdrive, reverb, mute, gain)
}


# ---- small parts -------------------------------------------------------------------------------


def _stretch(length: int, rng: Rng, least: float, most: float) -> slice:
    """A random part of `length` >= 1, between the shares `least` and `most` of it, not empty."""
    part = max(1, int(length * rng.uniform(least, max(least, min(most, 1.0)))))
    start = int(rng.integers(length - part + 1))
    return slice(start, start + part)


def _band(audio: np.ndarray, low: float, high: float) -> np.ndarray:
    """Only `low` to `high` hertz, with edges an eighth of an octave wide."""
    length = fast_length(len(audio) + SAMPLE_RATE // 50)
    hertz = np.fft.rfftfreq(length, 1 / SAMPLE_RATE).astype(np.float32) + 1e-3
    edge = 16 * np.log2(np.stack([hertz / max(low, 1e-6), high / hertz]))
    response = (0.5 + edge / 2).clip(0, 1).prod(0)
    return np.fft.irfft(np.fft.rfft(audio, length) * response, length)[: len(audio)].astype(np.float32)


def _as_loud(audio: np.ndarray, like: np.ndarray) -> np.ndarray:
    had, wanted = np.linalg.norm(audio), np.linalg.norm(like)
    return audio * np.float32(wanted / had) if had else audio
