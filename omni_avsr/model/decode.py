"""From a batch to hypotheses: each row with its own length, task and rates, none dependent on its neighbours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from omni_avsr.errors import InputError, NoAudioError, NoVideoError
from omni_avsr.model.draft import drafts
from omni_avsr.model.omni import OmniAVSR, Rates
from omni_avsr.model.search import DecodeOptions, Prompt, Search
from omni_avsr.model.spelling import spellings
from omni_avsr.tasks import TASKS
from omni_avsr.types import Batch, Encoded, Hypothesis

__all__ = ["DecodeOptions", "Prompt", "Search", "decode", "prompts"]

MIN_TOKENS, TOKENS_PER_SECOND = 32, 16  # of text, beyond the fastest speech in the smallest vocabulary

_MISSING = {"audio": NoAudioError, "video": NoVideoError}


def decode(
    model: OmniAVSR,
    batch: Batch,
    task: str | Sequence[str],
    rates: Rates | Sequence[Rates],
    options: DecodeOptions | None = None,
    encoded: Mapping[str, Encoded] | None = None,
) -> list[Hypothesis]:
    """What is said in each row, in the order of the batch; no row depends on its neighbours.

    Whoever has more rows than one batch, and rows that come while others are decoded, uses `prompts` and `Search`.

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
    options = options or DecodeOptions()
    training = model.training
    model.eval()
    try:
        search = Search(model, options)
        found = dict(search.run(prompts(model, batch, task, rates, options, encoded)))
    finally:
        model.train(training)
    return [found[row] for row in range(len(batch))]


@torch.inference_mode()
def prompts(
    model: OmniAVSR,
    batch: Batch,
    task: str | Sequence[str],
    rates: Rates | Sequence[Rates],
    options: DecodeOptions,
    encoded: Mapping[str, Encoded] | None = None,
) -> list[Prompt]:
    """What a `Search` needs to know of each row: encoders and projectors run here. Arguments and errors of `decode`.

    Args:
        model: in eval mode.
    """
    tasks = [task] * len(batch) if isinstance(task, str) else list(task)
    per_row = [rates] * len(batch) if isinstance(rates, Mapping) else list(rates)
    if len(tasks) != len(batch) or len(per_row) != len(batch):
        raise InputError(f"{len(tasks)} tasks and {len(per_row)} rates for {len(batch)} rows; give one, or one per row")
    full = [model.check_rates(t, r.get("audio"), r.get("video")) for t, r in zip(tasks, per_row, strict=True)]
    _check_streams(batch, tasks)
    encoded = encoded or model.encode(batch, [modality for rates_of_row in full for modality in rates_of_row])
    groups: dict[tuple[str, tuple[tuple[str, int], ...]], list[int]] = {}
    for row, own in enumerate(full):
        groups.setdefault((tasks[row], tuple(own.items())), []).append(row)
    out: dict[int, Prompt] = {}
    for (name, setting), rows in groups.items():
        perceived = {m: encoded[m] for m, _ in setting}
        drafting = options.draft and options.beam_size == 1 and model.ctc
        guesses = drafts(model.ctc, perceived, model.tokenizer) if drafting else None
        weight = model.config.ctc.decode_weight
        spelled = spellings(model.ctc, perceived, weight) if model.ctc and weight and options.beam_size > 1 else None
        tokens = model.project(perceived, dict(setting)).tokens
        for row, prefix in zip(rows, model.prefixes(name, tokens, rows), strict=True):
            limit = options.max_new_tokens or _limit(model, batch, name, row)
            guess, spelling = guesses[row] if guesses else None, spelled[row] if spelled else None
            out[row] = Prompt(prefix, name, limit, guess, spelling)
    return [out[row] for row in range(len(batch))]


def _check_streams(batch: Batch, tasks: Sequence[str]) -> None:
    for row, task in enumerate(tasks):
        for modality in TASKS[task].modalities:
            if not batch.lengths(modality)[row]:
                name = batch.ids[row] if batch.ids else str(row)
                raise _MISSING[modality](f"clip '{name}' has no {modality}, which the task '{task}' needs")


def _limit(model: OmniAVSR, batch: Batch, task: str, row: int) -> int:
    clocks = {m: model.encoder(m).frames_per_second for m in TASKS[task].modalities}
    seconds = max(float(batch.lengths(m)[row]) / clock for m, clock in clocks.items())
    return MIN_TOKENS + math.ceil(TOKENS_PER_SECOND * seconds)
