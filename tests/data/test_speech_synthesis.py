"""Synthetic speech: the same from the same seed, times that fit the sound, voices that differ."""

from __future__ import annotations

import shutil
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_avsr.data import flite
from omni_avsr.data.speech_synthesis import ACCENTS, TIMBRES, VOICES, Peak, Utterance, Voice, random_voice, synthesize
from omni_avsr.data.spoken import PAUSE
from omni_avsr.errors import ConfigError, InputError, MissingExtraError
from omni_avsr.types import SAMPLE_RATE

pytest.importorskip("espeakng_loader")

SENTENCE = "place blue at f two now"
GREETINGS = {"en": "good day", "de": "schöne Bücher", "fr": "bonjour madame", "es": "buenos días", "it": "buongiorno",
             "pt": "bom dia", "ru": "добрый день", "ar": "مرحبا", "el": "καλημέρα"}  # fmt: skip


def rms(audio: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(audio)))) if len(audio) else 0.0


def part(speech: Utterance, start: float, end: float) -> np.ndarray:
    return speech.audio[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_times_lie_in_the_audio_and_follow_each_other(seed: int) -> None:
    voice = random_voice(np.random.default_rng(seed))
    speech = synthesize(SENTENCE, voice, seed=seed, silence=(0.2, 0.3))
    assert speech.audio.dtype == np.float32
    assert np.isfinite(speech.audio).all()
    assert np.abs(speech.audio).max() <= 1
    edges = [speech.phonemes[0].start, *(p.end for p in speech.phonemes)]
    assert edges[0] == 0
    assert edges[-1] == pytest.approx(speech.duration)
    assert all(a <= b for a, b in pairwise(edges))
    assert [p.start for p in speech.phonemes[1:]] == edges[1:-1]
    assert [w.word for w in speech.words] == SENTENCE.split()
    assert all(w.start < w.end for w in speech.words)
    assert all(a.end <= b.start for a, b in pairwise(speech.words))
    assert 0.2 <= speech.words[0].start < speech.words[-1].end <= speech.duration - 0.28


def test_same_arguments_same_samples_whatever_was_said_before() -> None:
    voice = random_voice(np.random.default_rng(3))
    first = synthesize(SENTENCE, voice, seed=1)
    synthesize("something else", Voice("en-us+croak"))
    again = synthesize(SENTENCE, voice, seed=1)
    assert np.array_equal(first.audio, again.audio)
    assert first.phonemes == again.phonemes


def test_every_timbre_repeats() -> None:
    for timbre in TIMBRES:
        voice = Voice(f"en+{timbre}" if timbre else "en")
        first = synthesize("bin red", voice)
        junk = np.full(50_000, 7.0)  # a synthesiser that reads what it did not write would find this
        again = synthesize("bin red", voice)
        del junk
        assert np.array_equal(first.audio, again.audio), timbre
        assert rms(first.audio) > 0.01, timbre


def test_a_seed_changes_the_rhythm() -> None:
    voice = Voice(liveliness=0.1)
    one, other = (synthesize(SENTENCE, voice, seed=seed) for seed in (1, 2))
    assert [w.start for w in one.words] != [w.start for w in other.words]


def test_random_voices_repeat_by_seed_and_differ_between_seeds() -> None:
    voices = [random_voice(np.random.default_rng(seed)) for seed in range(50)]
    assert voices == [random_voice(np.random.default_rng(seed)) for seed in range(50)]
    assert len(set(voices)) == 50
    assert len({v.name for v in voices}) > 30


def test_vowels_are_loud_and_pauses_are_silent() -> None:
    """The times are those of the sound, not of some other clock."""
    for seed, warp in enumerate((0.88, 1.0, 1.14)):
        speech = synthesize("see two papers at the park", Voice(warp=warp), seed=seed, silence=(0.5, 0.5))
        vowels = [rms(part(speech, p.start, p.end)) for p in speech.phonemes if p.name.startswith("ˈ")]
        stops = [rms(part(speech, p.start, p.start + 0.03)) for p in speech.phonemes if p.name in ("p", "t")]
        assert min(vowels) > 2 * np.median(stops)
        assert rms(part(speech, 0, 0.45)) < 1e-6
        assert rms(part(speech, speech.words[-1].end + 0.05, speech.duration)) < 0.05 * min(vowels)


def test_words_spoken_as_one_share_their_time() -> None:
    text = "one of the boys in the garden counted 42 birds"
    words = synthesize(text).words
    assert [w.word for w in words] == text.split()
    assert all(w.end - w.start > 0.02 for w in words)


def test_a_letter_is_read_as_its_name_where_told() -> None:
    article = synthesize("place blue at a two now")
    letter = synthesize("place blue at a two now", Voice(liveliness=0.1), respellings={"a": "eigh"})
    assert [w.word for w in letter.words] == ["place", "blue", "at", "a", "two", "now"]
    for speech, name in ((article, "eɪ"), (letter, "eɪ")):
        word = speech.words[3]
        sounds = [p.name for p in speech.phonemes if word.start <= p.start < word.end and p.name != PAUSE]
        assert any(name in s for s in sounds) == (speech is letter)
    assert len(letter.phonemes) < len(article.phonemes) + 3  # no mark-up is read aloud


def test_a_longer_tract_lowers_the_spectrum_and_keeps_the_time() -> None:
    def centroid(audio: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(audio)) ** 2
        return float((power * np.fft.rfftfreq(len(audio), 1 / SAMPLE_RATE)).sum() / power.sum())

    deep, bright = (synthesize(SENTENCE, Voice(warp=warp)) for warp in (0.87, 1.15))
    assert centroid(bright.audio) > 1.1 * centroid(deep.audio)
    assert bright.duration == pytest.approx(deep.duration, rel=0.06)


def test_tilt_equaliser_breath_room_and_level_do_what_they_say() -> None:
    def high(audio: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(audio)) ** 2
        frequencies = np.fft.rfftfreq(len(audio), 1 / SAMPLE_RATE)
        return float(power[frequencies > 3000].sum() / power.sum())

    plain = synthesize(SENTENCE, Voice(), silence=(0, 0.4))
    loud = np.abs(plain.audio) > 0.05 * np.abs(plain.audio).max()
    assert 20 * np.log10(rms(plain.audio[loud])) == pytest.approx(-23, abs=0.1)
    for change in (Voice(tilt=3), Voice(equaliser=(Peak(4500, 0.7, 12),)), Voice(breath=0.5)):
        assert high(synthesize(SENTENCE, change).audio) > 1.2 * high(plain.audio)
    echo = synthesize(SENTENCE, Voice(reverberation=0.5, distance=1.0), silence=(0, 0.4))
    assert rms(echo.audio[-3200:-1600]) > 10 * rms(plain.audio[-3200:-1600])


@pytest.mark.parametrize("language", sorted(ACCENTS))
def test_every_accent_speaks_its_language(language: str) -> None:
    for accent in ACCENTS[language]:
        speech = synthesize(GREETINGS[language], Voice(accent))
        assert len(speech.words) == len(GREETINGS[language].split())
        assert rms(speech.audio) > 0.01
    assert random_voice(np.random.default_rng(0), language).name in VOICES[language]


def test_errors_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="at least one word"):
        synthesize("  ")
    with pytest.raises(ConfigError, match=r"'en-usa'.*did you mean 'en-us'"):
        synthesize("hello", Voice("en-usa"))
    with pytest.raises(ConfigError, match="known: ar, de"):
        random_voice(np.random.default_rng(0), "xx")
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(MissingExtraError, match=r"omni-avsr\[synthetic\]"):
        synthesize("hello")


# ---- flite, an engine that may be there --------------------------------------------------------

FAKE_FLITE = """#!{python}
import sys, wave
options = dict(zip(sys.argv[1:], sys.argv[2:]))
sounds = {{"place": "p l ey s", "blue": "b l uw", "eigh": "ey"}}
spoken = ["pau"] + " ".join(sounds[w] for w in options["-t"].split()).split() + ["pau"]
if "-psdur" in sys.argv:
    with wave.open(options["-o"], "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(bytes([0, 8, 0, 248]) * 800 * len(spoken))
    print(" ".join(f"{{name}}:{{(i + 1) / 10:.3f}}" for i, name in enumerate(spoken)))
else:
    print(" ".join(spoken))
"""


def test_flite_words_are_found_by_counting_phonemes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "flite"
    program.write_text(FAKE_FLITE.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    flite._length.cache_clear()
    speech = synthesize("place blue a", Voice("flite:slt"), respellings={"a": "eigh"})
    flite._length.cache_clear()
    assert speech.duration == pytest.approx(1.0)
    assert [p.name for p in speech.phonemes] == ["", "p", "l", "ˈeɪ", "s", "b", "l", "ˈu", "ˈeɪ", ""]
    assert [(w.word, round(w.start, 2), round(w.end, 2)) for w in speech.words] == [
        ("place", 0.1, 0.5),
        ("blue", 0.5, 0.8),
        ("a", 0.8, 0.9),
    ]


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
@pytest.mark.parametrize("name", sorted(flite.VOICES))
def test_flite_voices_speak(name: str) -> None:
    slow, fast = (synthesize(SENTENCE, Voice(f"flite:{name}", rate=rate, warp=1.1)) for rate in (120, 200))
    assert [w.word for w in slow.words] == SENTENCE.split()
    assert slow.duration == pytest.approx(fast.duration * 200 / 120, rel=0.12)
    assert {p.name for p in slow.phonemes} <= set(flite._IPA.values())


def test_flite_errors_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="apt install flite"):
        synthesize("hello", Voice("flite:slt"))
    with pytest.raises(ConfigError, match="did you mean 'slt'"):
        synthesize("hello", Voice("flite:slx"))
    with pytest.raises(ConfigError, match="No engine 'flit'"):
        synthesize("hello", Voice("flit:slt"))
