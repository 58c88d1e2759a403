"""What may be typed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_avsr.cli.arguments import Spelling, normalise

SPELLING = Spelling(
    lists=frozenset({"--tasks", "--snrs", "--set"}),
    switches={"--word_timestamps": "--no_word_timestamps", "--offline": "--no_offline"},
)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("a.mp4 --beam-size 5", "a.mp4 --beam_size 5"),
        ("--beam-size=5 a-b_c.mp4", "--beam_size=5 a-b_c.mp4"),
        ("m.jsonl --tasks asr vsr -o out", "m.jsonl --tasks asr --tasks vsr -o out"),
        ("m --snrs clean 10 -5 -7.5 --seed -1", "m --snrs clean --snrs 10 --snrs -5 --snrs -7.5 --seed -1"),
        ("--set a=1 b=-2 --set c=3", "--set a=1 --set b=-2 --set c=3"),
        ("--set=a=1 r.toml", "--set=a=1 r.toml"),
        ("--word_timestamps True a.mp4", "--word_timestamps a.mp4"),
        ("--word-timestamps False a.mp4", "--no_word_timestamps a.mp4"),
        ("--word_timestamps=false a.mp4", "--no_word_timestamps a.mp4"),
        ("--word_timestamps a.mp4", "--word_timestamps a.mp4"),
        ("--offline 1", "--offline 1"),  # a file may be called 1
        ("--offline=0", "--no_offline"),
        ("-f srt a.mp4 -o -", "-f srt a.mp4 -o -"),
        ("--offline -- --tasks a", "--offline -- --tasks a"),
        ("--tasks", "--tasks"),
    ],
)
def test_ways_of_typing(typed: str, read: str) -> None:
    assert normalise(typed.split(), SPELLING) == read.split()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["a.mp4", "--beam_size=3", "--no_offline", "-o", "out", "--offline", "-5"])))
def test_what_click_reads_already_stays(arguments: list[str]) -> None:
    assert normalise(arguments, SPELLING) == arguments


def test_a_wrong_truth_value_is_left_for_click_to_refuse() -> None:
    assert normalise(["--offline=maybe"], SPELLING) == ["--offline=maybe"]
