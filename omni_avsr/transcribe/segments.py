"""From recognised windows to segments: words get their times, cut speech is joined, and qualities are written down."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from omni_avsr.tasks import TASKS
from omni_avsr.transcribe.agreement import flags
from omni_avsr.transcribe.perception import Planned
from omni_avsr.transcribe.recognition import Recognised
from omni_avsr.transcribe.stitch import stitched
from omni_avsr.transcribe.words import Timed, timed_words
from omni_avsr.types import Segment, Word

DIGITS = {"probability": 4, "agreement": 3}  # after the point; more would be noise


@dataclass(frozen=True)
class Piece:
    """A window with what was recognised in it."""

    planned: Planned
    rates: Mapping[str, int]
    recognised: Recognised
    words: tuple[Timed, ...]


def piece(planned: Planned, rates: Mapping[str, int], recognised: Recognised) -> Piece:
    """The words timed by the streams that the task perceives."""
    window, modalities = planned.window, TASKS[planned.task].modalities
    crops, found = (window.crops, window.found) if "video" in modalities else (None, None)
    audio = window.audio if "audio" in modalities else None
    return Piece(planned, rates, recognised, timed_words(recognised.words, window.start, audio, crops, found))


def joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The pieces with every word once, where windows overlap; a window that was cut is held back until the next."""
    held: list[Piece] = []
    for right in _by_cuts(pieces):
        before, after = _cuts(right[0])
        if held and before == _cuts(held[0])[1]:
            assert before is not None
            held, right = _joined(held, right, before)
        yield from held
        held = right if after is not None else []
        if after is None:
            yield from right
    yield from held


def _cuts(piece: Piece) -> tuple[float | None, float | None]:
    return piece.planned.window.cut_before, piece.planned.window.cut_after


def _by_cuts(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """The pieces between the same two cuts together: the turns of several people. What was not cut goes on at once."""
    held: list[Piece] = []
    for each in pieces:
        if held and _cuts(each) != _cuts(held[0]):
            yield held
            held = []
        held.append(each)
        if _cuts(each) == (None, None):
            yield held
            held = []
    if held:
        yield held


def _joined(left: list[Piece], right: list[Piece], cut: float) -> tuple[list[Piece], list[Piece]]:
    """Both without what the other keeps. The words of all turns are joined as one text and stay in their turn."""
    ends, begins = stitched([w for p in left for w in p.words], [w for p in right for w in p.words], cut)
    kept = {id(word) for word in (*ends, *begins)}  # two windows may have equal words
    own = [[replace(p, words=tuple(w for w in p.words if id(w) in kept)) for p in side] for side in (left, right)]
    return own[0], own[1]


def segment(piece: Piece, number: int, with_words: bool) -> Segment:
    """A piece with words as a segment, from its first word to its last."""
    window, words, hypothesis = piece.planned.window, piece.words, piece.recognised.hypothesis
    whole = len(words) == len(piece.recognised.words)
    return Segment(
        id=number,
        start=words[0].start,
        end=words[-1].end,
        text=" ".join(word.said.text for word in words),
        tokens=hypothesis.tokens if whole else tuple(token for word in words for token in word.said.tokens),
        avg_logprob=hypothesis.avg_logprob,
        words=tuple(_word(word) for word in words) if with_words else None,
        speaker=window.speaker,
        no_speech_prob=round(1 - window.voice_share, 3) if "audio" in piece.rates else 0.0,
        av=_av(piece),
    )


def _word(word: Timed) -> Word:
    probability = round(word.said.probability, DIGITS["probability"])
    return Word(word.start, word.end, f" {word.said.text}", probability)


def _av(piece: Piece) -> dict[str, Any]:
    """What only this project knows of a segment."""
    window, rates, words = piece.planned.window, piece.rates, [word.said for word in piece.words]
    votes = [word.agreement for word in words if word.agreement is not None]
    return {
        "task": piece.planned.task,
        "audio_rate": rates.get("audio"),
        "video_rate": rates.get("video"),
        "face_share": None if window.crops is None else round(window.face_share, 3),
        "audio_tokens": piece.recognised.tokens.get("audio", 0),
        "video_tokens": piece.recognised.tokens.get("video", 0),
        "window": [round(window.start, 3), round(window.end, 3)],
        "audio": None if window.hearing is None else _rounded(asdict(window.hearing)),
        "video": None if window.sight is None else _rounded(asdict(window.sight)),
        "agreement": round(sum(votes) / len(votes), DIGITS["agreement"]) if votes else None,
        "word_agreement": [round(vote, DIGITS["agreement"]) for vote in votes] or None,
        "flags": flags(words),
    }


def _rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 3) for name, value in values.items()}
