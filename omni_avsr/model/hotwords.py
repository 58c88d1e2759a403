"""Words that are expected: the search prefers them where the model is in doubt.

Shallow fusion with a tree of token sequences: each token that goes on with an expected word is worth `bonus` more, and
what was given to a word that is then not finished is taken back. It works with every model, since it asks nothing of
the LLM; a word that the model finds impossible stays unsaid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

BONUS = 2.0  # natural log, per token: a word seven times less likely than its rival ties with it


@dataclass
class _Branch:
    """How expected words go on behind a sequence of tokens."""

    following: dict[int, _Branch] = field(default_factory=dict)
    whole: bool = False  # a word ends here

    def grow(self, tokens: Sequence[int]) -> None:
        """Adds a word."""
        branch = self
        for token in tokens:
            branch = branch.following.setdefault(token, _Branch())
        branch.whole = True


class Hotwords:
    """What the next token is worth besides its probability.

    Args:
        words: words or phrases, as they are written in transcripts.
        encode: text to tokens, as the LLM writes them.
        bonus: per token of an expected word.
    """

    def __init__(self, words: Sequence[str], encode: Callable[[str], list[int]], bonus: float = BONUS) -> None:
        self._bonus = bonus
        self._opening, self._root = _Branch(), _Branch()  # at the beginning of a text, and after other words
        for word in words:
            alone = encode(word)
            self._opening.grow(alone)
            self._root.grow(encode(f"{word} {word}")[len(alone) :])  # behind another one, whatever tells words apart

    def worth(self, tokens: Sequence[int]) -> tuple[float, dict[int, float]]:
        """What is added to the log-probability of any token after `tokens`, and of those for which it is another."""
        branch, pending = self._opening, 0.0
        for token in tokens:
            if token in branch.following:
                branch = branch.following[token]
                pending = 0.0 if branch.whole else pending + self._bonus
            else:
                branch = self._root.following.get(token, self._root)
                pending = 0.0 if branch is self._root or branch.whole else self._bonus
        others = dict.fromkeys(self._root.following, self._bonus - pending)
        return -pending, others | dict.fromkeys(branch.following, self._bonus)
