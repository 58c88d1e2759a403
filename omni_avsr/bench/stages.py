"""Where the time goes: media, features, encoders, projector, the LLM's prompts and answers, and the rest."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from omni_avsr.bench.floor import Machine, flop_counter, weight_bytes
from omni_avsr.model.decode import DecodeOptions
from omni_avsr.transcribe.perception import Planned
from omni_avsr.transcribe.recognition import Recognised, Utterance
from omni_avsr.transcribe.transcriber import Request, Transcriber

STAGES = ("media", "features", "audio encoder", "video encoder", "projector", "prompts", "answers", "search")

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass
class Cost:
    """What one stage cost."""

    seconds: float = 0.0
    calls: int = 0
    flops: float = 0.0
    weights: float = 0.0  # bytes read, once per call

    def __iadd__(self, other: Cost) -> Cost:
        self.seconds += other.seconds
        self.calls += other.calls
        self.flops += other.flops
        self.weights += other.weights
        return self


@dataclass
class Report:
    """The stages of one run over all files."""

    stages: dict[str, Cost] = field(default_factory=lambda: {name: Cost() for name in STAGES})
    audio_seconds: float = 0.0  # of the files
    tokens: int = 0  # of text, end of text included
    passes: int = 0  # of the LLM

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(cost.seconds for cost in self.stages.values())

    def rows(self, machine: Machine) -> Iterator[dict[str, Any]]:
        """Per stage: seconds, share, real-time factor, floor in seconds and how many times the floor it took."""
        for name, cost in self.stages.items():
            floor = machine.floor(cost.flops, cost.weights)
            yield {
                "stage": name,
                "seconds": round(cost.seconds, 4),
                "share": round(cost.seconds / self.seconds, 3),
                "rtf": round(cost.seconds / self.audio_seconds, 4),
                "gflop": round(cost.flops / 1e9, 2),
                "floor": round(floor, 4) or None,
                "times_floor": round(cost.seconds / floor, 2) if floor > 1e-6 else None,
            }


class Bench(Transcriber):
    """A transcriber that keeps a report of where its time goes."""

    clock: str = "wall"  # or "cpu": processor time of all threads, on a machine that has other work

    def run(self, files: Sequence[Path], request: Request) -> Report:
        """Transcribes `files` three times: to warm up, to count operations, to measure. The report is of the last."""
        self._watched(files, request, lambda: 0.0)
        with flop_counter() as counter:
            counted = self._watched(files, request, lambda: float(counter.get_total_flops()))
        report = self._watched(files, request, lambda: 0.0)
        for name, cost in report.stages.items():
            cost.flops = counted.stages[name].flops
        return report

    def _all(self, files: Sequence[Path], request: Request) -> None:
        for path in files:
            segments, info = self.transcribe(path, **vars(request))
            for segment in segments:
                self.report.tokens += len(segment.tokens) + 1
            self.report.audio_seconds += info.duration

    def _watched(self, files: Sequence[Path], request: Request, flops: Callable[[], float]) -> Report:
        self.report, self._flops, self._inner, self._last = Report(), flops, 0.0, ""
        watched: dict[str, nn.Module] = {"projector": self.model.projector}
        watched |= {f"{m} encoder": self.model.get_submodule(f"{m}_encoder") for m in self.model.config.modalities}
        hooks = [h for name, module in watched.items() for h in self._hooks(module, partial(str, name))]
        hooks += self._hooks(self.model.llm.base_model, self._pass)
        hooks += self._hooks(self.model.llm.get_output_embeddings(), lambda: self._last)
        begun = self._now()
        try:
            self._all(files, request)
        finally:
            for hook in hooks:
                hook.remove()
        self.report.stages["media"].seconds = self._now() - begun - self._inner
        return self.report

    # ---- what is timed -------------------------------------------------------------------------

    def recognise(self, utterances: Sequence[Utterance], options: DecodeOptions) -> list[Recognised]:
        """As a transcriber; what no module accounts for is search."""
        self._last = ""
        before, begun = self.report.seconds, self._now()
        found = super().recognise(utterances, options)
        self._synchronise()
        spent = self._now() - begun
        self.report.stages["search"].seconds += spent - (self.report.seconds - before)
        self._inner += spent
        return found

    def _utterance(self, planned: Planned, request: Request) -> Utterance:
        begun = self._now()
        utterance = super()._utterance(planned, request)
        spent = self._now() - begun
        self.report.stages["features"].seconds += spent
        self._inner += spent
        return utterance

    def _pass(self) -> str:
        self.report.passes += 1
        self._last = "answers" if self._last else "prompts"
        return self._last

    def _hooks(self, module: nn.Module, stage: Callable[[], str]) -> list[Any]:
        begun: list[tuple[float, float]] = []
        weights = weight_bytes(module)

        def before(*_: Any) -> None:
            self._synchronise()
            begun.append((self._now(), self._flops()))

        def after(*_: Any) -> None:
            self._synchronise()
            at, flops = begun.pop()
            cost = Cost(self._now() - at, 1, self._flops() - flops, weights)
            self.report.stages[stage()] += cost

        return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    def _now(self) -> float:
        return CLOCKS[self.clock]()

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def peak_memory(device: torch.device) -> float:
    """GiB that this process has held at most: of the GPU where it runs on one, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """PyTorch computes with `count` threads inside the block; None = as many as it has."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
