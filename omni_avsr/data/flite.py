"""CMU Flite, the program, where it is on PATH (Debian: apt install flite): voices built from recordings of people.

They are American English (awb: Scottish-accented). A corpus uses them only where they are named, so that it does not
depend on what a machine has installed.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import wave
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from omni_avsr.data.spoken import PAUSE, Event, Manner, SpokenWord
from omni_avsr.errors import ConfigError, nearest

VOICES: dict[str, float] = {"slt": 180, "awb": 130, "rms": 102, "kal16": 105}  # name -> its mean pitch in Hz
_OWN_RATE = 185.0  # words a minute at which these voices speak by themselves
_IPA = {
    "aa": "ˈɑ", "ae": "ˈæ", "ah": "ˈʌ", "ao": "ˈɔ", "aw": "ˈaʊ", "ax": "ə", "axr": "ɚ", "ay": "ˈaɪ", "b": "b", "ch":
    "tʃ", "d": "d", "dh": "ð", "dx": "ɾ", "eh": "ˈɛ", "el": "əl", "em": "əm", "en": "ən", "er": "ˈɝ", "ey": "ˈeɪ",
    "f": "f", "g": "ɡ", "hh": "h", "hv": "h", "ih": "ˈɪ", "iy": "ˈi", "jh": "dʒ", "k": "k", "l": "l", "m": "m", "n":
    "n", "ng": "ŋ", "nx": "n", "ow": "ˈoʊ", "oy": "ˈɔɪ", "p": "p", "r": "ɹ", "s": "s", "sh": "ʃ", "t": "t", "th":
    "θ", "uh": "ˈʊ", "uw": "ˈu", "v": "v", "w": "w", "y": "j", "z": "z", "zh": "ʒ", "pau": PAUSE,
}  # fmt: skip


def speak(words: Sequence[SpokenWord], manner: Manner) -> tuple[np.ndarray, int, list[Event]]:
    """`spoken.Engine` by the program flite; the rhythm within the sentence is its own, `word_gap` is ignored.

    Raises:
        ConfigError: flite is not on PATH, has no such voice, or fails.
    """
    if manner.voice not in VOICES:
        raise ConfigError(f"flite has no voice '{manner.voice}'; {nearest(manner.voice, VOICES)}.")
    mean = VOICES[manner.voice] * 2 ** ((manner.pitch - 50) / 80)
    settings = {
        "duration_stretch": _OWN_RATE / manner.rate,
        "int_f0_target_mean": mean,
        "int_f0_target_stddev": mean * 0.12 * manner.pitch_range / 50,
    }
    text = " ".join(word.spelling for word in words)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        options = [part for key, value in settings.items() for part in ("--setf", f"{key}={value:.3f}")]
        printed = _run("-voice", manner.voice, *options, "-psdur", "-t", text, "-o", str(path))
        with wave.open(str(path)) as file:
            rate = file.getframerate()
            sound = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
    names, ends = zip(*(part.split(":") for part in printed.split()), strict=True)
    starts = [0.0, *(float(end) for end in ends[:-1])]
    owners = _owners(names, [_length(manner.voice, word.spelling) for word in words])
    sounds = [_IPA.get(name, name) for name in names]
    return sound, rate, [Event(*event) for event in zip(starts, owners, sounds, strict=True)]


def _owners(names: Sequence[str], lengths: Sequence[int]) -> list[int]:
    """The word of each phoneme: flite does not tell, so each word was also spoken alone and its phonemes counted."""
    total = sum(name != "pau" for name in names)
    edges = np.cumsum(lengths) * total / max(1, sum(lengths))  # equal to the counts unless words melt together
    owners, done = [], 0
    for name in names:
        done += name != "pau"
        owners.append(min(int(np.searchsorted(edges, done - 0.5, "right")), len(lengths) - 1))
    return owners


@lru_cache(maxsize=4096)
def _length(voice: str, word: str) -> int:
    return sum(name != "pau" for name in _run("-voice", voice, "-ps", "-t", word, "-o", "none").split())


def _run(*arguments: str) -> str:
    program = shutil.which("flite")
    if program is None:
        raise ConfigError(
            "The voices 'flite:…' need the program flite, which is not on PATH; Debian: apt install flite."
        )
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"flite failed with exit code {done.returncode}: {done.stderr.strip()[:200]}")
    return done.stdout
