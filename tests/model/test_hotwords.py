"""Expected words: what they are worth, and what that does to a search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_avsr.model.decode import DecodeOptions, decode
from omni_avsr.model.hotwords import BONUS, Hotwords
from omni_avsr.model.llm import Tokenizer
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.types import Batch

RATES = {"audio": 4, "video": 2}


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def total(hotwords: Hotwords, text: str) -> float:
    """What all of `text`, and its end, is worth."""
    worth = 0.0
    for at, token in enumerate([*letters(text), 0]):
        usual, others = hotwords.worth(letters(text)[:at])
        worth += others.get(token, usual)
    return worth


def test_a_word_that_is_said_is_worth_its_tokens_and_one_that_is_not_finished_nothing() -> None:
    hotwords = Hotwords(["two"], letters)
    assert total(hotwords, "two") == 3 * BONUS
    assert total(hotwords, "f two now") == 4 * BONUS  # with the space before it
    assert total(hotwords, "f tw now") == 0
    assert total(hotwords, "f twx") == 0
    assert total(hotwords, "") == 0


def test_words_are_met_in_a_text_as_the_models_own_tokenizer_writes_it(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("bin blue at f two now")
    for word in ("bin", "at", "f two", "now"):
        hotwords = Hotwords([word], tokenizer.encode)
        met = 0.0
        for at, token in enumerate([*tokens, tokenizer.eos_id]):
            usual, others = hotwords.worth(tokens[:at])
            met += others.get(token, usual)
        assert met >= BONUS * len(word.split()), word


def test_a_word_counts_only_where_a_word_begins() -> None:
    assert total(Hotwords(["wo"], letters), "two") == 0


def test_a_word_that_begins_another_is_kept_when_that_is_not_finished() -> None:
    hotwords = Hotwords(["to", "tomato"], letters)
    assert total(hotwords, "to") == 2 * BONUS
    assert total(hotwords, "tomx") == 2 * BONUS
    assert total(hotwords, "tomato") == 6 * BONUS


@given(
    st.lists(st.text("ab ", min_size=1, max_size=4).map(str.strip).filter(bool), max_size=3),
    st.text("ab ", max_size=12),
)
def test_nothing_is_ever_worth_less_than_nothing_and_only_hot_words_more(words: list[str], text: str) -> None:
    worth = total(Hotwords(words, letters), text)
    assert worth >= -1e-9
    if not any(word in text for word in words):
        assert worth == pytest.approx(0)


@pytest.mark.parametrize("beam_size", [1, 4])
def test_a_search_without_hot_words_is_as_before_and_with_them_says_them(
    tiny_model: Callable[..., OmniAVSR], batch: Batch, beam_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()

    def found(words: Sequence[str], bonus: float = BONUS) -> list[str]:
        monkeypatch.setattr("omni_avsr.model.search.Hotwords", partial(Hotwords, bonus=bonus))
        options = DecodeOptions(beam_size, max_new_tokens=12, hotwords=tuple(words))
        return [h.text for h in decode(model, batch, "avsr", RATES, options)]

    plain = found(())
    assert found(["zebra"], bonus=0.0) == plain
    # a random model is in doubt about everything, so what is worth enough is said
    assert not any("soon" in text for text in plain)
    assert all("soon" in text for text in found(["soon"], bonus=30.0))


def test_what_hot_words_are_worth_is_no_evidence(tiny_model: Callable[..., OmniAVSR], batch: Batch) -> None:
    model = tiny_model()
    options = DecodeOptions(2, max_new_tokens=6, hotwords=("soon", "now"))
    for hypothesis in decode(model, batch, "avsr", RATES, options):
        assert all(logprob <= 0 for logprob in hypothesis.token_logprobs)
        assert hypothesis.score <= 0
