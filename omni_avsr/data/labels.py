"""What a `Listener` adds to a corpus: transcripts where there are none, and doubts where there are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

import jiwer
import numpy as np

from omni_avsr.data.corpora import Dropped
from omni_avsr.data.intake import sound_of
from omni_avsr.data.journal import Journal
from omni_avsr.data.listener import Listener
from omni_avsr.data.manifest import Row
from omni_avsr.data.mouth_store import read_store, to_float
from omni_avsr.data.normalize import basic
from omni_avsr.data.sidecar import Span
from omni_avsr.errors import DataError, InputError
from omni_avsr.media.reader import open_media

HEARD = "heard.jsonl"  # journal of what listeners said, beside the manifest


class Ear:
    """A listener with a memory on disk: no sound is recognised twice.

    Args:
        listener: what recognises.
        out: folder of the preparation.
    """

    def __init__(self, listener: Listener, out: Path) -> None:
        self._listener, self._out = listener, out
        self.labelled: set[str] = set()  # ids of the rows whose transcript is the listener's own

    @cached_property
    def _journal(self) -> Journal:
        return Journal(self._out / HEARD)

    def label(self, found: Iterable[Row | Dropped]) -> Iterator[Row | Dropped]:
        """`found`, with each row that has no transcript replaced by the sentences that are heard in its file."""
        for item in found:
            if isinstance(item, Dropped) or item.text.strip():
                yield item
                continue
            try:
                spans = self._spans(item)
            except (InputError, DataError) as error:
                yield Dropped(item.id, str(item.media), str(error))
                continue
            if not spans:
                yield Dropped(item.id, str(item.media), f"{self._listener.name} hears no speech in it", "speech")
            for span in spans:
                start = round(item.start + span.start, 3)
                end = item.end if span.end is None else round(item.start + span.end, 3)
                row = replace(item, id=f"{item.id}-{round(start * 1000):08d}", text=span.text, start=start, end=end)
                self.labelled.add(row.id)
                yield row

    def disagreement(self, row: Row) -> tuple[float, str]:
        """Word error rate of what is heard against the transcript, 0 and up, and what is heard.

        Raises:
            InputError, DataError: the row's sound cannot be read.
        """
        heard = " ".join(span.text for span in self._spans(row))
        reference = basic(row.text)
        return (float(jiwer.wer(reference, basic(heard))) if reference else 0.0), heard

    def _spans(self, row: Row) -> list[Span]:
        key = f"{self._listener.name} {_digest(row)}"
        if key not in self._journal:
            self._journal.put(key, [asdict(span) for span in self._listener(sound(row))])
        return [Span(**span) for span in self._journal[key]]


def sound(row: Row) -> np.ndarray:
    """(S,) float32 at 16 kHz of a row; empty where it is mute."""
    if row.mouths is not None:
        stored = read_store(row.mouths, video=False).audio
        return np.zeros(0, np.float32) if stored is None else to_float(stored)
    with open_media(row.media) as media:
        heard = sound_of(row, media)
    return np.zeros(0, np.float32) if heard is None else heard


def _digest(row: Row) -> str:
    """Which sound it is: the file by name and size, and the stretch."""
    source = row.audio or row.media
    what = (source.name, source.stat().st_size, row.start, row.end)
    return hashlib.sha256(repr(what).encode()).hexdigest()[:24]
