"""Speech that was cut, made whole: the words of windows that overlap, each once."""

from __future__ import annotations

from collections.abc import Sequence

from omni_avsr.transcribe.words import Timed

SAME = 0.5  # of the shorter one's length, by which two equal words overlap that are one


def stitched(left: Sequence[Timed], right: Sequence[Timed], cut: float) -> tuple[tuple[Timed, ...], tuple[Timed, ...]]:
    """What is kept of two windows that overlap around `cut` seconds.

    Words that both windows have at the same time are one word: the seam lies at the one nearest to the cut. Where
    they have none in common, each keeps what it has on its side of the cut.
    """
    same = [
        (i, j)
        for i, one in enumerate(left)
        for j, other in enumerate(right)
        if _plain(one) == _plain(other) and _overlap(one, other) >= SAME
    ]
    if same:
        i, j = min(same, key=lambda pair: abs(left[pair[0]].middle + right[pair[1]].middle - 2 * cut))
        return tuple(left[: i + 1]), tuple(right[j + 1 :])
    return tuple(w for w in left if w.middle < cut), tuple(w for w in right if w.middle >= cut)


def _overlap(one: Timed, other: Timed) -> float:
    shorter = max(min(one.end - one.start, other.end - other.start), 1e-3)
    return (min(one.end, other.end) - max(one.start, other.start)) / shorter


def _plain(word: Timed) -> str:
    return "".join(c for c in word.said.text.lower() if c.isalnum()) or word.said.text
