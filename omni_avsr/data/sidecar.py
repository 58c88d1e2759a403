"""Transcripts that lie beside media: plain text, subtitles, and JSON as whisper and this project write it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omni_avsr.errors import DataError

GAP = 1.0  # seconds of silence that end a sentence
LONGEST = 15.0  # seconds; a sentence is not joined beyond this
TIME = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{2})(?:[.,](\d{1,3}))?\s*$")
VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
MARKUP = re.compile(r"<[^>]*>|\{\\[^}]*\}")
NOT_SPOKEN = re.compile(r"\[[^\]]*\]|[♪♫]+")


@dataclass(frozen=True)
class Span:
    """Words with their time in the media; `end` None = to its end."""

    text: str
    start: float = 0.0
    end: float | None = None
    speaker: str = ""


def read_sidecar(path: Path) -> list[Span]:
    """The sentences of a transcript file; its suffix is a row of `SIDECARS`.

    Raises:
        DataError: it cannot be read, or a line of it has no sense; names the file and the line.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"transcript '{path}' cannot be read as UTF-8 text: {error}") from None
    return SIDECARS[path.suffix.lower()](text, str(path))


def find_sidecar(media: Path) -> Path | None:
    """The transcript beside `media` with the same stem, the most precise kind first; None without one."""
    return next((p for p in map(media.with_suffix, SIDECARS) if p.is_file()), None)


def sentences(cues: Sequence[Span]) -> list[Span]:
    """Subtitle cues joined to sentences: until a full stop, a pause, another speaker, or 15 s."""
    joined: list[Span] = []
    open_sentence = False
    for cue in cues:
        before = joined[-1] if open_sentence else None
        if before is not None and before.end is not None and cue.end is not None:
            near = cue.start - before.end <= GAP and cue.end - before.start <= LONGEST
            if near and cue.speaker == before.speaker:
                joined[-1] = replace(before, text=f"{before.text} {cue.text}", end=max(cue.end, before.end))
                open_sentence = not _ends(cue.text)
                continue
        joined.append(cue)
        open_sentence = not _ends(cue.text)
    return joined


# ---- formats -----------------------------------------------------------------------------------


def _txt(text: str, where: str) -> list[Span]:
    return [Span(" ".join(text.split()))]


def _subtitles(text: str, where: str) -> list[Span]:
    """SubRip and WebVTT: blocks between blank lines; what stands above the time line is an index or a name."""
    cues = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.strip().split("\n")
        at = next((i for i, line in enumerate(lines) if "-->" in line), None)
        if at is None:
            continue  # header, NOTE, STYLE
        left, _, right = lines[at].partition("-->")
        start, end = _seconds(left, where), _seconds(right.split()[0] if right.split() else "", where)
        said = "\n".join(lines[at + 1 :])
        voice = VOICE.search(said)
        words = _spoken(said)
        if words and end > start:
            cues.append(Span(words, start, end, html.unescape(voice[1]).strip() if voice else ""))
    return sentences(sorted(cues, key=lambda cue: cue.start))


def _json(text: str, where: str) -> list[Span]:
    try:
        tree: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"transcript '{where}' is not JSON: {error}") from None
    segments = tree.get("segments") if isinstance(tree, dict) else tree
    if isinstance(segments, list) and all(isinstance(s, dict) and "text" in s for s in segments) and segments:
        try:
            return [_segment(s) for s in segments if str(s["text"]).strip()]
        except (TypeError, ValueError) as error:
            raise DataError(f"transcript '{where}': a segment's start or end is no number: {error}") from None
    if isinstance(tree, dict) and isinstance(tree.get("text"), str):
        return _txt(tree["text"], where)
    raise DataError(f"transcript '{where}': expected an object with 'text', or 'segments' with start, end and text")


SIDECARS: dict[str, Callable[[str, str], list[Span]]] = {
    ".json": _json,
    ".vtt": _subtitles,
    ".srt": _subtitles,
    ".txt": _txt,
}


# ---- small parts -------------------------------------------------------------------------------


def _segment(segment: dict[str, Any]) -> Span:
    end = segment.get("end")
    return Span(
        " ".join(str(segment["text"]).split()),
        float(segment.get("start") or 0.0),
        None if end is None else float(end),
        str(segment.get("speaker") or ""),
    )


def _seconds(stamp: str, where: str) -> float:
    match = TIME.match(stamp.strip())
    if match is None:
        raise DataError(f"transcript '{where}': '{stamp.strip()}' is no time; expected 00:00:01,000 or 00:01.000")
    hours, minutes, seconds, fraction = match.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + int((fraction or "0").ljust(3, "0")) / 1000


def _spoken(cue: str) -> str:
    """A cue's words: no tags, no [sounds], no dash before a speaker's turn."""
    plain = NOT_SPOKEN.sub(" ", MARKUP.sub("", cue))
    lines = (re.sub(r"^\s*[-–—]\s+", "", line) for line in plain.split("\n"))
    return " ".join(html.unescape(" ".join(lines)).split())


def _ends(text: str) -> bool:
    return text.rstrip("\"'”’)»").endswith((".", "?", "!", "。", "？", "！"))
