"""Omni-LoRA: low-rank adapters on an LLM's projections, one shared, one per task, or both (Omni-AVSR, 3.2).

Our own and not PEFT, for two reasons: PEFT's per-row path costs 2.5 times the base model (this one 1.1 to 1.2 times,
a decoding step of six layers on a CPU) and takes one adapter per row where ST needs two; and its `set_adapter` flips
`requires_grad` at every switch. `export_peft` and `import_peft` speak PEFT's file format.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni_avsr.config import LoraConfig
from omni_avsr.errors import CheckpointError, ConfigError, nearest

SHARED = "shared"


@dataclass(frozen=True)
class LoraStrategy:
    """Which adapters exist; those of a task are summed."""

    shared: bool
    per_task: bool

    def adapters(self, tasks: Sequence[str]) -> tuple[str, ...]:
        """The names of all adapters of a model that performs `tasks`."""
        return (SHARED,) * self.shared + tuple(tasks) * self.per_task

    def active(self, task: str) -> tuple[str, ...]:
        """The adapters that act when `task` is performed."""
        return self.adapters((task,))


LORA: dict[str, LoraStrategy] = {
    "none": LoraStrategy(shared=False, per_task=False),
    "S": LoraStrategy(shared=True, per_task=False),
    "T": LoraStrategy(shared=False, per_task=True),
    "ST": LoraStrategy(shared=True, per_task=True),
}


# ---- routing ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Route:
    """Which adapters the rows of a batch visit."""

    common: tuple[str, ...]  # adapters that every row visits
    runs: tuple[tuple[int, tuple[str, ...]], ...] = ()  # neighbours of one task: how many rows, their own adapters


# A context variable, not a field of the modules: nothing stays behind, and threads do not see each other's route.
_ROUTE: ContextVar[Route | None] = ContextVar("omni_lora_route", default=None)


class LoraLinear(nn.Linear):
    """A linear layer with named low-rank adapters: W x + b + scale * sum over active adapters of B (A x).

    `weight` and `bias` keep their names and storage, so the state dict of the base model is the same with and
    without adapters; the factors are `lora_A.<adapter>` (r, in) and `lora_B.<adapter>` (out, r). B starts at zero:
    fresh adapters change nothing. Outside `Adapters.use` the base layer acts alone.
    """

    def __init__(self, base: nn.Linear, adapters: Sequence[str], rank: int, scale: float) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.scale = scale
        self.lora_A = nn.ParameterDict({a: base.weight.new_empty(rank, base.in_features) for a in adapters})
        self.lora_B = nn.ParameterDict({a: base.weight.new_zeros(base.out_features, rank) for a in adapters})
        for factor in self.lora_A.values():
            nn.init.kaiming_uniform_(factor, a=math.sqrt(5))
        self._unmerged: Tensor | None = None  # the base weight while a task is merged into `weight`
        self._fast: nn.Module | None = None  # what computes W x + b instead of `weight` and `bias`

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, in) -> (B, N, out); rows take the adapters of the route."""
        out = F.linear(x, self.weight, self.bias) if self._fast is None else self._fast(x)
        route = _ROUTE.get()
        if route is None or self._unmerged is not None:
            return out
        for adapter in route.common:
            out = out.add(self._product(x, adapter), alpha=self.scale)
        if route.runs:
            out = out.add(self._by_run(x, route.runs), alpha=self.scale)
        return out

    def _product(self, x: Tensor, adapter: str) -> Tensor:
        return F.linear(F.linear(x, self.lora_A[adapter]), self.lora_B[adapter])

    def _by_run(self, x: Tensor, runs: Sequence[tuple[int, tuple[str, ...]]]) -> Tensor:
        # Slices of neighbours instead of gathered factors: no copy of A and B per row.
        parts = x.split([count for count, _ in runs])
        return torch.cat([self._product(part, a) for part, (_, own) in zip(parts, runs, strict=True) for a in own])

    def replace(self, fast: nn.Module) -> None:
        """Lets `fast` compute the base layer, for good; the weight is given up."""
        self._fast = fast
        self.weight = nn.Parameter(self.weight.new_empty(0), requires_grad=False)
        self.bias = None  # type: ignore[assignment]

    @torch.no_grad()
    def merge(self, adapters: Sequence[str]) -> None:
        """Adds the product of `adapters` to the weight; `unmerge` restores it bit by bit.

        Raises:
            ConfigError: the weight was given up for a faster layer.
        """
        if self._fast is not None:
            raise ConfigError("adapters cannot be merged into a model laid out for inference; merge before `prepare`")
        self._unmerged = self.weight.detach().clone()
        delta = sum((self.lora_B[a].float() @ self.lora_A[a].float() for a in adapters), torch.zeros(()))
        self.weight.copy_(self.weight.float() + self.scale * delta)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Gives the weight its base value back."""
        if self._unmerged is not None:
            self.weight.copy_(self._unmerged)
            self._unmerged = None


class Adapters:
    """The Omni-LoRA of one LLM: switches its `LoraLinear` layers between tasks, merges, unmerges.

    Attributes:
        strategy: row of LORA.
        tasks: the tasks that may be asked for.
        layers: path of the layer inside the LLM -> layer.
        merged: the task whose adapters are added to the weights, or None.
    """

    def __init__(self, strategy: LoraStrategy, tasks: Sequence[str], layers: Mapping[str, LoraLinear]) -> None:
        self.strategy = strategy
        self.tasks = tuple(tasks)
        self.layers = dict(layers)
        self.merged: str | None = None

    @contextmanager
    def use(self, tasks: str | Sequence[str]) -> Iterator[None]:
        """Inside the block, rows are processed with the adapters of their task.

        Args:
            tasks: one task for all rows, or one per row of the batches inside the block.

        Raises:
            ConfigError: a task the model does not perform, or one that is not merged while another is.
        """
        token = _ROUTE.set(self._route([tasks] if isinstance(tasks, str) else tasks))
        try:
            yield
        finally:
            _ROUTE.reset(token)

    def _route(self, tasks: Sequence[str]) -> Route | None:
        for task in set(tasks):
            if task not in self.tasks:
                raise ConfigError(f"this model does not perform '{task}'; {nearest(task, self.tasks)}")
            if self.merged not in (None, task):
                raise ConfigError(f"'{self.merged}' is merged into the weights, '{task}' was asked for; unmerge first")
        runs = [(task, len(list(rows))) for task, rows in groupby(tasks)]
        if not self.layers or not runs:
            return None
        if len(runs) == 1 or not self.strategy.per_task:
            return Route(self.strategy.active(runs[0][0]))
        return Route((SHARED,) * self.strategy.shared, tuple((count, (task,)) for task, count in runs))

    def merge(self, task: str) -> None:
        """Folds the adapters of `task` into the weights: it then costs nothing, and no other task can be asked for."""
        self.unmerge()
        self._route([task])
        for layer in self.layers.values():
            layer.merge(self.strategy.active(task))
        self.merged = task

    def unmerge(self) -> None:
        """Undoes `merge` exactly."""
        for layer in self.layers.values():
            layer.unmerge()
        self.merged = None


def keep_route() -> AbstractContextManager[None]:
    """A block in which the adapters of this moment act: for what is computed again later, outside `Adapters.use`."""
    route = _ROUTE.get()

    @contextmanager
    def kept() -> Iterator[None]:
        token = _ROUTE.set(route)
        try:
            yield
        finally:
            _ROUTE.reset(token)

    return kept()


def attach(llm: nn.Module, config: LoraConfig, tasks: Sequence[str], targets: Sequence[str]) -> Adapters:
    """Puts adapters on every linear layer of `llm` whose name is in `targets`, in place.

    Raises:
        ConfigError: the LLM has no such layer.
    """
    strategy = LORA[config.strategy]
    names = strategy.adapters(tasks)
    paths = [
        path
        for path, module in llm.named_modules()
        if names and isinstance(module, nn.Linear) and path.rpartition(".")[2] in targets
    ]
    if names and not paths:
        raise ConfigError(f"lora: the LLM has no linear layer named {' or '.join(targets)}; give its family's targets")
    layers = {path: LoraLinear(_linear(llm, path), names, config.rank, config.scale) for path in paths}
    for path, layer in layers.items():
        parent, _, name = path.rpartition(".")
        setattr(llm.get_submodule(parent), name, layer)
    return Adapters(strategy, tasks, layers)


def _linear(llm: nn.Module, path: str) -> nn.Linear:
    module = llm.get_submodule(path)
    assert isinstance(module, nn.Linear)
    return module


# ---- PEFT's format ---------------------------------------------------------------------------


@dataclass(frozen=True)
class PeftAdapter:
    """One adapter as PEFT stores it."""

    config: dict[str, Any]  # adapter_config.json
    tensors: dict[str, Tensor]  # adapter_model.safetensors


def export_peft(adapters: Adapters, base_model: str = "") -> dict[str, PeftAdapter]:
    """What PEFT needs to do the same: S -> one adapter 'shared'; T, ST -> one per task.

    PEFT activates one adapter at a time, so those of a task are concatenated along r, the shared one first:
    [B_s B_t] [A_s; A_t] = B_s A_s + B_t A_t.
    """
    names = adapters.tasks if adapters.strategy.per_task else (SHARED,) * adapters.strategy.shared
    return {name: _export_one(adapters, adapters.strategy.active(name), base_model) for name in names}


def _export_one(adapters: Adapters, parts: Sequence[str], base_model: str) -> PeftAdapter:
    tensors, rank, scale = {}, 0, 1.0
    for path, layer in adapters.layers.items():
        a = torch.cat([layer.lora_A[p].detach() for p in parts], 0)  # (R, in)
        b = torch.cat([layer.lora_B[p].detach() for p in parts], 1)  # (out, R)
        tensors[f"base_model.model.{path}.lora_A.weight"] = a.contiguous()
        tensors[f"base_model.model.{path}.lora_B.weight"] = b.contiguous()
        rank, scale = len(a), layer.scale
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": rank,
        "lora_alpha": scale * rank,
        "target_modules": sorted({path.rpartition(".")[2] for path in adapters.layers}),
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }
    return PeftAdapter(config, tensors)


@torch.no_grad()
def import_peft(adapters: Adapters, stored: Mapping[str, PeftAdapter]) -> None:
    """Fills `adapters` from PEFT adapters laid out as `export_peft` lays them out.

    A scale other than the model's is folded into B.

    Raises:
        CheckpointError: an adapter, layer or shape is missing or does not fit, or a PEFT variant other than plain LoRA.
    """
    expected = set(adapters.tasks if adapters.strategy.per_task else (SHARED,) * adapters.strategy.shared)
    if set(stored) != expected:
        raise CheckpointError(f"adapters {sorted(stored)} were given, this model needs exactly {sorted(expected)}")
    shared: dict[str, tuple[Tensor, Tensor]] = {}
    for name, adapter in stored.items():
        for path, layer in adapters.layers.items():
            parts = adapters.strategy.active(name)
            for part, (a, b) in _split(adapter, path, layer, parts).items():
                first = shared.setdefault(path, (a, b)) if part == SHARED else (a, b)
                if not (torch.equal(first[0], a) and torch.equal(first[1], b)):
                    raise CheckpointError(f"the shared half of adapter '{name}' differs from that of the others")
                layer.lora_A[part].copy_(a)
                layer.lora_B[part].copy_(b)


def _split(
    adapter: PeftAdapter, path: str, layer: LoraLinear, parts: Sequence[str]
) -> dict[str, tuple[Tensor, Tensor]]:
    config = adapter.config
    for variant in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out"):
        if config.get(variant):
            raise CheckpointError(f"the PEFT adapter uses {variant}; only plain LoRA of one rank can be read")
    key = f"base_model.model.{path}.lora_"
    try:
        a, b = adapter.tensors[f"{key}A.weight"], adapter.tensors[f"{key}B.weight"]
    except KeyError as error:
        raise CheckpointError(f"the PEFT adapter has no tensor {error}; it was made for another model") from None
    rank = layer.lora_A[parts[0]].shape[0]
    want = (rank * len(parts), layer.in_features), (layer.out_features, rank * len(parts))
    if (tuple(a.shape), tuple(b.shape)) != want:
        got = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise CheckpointError(f"{path}: the PEFT factors are {got}, expected {want[0]} and {want[1]}; check lora.rank")
    b = b * (config["lora_alpha"] / config["r"] / layer.scale)
    return {p: (a[i * rank : (i + 1) * rank], b[:, i * rank : (i + 1) * rank]) for i, p in enumerate(parts)}
