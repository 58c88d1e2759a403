"""Second opinions: who is asked, how votes count, what is flagged."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_avsr.config import ModelConfig
from omni_avsr.model.decode import DecodeOptions
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.transcribe.agreement import DOUBT, flags, judged, loops, witnesses
from omni_avsr.transcribe.recognition import Utterance, recognise
from omni_avsr.transcribe.words import Said
from omni_avsr.types import Features


def said(text: str, probability: float = 0.9) -> list[Said]:
    return [Said(word, probability, (), probability) for word in text.split()]


def test_every_other_reading_of_the_streams_is_asked(tiny_config: Callable[..., ModelConfig]) -> None:
    config = tiny_config()
    both = witnesses(config, ("audio", "video"), "avsr", {"audio": 4, "video": 2})
    assert both == [("asr", {"audio": 16}), ("vsr", {"video": 5}), ("avsr", {"audio": 16, "video": 5})]
    assert witnesses(config, ("audio",), "asr", {"audio": 4}) == [("asr", {"audio": 16})]
    assert witnesses(config, ("audio",), "asr", {"audio": 16}) == []  # nothing new would be heard
    assert witnesses(config, ("video",), "vsr", {"video": 2}) == [("vsr", {"video": 5})]


def test_a_word_loses_by_every_reading_that_lacks_it() -> None:
    words = judged(said("bin blue at f", 0.6), ["bin blue at f", "bin at s", "lay blue at f"])
    assert [w.agreement for w in words] == pytest.approx([2 / 3, 2 / 3, 1.0, 2 / 3])
    assert words[2].probability == pytest.approx(0.6)
    assert words[0].probability == pytest.approx(0.6 * (1 - DOUBT / 3))
    assert judged(said("bin", 0.6), ["lay", ""])[0].probability == pytest.approx(0.6 * (1 - DOUBT))


def test_without_others_nothing_changes() -> None:
    assert judged(said("bin blue"), []) == tuple(said("bin blue"))


@settings(max_examples=80)
@given(
    st.lists(st.sampled_from("abc"), max_size=8).map(" ".join),
    st.lists(st.lists(st.sampled_from("abc"), max_size=8).map(" ".join), min_size=1, max_size=3),
    st.floats(0, 1),
)
def test_probabilities_stay_probabilities_and_never_rise_by_disagreement(
    text: str, others: list[str], probability: float
) -> None:
    words = judged(said(text, probability), others)
    assert [w.text for w in words] == text.split()
    for word in words:
        assert word.agreement is not None
        assert 0 <= word.probability <= 1
        assert word.probability <= probability
    assert all(w.agreement == 1 for w in judged(said(text), [text]))


@pytest.mark.parametrize(
    ("text", "loop"),
    [
        ("okay okay okay okay okay okay", True),
        ("i think that i think that i think that", True),
        ("well no no no", False),
        ("bin blue at f two now", False),
        ("one two one two one", False),
        ("and so on and so on and so forth", False),
        ("", False),
    ],
)
def test_loops(text: str, loop: bool) -> None:
    assert loops(text.split()) is loop


def test_a_text_that_nobody_else_has_is_flagged() -> None:
    assert flags(judged(said("thank you for watching"), ["bin blue", "lay red", "set white"])) == ["hallucination"]
    assert flags(judged(said("bin blue at f"), ["bin blue at s", "lay blue at f", "bin blue by f"])) == []
    assert flags(said("bin blue")) == []  # nobody was asked


def test_second_opinions_are_the_models_own_readings(
    tiny_model: OmniAVSR, make_features: Callable[..., Features]
) -> None:
    rates = {"audio": 4, "video": 2}
    several = [Utterance(make_features(frames, seed=frames), "avsr", rates, agreement=True) for frames in (30, 18)]
    alone = [Utterance(make_features(25, video=False), "asr", {"audio": 4})]
    options = DecodeOptions(2)
    together = recognise(tiny_model, [*several, *alone], options)
    for number, utterance in enumerate([*several, *alone]):
        (single,) = recognise(tiny_model, [utterance], options)
        assert [w.text for w in single.words] == [w.text for w in together[number].words]
        assert [w.agreement for w in single.words] == [w.agreement for w in together[number].words]
        asked = [w.agreement is not None for w in single.words]
        assert all(asked) if utterance.agreement else not any(asked)
        assert single.hypothesis.text.split() == [w.text for w in single.words]
