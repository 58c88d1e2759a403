"""Noise, and its mixing at an exact signal-to-noise ratio. Shared by training and evaluation.

A noise is a function (samples, rng, utterances) -> (samples,) float32, of any level: `mix_noise` scales it.
To add one, write it and touch `NOISES`; recorded files and folders need no row.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from omni_avsr.data.corpora import AUDIO, VIDEO
from omni_avsr.data.mouth_store import to_float, to_int16
from omni_avsr.errors import ConfigError, DataError, nearest
from omni_avsr.media.reader import open_media
from omni_avsr.types import SAMPLE_RATE

logger = logging.getLogger(__name__)

Rng = np.random.Generator
Utterances = Callable[[int, Rng], Sequence[np.ndarray]]  # (how many, rng) -> that many (S,) float32, of other people
Noise = Callable[[int, Rng, Utterances | None], np.ndarray]

VOICES = (4, 9)  # fewest and most voices of babble
CROWD = "babble="  # before a folder: several of its recordings at once
FADE = SAMPLE_RATE // 10  # samples of the cross-fade where a short recording begins again
KEPT_BYTES = 256 << 20  # of decoded recordings, per process
GRAIN = 2048  # lengths of Fourier transforms are rounded up to a multiple of it: few small factors, so fast


def mix_noise(audio: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """`audio` + the scaled `noise`, so that 10 log10(sum(audio^2) / sum(noise^2)) is exactly `snr_db`.

    The sum is not clipped and not rescaled: that would change what the number means. Silence, which has no
    ratio to anything, comes back as it is.

    Args:
        audio: (S,) float32.
        noise: (N,) float, of any level; a shorter one is looped, a longer one cut.
    """
    noise = loop(noise, len(audio)).astype(np.float64, copy=False)
    wanted, had = _energy(audio) / 10 ** (snr_db / 10), _energy(noise)
    if not wanted or not had:
        return np.array(audio, np.float32)
    return (audio + noise * np.sqrt(wanted / had)).astype(np.float32)


def loop(noise: np.ndarray, samples: int) -> np.ndarray:
    """`noise` cut to, or repeated with equal-power cross-fades up to, `samples`.

    Raises:
        DataError: it is empty.
    """
    if not len(noise):
        raise DataError("the noise is empty; expected at least one sample")
    if len(noise) >= samples:
        return noise[:samples]
    fade = min(FADE, len(noise) // 2)
    period = len(noise) - fade
    turn = np.linspace(0, np.pi / 2, fade, dtype=np.float32)
    body = noise[:period].astype(np.float32)
    body[:fade] = body[:fade] * np.sin(turn) + noise[period:] * np.cos(turn)  # the old end under the new beginning
    out = np.resize(body, samples)
    out[:fade] = noise[:fade][: len(out)]  # the first turn has no end before it
    return out


def load_noises(names: Sequence[str]) -> list[Noise]:
    """Noises by name: rows of `NOISES`, files and folders of recordings, or 'babble=FOLDER' of those voices.

    Raises:
        ConfigError: neither a row nor a path.
        DataError: a folder without recordings.
    """
    return [NOISES[name] if name in NOISES else _recorded(name) for name in names]


def _recorded(name: str) -> Recordings:
    crowd = name.removeprefix(CROWD)
    return Recordings(name) if crowd == name else Crowd(crowd)


# ---- made ---------------------------------------------------------------------------------------


def white(samples: int, rng: Rng, utterances: Utterances | None = None) -> np.ndarray:
    """The same power in every hertz."""
    return rng.standard_normal(samples, np.float32)


def pink(samples: int, rng: Rng, utterances: Utterances | None = None) -> np.ndarray:
    """The same power in every octave: 1/f."""
    return _coloured(samples, rng, 0.5)


def brown(samples: int, rng: Rng, utterances: Utterances | None = None) -> np.ndarray:
    """A rumble, 1/f^2: wind, engines."""
    return _coloured(samples, rng, 1.0)


def babble(samples: int, rng: Rng, utterances: Utterances | None = None) -> np.ndarray:
    """Four to nine voices at once, from other utterances, at levels that differ by up to 6 dB.

    Raises:
        ConfigError: there are no utterances to mix.
    """
    if utterances is None:
        raise ConfigError("noise 'babble' is mixed from other utterances and none are at hand; choose white or pink")
    out = np.zeros(samples, np.float32)
    for voice in utterances(int(rng.integers(*VOICES, endpoint=True)), rng):
        energy = _energy(voice)
        if energy:
            gain = 10 ** (rng.uniform(-6, 0) / 20) / np.sqrt(energy / len(voice))
            turned = np.roll(voice, int(rng.integers(len(voice))))
            out += np.float32(gain) * loop(turned, samples)
    return out


def music(samples: int, rng: Rng, utterances: Utterances | None = None) -> np.ndarray:
    """Chords, a bass and a beat, made up on the spot: harmonic, steady, unlike speech."""
    beat = int(SAMPLE_RATE * 60 / rng.uniform(70, 150))
    table = _timbre(rng)
    root, minor = rng.integers(45, 58), rng.integers(2)  # MIDI; from A2 up
    time = np.arange(beat, dtype=np.float32)
    decay = np.exp(-time / (beat * rng.uniform(0.3, 1.5)))
    tick = rng.standard_normal(beat, np.float32) * np.exp(-time / 400) * np.float32(rng.uniform(0, 0.6))
    bars = []
    for _ in range(min(4, samples // beat + 1)):  # four beats, repeated
        degree = rng.choice((0, 5, 7, -2))
        notes = root + degree + np.array((-12, 0, 4 - minor, 7, 12))
        step = 440 * 2 ** ((notes - 69) / 12) / SAMPLE_RATE * len(table)  # table entries a sample
        phase = (step[:, None].astype(np.float32) * time).astype(np.int32) & (len(table) - 1)
        bars.append(table[phase].sum(0) * decay + tick)
    return np.resize(np.roll(np.concatenate(bars), int(rng.integers(beat))), samples)


NOISES: dict[str, Noise] = {f.__name__: f for f in (babble, white, pink, brown, music)}


# ---- recorded -----------------------------------------------------------------------------------


class Recordings:
    """Noise from a file, or from all files of a folder; one stretch of one of them a call."""

    def __init__(self, path: str | Path) -> None:
        """Find the files; they are decoded when first used, and the latest 256 MB are kept.

        Raises:
            ConfigError: no such path.
            DataError: a folder without recordings.
        """
        path = Path(path)
        if not path.exists():
            raise ConfigError(f"no noise '{path}': not a file, not a folder; {nearest(str(path), NOISES)}")
        known = AUDIO | VIDEO
        self.files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix.lower() in known)
        if not self.files:
            raise DataError(f"folder '{path}' has no recordings of noise ({', '.join(sorted(AUDIO))})")
        self._kept: OrderedDict[Path, np.ndarray] = OrderedDict()

    @cached_property
    def digest(self) -> str:
        """sha256 of the files and their order, wherever they lie."""
        sha = hashlib.sha256()
        for path in self.files:
            with path.open("rb") as file:
                sha.update(hashlib.file_digest(file, "sha256").digest())
        return sha.hexdigest()

    def __call__(self, samples: int, rng: Rng, utterances: Utterances | None = None) -> np.ndarray:
        """A stretch that begins anywhere; a recording that is too short is looped."""
        return self._stretch(int(rng.integers(len(self.files))), samples, rng)

    def _stretch(self, number: int, samples: int, rng: Rng) -> np.ndarray:
        noise = self._decoded(self.files[number])
        if len(noise) > samples:
            at = int(rng.integers(len(noise) - samples + 1))
            return to_float(noise[at : at + samples])
        return loop(np.roll(to_float(noise), int(rng.integers(len(noise)))), samples)

    def _decoded(self, file: Path) -> np.ndarray:
        """(N,) int16 of the whole file."""
        if file not in self._kept:
            with open_media(file) as media:
                blocks = list(media.audio_blocks())
            if not blocks:
                raise DataError(f"noise '{file}' has no sound in it; take it away or name another")
            self._kept[file] = to_int16(np.concatenate(blocks))
            while len(self._kept) > 1 and sum(a.nbytes for a in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(file)
        return self._kept[file]


class Crowd(Recordings):
    """Babble of strangers: four to nine of the recordings at once, each of them one voice."""

    def __call__(self, samples: int, rng: Rng, utterances: Utterances | None = None) -> np.ndarray:
        """Mixed as `babble` mixes other utterances."""
        return babble(samples, rng, lambda count, rng: self._voices(count, samples, rng))

    def _voices(self, count: int, samples: int, rng: Rng) -> list[np.ndarray]:
        chosen = rng.choice(len(self.files), count, replace=count > len(self.files))
        return [self._stretch(int(number), samples, rng) for number in chosen]


# ---- small parts -------------------------------------------------------------------------------


def _energy(audio: np.ndarray) -> float:
    return float(np.square(audio, dtype=np.float64).sum())


def fast_length(samples: int) -> int:
    """The next length, at or above `samples`, that a Fourier transform is quick with."""
    return -(-samples // GRAIN) * GRAIN


def _coloured(samples: int, rng: Rng, slope: float) -> np.ndarray:
    """Gaussian noise with amplitude ~ f^-slope above 20 Hz, flat below, where nothing is heard."""
    length = fast_length(samples)
    bins = np.arange(length // 2 + 1, dtype=np.float32)
    spectrum = rng.standard_normal((2, len(bins)), np.float32) / np.maximum(bins, 20 * length / SAMPLE_RATE) ** slope
    return np.fft.irfft((spectrum[0] + 1j * spectrum[1]).astype(np.complex64), length)[:samples].astype(np.float32)


def _timbre(rng: Rng) -> np.ndarray:
    """(1024,) float32: one period with random overtones, falling off as an instrument's do."""
    harmonics = np.arange(1, 13)
    weights = rng.uniform(0.2, 1, 12) / harmonics ** rng.uniform(0.8, 2)
    phase = 2 * np.pi * np.arange(1024) / 1024
    return (weights @ np.sin(harmonics[:, None] * phase + rng.uniform(0, 2 * np.pi, (12, 1)))).astype(np.float32)
