"""Folders and tensor files on disk: replaced whole or not at all, written as a stream, found by name or hub id."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from omni_avsr.errors import AssetError, CheckpointError

CONFIG, WEIGHTS, REFERENCES, ORIGIN, CTC = (
    "config.json",
    "model.safetensors",
    "references.json",
    "origin.json",
    "ctc.json",
)
TOKENIZER, ADAPTERS = "tokenizer", "adapters"
CONTENTS = frozenset({CONFIG, WEIGHTS, REFERENCES, ORIGIN, CTC, TOKENIZER, ADAPTERS, "README.md"})
"""All that a model folder may hold; a folder with anything else in it is never replaced."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_DTYPES: dict[torch.dtype, str] = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
}
_CHUNK = 1 << 24  # elements converted at a time


# ---- folders ---------------------------------------------------------------------------------


def locate(name: str | Path, offline: bool = False) -> Path:
    """The model folder called `name`: "default" (comes with the package), a directory, or a hub id.

    Raises:
        CheckpointError: no such folder, or it is not a model.
        AssetError: a hub id that is not in the cache and cannot, or may not, be fetched.
    """
    path = Path(name).expanduser()
    if str(name) == "default":
        path = Path(str(resources.files("omni_avsr"))) / "assets" / "default"
    elif not path.exists() and _HUB_ID.fullmatch(str(name)):
        path = fetch(str(name), offline)
    if not (path / CONFIG).is_file():
        previous = path.parent / f".{path.name}.previous"
        hint = f"; an interrupted save left the version before it in {previous}" if previous.is_dir() else ""
        raise CheckpointError(
            f"'{name}' is not a model folder: there is no {path / CONFIG}{hint}. Give a folder that 'train' or "
            "'import' wrote, a hub id, or 'default'"
        )
    return path


def fetch(hub_id: str, offline: bool) -> Path:
    """The local folder of a hub repository; `offline` = only if it is in the cache.

    Raises:
        AssetError: it cannot, or may not, be fetched.
    """
    try:
        return Path(snapshot_download(hub_id, local_files_only=offline))
    except (HfHubHTTPError, OSError, ValueError) as error:
        why = "it is not in the local cache and offline was asked for" if offline else str(error).partition("\n")[0]
        raise AssetError(f"model '{hub_id}': no such folder here, and the hub did not give it: {why}") from None


def folder_digest(folder: Path) -> str:
    """sha256 of a model folder, its origin aside: by this, results name the model that gave them."""
    sha = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ORIGIN):
        sha.update(str(path.relative_to(folder)).encode())
        with path.open("rb") as file:
            sha.update(hashlib.file_digest(file, "sha256").digest())
    return sha.hexdigest()


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `folder` when the block ends well; else `folder` stays as it was.

    Raises:
        CheckpointError: `folder` holds files that are not a model's.
    """
    folder = folder.absolute()
    if folder.is_file():
        raise CheckpointError(f"{folder} is a file; give a folder to write the model to")
    strangers = sorted(p.name for p in folder.iterdir() if p.name not in CONTENTS) if folder.is_dir() else []
    if strangers:
        raise CheckpointError(f"{folder} also holds {', '.join(strangers[:3])}; give an empty folder or a model folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        draft.chmod(0o755)  # mkdtemp's 0700 is for secrets
        yield draft
        previous = folder.parent / f".{folder.name}.previous"
        shutil.rmtree(previous, ignore_errors=True)
        if folder.exists():
            os.replace(folder, previous)
        try:
            os.replace(draft, folder)
        except OSError:
            if previous.exists():
                os.replace(previous, folder)
            raise
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """`value` as readable JSON."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: Path, default: Any = None) -> Any:
    """The value of a JSON file; `default`, where given, for a file that is not there.

    Raises:
        CheckpointError: no such file, or not JSON.
    """
    if default is not None and not path.exists():
        return default
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}; copy or download the folder again") from None


# ---- tensor files ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Lazy:
    """A tensor that is made when it is written, so that a large model never is in memory twice."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    make: Callable[[], Tensor]

    @property
    def size(self) -> int:
        """Bytes."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def cast(self, dtype: torch.dtype | None) -> Lazy:
        """The same with floating-point values as `dtype`; None = unchanged."""
        return self if dtype is None or not self.dtype.is_floating_point else Lazy(dtype, self.shape, self.make)


def lazy(tensor: Tensor) -> Lazy:
    """`tensor`, which is there already."""
    return Lazy(tensor.dtype, tuple(tensor.shape), tensor.detach)


def write_tensors(path: Path, tensors: Mapping[str, Lazy]) -> None:
    """Writes a safetensors file, one tensor in memory at a time.

    Raises:
        CheckpointError: a value that the target type cannot hold.
    """
    # wide types first, so that every tensor starts at a multiple of its own item size and can be mapped into memory
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in order:
        tensor = tensors[name]
        span = [offset, offset + tensor.size]
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": span}
        offset = span[1]
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little"))
        file.write(head)
        for name in order:
            for chunk in _chunks(name, tensors[name]):
                file.write(chunk.view(torch.uint8).numpy().data)


def _chunks(name: str, tensor: Lazy) -> Iterator[Tensor]:
    flat = tensor.make().reshape(-1)
    for chunk in flat.split(_CHUNK) if len(flat) else ():
        out = chunk.to("cpu", tensor.dtype).contiguous()
        if tensor.dtype is torch.float16 and not out.isfinite().all() and chunk.isfinite().all():
            raise CheckpointError(f"'{name}' holds values beyond float16's 65504; store the model as bfloat16")
        yield out


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, mapped into memory: pages are read when touched, and copied when written.

    Raises:
        CheckpointError: no such file, truncated, or not safetensors.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


def tensor_shapes(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> (dtype, shape) of a safetensors file; only its header is read."""
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: (s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(str(path), "pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read as safetensors: {error}; it is missing or truncated, copy or download it again"
        ) from None
