"""Greedy and beam search, deterministic, over rows of different lengths, tasks and rates.

The prompt of a row is read once and its keys and values are shared by its beams; the published path reads it once
per beam. A row that is done leaves the batch. Scores and stopping are those of transformers' beam search with
early_stopping=False, so official checkpoints give official words.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from omni_avsr.errors import ConfigError, InputError, NoAudioError, NoVideoError
from omni_avsr.model.omni import OmniAVSR, Rates
from omni_avsr.tasks import TASKS
from omni_avsr.types import FPS, Batch, Encoded, Hypothesis

AUDIO_FPS = 50  # encoder frames per second of sound
MIN_TOKENS, TOKENS_PER_SECOND = 32, 16  # of text, beyond the fastest speech in the smallest vocabulary

_MISSING = {"audio": NoAudioError, "video": NoVideoError}


@dataclass(frozen=True)
class DecodeOptions:
    """How to search.

    Attributes:
        beam_size: hypotheses kept per row; 1 = greedy.
        max_new_tokens: most tokens of text; None = 32 + 16 per second of the row, so that no speech is cut off.
        length_penalty: hypotheses compete by sum of log-probabilities / tokens ** length_penalty.
    """

    beam_size: int = 5
    max_new_tokens: int | None = None
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.beam_size < 1 or (self.max_new_tokens is not None and self.max_new_tokens < 1):
            raise ConfigError(
                f"beam_size = {self.beam_size}, max_new_tokens = {self.max_new_tokens}: both must be at least 1"
            )


@torch.inference_mode()
def decode(
    model: OmniAVSR,
    batch: Batch,
    task: str | Sequence[str],
    rates: Rates | Sequence[Rates],
    options: DecodeOptions | None = None,
    encoded: Mapping[str, Encoded] | None = None,
) -> list[Hypothesis]:
    """What is said in each row, in the order of the batch; no row depends on its neighbours.

    Args:
        model: any mode; it is left as it was.
        batch: B rows.
        task: one for all rows, or one per row.
        rates: modality -> rate, one for all rows or one per row; a stream not named takes its finest trained rate.
        options: default DecodeOptions().
        encoded: what `model.encode(batch)` gave in eval mode, where it is at hand: other tasks and rates of the same
            clips, and word times, need not encode them again.

    Raises:
        NoAudioError, NoVideoError: a row lacks a stream of its task.
        InputError: not one task or not one set of rates per row.
        ConfigError: a task the model does not perform.
        RateError: a rate the model was not trained for.
    """
    tasks = [task] * len(batch) if isinstance(task, str) else list(task)
    per_row = [rates] * len(batch) if isinstance(rates, Mapping) else list(rates)
    if len(tasks) != len(batch) or len(per_row) != len(batch):
        raise InputError(f"{len(tasks)} tasks and {len(per_row)} rates for {len(batch)} rows; give one, or one per row")
    full = [model.check_rates(t, r.get("audio"), r.get("video")) for t, r in zip(tasks, per_row, strict=True)]
    _check_streams(batch, tasks)
    training = model.training
    model.eval()
    try:
        encoded = encoded or model.encode(batch, [modality for rates_of_row in full for modality in rates_of_row])
        order, prefixes = _prefixes(model, encoded, tasks, full)
        search = _Search(model, options or DecodeOptions())
        found = search.run(prefixes, [tasks[i] for i in order], [_seconds(batch, tasks[i], i) for i in order])
    finally:
        model.train(training)
    return [hypothesis for _, hypothesis in sorted(zip(order, found, strict=True), key=lambda pair: pair[0])]


def _check_streams(batch: Batch, tasks: Sequence[str]) -> None:
    for row, task in enumerate(tasks):
        for modality in TASKS[task].modalities:
            if not batch.lengths(modality)[row]:
                name = batch.ids[row] if batch.ids else str(row)
                raise _MISSING[modality](f"clip '{name}' has no {modality}, which the task '{task}' needs")


def _prefixes(
    model: OmniAVSR, encoded: Mapping[str, Encoded], tasks: Sequence[str], rates: Sequence[dict[str, int]]
) -> tuple[list[int], list[Tensor]]:
    """Rows sorted by task and rates, and what the LLM reads before it answers each."""
    groups: dict[tuple[str, tuple[tuple[str, int], ...]], list[int]] = {}
    for row, task in enumerate(tasks):
        groups.setdefault((task, tuple(rates[row].items())), []).append(row)
    order, prefixes = [], []
    for (task, own), rows in sorted(groups.items()):
        tokens = model.project({m: encoded[m] for m, _ in own}, dict(own)).tokens
        prefixes += model.prefixes(task, tokens, rows)
        order += rows
    return order, prefixes


def _seconds(batch: Batch, task: str, row: int) -> float:
    clocks = {"audio": AUDIO_FPS, "video": FPS}
    return max(float(batch.lengths(m)[row]) / clocks[m] for m in TASKS[task].modalities)


# ---- one row ---------------------------------------------------------------------------------

_Candidate = tuple[float, float, int, int]  # total, log-probability, parent beam, token


@dataclass(frozen=True)
class _Beam:
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    total: float = 0.0  # sum of logprobs, in the precision of the search


@dataclass
class _Row:
    """The search of one row: its open beams, the K best finished ones, and when to stop."""

    task: str
    padding: int  # positions on the left of its prefix
    limit: int  # most tokens
    open: list[_Beam] = field(default_factory=lambda: [_Beam()])
    finished: list[tuple[float, _Beam]] = field(default_factory=list)  # best first
    done: bool = False

    def advance(
        self, candidates: Sequence[_Candidate], eos: int, options: DecodeOptions
    ) -> tuple[list[int], list[int]]:
        """Takes 2 K candidates (total, logprob, parent beam, token), best first; returns K parents and tokens."""
        beams, penalty = options.beam_size, options.length_penalty
        following: list[_Beam] = []
        parents: list[int] = []
        for rank, (total, logprob, parent, token) in enumerate(candidates):
            before = self.open[parent]
            beam = _Beam((*before.tokens, token), (*before.logprobs, logprob), total)
            if token == eos or len(beam.tokens) >= self.limit:
                if rank < beams:  # candidates beyond the K best only keep the beams open
                    self.finished.append((total / len(beam.tokens) ** penalty, beam))
            elif len(following) < beams:
                following.append(beam)
                parents.append(parent)
        self.finished = sorted(self.finished, key=lambda pair: -pair[0])[:beams]
        self.done = not following or self._settled(following[0], options)
        self.open = following
        return parents, [beam.tokens[-1] for beam in following]

    def _settled(self, best: _Beam, options: DecodeOptions) -> bool:
        if len(self.finished) < options.beam_size:
            return False
        reachable = best.total / len(best.tokens) ** options.length_penalty
        return options.beam_size == 1 or reachable <= self.finished[-1][0]


# ---- all rows --------------------------------------------------------------------------------


class _Search:
    """Beam search of a batch on transformers' cache."""

    def __init__(self, model: OmniAVSR, options: DecodeOptions) -> None:
        self.tokenizer, self.adapters, self.llm = model.tokenizer, model.adapters, model.llm
        self.options = options
        if 2 * options.beam_size > len(self.tokenizer):
            raise ConfigError(
                f"beam_size = {options.beam_size}: at most {len(self.tokenizer) // 2} with this vocabulary"
            )
        self.device = model.device
        # transformers 5.24 renamed the argument
        known = inspect.signature(self.llm.base_model.forward).parameters
        self.cache_argument = "cache" if "cache" in known else "past_key_values"

    def run(self, prefixes: Sequence[Tensor], tasks: Sequence[str], seconds: Sequence[float]) -> list[Hypothesis]:
        """One hypothesis per prefix (L, H)."""
        longest = max(len(prefix) for prefix in prefixes)
        rows = [
            _Row(task, longest - len(prefix), self._limit(duration))
            for prefix, task, duration in zip(prefixes, tasks, seconds, strict=True)
        ]
        cache = DynamicCache(config=self.llm.config)
        embeddings = pad_sequence(list(prefixes), batch_first=True, padding_side="left")  # (B, L, H)
        live, width = rows, 1  # rows in the batch, and beams of each
        while live:
            logits = self._read(embeddings, live, width, cache)  # (rows * beams, V)
            parents, tokens, kept = [], [], []
            for i, candidates in enumerate(self._candidates(logits, live, width)):
                chosen, new = live[i].advance(candidates, self.tokenizer.eos_id, self.options)
                if not live[i].done:
                    parents += [i * width + parent for parent in chosen]
                    tokens += new
                    kept.append(live[i])
            same = len(kept) == len(live) and width == self.options.beam_size
            live, width = kept, self.options.beam_size
            if live:
                _reorder(cache, parents, cache.get_seq_length() - longest if same else None)
                embeddings = self.llm.get_input_embeddings()(torch.tensor(tokens, device=self.device)[:, None])
        return [self._hypothesis(row) for row in rows]

    def _read(self, embeddings: Tensor, rows: Sequence[_Row], width: int, cache: DynamicCache) -> Tensor:
        """(rows * beams, L, H) -> (rows * beams, V), the logits after the last position only."""
        past = cache.get_seq_length()
        position = torch.arange(past + embeddings.shape[1], device=self.device)
        padding = torch.tensor([row.padding for row in rows for _ in range(width)], device=self.device)[:, None]
        padded = any(row.padding for row in rows)
        with self.adapters.use([row.task for row in rows for _ in range(width)]):
            out = self.llm.base_model(
                inputs_embeds=embeddings,
                attention_mask=(position >= padding).long() if padded else None,
                position_ids=(position[past:] - padding).clamp(min=0),
                use_cache=True,
                **{self.cache_argument: cache},
            )
        return self.llm.get_output_embeddings()(out.last_hidden_state[:, -1])

    def _candidates(self, logits: Tensor, rows: Sequence[_Row], width: int) -> list[list[_Candidate]]:
        """The 2 K best continuations of each row over all its beams."""
        logprobs = logits.float().log_softmax(-1).view(len(rows), width, -1)  # (rows, beams, V)
        totals = torch.tensor([[beam.total for beam in row.open] for row in rows], device=self.device)
        best, index = (logprobs + totals[:, :, None]).flatten(1).topk(2 * self.options.beam_size)
        step = logprobs.flatten(1).gather(1, index)
        columns = best, step, index // logprobs.shape[2], index % logprobs.shape[2]
        return [list(zip(*row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)]

    def _limit(self, seconds: float) -> int:
        return self.options.max_new_tokens or MIN_TOKENS + math.ceil(TOKENS_PER_SECOND * seconds)

    def _hypothesis(self, row: _Row) -> Hypothesis:
        beam = row.finished[0][1]
        tokens = beam.tokens[:-1] if beam.tokens[-1] == self.tokenizer.eos_id else beam.tokens
        return Hypothesis(
            text=self.tokenizer.decode(tokens),
            tokens=tokens,
            token_logprobs=beam.logprobs[: len(tokens)],
            score=beam.total / len(beam.tokens),
        )


def _reorder(cache: DynamicCache, parents: Sequence[int], new: int | None) -> None:
    """Gives each beam the keys and values of its parent.

    Args:
        cache: of every row and beam.
        parents: beam after the step -> beam before it.
        new: positions since the prompt, where no row has left: the prompt's are equal for all beams of a row and stay.
            None = all positions.
    """
    if new is None:
        cache.reorder_cache(torch.LongTensor(parents))
    elif list(parents) != list(range(len(parents))):
        layers: Sequence[Any] = cache.layers
        for layer in layers:
            for states in (layer.keys, layer.values):  # (rows * beams, heads, L, width)
                states[:, :, -new:] = states[parents, :, -new:]
