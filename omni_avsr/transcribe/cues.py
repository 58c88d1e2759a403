"""From segments to cues: what is on the screen from when to when, laid out as whisper lays out its subtitles."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from omni_avsr.errors import ConfigError

if TYPE_CHECKING:  # types imports torch; the command line needs only the names
    from omni_avsr.types import Segment, Transcript, Word

ANY_WIDTH = ANY_NUMBER = 1000  # whisper's stand-ins for "no limit"
PAUSE = 3.0  # seconds between the beginnings of two words after which a cue that may span segments ends


@dataclass(frozen=True)
class Lines:
    """How words fill lines and lines fill cues: whisper's options. Only segments with word times obey them."""

    max_line_width: int | None = None
    """Characters in a line; None = no limit."""
    max_line_count: int | None = None
    """Lines in a cue; with `max_line_width`, cues no longer end where segments do."""
    max_words_per_line: int | None = None
    """Words in a cue; without effect where both limits above are set."""
    highlight_words: bool = False
    """One cue per word, in which that word is underlined."""

    def __post_init__(self) -> None:
        for name in ("max_line_width", "max_line_count", "max_words_per_line"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} = {value}: it must be at least 1")

    @property
    def keeps_segments(self) -> bool:
        """Whether every segment begins a cue."""
        return self.max_line_width is None or self.max_line_count is None


WHOLE = Lines()  # one cue per segment, on one line


@dataclass(frozen=True)
class Cue:
    """One subtitle: what is shown from `start` to `end` seconds, and who says it, where known."""

    start: float
    end: float
    text: str
    speaker: str | None = None


def cues(transcript: Transcript, lines: Lines = WHOLE) -> Iterator[Cue]:
    """The cues of a transcript, in order; timed by their words where words are known, as whisper does."""
    page = _Page(lines)
    for segment in transcript.segments:
        if segment.words:
            for number, word in enumerate(segment.words):
                begins = number % (lines.max_words_per_line or ANY_NUMBER) == 0
                yield from page.add(word, segment.speaker, begins)
        else:
            yield from page.turn()
            yield Cue(segment.start, segment.end, shown(segment), segment.speaker)
    yield from page.turn()


def shown(segment: Segment) -> str:
    """The text of a segment on one line, without the arrow that would be read as a timing."""
    return one_line(segment.text).replace("-->", "->")


def one_line(text: str) -> str:
    """`text` without the line breaks that would end a line, a row or a cue."""
    return re.sub(r"\s*[\r\n]+\s*", " ", text).strip()


# ---- layout ----------------------------------------------------------------------------------


@dataclass
class _Page:
    """The cue that is being filled."""

    lines: Lines
    words: list[Word] = field(default_factory=list)  # as shown: a line break stands before the first of a line
    speaker: str | None = None
    width: int = 0  # characters in the last line
    count: int = 1  # lines
    last: float | None = None  # seconds at which the word before began

    def add(self, word: Word, speaker: str | None, begins: bool) -> Iterator[Cue]:
        """Places a word; gives the cues that end before it. `begins`: a segment, or its next few words, begin here."""
        pause = self.last is not None and not self.lines.keeps_segments and word.start - self.last > PAUSE
        ends = bool(self.words) and (speaker != self.speaker or (begins and self.lines.keeps_segments))
        fits = self.width + len(word.word) <= (self.lines.max_line_width or ANY_WIDTH)
        self.last = word.start
        if self.width > 0 and fits and not pause and not ends:
            self.width += len(word.word)
        else:
            full = self.lines.max_line_count is not None and (pause or self.count >= self.lines.max_line_count)
            text = word.word.strip()
            if ends or (self.words and full):
                yield from self.turn()
            elif self.width > 0:
                self.count += 1
                text = f"\n{text}"
            word = replace(word, word=text)
            self.width = len(text.strip())
        self.words.append(word)
        self.speaker = speaker

    def turn(self) -> Iterator[Cue]:
        """The cues of what was placed; then the page is empty."""
        words, speaker = self.words, self.speaker
        self.words, self.width, self.count = [], 0, 1
        if not words:
            return
        texts = [word.word.replace("-->", "->") for word in words]
        if not self.lines.highlight_words:
            yield Cue(words[0].start, words[-1].end, "".join(texts), speaker)
            return
        shown_until = words[0].start
        for number, word in enumerate(words):
            if round(1000 * shown_until) != round(1000 * word.start):
                yield Cue(shown_until, word.start, "".join(texts), speaker)
            marked = re.sub(r"^(\s*)(.*)$", r"\1<u>\2</u>", texts[number])
            yield Cue(word.start, word.end, "".join([*texts[:number], marked, *texts[number + 1 :]]), speaker)
            shown_until = word.end
