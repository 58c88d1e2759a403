"""How far chance may have moved an error rate, or the difference of two: paired bootstrap over seeds and utterances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def crosses_zero(self) -> bool:
        """Whether the sign of the number is in doubt."""
        return self.low <= 0 <= self.high


def rate(errors: np.ndarray, words: np.ndarray) -> Estimate:
    """Error rate in per cent.

    Args:
        errors: (seeds, utterances) errors.
        words: (utterances,) words of the references.
    """
    sampled = _sampled(errors.astype(float), words)
    return _estimate(100 * errors.sum() / (len(errors) * words.sum()), 100 * sampled)


def difference(ours: np.ndarray, theirs: np.ndarray, words: np.ndarray) -> Estimate:
    """Error rate of `ours` less that of `theirs`, in points; the same seeds and utterances are drawn for both.

    Args:
        ours, theirs: (seeds, utterances) errors, row by row of the same seed.
        words: (utterances,) words of the references.
    """
    return rate(ours.astype(float) - theirs, words)


def _sampled(errors: np.ndarray, words: np.ndarray) -> np.ndarray:
    """(RESAMPLES,) rates: seeds and utterances drawn with replacement."""
    seeds, utterances = errors.shape
    rng = np.random.default_rng(0)
    rows = rng.integers(0, seeds, (RESAMPLES, seeds))
    columns = rng.integers(0, utterances, (RESAMPLES, utterances))
    # an utterance's errors, summed over the drawn seeds, count as often as the utterance was drawn
    seed_counts = np.stack([np.bincount(row, minlength=seeds) for row in rows])  # (R, seeds)
    counts = np.stack([np.bincount(column, minlength=utterances) for column in columns])  # (R, utterances)
    return np.einsum("rs,su,ru->r", seed_counts, errors, counts) / (seeds * (counts @ words))


def _estimate(value: float, sampled: np.ndarray) -> Estimate:
    low, high = np.percentile(sampled, (2.5, 97.5))
    return Estimate(float(value), float(low), float(high))
