"""What the CTC heads think of an answer while it grows: hybrid CTC/attention decoding (Watanabe et al., 2017).

A head gives the probability that a text begins in a certain way, summed over all its alignments and all that may
follow. Added to the LLM's log-probabilities it keeps a search with few beams from losing what was heard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from omni_avsr.model.ctc import BLANK, CtcHeads
from omni_avsr.types import Encoded

SURE = 1e-3  # nats a unit; less doubt than that is none
LEAST = -1e9  # log-probability of what does not fit into the frames; a sum of such is still a number


@dataclass(frozen=True)
class _Read:
    """How one head reads the beginning of a text.

    Attributes:
        label: (N + 1,) log-probability that the first n frames are exactly this text and end with its last unit.
        blank: (N + 1,) the same, but end with a blank.
        units: of the text.
        score: log-probability that the frames begin with this text.
    """

    label: np.ndarray
    blank: np.ndarray
    units: tuple[int, ...] = ()
    score: float = 0.0


@dataclass(frozen=True)
class Beginning:
    """The beginning of an answer, as all heads read it; `score` is their weighted sum."""

    reads: tuple[_Read, ...] = ()
    score: float = 0.0


class Spelling:
    """The heads' view of one row.

    Args:
        log_probs: one (N, units + 1) float array per head; class 0 is the blank.
        spell: one function per head: tokens of an answer -> its classes, no blanks.
        weight: factor of the surest head's log-probability beside the LLM's. A head that doubts k times as much, by
            the log-probability of its best path for each unit that it spells, counts a k-th of that: an ear in noise,
            or an eye that does not know the face (inverse entropy weighting, Misra et al., 2003). For each unit, since
            a head of letters has more occasions to doubt than one of words.
    """

    def __init__(
        self, log_probs: Sequence[np.ndarray], spell: Sequence[Callable[[Sequence[int]], list[int]]], weight: float
    ) -> None:
        self._log_probs, self._spell = list(log_probs), list(spell)
        doubts = [max(SURE, _doubt(frames)) for frames in log_probs]
        self._weights = [weight * min(doubts) / doubt for doubt in doubts]

    def nothing(self) -> Beginning:
        """Before the first token."""
        return Beginning(tuple(_nothing(frames) for frames in self._log_probs))

    def longer(self, before: Sequence[Beginning], tokens: Sequence[Sequence[int]]) -> list[Beginning]:
        """Each beginning with another token.

        Args:
            before: M of them.
            tokens: all tokens of each, the new one included.
        """
        heads = [
            _spelled(frames, [b.reads[head] for b in before], [tuple(spell(text)) for text in tokens])
            for head, (frames, spell) in enumerate(zip(self._log_probs, self._spell, strict=True))
        ]
        reads = zip(*heads, strict=True)
        return [Beginning(own, self._sum([read.score for read in own])) for own in reads]

    def whole(self, text: Beginning) -> float:
        """The score of `text` if nothing follows."""
        exact = (np.logaddexp(read.label[-1], read.blank[-1]) for read in text.reads)
        return self._sum([max(LEAST, float(score)) for score in exact])

    def _sum(self, scores: Sequence[float]) -> float:
        return sum(weight * score for weight, score in zip(self._weights, scores, strict=True))


def spellings(heads: CtcHeads, encoded: Mapping[str, Encoded], weight: float) -> list[Spelling] | None:
    """One per row of `encoded`; None where no stream of it has a head.

    Args:
        encoded: the streams to be asked, all with the same B rows.
    """
    asked = [modality for modality in encoded if modality in heads]
    log_probs = {m: heads.log_probs(encoded[m], m).double().cpu().numpy() for m in asked}
    lengths = {m: encoded[m].lengths.tolist() for m in asked}
    rows = len(next(iter(encoded.values())).lengths)
    spell = [heads.spell(modality) for modality in asked]
    made = [Spelling([log_probs[m][row, : lengths[m][row]] for m in asked], spell, weight) for row in range(rows)]
    return made if asked else None


def _doubt(log_probs: np.ndarray) -> float:
    """(N, C) -> nats a unit that the best path spells."""
    units = sum(best != BLANK for best, _ in groupby(log_probs.argmax(1).tolist()))
    return -float(log_probs.max(1).sum()) / max(1, units)


# ---- the forward algorithm over prefixes -------------------------------------------------------


def _nothing(log_probs: np.ndarray) -> _Read:
    blank = np.concatenate([[0.0], np.cumsum(log_probs[:, BLANK])])
    return _Read(np.full(len(blank), -np.inf), blank)


def _spelled(log_probs: np.ndarray, before: Sequence[_Read], texts: Sequence[tuple[int, ...]]) -> list[_Read]:
    """(N, C), M beginnings and the units of M longer ones -> these; unit by unit, all that need one together."""
    reads = list(before)
    new = [text[len(read.units) :] for read, text in zip(before, texts, strict=True)]
    for place in range(max(map(len, new), default=0)):
        rows = [i for i, units in enumerate(new) if len(units) > place]
        units = [new[i][place] for i in rows]
        for row, read in zip(rows, _extended(log_probs, [reads[i] for i in rows], units), strict=True):
            reads[row] = read
    return reads


def _extended(log_probs: np.ndarray, reads: Sequence[_Read], units: Sequence[int]) -> list[_Read]:
    """M beginnings, each with one unit more."""
    label, blank = (np.stack([getattr(read, name) for read in reads], 1) for name in ("label", "blank"))  # (N + 1, M)
    again = np.array([bool(read.units) and read.units[-1] == unit for read, unit in zip(reads, units, strict=True)])
    # the text so far is over: by a blank, or, if the new unit is another one, by its last unit too
    over = np.logaddexp(blank, np.where(again, -np.inf, label))[:-1]
    said, rest = log_probs[:, list(units)], log_probs[:, BLANK]  # (N, M), (N,)
    longer, quiet = np.full_like(label, -np.inf), np.full_like(blank, -np.inf)
    for n in range(len(log_probs)):
        longer[n + 1] = said[n] + np.logaddexp(longer[n], over[n])
        quiet[n + 1] = rest[n] + np.logaddexp(longer[n], quiet[n])
    begins = np.maximum(LEAST, np.logaddexp.reduce(over + said, axis=0))
    return [
        _Read(longer[:, i], quiet[:, i], (*read.units, unit), float(begins[i]))
        for i, (read, unit) in enumerate(zip(reads, units, strict=True))
    ]
