"""Second opinions: the same weights by ear, by lips and by both, at the cheapest rates, and what their votes mean.

A language model writes fluent sentences whatever it hears. Of one that reads the same seconds in several ways, each
reading errs in its own way; where they say the same, it is most likely true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher

from omni_avsr.config import ModelConfig
from omni_avsr.tasks import TASKS
from omni_avsr.transcribe.words import Said

LOOP, LOOP_WORDS = 3, 6  # repetitions and words that make a loop; people do say 'no no no'
DOUBT = 0.1  # share of its probability that a word loses which no other reading has; measured, docs/calibration.md
ALONE = 0.2  # mean agreement below which a text is held to be made up

Witness = tuple[str, dict[str, int]]  # task, rates


def witnesses(config: ModelConfig, modalities: Sequence[str], task: str, rates: Mapping[str, int]) -> list[Witness]:
    """Every reading of these streams at the coarsest rates, but for the one that is made anyway."""
    out: list[Witness] = []
    for name in config.tasks:
        streams = TASKS[name].modalities
        coarse: dict[str, int] = {m: max(config.rates(m)) for m in streams}
        if set(streams) <= set(modalities) and (name, coarse) != (task, dict(rates)):
            out.append((name, coarse))
    return out


def judged(words: Sequence[Said], others: Sequence[str]) -> tuple[Said, ...]:
    """`words` with the share of the other texts that have each in its place, and doubted where they have not."""
    if not others:
        return tuple(words)
    votes = [0] * len(words)
    for other in others:
        matcher = SequenceMatcher(None, [word.text for word in words], other.split(), autojunk=False)
        for block in matcher.get_matching_blocks():
            for i in range(block.a, block.a + block.size):
                votes[i] += 1
    return tuple(
        replace(word, probability=doubted(word.alone, n / len(others)), agreement=n / len(others))
        for word, n in zip(words, votes, strict=True)
    )


def doubted(probability: float, agreement: float) -> float:
    """The probability of a word that this share of the other readings has too; disagreement only lowers it.

    Votes do not raise it: readings of one sound by one model err together. A mean of votes and probability was worse.
    """
    return probability * (1 - DOUBT * (1 - agreement))


def flags(words: Sequence[Said]) -> list[str]:
    """What is wrong with a text: 'loop', the same again and again; 'hallucination', hardly any other reading has it."""
    out = ["loop"] if loops([word.text for word in words]) else []
    known = [word.agreement for word in words if word.agreement is not None]
    return [*out, "hallucination"] if known and sum(known) / len(known) < ALONE else out


def loops(words: Sequence[str]) -> bool:
    """Do the same one to four words follow each other three times or more, and fill six words or more?"""
    for size in range(1, 5):
        span = max(LOOP * size, LOOP_WORDS)
        for start in range(len(words) - span + 1):
            part = words[start : start + span]
            if all(part[i] == part[i - size] for i in range(size, span)):
                return True
    return False
