"""What was shown as certain is never taken back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from omni_avsr.live.prefix import Prefix

words = st.lists(st.sampled_from(["bin", "blue", "at"]), max_size=6)


def test_a_word_stands_once_two_hypotheses_agree_up_to_it() -> None:
    prefix = Prefix()
    assert prefix.update(["bin"]) == ("", "bin")
    assert prefix.update(["bin", "blew"]) == ("bin", "blew")
    assert prefix.update(["bin", "blue", "at"]) == ("bin", "blue at")
    assert prefix.update(["bin", "blue", "by"]) == ("bin blue", "by")


@given(st.lists(words, max_size=8))
def test_the_stable_text_only_grows(hypotheses: list[list[str]]) -> None:
    prefix, before = Prefix(), ""
    for hypothesis in hypotheses:
        stable, _ = prefix.update(hypothesis)
        assert stable.startswith(before)
        before = stable


@given(words)
def test_what_is_said_twice_stands_whole(hypothesis: list[str]) -> None:
    prefix = Prefix()
    prefix.update(hypothesis)
    assert prefix.update(hypothesis) == (" ".join(hypothesis), "")
