"""The layout of subtitles: nothing is lost or doubled whatever the limits, and limits hold."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import srt
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from omni_avsr.errors import ConfigError
from omni_avsr.transcribe.cues import PAUSE, Cue, Lines, cues
from omni_avsr.transcribe.subtitles import WRITERS, timestamp
from omni_avsr.types import Segment, Transcript, TranscriptionInfo, Word

INFO = TranscriptionInfo(duration=100.0, task="avsr", audio_rate=4, video_rate=2)
GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "whisper_writers.json").read_text())

limits = st.none() | st.integers(1, 40)
layouts = st.builds(
    Lines,
    max_line_width=limits,
    max_line_count=st.none() | st.integers(1, 3),
    max_words_per_line=st.none() | st.integers(1, 5),
)


@st.composite
def talks(draw: st.DrawFn, speakers: tuple[str | None, ...] = (None,)) -> Transcript:
    """Segments with and without word times; whole milliseconds, so that they survive a round trip."""
    clock, segments = 0, []
    for number in range(draw(st.integers(0, 5))):
        words = []
        for text in draw(st.lists(st.text("abcé'", min_size=1, max_size=9), min_size=1, max_size=8)):
            start = clock + draw(st.sampled_from((0, 40, 300, 3500)))
            clock = start + draw(st.integers(20, 700))
            words.append(Word(start / 1000, clock / 1000, f" {text}", 0.5))
        segments.append(
            Segment(
                number,
                words[0].start,
                words[-1].end,
                "".join(w.word for w in words).strip(),
                words=tuple(words) if draw(st.integers(0, 4)) else None,
                speaker=draw(st.sampled_from(speakers)),
            )
        )
    return Transcript(tuple(segments), INFO)


def golden() -> Transcript:
    return Transcript(
        tuple(
            Segment(s["id"], s["start"], s["end"], s["text"], words=tuple(Word(**w) for w in s["words"]))
            for s in GOLDEN["segments"]
        ),
        INFO,
    )


@pytest.mark.parametrize("case", GOLDEN["written"], ids=lambda case: str(case["options"]))
def test_the_same_bytes_as_whispers_own_writers(case: dict[str, Any]) -> None:
    kinds = set(WRITERS) & set(case)
    assert {"srt", "vtt"} <= kinds
    for kind in kinds:
        assert WRITERS[kind](golden(), Lines(**case["options"])) == case[kind]


def test_the_same_bytes_as_whispers_own_writers_without_words() -> None:
    plain = Transcript(tuple(Segment(s.id, s.start, s.end, s.text) for s in golden().segments), INFO)
    for kind, expected in GOLDEN["without_words"].items():
        assert WRITERS[kind](plain) == expected


@given(talks(("A", "B", None)), layouts)
def test_every_word_is_shown_once_in_order_by_its_speaker(talk: Transcript, lines: Lines) -> None:
    shown = [(word, cue.speaker) for cue in cues(talk, lines) for word in cue.text.split()]
    assert shown == [(word, s.speaker) for s in talk.segments for word in s.text.split()]


@given(talks(), layouts)
def test_limits_hold(talk: Transcript, lines: Lines) -> None:
    timed = Transcript(tuple(s for s in talk.segments if s.words), INFO)
    for cue in cues(timed, lines):
        rows = cue.text.split("\n")
        assert len(rows) <= (lines.max_line_count or len(rows))
        for row in rows:
            assert len(row) <= (lines.max_line_width or len(row)) or " " not in row  # one word may be too long
        if lines.max_words_per_line and lines.keeps_segments:
            assert len(cue.text.split()) <= lines.max_words_per_line


@given(talks(("A", "B")), layouts)
def test_cues_follow_each_other_and_begin_with_segments_unless_both_limits_are_set(
    talk: Transcript, lines: Lines
) -> None:
    found = list(cues(talk, lines))
    assert all(a.end <= b.start for a, b in pairwise(found))
    assert all(a.start <= a.end for a in found)
    if lines.keeps_segments:
        assert {s.start for s in talk.segments} <= {cue.start for cue in found}


@given(talks())
def test_highlighting_underlines_each_word_once(talk: Transcript) -> None:
    timed = Transcript(tuple(s for s in talk.segments if s.words), INFO)
    marked = [
        c.text.split("<u>")[1].split("</u>")[0] for c in cues(timed, Lines(highlight_words=True)) if "<u>" in c.text
    ]
    assert marked == [word for s in timed.segments for word in s.text.split()]


@given(talks(("A", "B")), layouts)
def test_third_parties_read_lines_and_speakers(talk: Transcript, lines: Lines) -> None:
    expected = list(cues(talk, lines))
    read_srt = srt.parse(WRITERS["srt"](talk, lines))
    assert [(c.start.total_seconds(), c.end.total_seconds(), c.content) for c in read_srt] == [
        (pytest.approx(c.start), pytest.approx(c.end), f"[{c.speaker}]: {c.text}") for c in expected
    ]
    read_vtt = webvtt.from_string(WRITERS["vtt"](talk, lines)).captions
    assert [(c.start, c.end, c.voice, c.text) for c in read_vtt] == [
        (timestamp(c.start, True), timestamp(c.end, True), c.speaker, c.text) for c in expected
    ]


def test_a_long_pause_ends_a_cue_that_may_span_segments() -> None:
    words = (Word(0.0, 0.2, " bin", 1.0), Word(PAUSE + 0.1, PAUSE + 0.3, " blue", 1.0))
    talk = Transcript((Segment(0, 0.0, 4.0, "bin blue", words=words),), INFO)
    assert [c.text for c in cues(talk, Lines(20, 2))] == ["bin", "blue"]
    assert [c.text for c in cues(talk, Lines(20))] == ["bin blue"]


def test_an_arrow_never_looks_like_a_timing() -> None:
    words = (Word(0.0, 0.2, " a-->b", 1.0),)
    for segment in (Segment(0, 0.0, 1.0, "a-->b"), Segment(0, 0.0, 1.0, "a-->b", words=words)):
        assert [c.text for c in cues(Transcript((segment,), INFO))] == ["a->b"]


def test_speakers_in_every_format() -> None:
    talk = Transcript((Segment(0, 0.0, 1.0, "bin blue", speaker="A"), Segment(1, 1.0, 2.0, "now")), INFO)
    assert list(cues(talk)) == [Cue(0.0, 1.0, "bin blue", "A"), Cue(1.0, 2.0, "now", None)]
    assert WRITERS["txt"](talk) == "[A]: bin blue\nnow\n"
    assert WRITERS["srt"](talk).splitlines()[2] == "[A]: bin blue"
    assert WRITERS["vtt"](talk).splitlines()[3] == "<v A>bin blue</v>"
    assert json.loads(WRITERS["json"](talk))["segments"][0]["speaker"] == "A"
    assert "speaker" not in json.loads(WRITERS["json"](talk))["segments"][1]


@pytest.mark.parametrize("name", ["max_line_width", "max_line_count", "max_words_per_line"])
def test_a_limit_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} = 0"):
        Lines(**{name: 0})
