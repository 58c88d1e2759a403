"""A guess of the whole answer, heard or lip-read by a CTC head, for the LLM to check instead of to write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import numpy as np

from omni_avsr.model.ctc import CtcHeads
from omni_avsr.model.llm import Tokenizer
from omni_avsr.types import Encoded

TRIES = 4  # places of the draft at which it may go on
LEXICON = 4096  # tokens up to which a vocabulary is taken for a list of the words that are spoken


class Draft:
    """A guessed text that goes on from wherever the real one has got to.

    Args:
        text: the guess.
        tokenizer: of the LLM.
    """

    def __init__(self, text: str, tokenizer: Tokenizer) -> None:
        self.text, self.tokenizer = text, tokenizer
        # a place to go on is a better one before a space or at the end than within a word
        self._within = np.array([not text[i:].startswith(" ") and i < len(text) for i in range(len(text) + 1)])

    def __call__(self, said: Sequence[int]) -> list[int]:
        """The tokens that should follow `said`, end of text included; empty where the guess does not fit.

        What was said instead of the guess takes the place of the part that resembles it most (edit distance), so one
        wrong word does not spoil those after it.
        """
        spoken = self.tokenizer.decode(said)
        distance = self._distances(spoken)
        for place in np.lexsort((self._within, distance))[:TRIES]:
            tokens = self.tokenizer.encode(spoken + self.text[place:])
            if tokens[: len(said)] == list(said):
                return [*tokens[len(said) :], self.tokenizer.eos_id]
        return []

    def _distances(self, spoken: str) -> np.ndarray:
        """(len(text) + 1,) edits between `spoken` and each beginning of the guess."""
        letters, place = np.array(list(self.text), dtype="<U1"), np.arange(len(self.text) + 1)
        row = place
        for letter in spoken:
            changed = np.minimum(row[:-1] + (letters != letter), row[1:] + 1)
            row = np.concatenate([row[:1] + 1, changed])
            row = np.minimum.accumulate(row - place) + place  # letters of the guess that were left out
        return row


def drafts(heads: CtcHeads, encoded: Mapping[str, Encoded], tokenizer: Tokenizer) -> list[Draft]:
    """The guess of each row of `encoded`, by the head that is surest of it.

    Args:
        heads: with a head for each modality of `encoded`.
        encoded: modality -> states (B, N, D); the streams that the rows' task perceives.
        tokenizer: of the LLM.
    """
    words = tokenizer.words if len(tokenizer) <= LEXICON else []
    guesses = {m: [spelled(t, words) for t in heads.text(states, m)] for m, states in encoded.items()}
    sure = {m: _certainty(heads, states, m) for m, states in encoded.items()}
    rows = range(len(next(iter(guesses.values()))))
    return [Draft(guesses[max(guesses, key=lambda m: sure[m][row])][row], tokenizer) for row in rows]


def spelled(text: str, words: Sequence[str]) -> str:
    """`text` with each word that is not among `words` replaced by the one most like it, where one is."""
    return " ".join((get_close_matches(word, words, n=1, cutoff=0.5) or [word])[0] for word in text.split())


def _certainty(heads: CtcHeads, states: Encoded, modality: str) -> list[float]:
    """The mean log-probability of the best path, per row."""
    best = heads.log_probs(states, modality).amax(-1) * states.mask
    return list((best.sum(1) / states.lengths.clamp(min=1)).tolist())
