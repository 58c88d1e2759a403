"""Normalisers: what they promise for any text, and examples of each."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_avsr.data import normalize as module
from omni_avsr.data.normalize import NORMALIZERS, basic, normalize
from omni_avsr.errors import ConfigError, MissingExtraError


@given(st.text(max_size=60))
def test_basic_leaves_letters_marks_digits_apostrophes_and_single_spaces(text: str) -> None:
    out = basic(text)
    assert all(c in "' " or unicodedata.category(c)[0] in "LMN" for c in out)
    assert out == " ".join(out.split())
    assert not any(word.startswith("'") or word.endswith("'") for word in out.split())


@given(st.text(st.characters(codec="latin-1"), max_size=60))
def test_basic_of_basic_changes_nothing(text: str) -> None:
    assert basic(basic(text)) == basic(text)


@given(st.text("abc dé'’.,!?-\n", max_size=40))
def test_basic_ignores_case_and_punctuation(text: str) -> None:
    assert basic(text.upper()) == basic(text)
    assert basic(f"«{text}!»") == basic(text)


def test_basic_by_example() -> None:
    assert basic("Don’t stop -- it's 5 o'clock!") == "don't stop it's 5 o'clock"
    assert basic("'Quoted', rock 'n' roll; x_y") == "quoted rock n roll x y"
    assert basic("हिन्दी") == "हिन्दी"  # vowel signs are not punctuation
    assert basic("...") == ""


def test_official_counts_words_as_the_official_code_does() -> None:
    assert normalize("It's  FIVE,\tnow.", "official") == "it's five, now."


def test_none_is_the_text() -> None:
    assert normalize(" As, it is! ", "none") == " As, it is! "


def test_whisper_english() -> None:
    pytest.importorskip("whisper_normalizer")
    assert normalize("The colour of twenty-one hats, um, we're", "whisper_english") == "the color of 21 hats we are"


def test_a_missing_package_says_which_extra_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "whisper_normalizer.english", None)
    module._whisper.cache_clear()
    with pytest.raises(MissingExtraError, match=r"omni-avsr\[text\]"):
        normalize("x", "whisper_english")


def test_an_unknown_normaliser_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'basic'"):
        normalize("x", "basik")
    assert set(NORMALIZERS) == {"none", "official", "basic", "whisper_english"}
