"""The writers against whisper's published formats, and against a reader of each format."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
import srt
import webvtt
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_avsr.errors import ConfigError
from omni_avsr.transcribe.cues import cues
from omni_avsr.transcribe.subtitles import WRITERS, formats, output_stems, save, timestamp
from omni_avsr.types import Segment, Transcript, TranscriptionInfo, Word

INFO = TranscriptionInfo(duration=7300.0, task="avsr", audio_rate=4, video_rate=2)
TALK = Transcript(
    (
        Segment(0, 0.0, 2.96, "bin blue at s zero now", (7, 8), -0.25, av={"task": "avsr", "audio_rate": 4}),
        Segment(1, 3661.5, 3663.0004, "a --> b\tc"),
    ),
    INFO,
)

texts = st.text(
    st.characters(categories=("L", "N", "P", "S", "Zs"), exclude_characters="\x85\u2028\u2029"), max_size=30
)


@st.composite
def transcripts(draw: st.DrawFn, texts: st.SearchStrategy[str] = texts) -> Transcript:
    clock, segments = 0, []
    for number, text in enumerate(draw(st.lists(texts, max_size=6))):
        start = clock + draw(st.integers(0, 4_000_000))
        clock = start + draw(st.integers(0, 30_000))
        segments.append(Segment(number, start / 1000, clock / 1000, text))
    return Transcript(tuple(segments), INFO)


def seconds(stamp: str) -> float:
    clock, _, milliseconds = stamp.replace(",", ".").partition(".")
    total = 0
    for part in clock.split(":"):
        total = 60 * total + int(part)
    return total + int(milliseconds) / 1000


def read_blocks(text: str) -> list[tuple[float, float, str]]:
    """A strict reader of what SRT and VTT share: a timing line, text lines, an empty line."""
    out = []
    for block in re.findall(r"(\S+) --> (\S+)\n(.*?)\n\n", text, flags=re.DOTALL):
        start, end, body = block
        out.append((seconds(start), seconds(end), body))
    return out


# ---- properties ------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(transcripts())
@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_cues_come_back_from_srt_and_vtt(kind: str, transcript: Transcript) -> None:
    back = read_blocks(WRITERS[kind](transcript))
    assert back == [(pytest.approx(c.start), pytest.approx(c.end), c.text) for c in cues(transcript)]


@settings(max_examples=40, deadline=None)
@given(transcripts(st.text("abcé ->&1", min_size=1).filter(str.strip)))
def test_a_third_party_reads_our_srt(transcript: Transcript) -> None:
    back = [(c.start.total_seconds(), c.end.total_seconds(), c.content) for c in srt.parse(WRITERS["srt"](transcript))]
    assert back == [(pytest.approx(c.start), pytest.approx(c.end), c.text) for c in cues(transcript)]


@settings(max_examples=40, deadline=None)
@given(transcripts(st.text("abcé ->1", min_size=1).filter(str.strip)))
def test_a_third_party_reads_our_vtt(transcript: Transcript) -> None:
    back = webvtt.from_string(WRITERS["vtt"](transcript)).captions
    expected = [(pytest.approx(c.start), pytest.approx(c.end), c.text) for c in cues(transcript)]
    assert [(seconds(c.start), seconds(c.end), c.text) for c in back] == expected


@settings(max_examples=40, deadline=None)
@given(transcripts())
def test_rows_come_back_from_tsv(transcript: Transcript) -> None:
    rows = list(csv.reader(io.StringIO(WRITERS["tsv"](transcript)), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert rows[0] == ["start", "end", "text"]
    for row, segment in zip(rows[1:], transcript.segments, strict=True):
        assert (int(row[0]), int(row[1])) == (round(segment.start * 1000), round(segment.end * 1000))
        assert row[2] == segment.text.strip()


@settings(max_examples=40, deadline=None)
@given(transcripts())
def test_json_comes_back(transcript: Transcript) -> None:
    result = json.loads(WRITERS["json"](transcript))
    assert list(result) == ["text", "segments", "language"]
    assert [s["text"] for s in result["segments"]] == [s.text for s in transcript.segments]
    assert result["text"] == transcript.text


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("abAB./", min_size=1, max_size=6).map(Path), max_size=6))
def test_no_two_sources_share_a_name(sources: list[Path]) -> None:
    names = [name.casefold() for name in output_stems(sources)]
    assert len(names) == len(sources) == len(set(names))


# ---- whisper's formats, to the byte ----------------------------------------------------------


def test_txt_is_whispers() -> None:
    assert WRITERS["txt"](TALK) == "bin blue at s zero now\na --> b\tc\n"


def test_srt_is_whispers() -> None:
    assert WRITERS["srt"](TALK) == (
        "1\n00:00:00,000 --> 00:00:02,960\nbin blue at s zero now\n\n2\n01:01:01,500 --> 01:01:03,000\na -> b\tc\n\n"
    )


def test_vtt_is_whispers() -> None:
    assert WRITERS["vtt"](TALK) == (
        "WEBVTT\n\n00:00.000 --> 00:02.960\nbin blue at s zero now\n\n01:01:01.500 --> 01:01:03.000\na -> b\tc\n\n"
    )


def test_tsv_is_whispers() -> None:
    assert WRITERS["tsv"](TALK) == "start\tend\ttext\n0\t2960\tbin blue at s zero now\n3661500\t3663000\ta --> b c\n"


def test_json_has_whispers_keys_and_ours_under_av() -> None:
    whisper = ["id", "seek", "start", "end", "text", "tokens"]
    whisper += ["temperature", "avg_logprob", "compression_ratio", "no_speech_prob"]
    first = json.loads(WRITERS["json"](TALK))["segments"][0]
    assert list(first) == [*whisper, "av"]
    assert first["tokens"] == [7, 8]
    assert first["av"] == {"task": "avsr", "audio_rate": 4}


def test_words_give_the_cue_its_times_and_json_its_words() -> None:
    words = (Word(0.5, 0.8, " bin", 0.9), Word(0.9, 1.25, " blue", 0.8))
    transcript = Transcript((Segment(0, 0.0, 3.0, "bin blue", words=words),), INFO)
    assert WRITERS["vtt"](transcript) == "WEBVTT\n\n00:00.500 --> 00:01.250\nbin blue\n\n"
    segment = json.loads(WRITERS["json"](transcript))["segments"][0]
    assert segment["words"][1] == {"word": " blue", "start": 0.9, "end": 1.25, "probability": 0.8}


@pytest.mark.parametrize("kind", WRITERS)
def test_silence_writes_a_valid_empty_file(kind: str) -> None:
    empty = {"txt": "", "srt": "", "vtt": "WEBVTT\n\n", "tsv": "start\tend\ttext\n"}
    text = WRITERS[kind](Transcript((), INFO))
    assert json.loads(text)["segments"] == [] if kind == "json" else text == empty[kind]


def test_timestamps_carry_into_minutes_and_hours() -> None:
    assert timestamp(59.9996) == "01:00.000"
    assert timestamp(3599.9999) == "01:00:00.000"
    assert timestamp(1.5, always_hours=True, decimal=",") == "00:00:01,500"


def test_line_breaks_in_a_segment_do_not_end_the_cue() -> None:
    transcript = Transcript((Segment(0, 0.0, 1.0, "one\n\ntwo"),), INFO)
    assert WRITERS["txt"](transcript) == "one two\n"
    assert WRITERS["srt"](transcript).endswith("\none two\n\n")


# ---- files -----------------------------------------------------------------------------------


def test_save_writes_utf8_and_leaves_nothing_beside(tmp_path: Path) -> None:
    transcript = Transcript((Segment(0, 0.0, 1.0, "señal ☂"),), INFO)
    paths = save(transcript, tmp_path / "new", "clip", formats("all"))
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(p.name for p in paths)
    assert [p.suffix[1:] for p in paths] == list(WRITERS)
    assert (tmp_path / "new" / "clip.txt").read_bytes() == "señal ☂\n".encode()


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clip.txt").write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        save(TALK, tmp_path, "clip", ("txt",))
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_unknown_format_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'srt'"):
        formats("str")


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["a.mp4", "b.mp4"], ["a", "b"]),
        (["a.mp4", "a.wav", "b.mp4"], ["a.mp4", "a.wav", "b"]),
        (["x/a.mp4", "y/a.mp4"], ["x_a.mp4", "y_a.mp4"]),
        (["x/A.mp4", "y/a.MP4"], ["x_A.mp4", "y_a.MP4"]),
        (["clip.mp4", "clip.mp4"], ["clip.mp4", "clip.mp4-2"]),
    ],
)
def test_equal_stems_get_longer_names(sources: list[str], names: list[str]) -> None:
    assert output_stems([Path(s) for s in sources]) == names
