"""The numbers of the official Llama-AVSR code: one task, one rate, and its decorrelation loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from omni_avsr.model.decode import DecodeOptions, decode
from omni_avsr.tasks import TASKS
from tests.parity.goldens import Golden, variants

STATES, LOGITS, LOSS = 1e-5, 1e-4, 1e-5
VARIANTS = pytest.mark.parametrize("name", variants("llama-avsr"))
Get = Callable[[str], Golden]


@VARIANTS
@torch.no_grad()
def test_from_signals_to_tokens(name: str, golden: Get) -> None:
    case = golden(name)
    model = case.imported()
    (task,) = model.config.tasks
    rates = model.check_rates(task)
    batch = case.batch(model, task)
    prefix = model.prefixes(task, model.project(model.encode(batch), rates).tokens, [0])[0][None]
    case.check("test/embeds", prefix, relative=STATES)
    with model.adapters.use(task):
        case.check("test/logits", model.llm(inputs_embeds=prefix).logits, absolute=LOGITS)
    for ids, beams in (("greedy_ids", 1), ("beam15_ids", 15)):
        got = decode(model, batch, task, rates, DecodeOptions(beam_size=beams, max_new_tokens=case.max_new_tokens))[0]
        want = case.arrays[f"test/{ids}"][0].tolist()
        eos = model.tokenizer.eos_id
        assert list(got.tokens) == (want[: want.index(eos)] if eos in want else want)


@VARIANTS
@torch.no_grad()
def test_losses(name: str, golden: Get) -> None:
    """Cross entropy, decorrelation loss (arXiv 2510.22603), and their sum."""
    case = golden(name)
    model = case.imported()
    (task,) = model.config.tasks
    factor = case.facts["sink_factor"] if case.facts["sink"] else 0.0
    batch = case.training_batch(model, 2)
    losses = model(batch, model.check_rates(task), task_weights=dict.fromkeys(TASKS, 1.0), sink_weight=factor)
    case.check("train/ce", losses.tasks[task], relative=LOSS)
    case.check("train/total", losses.total, relative=LOSS)
    if case.has("train/decor"):
        case.check("train/decor", losses.auxiliary["sink"], relative=LOSS)
