"""Error rates: properties of an edit distance, and an independent implementation."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_avsr.errors import DataError
from omni_avsr.evaluate.metrics import bootstrap, count_words, difference, total, word_errors

sentences = st.lists(st.sampled_from(["bin", "blue", "at", "s", "zero", "now"]), max_size=7).map(" ".join)
pairs = st.lists(st.tuples(sentences, sentences), min_size=1, max_size=8)


def levenshtein(a: list[str], b: list[str]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        left, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            left, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, left + (x != y))
    return row[-1]


@settings(max_examples=40, deadline=None)
@given(sentences, sentences)
def test_errors_are_the_edit_distance(reference: str, hypothesis: str) -> None:
    counts = count_words(reference, hypothesis)
    assert counts.errors == levenshtein(reference.split(), hypothesis.split())
    assert counts.length == len(reference.split())
    assert counts.length - counts.deletions + counts.insertions == len(hypothesis.split())


@settings(max_examples=40, deadline=None)
@given(sentences, sentences)
def test_the_difference_rebuilds_both_texts(reference: str, hypothesis: str) -> None:
    edits = difference(reference, hypothesis)
    assert " ".join(e.reference for e in edits if e.reference) == reference
    assert " ".join(e.hypothesis for e in edits if e.hypothesis) == hypothesis
    assert all((e.kind == "equal") == (e.reference == e.hypothesis) for e in edits)


@settings(max_examples=40, deadline=None)
@given(pairs)
def test_a_corpus_is_the_sum_of_its_utterances(texts: list[tuple[str, str]]) -> None:
    rates = word_errors(*zip(*texts, strict=True))
    assert rates.words == total(rates.utterances)
    assert rates.characters.errors >= (rates.words.errors > 0)
    low, high = rates.interval
    assert 0 <= low <= high


@settings(max_examples=40, deadline=None)
@given(pairs, st.integers(0, 9))
def test_the_interval_is_the_seeds(texts: list[tuple[str, str]], seed: int) -> None:
    counts = [count_words(r, h) for r, h in texts]
    assert bootstrap(counts, seed) == bootstrap(counts, seed)


def test_perfect_and_hopeless() -> None:
    rates = word_errors(["bin blue", "at s"], ["bin blue", "at s"])
    assert (rates.words.rate, rates.characters.rate, rates.interval) == (0.0, 0.0, (0.0, 0.0))
    assert word_errors(["bin blue"], [""]).words.rate == 1.0
    assert word_errors(["bin"], ["lay red green"]).words.rate == 3.0


def test_words_in_silence_count_as_insertions() -> None:
    rates = word_errors(["", "bin"], ["you", "bin"])
    assert (rates.words.insertions, rates.words.rate, rates.utterances[0].rate) == (1, 1.0, 1.0)


def test_the_interval_holds_the_truth_of_a_known_coin() -> None:
    # 400 one-word utterances, every fourth wrong: standard error is sqrt(.25 * .75 / 400) = 0.0217
    rates = word_errors(["a"] * 400, ["b" if i % 4 == 0 else "a" for i in range(400)])
    assert rates.interval == (pytest.approx(0.25 - 0.0424, abs=0.01), pytest.approx(0.25 + 0.0424, abs=0.01))


@pytest.mark.parametrize(("references", "hypotheses"), [([], []), (["a"], []), (["a"], ["a", "b"])])
def test_texts_must_pair_up(references: list[str], hypotheses: list[str]) -> None:
    with pytest.raises(DataError, match="one of each per utterance"):
        word_errors(references, hypotheses)
