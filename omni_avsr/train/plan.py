"""What a run will take, measured before it begins: a few true steps on the recipe's own data, on this machine.

Nothing is written. The steps are those of `Trainer`, loading and augmentation included, on batches drawn as training
draws them, so what is estimated is what will happen.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from statistics import fmean

import torch
from torch import nn

from omni_avsr.config import Recipe
from omni_avsr.model.omni import PARTS, OmniAVSR
from omni_avsr.train import loop
from omni_avsr.train.progress import ProgressReport
from omni_avsr.types import FPS

PROBES = 8  # steps that are timed, after one that warms up
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Plan:
    """What a run will take on this machine, in one process."""

    parameters: dict[str, tuple[int, int]]  # part -> how many, how many of them are trained
    weights: float  # MB
    gradients: float  # MB
    moments: float  # MB, of the optimiser
    activations: float  # MB kept for the backward pass; the largest of the probed steps
    peak: float | None  # MB that a GPU had allocated at most
    hours_of_data: float
    steps: int
    tokens_per_step: float  # positions that the LLM reads, padding included
    padding: float  # share of them that hold nothing
    seconds_per_step: float
    frames_per_second: float  # video frames, 25 of which are a second of speech

    @property
    def memory(self) -> float:
        """MB in all."""
        return self.weights + self.gradients + self.moments + self.activations

    @property
    def hours(self) -> float:
        """Of the whole run, without evaluations."""
        return self.steps * self.seconds_per_step / 3600

    def hours_for(self, hours_of_data: float, epochs: int) -> float:
        """Of `epochs` over so much data of the same kind."""
        return hours_of_data * FPS * epochs / self.frames_per_second

    def lines(self, epochs: int, hours_of_data: float | None = None) -> Iterator[str]:
        """The plan in words."""
        for part, (count, trained) in self.parameters.items():
            yield f"{part:14} {count:>14,} parameters, {trained:,} trained"
        yield (
            f"memory         {self.memory:,.0f} MB: weights {self.weights:,.0f}, gradients {self.gradients:,.0f}, "
            f"moments {self.moments:,.0f}, activations {self.activations:,.0f}"
            + ("" if self.peak is None else f"; measured at most {self.peak:,.0f}")
        )
        yield f"step           {self.tokens_per_step:,.0f} tokens, {self.padding:.0%} of them padding"
        yield f"               {self.seconds_per_step:.2f} s, {self.frames_per_second / FPS:.1f} s of speech per second"
        yield f"run            {self.steps:,} steps on {self.hours_of_data:.2f} h of data: {self.hours:.2f} h"
        if hours_of_data is not None:
            took = self.hours_for(hours_of_data, epochs)
            yield f"               {epochs} epochs on {hours_of_data:g} h of such data: {took:.2f} h"


def plan(recipe: Recipe, probes: int = PROBES, clock: Callable[[], float] = time.monotonic) -> Plan:
    """Takes `probes` steps and says what the run will take, in the seconds of `clock`.

    Raises:
        ConfigError, DataError: as `loop.train`.
    """
    recipe = loop.inherited(recipe)
    with tempfile.TemporaryDirectory() as folder:
        trainer = loop.Trainer(recipe, Path(folder), loop._accelerator(recipe))
        trainer.log = None
        with ProgressReport(trainer.total, 0, show=False) as trainer.bar:
            return _measured(trainer, probes, clock)


def _measured(trainer: loop.Trainer, probes: int, clock: Callable[[], float]) -> Plan:
    model = trainer.model
    on_gpu = model.device.type == "cuda"
    steps = islice(chain.from_iterable(trainer.corpus.groups(epoch) for epoch in range(probes + 1)), probes + 1)
    seconds: list[float] = []
    frames: list[float] = []
    kept: list[float] = []
    with _reading(model) as read:
        before = clock()
        for number, group in enumerate(steps):
            with _keeping(model) as bytes_kept:
                trainer._step(group)
            if on_gpu:
                torch.cuda.synchronize()
            now = clock()
            if number:  # the first one warms up
                seconds.append(now - before)
                frames.append(sum(float(b.video_lengths.sum()) or float(b.audio_lengths.sum()) / 2 for b in group))
                kept.append(sum(bytes_kept.values()) / MEGABYTE)
            before = now
    positions, filled = (sum(counts) for counts in zip(*read, strict=True)) if read else (0, 0)
    trained = [p for p in model.parameters() if p.requires_grad]
    world = trainer.accelerator.num_processes
    return Plan(
        parameters=_parameters(model),
        weights=sum(p.nbytes for p in model.parameters()) / MEGABYTE,
        gradients=sum(p.nbytes for p in trained) / MEGABYTE,
        moments=2 * sum(p.nbytes for p in trained) / MEGABYTE,
        activations=max(kept),
        peak=torch.cuda.max_memory_allocated() / MEGABYTE if on_gpu else None,
        hours_of_data=sum(trainer.corpus.train.frames) / FPS / 3600,
        steps=trainer.total,
        tokens_per_step=positions / (len(seconds) + 1),
        padding=1 - filled / positions if positions else 0.0,
        seconds_per_step=fmean(seconds),
        frames_per_second=world * sum(frames) / sum(seconds),
    )


def _parameters(model: OmniAVSR) -> dict[str, tuple[int, int]]:
    out: dict[str, tuple[int, int]] = {}
    for part, owns in PARTS.items():
        own = [p for name, p in model.named_parameters() if owns(name)]
        if own and part != "task_lora":  # which is counted with llm_lora
            out[part] = sum(p.numel() for p in own), sum(p.numel() for p in own if p.requires_grad)
    return out


@contextmanager
def _keeping(model: nn.Module) -> Iterator[dict[int, int]]:
    """Storages that wait for the backward pass -> bytes; weights are not counted."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    alive: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            alive[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield alive


@contextmanager
def _reading(model: OmniAVSR) -> Iterator[list[tuple[int, int]]]:
    """(positions, filled positions) of each LLM pass."""
    passes: list[tuple[int, int]] = []
    base = model.llm.base_model

    def note(module: nn.Module, args: object, kwargs: dict[str, torch.Tensor]) -> None:
        x = kwargs["inputs_embeds"]  # (B, L, H); padding is zero
        passes.append((x.shape[0] * x.shape[1], int(x.detach().abs().sum(-1).count_nonzero())))

    handle = base.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield passes
    finally:
        handle.remove()
