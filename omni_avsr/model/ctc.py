"""A light CTC head on each encoder's states: an auxiliary loss in training, the clock of word times after it.

One linear layer per modality; class 0 is the blank, class u + 1 the unit u (Graves et al., 2006).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni_avsr.config import CtcConfig
from omni_avsr.errors import ConfigError
from omni_avsr.model.llm import Tokenizer
from omni_avsr.types import Encoded

BLANK = 0


@dataclass(frozen=True)
class Units:
    """What a CTC head spells."""

    count: int  # without the blank
    encode: Callable[[str], list[int]]  # text -> units, 0 .. count - 1
    decode: Callable[[Sequence[int]], str]
    spell: Callable[[Sequence[int]], list[int]]  # tokens of the LLM, perhaps of half a text -> units


def _characters(tokenizer: Tokenizer, alphabet: str) -> Units:
    index = {character: i for i, character in enumerate(alphabet)}

    def encode(text: str) -> list[int]:
        return [index[c] for c in text if c in index]

    return Units(
        len(alphabet),
        encode,
        lambda units: "".join(alphabet[u] for u in units),
        lambda tokens: encode(tokenizer.decode(tokens)),
    )


def _tokens(tokenizer: Tokenizer, alphabet: str) -> Units:
    return Units(len(tokenizer), tokenizer.encode, tokenizer.decode, list)


UNITS: dict[str, Callable[[Tokenizer, str], Units]] = {
    "char": _characters,
    "token": _tokens,
}


class CtcHeads(nn.ModuleDict):
    """One linear CTC head per modality; none for a modality whose units are 'none'.

    Args:
        config: which units, and the factor of the loss.
        dims: modality -> encoder width D.
        tokenizer: spells 'token' units.
        alphabet: spells 'char' units; characters not in it are left out of the target.

    Raises:
        ConfigError: 'char' units without an alphabet.
    """

    def __init__(self, config: CtcConfig, dims: Mapping[str, int], tokenizer: Tokenizer, alphabet: str = "") -> None:
        named = {m: config.units_of(m) for m in dims}
        if "char" in named.values() and not alphabet:
            raise ConfigError("ctc.units = 'char' needs the alphabet of the training text; build the model with texts")
        units = {m: UNITS[name](tokenizer, alphabet) for m, name in named.items() if name in UNITS}
        super().__init__({m: nn.Linear(dims[m], spelled.count + 1) for m, spelled in units.items()})
        self.units = units
        self.loss_weight = config.weight

    def log_probs(self, encoded: Encoded, modality: str) -> Tensor:
        """(B, N, D) -> (B, N, units + 1) float32 log-probabilities per encoder frame; class 0 is the blank."""
        return F.log_softmax(self[modality](encoded.states).float(), -1)

    def targets(self, text: str, modality: str) -> list[int]:
        """The classes by which the head of `modality` spells `text`, blanks left out."""
        return [unit + 1 for unit in self.units[modality].encode(text)]

    def text(self, encoded: Encoded, modality: str) -> list[str]:
        """The best path of each row, repeats and blanks removed."""
        best = self.log_probs(encoded, modality).argmax(-1)
        rows = (row[:length].tolist() for row, length in zip(best, encoded.lengths.tolist(), strict=True))
        return [self.units[modality].decode([c - 1 for c, _ in groupby(row) if c != BLANK]) for row in rows]

    def spell(self, modality: str) -> Callable[[Sequence[int]], list[int]]:
        """Tokens of the LLM, perhaps of half a text -> the classes of the head of `modality`, blanks left out."""
        units = self.units[modality]
        return lambda tokens: [unit + 1 for unit in units.spell(tokens)]

    def loss(self, encoded: Mapping[str, Encoded], texts: Sequence[str]) -> Tensor | None:
        """Weighted sum over modalities of the mean over rows of the CTC loss per target unit; None without heads.

        A row without the stream, or with an empty target, is left out; a row whose text does not fit into its
        frames counts as zero.
        """
        losses = (self._loss(encoded[m], m, [self.targets(t, m) for t in texts]) for m in self if m in encoded)
        terms = [loss for loss in losses if loss is not None]
        return self.loss_weight * torch.stack(terms).sum() if terms else None

    def _loss(self, encoded: Encoded, modality: str, targets: Sequence[list[int]]) -> Tensor | None:
        rows = [i for i, length in enumerate(encoded.lengths.tolist()) if length and targets[i]]
        if not rows:
            return None
        log_probs = self.log_probs(Encoded(encoded.states[rows], encoded.lengths[rows]), modality)
        return F.ctc_loss(
            log_probs.transpose(0, 1),  # (B, N, C) -> (N, B, C)
            torch.tensor([unit for i in rows for unit in targets[i]], device=log_probs.device),
            encoded.lengths[rows],
            torch.tensor([len(targets[i]) for i in rows], device=log_probs.device),
            blank=BLANK,
            zero_infinity=True,
        )
