"""Transcripts beside media: every format to the same spans, cues to sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from omni_avsr.data.sidecar import SIDECARS, Span, find_sidecar, read_sidecar, sentences
from omni_avsr.errors import DataError

SAME = {
    ".srt": "1\r\n00:00:01,000 --> 00:00:02,500\r\nHello, <i>world</i>.\r\n\r\n"
    "2\r\n00:01:03,250 --> 00:01:04,000\r\n- [door] Bye!",
    ".vtt": "WEBVTT - x\n\nNOTE no\ncue\n\n00:01.000 --> 00:02.500 align:start\nHello,\nworld.\n\n"
    "b\n01:03.250 --> 01:04.000\nBye!",
    ".json": '{"text": "", "segments": [{"start": 1, "end": 2.5, "text": " Hello, world."}, '
    '{"start": 63.25, "end": 64.0, "text": "Bye!"}, {"start": 70, "end": 71, "text": " "}]}',
}  # fmt: skip


def spans(tmp_path: Path, suffix: str, text: str) -> list[Span]:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(text.encode("utf-8-sig"))
    return read_sidecar(path)


@pytest.mark.parametrize("suffix", SAME)
def test_formats_agree(tmp_path: Path, suffix: str) -> None:
    assert spans(tmp_path, suffix, SAME[suffix]) == [Span("Hello, world.", 1.0, 2.5), Span("Bye!", 63.25, 64.0)]


def test_plain_text_and_plain_json_are_the_whole_file(tmp_path: Path) -> None:
    assert spans(tmp_path, ".txt", "one,\n two ") == [Span("one, two")]
    assert spans(tmp_path, ".json", '{"text": "one, two"}') == [Span("one, two")]


def test_tags_entities_and_voices(tmp_path: Path) -> None:
    ann, bob = "00:01.000 --> 00:02.000\n<v.loud Ann B>Salt &amp; pepper ♪</v>", "00:02.000 --> 00:03.000\n<v Bob>No."
    said = f"WEBVTT\n\n{ann}\n\n{bob}"
    assert spans(tmp_path, ".vtt", said) == [Span("Salt & pepper", 1, 2, "Ann B"), Span("No.", 2, 3, "Bob")]


def test_cues_become_sentences() -> None:
    cues = [Span("I came,", 0, 1), Span("I saw.", 1.2, 2), Span("I left", 2.1, 3), Span("later", 5, 6)]
    assert sentences(cues) == [Span("I came, I saw.", 0, 2), Span("I left", 2.1, 3), Span("later", 5, 6)]


def test_a_sentence_without_an_end_is_cut_at_fifteen_seconds() -> None:
    joined = sentences([Span("and", t, t + 1) for t in range(40)])
    assert max(s.end - s.start for s in joined if s.end) <= 15
    assert " ".join(s.text for s in joined).split() == ["and"] * 40


@pytest.mark.parametrize(
    ("suffix", "text", "message"),
    [
        (".srt", "1\n00:00:01 --> soon\nx", "'soon' is no time"),
        (".srt", "1\n00:00:01,000 -->\nx", "'' is no time"),
        (".json", "{", "not JSON"),
        (".json", '{"words": []}', "expected an object with 'text'"),
        (".json", '[{"text": "x", "start": "now"}]', "no number"),
    ],
)
def test_nonsense_names_the_file(tmp_path: Path, suffix: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=f"a{suffix}.*{message}"):
        spans(tmp_path, suffix, text)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_sidecar(tmp_path / "a.txt")


def test_the_most_precise_transcript_is_taken(tmp_path: Path) -> None:
    media = tmp_path / "a.b.mp4"
    assert find_sidecar(media) is None
    for suffix in reversed(SIDECARS):
        (tmp_path / f"a.b{suffix}").touch()
        assert find_sidecar(media) == tmp_path / f"a.b{suffix}"
