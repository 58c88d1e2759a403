"""The answers: a transcript in each of OpenAI's response formats, whole or as server-sent events."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from omni_avsr.transcribe.subtitles import WRITERS, segment_json
from omni_avsr.types import Segment, Transcript

Granularities = Collection[str]  # of 'segment', 'word'
UNSEEN = "unknown"  # the speaker of a voice that belongs to nobody in the picture


@dataclass(frozen=True)
class Format:
    """One `response_format`."""

    media_type: str
    write: Callable[[Transcript, Granularities], str]
    streams: bool = False
    face: str = "largest"  # whose lips are read where the request does not say


def as_json(transcript: Transcript, _: Granularities) -> str:
    """The text, and the tokens that were read and written for it."""
    return json.dumps({"text": transcript.text, "usage": tokens(transcript)})


def as_text(transcript: Transcript, _: Granularities) -> str:
    """One line."""
    return transcript.text + "\n"


def verbose_json(transcript: Transcript, granularities: Granularities) -> str:
    """Whisper's segments (the default), words, or both; what only this project knows is under `av`."""
    out: dict[str, Any] = {
        "task": "transcribe",
        "language": transcript.info.language,
        "duration": transcript.info.duration,
        "text": transcript.text,
    }
    if "word" in granularities:
        words = [word for segment in transcript.segments for word in segment.words or ()]
        out["words"] = [
            {"word": w.word.strip(), "start": round(w.start, 3), "end": round(w.end, 3), "probability": w.probability}
            for w in words
        ]
    if "segment" in granularities or not granularities:
        out["segments"] = [segment_json(segment) for segment in transcript.segments]
    return json.dumps(out | {"usage": {"type": "duration", "seconds": transcript.info.duration}})


def diarized_json(transcript: Transcript, _: Granularities) -> str:
    """Who said what: speakers are A, B, ... in the order in which they speak; `UNSEEN` is whoever is not seen."""
    speakers: dict[str, str] = {}
    return json.dumps(
        {
            "task": "transcribe",
            "duration": transcript.info.duration,
            "text": transcript.text,
            "segments": [diarized(segment, speakers) for segment in transcript.segments],
            "usage": tokens(transcript),
        }
    )


def diarized(segment: Segment, speakers: dict[str, str]) -> dict[str, Any]:
    """One segment of it.

    Args:
        segment: with or without a speaker.
        speakers: the letters of those who have spoken; grows.
    """
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{segment.id:03d}",
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "speaker": UNSEEN if segment.speaker is None else speakers.setdefault(segment.speaker, letter(len(speakers))),
    }


def letter(number: int) -> str:
    """A, B, ... Z, A2, B2, ... for 0, 1, ... 25, 26, 27, ..."""
    round, place = divmod(number, len(ascii_uppercase))
    return ascii_uppercase[place] + (str(round + 1) if round else "")


def tokens(transcript: Transcript) -> dict[str, Any]:
    """OpenAI's usage object; `video_tokens` stands beside `audio_tokens`."""
    read = {kind: sum(s.av.get(kind, 0) for s in transcript.segments) for kind in ("audio_tokens", "video_tokens")}
    written = sum(len(segment.tokens) for segment in transcript.segments)
    total = sum(read.values())
    return {
        "type": "tokens",
        "input_tokens": total,
        "output_tokens": written,
        "total_tokens": total + written,
        "input_token_details": read | {"text_tokens": 0},
    }


FORMATS: dict[str, Format] = {
    "json": Format("application/json", as_json, streams=True),
    "text": Format("text/plain; charset=utf-8", as_text, streams=True),
    "srt": Format("text/plain; charset=utf-8", lambda transcript, _: WRITERS["srt"](transcript)),
    "verbose_json": Format("application/json", verbose_json),
    "vtt": Format("text/vtt; charset=utf-8", lambda transcript, _: WRITERS["vtt"](transcript)),
    "diarized_json": Format("application/json", diarized_json, streams=True, face="all"),
}


# ---- events ------------------------------------------------------------------------------------


def event(data: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(data)}\n\n".encode()


class Narrator:
    """Segments as the events of a streamed answer.

    Args:
        response_format: with `diarized_json`, whole segments are told too.
    """

    def __init__(self, response_format: str) -> None:
        self._diarized = response_format == "diarized_json"
        self._speakers: dict[str, str] = {}
        self._said = False

    def segment(self, segment: Segment) -> bytes:
        """The text that came to the text before; all deltas together are the text."""
        delta: dict[str, Any] = {"type": "transcript.text.delta", "delta": " " * self._said + segment.text.strip()}
        self._said = True
        if not self._diarized:
            return event(delta)
        whole = diarized(segment, self._speakers)
        return event(delta | {"segment_id": whole["id"]}) + event(whole)

    def done(self, transcript: Transcript) -> bytes:
        """The end."""
        return event({"type": "transcript.text.done", "text": transcript.text, "usage": tokens(transcript)})
