"""Error rates of a set of utterances, their counts, and how far chance may have moved them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import jiwer
import numpy as np

from omni_avsr.errors import DataError

Kind = Literal["equal", "substitute", "delete", "insert"]
RESAMPLES = 1000  # of the bootstrap


@dataclass(frozen=True)
class Counts:
    """Edits of one utterance or of many."""

    substitutions: int
    deletions: int
    insertions: int
    length: int  # words or characters of the reference

    @property
    def errors(self) -> int:
        """Edits that turn the hypothesis into the reference."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per unit of the reference, a fraction that may exceed 1.

        An empty reference counts as one unit, so that words invented in silence are seen.
        """
        return self.errors / max(self.length, 1)


@dataclass(frozen=True)
class ErrorRates:
    """Word and character errors over a test set."""

    words: Counts
    characters: Counts
    utterances: tuple[Counts, ...]  # word edits, one per utterance
    interval: tuple[float, float]  # 95 % bootstrap interval of the word error rate


@dataclass(frozen=True)
class Edit:
    """One step of a word alignment."""

    kind: Kind
    reference: str  # words, joined by spaces; empty for an insertion
    hypothesis: str  # empty for a deletion


def word_errors(references: Sequence[str], hypotheses: Sequence[str], seed: int = 0) -> ErrorRates:
    """Counts edits between normalised texts, line by line.

    Args:
        references: what was said.
        hypotheses: what was recognised, in the same order.
        seed: of the bootstrap over utterances.

    Raises:
        DataError: no texts, or not one hypothesis per reference.
    """
    if not references or len(references) != len(hypotheses):
        raise DataError(
            f"{len(references)} references and {len(hypotheses)} hypotheses; give one of each per utterance"
        )
    utterances = tuple(count_words(r, h) for r, h in zip(references, hypotheses, strict=True))
    characters = [_count_characters(r, h) for r, h in zip(references, hypotheses, strict=True)]
    return ErrorRates(total(utterances), total(characters), utterances, bootstrap(utterances, seed))


def count_words(reference: str, hypothesis: str) -> Counts:
    """Word edits of one utterance."""
    out = jiwer.process_words(reference, hypothesis)
    return Counts(out.substitutions, out.deletions, out.insertions, len(out.references[0]))


def _count_characters(reference: str, hypothesis: str) -> Counts:
    out = jiwer.process_characters(reference, hypothesis)
    return Counts(out.substitutions, out.deletions, out.insertions, len(out.references[0]))


def total(counts: Sequence[Counts]) -> Counts:
    """The sum of `counts`."""
    return Counts(
        sum(c.substitutions for c in counts),
        sum(c.deletions for c in counts),
        sum(c.insertions for c in counts),
        sum(c.length for c in counts),
    )


def bootstrap(counts: Sequence[Counts], seed: int = 0) -> tuple[float, float]:
    """95 % interval of the corpus error rate: utterances drawn with replacement (Bisani and Ney, 2004)."""
    errors = np.array([c.errors for c in counts])
    lengths = np.array([c.length for c in counts])
    generator = np.random.default_rng(seed)
    rates = np.empty(RESAMPLES)
    for i in range(RESAMPLES):  # one resample at a time: a big test set must not become a (1000, n) table
        drawn = generator.integers(0, len(counts), len(counts))
        rates[i] = errors[drawn].sum() / max(lengths[drawn].sum(), 1)
    low, high = np.percentile(rates, (2.5, 97.5))
    return float(low), float(high)


def difference(reference: str, hypothesis: str) -> list[Edit]:
    """The word alignment of two texts, equal stretches included."""
    out = jiwer.process_words(reference, hypothesis)
    said, heard = out.references[0], out.hypotheses[0]
    return [
        Edit(
            cast(Kind, chunk.type),
            " ".join(said[chunk.ref_start_idx : chunk.ref_end_idx]) if chunk.type != "insert" else "",
            " ".join(heard[chunk.hyp_start_idx : chunk.hyp_end_idx]) if chunk.type != "delete" else "",
        )
        for chunk in out.alignments[0]
    ]
