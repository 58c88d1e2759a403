"""Synthetic speech of many voices, with the time of every phoneme and word.

The synthesiser, espeak-ng, alone sounds like one family of machines. So each `Voice` adds what tells people apart:
length of the vocal tract, spectrum, breath, room, level, and rhythm from word to word.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import soxr

from omni_avsr.data import espeak, flite
from omni_avsr.data.spoken import PAUSE, Engine, Event, Manner, SpokenWord
from omni_avsr.errors import ConfigError, InputError, nearest
from omni_avsr.types import SAMPLE_RATE, Word

ENGINES: dict[str, Engine] = {"": espeak.speak, "flite": flite.speak}  # what stands before ':' in a voice's name


@dataclass(frozen=True)
class Phoneme:
    """A sound of speech in seconds; `name` is IPA with stress marks, at most 8 bytes, `PAUSE` for silence."""

    start: float
    end: float
    name: str


@dataclass(frozen=True)
class Utterance:
    """Speech with its text and times: phonemes follow each other without gaps, words may have pauses between them."""

    text: str
    audio: np.ndarray  # (S,) float32 in [-1, 1], 16 kHz mono
    phonemes: tuple[Phoneme, ...]
    words: tuple[Word, ...]  # one for each word of the text

    @property
    def duration(self) -> float:
        """Seconds of audio."""
        return len(self.audio) / SAMPLE_RATE


@dataclass(frozen=True)
class Peak:
    """One bump of an equaliser: a Gaussian over the logarithm of frequency."""

    frequency: float  # Hz
    width: float  # octaves, standard deviation
    gain: float  # dB


@dataclass(frozen=True)
class Voice:
    """How an utterance is spoken and heard; the first six fields are the synthesiser's, the rest is done here."""

    name: str = "en-us"  # 'accent+timbre', as 'en-gb-scotland+f3' or 'de' (see `VOICES`); or 'flite:slt'
    rate: float = 160.0  # words a minute
    pitch: float = 50.0  # 0 to 99; 50 is the timbre's own
    pitch_range: float = 50.0  # 0 (monotone) to 99
    word_gap: float = 0.0  # seconds between words
    liveliness: float = 0.0  # standard deviation of ln(rate) and ln(pitch) from word to word
    warp: float = 1.0  # formants are multiplied by this: above 1 is a shorter vocal tract
    tilt: float = 0.0  # dB an octave above 500 Hz
    equaliser: tuple[Peak, ...] = ()
    breath: float = 0.0  # aspiration noise over voice, amplitude
    reverberation: float = 0.0  # seconds until the room's echo has fallen by 60 dB; 0 is no room
    distance: float = 0.5  # echo over direct sound, amplitude
    level: float = -23.0  # dB of full scale, root mean square while speaking


ENGLISH = ("en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc")
ACCENTS: dict[str, tuple[str, ...]] = {  # language -> the synthesiser's voices that speak it
    "en": ENGLISH,
    "de": ("de",),
    "fr": ("fr", "fr-be", "fr-ch"),
    "es": ("es", "es-419"),
    "it": ("it",),
    "pt": ("pt", "pt-br"),
    "ru": ("ru",),
    "ar": ("ar",),
    "el": ("el",),
}
# Timbres with the level and pitch of people; whispers and robots are left out, and 'Reed', which is not the same twice.
TIMBRES: tuple[str, ...] = (
    "", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "klatt", "klatt2", "klatt3",
    "klatt4", "klatt5", "klatt6", "croak", "grandma", "grandpa", "aunty", "announcer", "Alex", "Alicia", "Andrea",
    "Andy", "Annie", "Denis", "Diogo", "Gene", "Hugo", "Lee", "Mario", "Michael", "Mike", "Nguyen", "adam", "anika",
    "belinda", "benjamin", "boris", "david", "edward", "edward2", "ian", "iven4", "john", "linda", "marcelo", "max",
    "michel", "miguel", "norbert", "pedro", "quincy", "rob", "robert", "shelby", "steph", "travis", "victor",
)  # fmt: skip
VOICES: dict[str, tuple[str, ...]] = {  # language -> names a `Voice` can have
    language: tuple(f"{accent}+{timbre}".rstrip("+") for accent in accents for timbre in TIMBRES)
    for language, accents in ACCENTS.items()
}


def random_voice(rng: np.random.Generator, language: str = "en", *, names: Sequence[str] = ()) -> Voice:
    """A voice drawn from `names`, or from all of `language`, with random manner, body and room.

    Raises ConfigError for a language without a row in `VOICES` when no names are given.
    """
    if not names and language not in VOICES:
        raise ConfigError(f"No voices for language '{language}'; {nearest(language, VOICES)}. Or give voice names.")
    names = names or VOICES[language]
    peaks = tuple(
        Peak(float(math.exp(rng.uniform(math.log(150), math.log(7000)))), rng.uniform(0.3, 1.2), rng.normal(0, 4))
        for _ in range(rng.integers(0, 5))
    )
    return Voice(
        name=names[int(rng.integers(len(names)))],
        rate=float(np.exp(rng.uniform(np.log(115), np.log(240)))),
        pitch=rng.uniform(15, 85),
        pitch_range=rng.uniform(15, 90),
        word_gap=max(0.0, rng.normal(-0.01, 0.03)),
        liveliness=rng.uniform(0.0, 0.15),
        warp=float(np.exp(np.clip(rng.normal(0, 0.07), -0.16, 0.16))),
        tilt=rng.normal(-0.5, 2.0),
        equaliser=peaks,
        breath=rng.uniform(0.05, 0.4) if rng.random() < 0.4 else 0.0,
        reverberation=rng.uniform(0.1, 0.5) if rng.random() < 0.6 else 0.0,
        distance=rng.uniform(0.1, 0.8),
        level=rng.uniform(-35, -15),
    )


def synthesize(
    text: str,
    voice: Voice | None = None,
    *,
    seed: int = 0,
    respellings: Mapping[str, str] | None = None,
    silence: tuple[float, float] = (0.0, 0.0),
) -> Utterance:
    """Speak `text` and say when each phoneme and word sounds; the same arguments give the same samples.

    Args:
        text: one utterance; words are what whitespace separates.
        voice: who speaks; the default is plain espeak-ng en-us.
        seed: of the rhythm, the breath and the room.
        respellings: word -> what the synthesiser gets to read instead: {"a": "eigh"} is the letter, not the article.
        silence: seconds before and after the speech; the room's echo fades in the latter.

    Raises:
        InputError: no text, or nothing in it that can be spoken.
        ConfigError: the synthesiser has no such voice.
        MissingExtraError: espeakng-loader is not installed.
    """
    voice = voice or Voice()
    words = text.split()
    if not words:
        raise InputError("The text to be spoken is empty; give at least one word.")
    rng = np.random.default_rng(seed)
    engine, _, name = voice.name.rpartition(":")
    if engine not in ENGINES:
        raise ConfigError(
            f"No engine '{engine}' for the voice '{voice.name}'; {nearest(engine, filter(None, ENGINES))}."
        )
    manner = Manner(name, voice.rate / voice.warp, voice.pitch, voice.pitch_range, voice.word_gap)
    sound, rate, events = ENGINES[engine](_rhythm(words, voice, rng, respellings or {}), manner)
    if not any(event.phoneme for event in events):
        raise InputError(f"The voice '{voice.name}' finds nothing to speak in {text!r}; give words of its language.")
    # Played `warp` times faster, formants and pitch rise together; the speech was made as much slower, so time stays.
    audio = soxr.resample(sound, rate * voice.warp, SAMPLE_RATE)
    audio = np.pad(audio, [round(seconds * SAMPLE_RATE) for seconds in silence])
    phonemes, owners = _follow(events, len(audio) / SAMPLE_RATE, voice.warp, silence[0])
    audio = _colour(audio, voice, rng)
    return Utterance(text, audio, tuple(phonemes), _words(words, phonemes, owners))


def _rhythm(
    words: Sequence[str], voice: Voice, rng: np.random.Generator, respellings: Mapping[str, str]
) -> list[SpokenWord]:
    spellings = [respellings.get(word, word) for word in words]
    if not voice.liveliness:
        return [SpokenWord(spelling) for spelling in spellings]
    factors = np.exp(np.clip(rng.normal(0, voice.liveliness, (len(words), 2)), -0.5, 0.5))
    return [SpokenWord(spelling, *map(float, pair)) for spelling, pair in zip(spellings, factors, strict=True)]


# ---- times -----------------------------------------------------------------------------------


def _follow(events: Sequence[Event], duration: float, warp: float, offset: float) -> tuple[list[Phoneme], list[int]]:
    """Phonemes on the clock of the resampled audio, from 0 to `duration`, and for each the index of its word."""
    starts = [min(event.time / warp + offset, duration) for event in events]
    names, owners = [event.phoneme for event in events], [event.word for event in events]
    if starts[0] > 0:
        starts, names, owners = [0.0, *starts], [PAUSE, *names], [owners[0], *owners]
    edges = pairwise([*starts, duration])
    return [Phoneme(start, end, name) for (start, end), name in zip(edges, names, strict=True)], owners


def _words(words: Sequence[str], phonemes: Sequence[Phoneme], owners: Sequence[int]) -> tuple[Word, ...]:
    """One `Word` for each word; words that were spoken as one ('of the') share the time by their letters."""
    spans: dict[int, tuple[float, float]] = {}
    for phoneme, owner in zip(phonemes, owners, strict=True):
        if phoneme.name != PAUSE:
            spans[owner] = (spans.get(owner, (phoneme.start, 0.0))[0], phoneme.end)
    result: list[Word] = []
    first = min(spans)
    for owner in sorted(spans):
        following = [o for o in spans if o > owner]
        group = range(0 if owner == first else owner, min(following) if following else len(words))
        start, end = spans[owner]
        letters = np.cumsum([0] + [len(words[i]) for i in group])
        edges = np.interp(letters, (0, letters[-1]), (start, end))
        result += [Word(float(edges[k]), float(edges[k + 1]), words[i], 1.0) for k, i in enumerate(group)]
    return tuple(result)


# ---- body and room ---------------------------------------------------------------------------


def _colour(audio: np.ndarray, voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """(S,) float32 -> (S,): breath, spectrum, room and level of `voice`."""
    if voice.breath:
        audio = audio + voice.breath * _aspiration(audio, rng)
    size = 1 << (len(audio) + int(voice.reverberation * SAMPLE_RATE)).bit_length()
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    transfer = _gain(frequencies, voice)
    if voice.reverberation:
        transfer = transfer * np.fft.rfft(_room(voice, rng), size)
    audio = np.fft.irfft(np.fft.rfft(audio, size) * transfer, size)[: len(audio)]
    loud = np.abs(audio) > 0.05 * np.abs(audio).max()
    rms = float(np.sqrt(np.mean(audio[loud] ** 2))) if loud.any() else 1.0
    scale = min(10 ** (voice.level / 20) / rms, 0.99 / max(float(np.abs(audio).max()), 1e-9))
    return (audio * scale).astype(np.float32)


def _aspiration(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(S,) noise that follows the loudness of the voice and, as breath does, lacks low frequencies."""
    window = np.hanning(321)
    envelope = np.sqrt(np.convolve(audio**2, window / window.sum(), "same"))
    return np.diff(rng.standard_normal(len(audio) + 1)) / math.sqrt(2) * envelope


def _gain(frequencies: np.ndarray, voice: Voice) -> np.ndarray:
    """(F,) amplitude of tilt and equaliser; no phase, so that nothing moves in time."""
    octaves = np.log2(np.maximum(frequencies, 20.0) / 500.0)
    decibels = voice.tilt * np.maximum(octaves, 0.0)
    for peak in voice.equaliser:
        distance = octaves - math.log2(peak.frequency / 500.0)
        decibels = decibels + peak.gain * np.exp(-0.5 * (distance / peak.width) ** 2)
    return 10 ** (np.clip(decibels, -40, 20) / 20)


def _room(voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """(R,) impulse response: the direct sound, some early echoes, then noise that decays by 60 dB in the given time."""
    size = int(voice.reverberation * SAMPLE_RATE)
    time = np.arange(size) / SAMPLE_RATE
    tail = rng.standard_normal(size) * 10 ** (-3 * time / voice.reverberation)
    tail[: int(0.003 * SAMPLE_RATE)] = 0.0
    for delay in rng.uniform(0.003, 0.03, 6):
        tail[min(int(delay * SAMPLE_RATE), size - 1)] += rng.normal(0, 6) * (1 - delay / 0.05)
    tail *= voice.distance / max(float(np.linalg.norm(tail)), 1e-9)
    tail[0] = 1.0
    return tail
