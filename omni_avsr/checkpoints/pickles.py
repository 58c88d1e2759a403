"""PyTorch's pickled files read without running anything in them.

A pickle is a program that may call whatever it can import, and set attributes of whatever it is given. This reader
imports nothing on its behalf and gives it nothing that lives on: of torch it gets stand-ins made for the file, classes
of the programs that write such files become empty shells, and every other name is refused.
"""

from __future__ import annotations

import pickle
import tarfile
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omni_avsr.errors import CheckpointError

# Nothing of these is imported: a class of theirs becomes a `Shell` of the same name.
_SHELLS = frozenset(
    {
        *("fairseq", "omegaconf", "argparse", "av_hubert", "avhubert", "hubert", "hubert_pretraining"),
        *("pytorch_lightning", "lightning", "lightning_fabric", "lightning_utilities", "torchmetrics"),
        *("numpy", "_codecs", "pathlib", "typing", "enum", "datetime"),
    }
)
_BUILTINS = {t.__name__: t for t in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)}


class Shell:
    """What is left of an object whose class is not imported: its name and its data."""

    name = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> Shell:
        shell = super().__new__(cls)
        shell.args = args
        shell.state = {}
        shell.items = []
        return shell

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args: tuple[Any, ...]
        self.state: Any
        self.items: list[Any]

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, value: Any) -> None:
        """Elements of a pickled subclass of list."""
        self.items.append(value)

    def extend(self, values: Any) -> None:
        """Elements of a pickled subclass of list."""
        self.items.extend(values)

    def __hash__(self) -> int:
        return id(self)


def plain(value: Any, depth: int = 12) -> Any:
    """Settings as dicts, lists and scalars: the nodes of omegaconf and the fields of a Namespace are unwrapped."""
    if depth == 0:
        return None
    if isinstance(value, Shell):
        state = value.state
        if not isinstance(state, dict):
            return value.args[0] if len(value.args) == 1 else None
        for key in ("_content", "_val"):  # omegaconf's containers and leaves
            if key in state:
                return plain(state[key], depth - 1)
        return plain(state, depth - 1)
    if isinstance(value, dict):
        return {k: plain(v, depth - 1) for k, v in value.items() if isinstance(k, str)}
    if isinstance(value, (list, tuple)):
        return [plain(v, depth - 1) for v in value]
    return value


# ---- what a pickle gets ----------------------------------------------------------------------


class _Given:
    """What a pickle may use but not change: its opcode BUILD ends here."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a pickle may not change what it is given")


class _Maker(_Given):
    """Stands for a function or a class that the pickle calls."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)


class _Storage(_Given):
    """Stands for a class of storages, of which torch.load asks the type of the elements."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class _Ordered(dict[Any, Any]):
    """Stands for collections.OrderedDict, whose attributes (a state dict's `_metadata`) are left out."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor:
    """torch._utils._rebuild_tensor and _rebuild_tensor_v2 without hooks and gradients; the bounds are checked."""
    return torch._utils._rebuild_tensor(storage, offset, size, stride)


def _shell(kind: Any, base: Any = None, state: Any = None) -> Any:
    """copyreg._reconstructor for shells only."""
    if not (isinstance(kind, type) and issubclass(kind, Shell)):
        raise pickle.UnpicklingError("copyreg may only make shells")
    return kind()


def _allowed() -> dict[tuple[str, str], Any]:
    """Module and name -> what the pickle gets instead; made anew for each file."""
    table: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): _Maker(_Ordered),
        ("collections", "defaultdict"): _Maker(lambda *args: {}),
        ("torch", "Size"): _Maker(torch.Size),
        ("torch", "device"): _Maker(torch.device),
        ("torch._utils", "_rebuild_tensor"): _Maker(_tensor),
        ("torch._utils", "_rebuild_tensor_v2"): _Maker(_tensor),
        ("torch._utils", "_rebuild_parameter"): _Maker(lambda data, *rest: torch.nn.Parameter(data, False)),
        ("copyreg", "_reconstructor"): _Maker(_shell),
        ("copy_reg", "_reconstructor"): _Maker(_shell),
    }
    for name, kind in _BUILTINS.items():
        table["builtins", name] = table["__builtin__", name] = kind
    for name, value in vars(torch).items():
        if isinstance(value, torch.dtype):  # like the built-in types, it has no attributes that could be set
            table["torch", name] = value
        elif name.endswith("Storage") and name != "TypedStorage":  # the base class has no type of its own
            table["torch", name] = table["torch.storage", name] = _Storage(getattr(value, "_dtype", torch.uint8))
    return table


def _checked(persistent_load: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Refuses what else may be asked of torch.load than storages: of the older format it writes a class's source."""

    def load(asked: Any) -> Any:
        if not isinstance(asked, tuple) or asked[:1] not in (("storage",), (b"storage",)):
            raise pickle.UnpicklingError("asks for something that is no storage")
        return persistent_load(asked)

    return load


def _unpickler(path: Path) -> type[pickle.Unpickler]:
    allowed = _allowed()

    class Unpickler(pickle.Unpickler):
        """Finds what is in the table, shells, and nothing else."""

        def __setattr__(self, name: str, value: Any) -> None:  # torch.load sets persistent_load
            super().__setattr__(name, _checked(value) if name == "persistent_load" else value)

        def find_class(self, module: str, name: str) -> Any:
            if (module, name) in allowed:
                return allowed[module, name]
            if module.partition(".")[0] in _SHELLS:
                return allowed.setdefault((module, name), type(name, (Shell,), {"name": f"{module}.{name}"}))
            raise CheckpointError(
                f"{path} wants to call '{module}.{name}', which no weights need: the file may be malicious and was "
                "not read. Get it from its publisher, or have it saved as plain tensors (safetensors)"
            )

    return Unpickler


# ---- reading ---------------------------------------------------------------------------------


def read_pickle(path: str | Path) -> Any:
    """The content of a file written by torch.save, in the zip or the older format; tensors on the CPU.

    Tensors of the zip format are mapped into memory, so a file larger than the memory can be read.

    Raises:
        CheckpointError: no such file, truncated, not PyTorch's, or it names something that is not allowed.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; give the path of a checkpoint")
    zipped = zipfile.is_zipfile(path)
    if zipped:
        _check_archive(path)
    elif tarfile.is_tarfile(path):
        raise CheckpointError(f"{path} is a tar archive; give a file of torch.save (zip, or the format before it)")
    unpickler = _unpickler(path)
    module = types.SimpleNamespace(
        __name__="omni_avsr.checkpoints.pickles",
        Unpickler=unpickler,
        load=lambda file, **options: unpickler(file, **options).load(),
    )
    try:
        return torch.load(path, map_location="cpu", mmap=zipped, weights_only=False, pickle_module=module)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a damaged file makes of the parser
        raise CheckpointError(
            f"{path} is not a complete PyTorch file ({type(error).__name__}: {str(error).partition(chr(10))[0]}); "
            "it is truncated or something else, copy or download it again"
        ) from None


def _check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        names = [name.partition("/")[2] for name in archive.namelist()]
    if "constants.pkl" in names:
        raise CheckpointError(f"{path} is a TorchScript program, not weights; give the checkpoint it was made from")
