"""What the dev split says of the weights: loss per task and rate, and word error rate by greedy search."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import fmean

import torch

from omni_avsr.data.normalize import normalize
from omni_avsr.evaluate.metrics import count_words, total
from omni_avsr.model.decode import DecodeOptions, decode
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.tasks import TASKS
from omni_avsr.train.rates import Rates, all_rates
from omni_avsr.types import Batch

Sums = dict[str, tuple[float, float]]  # name -> (sum, weight)


@dataclass(frozen=True)
class DevScores:
    """Means over the dev split; lower is better."""

    losses: dict[str, float]  # 'asr@4', 'vsr@2', 'avsr@4,2' -> cross entropy per token
    wer: dict[str, float]  # task -> per cent, at the finest rates; empty where not measured

    @property
    def loss(self) -> float:
        """Mean over tasks of the mean over a task's rates."""
        tasks = dict.fromkeys(name.partition("@")[0] for name in self.losses)
        return fmean(fmean(v for n, v in self.losses.items() if n.startswith(f"{task}@")) for task in tasks)

    def score(self, select_by: str) -> float:
        """The number that chooses checkpoints (`train.select_by`)."""
        return fmean(self.wer.values()) if select_by == "wer" else self.loss

    def row(self) -> dict[str, float]:
        """The same as names and numbers of metrics.jsonl."""
        losses = {f"loss/{name}": value for name, value in self.losses.items()}
        return losses | {f"wer/{task}": value for task, value in self.wer.items()} | {"loss": self.loss}


@torch.no_grad()
def dev_sums(model: OmniAVSR, batches: Iterable[Batch], greedy: bool) -> Sums:
    """Sums over `batches`, to be added up over processes: losses weighted by tokens, edits by words.

    Weighted so, the means do not depend on how rows fall into batches. The model is in eval mode meanwhile.
    """
    device = next(model.parameters()).device
    sums: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            for name, value, weight in _measure(model, batch.to(device), greedy):
                sums[name][0] += value
                sums[name][1] += weight
    finally:
        model.train(was_training)
    return {name: (value, weight) for name, (value, weight) in sums.items()}


def scores(parts: Iterable[Sums]) -> DevScores:
    """Means from the sums of all processes."""
    sums: dict[str, tuple[float, float]] = {}
    for part in parts:
        for name, (value, weight) in part.items():
            before = sums.get(name, (0.0, 0.0))
            sums[name] = (before[0] + value, before[1] + weight)
    means = {name: value / max(weight, 1) for name, (value, weight) in sums.items()}
    losses = {n.removeprefix("loss/"): v for n, v in means.items() if n.startswith("loss/")}
    return DevScores(losses, {n.removeprefix("wer/"): 100 * v for n, v in means.items() if n.startswith("wer/")})


def _measure(model: OmniAVSR, batch: Batch, greedy: bool) -> Iterator[tuple[str, float, float]]:
    tokens = [len(model.tokenizer.encode(text)) + 1 for text in batch.texts]  # + end of text
    for task, rates, loss in _losses(model, batch):
        rows = batch.rows(TASKS[task].modalities).tolist()
        weight = sum(tokens[row] for row in rows)
        yield f"loss/{task}@{','.join(map(str, rates.values()))}", loss * weight, weight
    if greedy:
        yield from _edits(model, batch)


def _losses(model: OmniAVSR, batch: Batch) -> Iterator[tuple[str, Rates, float]]:
    """Every task at every combination of the rates of its own streams."""
    seen = set()
    for rates in all_rates(model.config):
        for task, loss in model(batch, rates).tasks.items():
            own: Rates = {m: rates[m] for m in TASKS[task].modalities}
            if (key := (task, *own.values())) not in seen:
                seen.add(key)
                yield task, own, loss.item()


def _edits(model: OmniAVSR, batch: Batch) -> Iterator[tuple[str, float, float]]:
    name = model.config.preprocess.normalizer
    for task in model.config.tasks:
        rows = batch.rows(TASKS[task].modalities).tolist()
        if rows:
            said = decode(model, _select(batch, rows), task, model.check_rates(task), DecodeOptions(beam_size=1))
            pairs = zip((batch.texts[row] for row in rows), said, strict=True)
            counts = total([count_words(normalize(text, name), normalize(h.text, name)) for text, h in pairs])
            yield f"wer/{task}", counts.errors, counts.length


def _select(batch: Batch, rows: list[int]) -> Batch:
    return Batch(
        mel=None if batch.mel is None else batch.mel[rows],
        audio_lengths=batch.audio_lengths[rows],
        video=None if batch.video is None else batch.video[rows],
        video_lengths=batch.video_lengths[rows],
        texts=tuple(batch.texts[row] for row in rows),
        ids=tuple(batch.ids[row] for row in rows),
    )
