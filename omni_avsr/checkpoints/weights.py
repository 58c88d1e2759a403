"""The tensors of a model: which belong to which part, strictly filled from a file, fingerprinted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from omni_avsr.errors import CheckpointError
from omni_avsr.model.omni import OmniAVSR

FOREIGN = ("audio_encoder", "video_encoder", "llm")  # parts that may have a `source`; also fields of ModelConfig
ROWS = "#added"  # suffix, in the weights file, of the embedding rows of our tags: no source has them
_TABLES = ("embed_tokens.weight", "lm_head.weight")  # rows are tokens
_CHUNK = 1 << 22  # elements hashed at a time


def is_lora(name: str) -> bool:
    """Whether `name` is a low-rank factor."""
    return ".lora_" in name


def state(module: nn.Module, part: str = "") -> dict[str, Tensor]:
    """Name -> parameter or persistent buffer of `part` ("" = all); tied tensors once, under their first name."""
    prefix = f"{part}." if part else ""
    seen: dict[int, str] = {}
    named = module.state_dict(keep_vars=True)
    return {n: t for n, t in named.items() if seen.setdefault(id(t), n) == n and n.startswith(prefix)}


class SkipRandomInit(TorchFunctionMode):
    """Leaves parameters as they are allocated, for a model of which every tensor is about to be read from a file."""

    # by name: transformers puts functions of its own in the place of torch's
    _random = frozenset({"random_", "bernoulli_"} | {n for n in vars(nn.init) if n.endswith("_") and n[0] != "_"})

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs `func`, unless it only draws random numbers into its first argument."""
        if getattr(func, "__name__", "") in self._random:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


# ---- filling ---------------------------------------------------------------------------------


@torch.no_grad()
def fill(
    model: nn.Module, tensors: Mapping[str, Tensor], expected: Iterable[str], where: str, dtype: torch.dtype | None
) -> None:
    """Gives the model's tensors the values of `tensors`, which must be exactly those `expected`.

    A tensor that has the right type is not copied: one that is mapped from a file stays so.

    Args:
        model: is changed in place.
        tensors: name -> value.
        expected: the names that must be there.
        where: what they are called in an error.
        dtype: of the floating-point values; None = as `tensors` have them.

    Raises:
        CheckpointError: a name is missing or unknown, or a shape does not fit.
    """
    own = state(model)
    wanted = set(expected)
    absent, unknown = sorted(wanted - set(tensors)), sorted(set(tensors) - wanted)
    if absent or unknown:
        what = f"has no tensor '{absent[0]}'" if absent else f"has a tensor '{unknown[0]}' that is not expected"
        raise CheckpointError(
            f"{where} {what} ({len(absent) + len(unknown)} of {len(wanted)} names differ); the file is incomplete or "
            "belongs to another configuration: copy or download it again"
        )
    for name, value in tensors.items():
        target = own[name]
        if target.shape != value.shape:
            raise CheckpointError(
                f"{where}: '{name}' has shape {tuple(value.shape)}, the configuration asks for {tuple(target.shape)}; "
                "weights and configuration belong to different models"
            )
        if value.is_floating_point():
            value = value.to(dtype or value.dtype)
        if target.stride() != value.stride():  # the model keeps some weights channels-last
            value = torch.empty_like(target, dtype=value.dtype).copy_(value)
        target.data = value


# ---- embedding rows that no source has -------------------------------------------------------


def _added_ids(model: OmniAVSR) -> list[int]:
    return sorted({model.tokenizer.pad_id, *(i for pair in model.tokenizer.tags.values() for i in pair)})


def _tables(model: OmniAVSR) -> dict[str, Tensor]:
    return {n: t for n, t in state(model, "llm").items() if n.endswith(_TABLES)}


def added_rows(model: OmniAVSR) -> dict[str, Tensor]:
    """The embedding rows of padding and tags, random when the model was made: name + ROWS -> (added, H)."""
    return {f"{name}{ROWS}": table[_added_ids(model)] for name, table in _tables(model).items()}


@torch.no_grad()
def fill_rows(model: OmniAVSR, rows: Mapping[str, Tensor], where: str) -> None:
    """Undoes `added_rows`.

    Raises:
        CheckpointError: other tables, or another number or width of rows.
    """
    tables = _tables(model)
    expected = {f"{name}{ROWS}": (len(_added_ids(model)), table.shape[1]) for name, table in tables.items()}
    found = {name: tuple(values.shape) for name, values in rows.items()}
    if found != expected:
        raise CheckpointError(f"{where}: embedding rows of added tokens are {found}, expected {expected}")
    for name, values in rows.items():
        table = tables[name.removesuffix(ROWS)]
        table[_added_ids(model)] = values.to(table.dtype)


# ---- digests ---------------------------------------------------------------------------------


def digest(module: nn.Module) -> str:
    """sha256 over names, shapes and float32 values of a module's tensors; a bfloat16 and a float32 copy agree."""
    return _digest(state(module))


def part_digest(model: OmniAVSR, part: str) -> str:
    """Digest of what a source gives to `part`: LoRA and the embedding rows of padding and tags are left out."""
    tensors = {n: t.detach() for n, t in state(model, part).items() if not is_lora(n)}
    for name in [n for n in tensors if part == "llm" and n.endswith(_TABLES)]:
        keep = torch.ones(len(tensors[name]), dtype=torch.bool, device=tensors[name].device)
        keep[_added_ids(model)] = False
        tensors[name] = tensors[name][keep]
    return _digest(tensors)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        sha.update(f"{name}{list(tensor.shape)}".encode())
        for chunk in tensor.reshape(-1).split(_CHUNK) if tensor.numel() else ():
            value = chunk.to("cpu", torch.float32 if chunk.is_floating_point() else torch.int64).contiguous()
            sha.update(value.view(torch.uint8).numpy().data)
    return sha.hexdigest()
