"""The writers: a transcript as whisper's txt, srt, vtt, tsv or json, to the byte.

Every writer is a pure function from a transcript and the wished lines to text, and a row of `WRITERS`. `save` puts the
text on disk. Where speakers are known they are named: whisperX's `[A]: ` in txt and srt, its `speaker` in json, and
WebVTT's own voice tag in vtt.
"""

from __future__ import annotations

import json
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from omni_avsr.errors import ConfigError, nearest
from omni_avsr.transcribe.cues import WHOLE, Lines, cues, one_line

if TYPE_CHECKING:  # types imports torch; the command line needs only the names of the formats
    from omni_avsr.types import Segment, Transcript

MEL_FRAMES_PER_SECOND = 100  # whisper's `seek` counts these


def timestamp(seconds: float, always_hours: bool = False, decimal: str = ".") -> str:
    """[HH:]MM:SS.mmm; hours where they are not zero, or always."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours:02d}:" if always_hours or hours else ""
    return f"{head}{minutes:02d}:{milliseconds // 1000:02d}{decimal}{milliseconds % 1000:03d}"


# ---- the formats -----------------------------------------------------------------------------


def txt(transcript: Transcript, lines: Lines = WHOLE) -> str:
    """One segment a line."""
    return "".join(f"{spoken(s.speaker, one_line(s.text))}\n" for s in transcript.segments)


def srt(transcript: Transcript, lines: Lines = WHOLE) -> str:
    """SubRip: numbered from 1, hours always written, a comma before the milliseconds."""
    return "".join(
        f"{number}\n{timestamp(cue.start, True, ',')} --> {timestamp(cue.end, True, ',')}\n"
        f"{spoken(cue.speaker, cue.text)}\n\n"
        for number, cue in enumerate(cues(transcript, lines), start=1)
    )


def vtt(transcript: Transcript, lines: Lines = WHOLE) -> str:
    """WebVTT."""
    return "WEBVTT\n\n" + "".join(
        f"{timestamp(cue.start)} --> {timestamp(cue.end)}\n{voice(cue.speaker, cue.text)}\n\n"
        for cue in cues(transcript, lines)
    )


def tsv(transcript: Transcript, lines: Lines = WHOLE) -> str:
    """Start, end (whole milliseconds: no locale can break them) and text, between tabs."""
    rows = (
        f"{round(1000 * segment.start)}\t{round(1000 * segment.end)}\t{one_line(segment.text).replace(chr(9), ' ')}\n"
        for segment in transcript.segments
    )
    return "start\tend\ttext\n" + "".join(rows)


def as_json(transcript: Transcript, lines: Lines = WHOLE) -> str:
    """Whisper's result as JSON; what only this project knows is under the key `av` of each segment."""
    return json.dumps(
        {
            "text": transcript.text,
            "segments": [segment_json(segment) for segment in transcript.segments],
            "language": transcript.info.language,
        }
    )


def segment_json(segment: Segment) -> dict[str, Any]:
    """One segment under whisper's keys, plus whisperX's `speaker` where known, plus `av`."""
    text = segment.text.encode()
    out: dict[str, Any] = {
        "id": segment.id,
        "seek": round(segment.start * MEL_FRAMES_PER_SECOND),
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": 0.0,  # decoding never samples
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": len(text) / len(zlib.compress(text)),
        "no_speech_prob": segment.no_speech_prob,
    }
    if segment.words is not None:
        out["words"] = [
            {"word": w.word, "start": round(w.start, 3), "end": round(w.end, 3), "probability": w.probability}
            for w in segment.words
        ]
    if segment.speaker is not None:
        out["speaker"] = segment.speaker
    out["av"] = dict(segment.av)
    return out


def spoken(speaker: str | None, text: str) -> str:
    """`text` after its speaker's name, as whisperX writes it."""
    return text if speaker is None else f"[{speaker}]: {text}"


def voice(speaker: str | None, text: str) -> str:
    """`text` in WebVTT's voice tag."""
    return text if speaker is None else f"<v {speaker}>{text}</v>"


class Writer(Protocol):
    """A transcript as text."""

    def __call__(self, transcript: Transcript, lines: Lines = WHOLE) -> str:
        """The whole file."""


WRITERS: dict[str, Writer] = {"txt": txt, "vtt": vtt, "srt": srt, "tsv": tsv, "json": as_json}


# ---- files -----------------------------------------------------------------------------------


def formats(name: str) -> tuple[str, ...]:
    """The rows of `WRITERS` that `name` asks for; `all` asks for every one. Unknown: ConfigError."""
    if name == "all":
        return tuple(WRITERS)
    if name not in WRITERS:
        raise ConfigError(f"unknown output format '{name}'; {nearest(name, (*WRITERS, 'all'))}")
    return (name,)


def save(transcript: Transcript, folder: Path, stem: str, kinds: Sequence[str], lines: Lines = WHOLE) -> list[Path]:
    """Writes `folder/stem.kind` for every kind, UTF-8; each appears whole or not at all. Returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind in kinds:
        path = folder / f"{stem}.{kind}"
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            beside.write_text(WRITERS[kind](transcript, lines), encoding="utf-8", newline="\n")
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
        paths.append(path)
    return paths


def output_stems(sources: Sequence[Path]) -> list[str]:
    """A name for each source's outputs that no other source shares, whatever the order and the file system's case.

    The stem where it is alone, else the file name, else the path's last parts joined by '_'.
    """
    level = [0] * len(sources)
    deepest = max((len(source.parts) for source in sources), default=0) + 1
    for _ in range(deepest):
        names = [_name(source, n) for source, n in zip(sources, level, strict=True)]
        count = Counter(name.casefold() for name in names)
        if all(n == 1 for n in count.values()):
            break
        level = [n + (count[name.casefold()] > 1) for name, n in zip(names, level, strict=True)]
    return _numbered(_name(source, n) for source, n in zip(sources, level, strict=True))


def _name(source: Path, level: int) -> str:
    if level == 0:
        return source.stem
    return "_".join(part for part in source.parts[-level:] if part != source.anchor)


def _numbered(names: Iterator[str]) -> list[str]:
    # only the same path twice, or 'a/b.wav' beside 'a_b.wav', comes here undecided
    out: list[str] = []
    taken: set[str] = set()
    for name in names:
        unique, n = name, 2
        while unique.casefold() in taken:
            unique, n = f"{name}-{n}", n + 1
        taken.add(unique.casefold())
        out.append(unique)
    return out
