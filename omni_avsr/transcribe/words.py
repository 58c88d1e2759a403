"""The clock of words: the most likely CTC path that spells a known text (forced alignment).

Graves et al. 2006, section 4.1, with the maximum in place of the sum. The text comes from the LLM; the CTC head
only says when each of its units is heard or seen.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from omni_avsr.model.omni import OmniAVSR
from omni_avsr.tasks import TASKS
from omni_avsr.types import Encoded, Word

log = logging.getLogger(__name__)

STAY, STEP, SKIP = 0, 1, 2  # how a path entered a state: from itself, from the one before, over a blank


@dataclass(frozen=True)
class Span:
    """The frames in which one unit is emitted, and how sure the head was of it there."""

    start: int
    end: int  # exclusive
    probability: float


def align(log_probs: np.ndarray, units: Sequence[int], blank: int = 0) -> list[Span] | None:
    """The frames of each unit on the best path.

    Args:
        log_probs: (T, V) float, natural log-probabilities of the CTC head.
        units: L unit ids to be spelled, without blanks.
        blank: id of the blank.

    Returns:
        L spans in order; None where T frames cannot spell L units (a repeated unit needs a blank between).
    """
    if not units:
        return []
    states = np.full(2 * len(units) + 1, blank)  # blank, u1, blank, u2, …, blank
    states[1::2] = units
    path = _best_path(np.asarray(log_probs, np.float64)[:, states], _skippable(states, blank))
    if path is None:
        return None
    spans = []
    for state in range(1, len(states), 2):
        frames = np.flatnonzero(path == state)
        certainty = np.exp(log_probs[frames, states[state]].max())
        spans.append(Span(int(frames[0]), int(frames[-1]) + 1, float(certainty)))
    return spans


def _skippable(states: np.ndarray, blank: int) -> np.ndarray:
    # (S,) bool: a unit may follow another one directly unless they are equal
    allowed = np.zeros(len(states), bool)
    allowed[2:] = (states[2:] != blank) & (states[2:] != states[:-2])
    return allowed


def _best_path(emission: np.ndarray, skippable: np.ndarray) -> np.ndarray | None:
    """(T,) state per frame of the best path through `emission` (T, S); None if the frames are too few."""
    frames, n_states = emission.shape
    if frames == 0:
        return None
    score = np.full(n_states, -np.inf)
    score[:2] = emission[0, :2]
    entered = np.zeros((frames, n_states), np.int8)
    reach = np.full((3, n_states), -np.inf)
    for t in range(1, frames):
        reach[STAY] = score
        reach[STEP, 1:] = score[:-1]
        reach[SKIP, 2:] = np.where(skippable[2:], score[:-2], -np.inf)
        entered[t] = reach.argmax(0)
        score = reach.max(0) + emission[t]
    state = n_states - 1 if score[-1] >= score[-2] else n_states - 2
    if not np.isfinite(score[state]):
        return None
    path = np.empty(frames, np.int64)
    for t in range(frames - 1, -1, -1):
        path[t] = state
        state -= int(entered[t, state])
    return path


def words(spans: Sequence[Span], labels: Sequence[int], texts: Sequence[str], frame: float, start: float) -> list[Word]:
    """Spans of units as words with times.

    Args:
        spans: one per unit.
        labels: for each unit, the index of its word in `texts`; -1 for a unit of no word (a space).
        texts: the words.
        frame: seconds per frame.
        start: seconds of frame 0.

    Returns:
        One `Word` per text; `word` begins with a space, as whisper's words do. A word that the head cannot spell has
        probability 0 and lies between its neighbours.
    """
    own = [[span for span, label in zip(spans, labels, strict=True) if label == i] for i in range(len(texts))]
    out: list[Word] = []
    for i, text in enumerate(texts):
        if own[i]:
            first, last = own[i][0].start, own[i][-1].end
            certainty = float(np.mean([span.probability for span in own[i]]))
        else:
            first = max((s.end for earlier in own[:i] for s in earlier), default=0)
            last = min((s.start for later in own[i + 1 :] for s in later), default=first)
            certainty = 0.0
        out.append(Word(start + first * frame, start + last * frame, f" {text}", certainty))
    return out


def spell(text: str, units_of: Callable[[str], list[int]]) -> tuple[list[int], list[int]]:
    """The units of `text`, and for each the index of its word; -1 for what stands between words.

    Args:
        text: words with single spaces.
        units_of: the head's spelling of any text. Where the beginning of the text up to a word is spelled as in the
            whole text, the word begins there; else at the end of the word before it, as with tokens that hold
            the space.
    """
    units = units_of(text)
    labels = [-1] * len(units)
    at = 0  # characters
    for index, word in enumerate(text.split()):
        at = text.index(word, at)
        before, through = units_of(text[:at]), units_of(text[: at + len(word)])
        begin = len(before) if before == units[: len(before)] else len(units_of(text[:at].rstrip()))
        for position in range(begin, min(len(through), len(units))):
            labels[position] = index
        at += len(word)
    return units, labels


@torch.inference_mode()
def word_times(
    model: OmniAVSR,
    encoded: Mapping[str, Encoded],
    texts: Sequence[str],
    tasks: Sequence[str],
    starts: Sequence[float],
) -> list[tuple[Word, ...] | None]:
    """The words of each row with their times: by the sound where the task hears, else by the lips.

    Args:
        model: with CTC heads.
        encoded: what its encoders made of B rows.
        texts: what was recognised in them.
        tasks: how.
        starts: seconds of the file at which the rows begin.

    Returns:
        B tuples; None, with a warning, for a row that is too short for its text.
    """
    clocks = [TASKS[task].modalities[0] for task in tasks]  # audio comes first, and is the finer clock
    heads = {m: model.ctc.log_probs(encoded[m], m).cpu().numpy() for m in set(clocks)}
    out: list[tuple[Word, ...] | None] = []
    for row, (text, clock, start) in enumerate(zip(texts, clocks, starts, strict=True)):
        units, labels = spell(text, partial(model.ctc.targets, modality=clock))
        spans = align(heads[clock][row, : int(encoded[clock].lengths[row])], units)
        if spans is None:
            log.warning("no word times at %.2f s: the stretch is too short for its text", start)
        frame = 1 / int(model.encoder(clock).frames_per_second)
        out.append(None if spans is None else tuple(words(spans, labels, text.split(), frame, start)))
    return out
