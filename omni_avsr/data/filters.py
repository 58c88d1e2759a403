"""Which prepared utterances are kept: a rule is a row of `FILTERS`, and says why it drops what it drops.

The share of frames with a face and the length are judged earlier (`intake`), before anything is stored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from omni_avsr.data.corpora import Dropped
from omni_avsr.data.intake import Outcome, PrepareOptions
from omni_avsr.data.labels import Ear
from omni_avsr.data.manifest import Row
from omni_avsr.errors import DataError, InputError
from omni_avsr.media.sync import BELIEVED, peak
from omni_avsr.types import FPS

logger = logging.getLogger(__name__)

ENOUGH = 9.0  # seconds of a file below which nothing is said about its lips and sound

Doubt = tuple[str, str]  # row id, reason


class Kept(NamedTuple):
    """An utterance that is a row so far."""

    row: Row
    outcome: Outcome


def sift(outcomes: Sequence[Outcome], options: PrepareOptions, ear: Ear | None) -> tuple[list[Row], list[Dropped]]:
    """What passes all filters, in its order, and what does not."""
    kept = [Kept(o.row, o) for o in outcomes if o.row is not None]
    dropped = [o.dropped for o in outcomes if o.dropped is not None]
    for name, judge in FILTERS.items():
        doubts = dict(judge(kept, options, ear))
        dropped += [Dropped(k.row.id, str(k.row.media), doubts[k.row.id], name) for k in kept if k.row.id in doubts]
        kept = [k for k in kept if k.row.id not in doubts]
    return [k.row for k in kept], dropped


def _mouth(kept: Sequence[Kept], options: PrepareOptions, ear: Ear | None) -> Iterator[Doubt]:
    for row, outcome in kept:
        width = outcome.mouth
        if width is not None and width < options.min_mouth:
            wanted = f"at least {options.min_mouth:g} are wanted (--min_mouth)"
            yield row.id, f"the mouth is {width:.0f} pixels wide in the video; {wanted}"


def _sync(kept: Sequence[Kept], options: PrepareOptions, ear: Ear | None) -> Iterator[Doubt]:
    """Judges a file by all of its utterances: one alone says too little."""
    if options.max_offset <= 0:
        return
    files: dict[str, list[Kept]] = {}
    for utterance in kept:
        if any(utterance.outcome.sync):
            files.setdefault(str(utterance.row.media), []).append(utterance)
    for some in files.values():
        found = peak(np.mean([k.outcome.sync for k in some], axis=0))
        if found is None or found.confidence < BELIEVED or sum(k.row.frames for k in some) < ENOUGH * FPS:
            continue
        if abs(found.seconds) > options.max_offset:
            late = "sound" if found.seconds > 0 else "picture"
            wanted = f"at most {options.max_offset:g} s is wanted (--max_offset)"
            reason = f"the {late} is {abs(found.seconds):.2f} s late (confidence {found.confidence:.2f}); {wanted}"
            yield from ((k.row.id, reason) for k in some)


def _agreement(kept: Sequence[Kept], options: PrepareOptions, ear: Ear | None) -> Iterator[Doubt]:
    if ear is None or options.max_wer >= 1:
        return
    for row, _ in kept:
        if row.text.strip() and row.id not in ear.labelled:
            try:
                wer, heard = ear.disagreement(row)
            except (InputError, DataError) as error:
                yield row.id, str(error)
                continue
            if wer > options.max_wer:
                wanted = f"at most {options.max_wer:g} is wanted (--max_wer)"
                yield row.id, f"WER {wer:.2f} between the transcript and what is heard, '{heard[:80]}'; {wanted}"


FILTERS: Mapping[str, Callable[[Sequence[Kept], PrepareOptions, Ear | None], Iterator[Doubt]]] = {
    "mouth": _mouth,
    "sync": _sync,
    "agreement": _agreement,
}
