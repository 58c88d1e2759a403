"""Which words of a growing hypothesis can be trusted already.

Local agreement (Liu et al. 2020; Macháček et al. 2023): a word stands once two successive hypotheses begin with the
same words up to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile


class Prefix:
    """The words that stand, and those that may still change. What stands is never taken back."""

    def __init__(self) -> None:
        self._stable: list[str] = []
        self._before: list[str] = []

    def update(self, words: Sequence[str]) -> tuple[str, str]:
        """Stable and tentative text after a new hypothesis of the whole stretch."""
        agreed = takewhile(lambda pair: pair[0] == pair[1], zip(self._before, words, strict=False))
        grown = [word for word, _ in agreed]
        if len(grown) > len(self._stable) and grown[: len(self._stable)] == self._stable:
            self._stable = grown
        self._before = list(words)
        return " ".join(self._stable), " ".join(words[len(self._stable) :])
