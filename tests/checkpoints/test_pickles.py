"""Files of torch.save are read without anything in them being run."""

from __future__ import annotations

import argparse
import builtins
import contextlib
import io
import os
import pickle
import sys
import tarfile
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from omni_avsr.checkpoints import pickles
from omni_avsr.checkpoints.pickles import Shell, plain, read_pickle
from omni_avsr.errors import CheckpointError

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def _save(value: Any, path: Path, zipped: bool) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


class Evil:
    """Runs a command when a naive reader unpickles it."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@FORMATS
def test_tensors_and_containers_survive(zipped: bool, tmp_path: Path) -> None:
    tied = torch.randn(3, 4)
    value = {
        "w": tied,
        "same": tied,
        "half": torch.randn(5).half(),
        "brain": torch.randn(2, 2).bfloat16().T,
        "count": torch.tensor(7),
        "parameter": nn.Parameter(torch.ones(2)),
        "nested": OrderedDict(a=[1, 2.5, None, True, "x"], b=(torch.Size([2, 3]), torch.float16)),
    }
    got = read_pickle(_save(value, tmp_path / "f.pt", zipped))
    for name in ("w", "half", "brain", "count", "parameter"):
        assert torch.equal(got[name], value[name])
        assert got[name].dtype == value[name].dtype
    assert got["nested"] == value["nested"]
    assert got["same"].data_ptr() == got["w"].data_ptr()


@FORMATS
@pytest.mark.parametrize(
    ("evil", "name"),
    [
        (Evil(os.system, "touch {marker}"), r"posix\.system"),
        (Evil(eval, "open('{marker}', 'w')"), r"__builtin__\.eval"),
        (Evil(getattr, torch.Tensor, "load"), r"torch\.Tensor|__builtin__\.getattr"),
        (Evil(torch.load, "{marker}"), r"torch\.serialization\.load"),
        (Evil(torch.hub.load, "x", "y"), r"torch\.hub\.load"),
        (Evil(__import__, "os"), r"__builtin__\.__import__"),
        (Evil(pickle.loads, b""), r"\w+\.loads"),
    ],
)
def test_a_malicious_file_is_refused_by_name(evil: Evil, name: str, zipped: bool, tmp_path: Path) -> None:
    marker = tmp_path / "pwned"
    function, args = evil.call
    armed = Evil(function, *(a.replace("{marker}", str(marker)) if isinstance(a, str) else a for a in args))
    path = _save({"model": {"w": torch.ones(1)}, "cfg": armed}, tmp_path / "evil.pt", zipped)
    with pytest.raises(CheckpointError, match=rf"evil\.pt wants to call '({name})'.*malicious"):
        read_pickle(path)
    assert not marker.exists()


# What is on the stack is given attributes, items and elements; the names are those a real attack would use.
CHANGES: dict[str, bytes] = {
    "BUILD": b"}(X\x05\x00\x00\x00ownedK\x01X\x06\x00\x00\x00nbytesK\x01X\x08\x00\x00\x00__init__K\x01ub",
    "BUILD of slots": b"N}(X\x05\x00\x00\x00ownedK\x01X\x05\x00\x00\x00dtypeK\x01X\x05\x00\x00\x00_makeK\x01u\x86b",
    "SETITEM": b"X\x05\x00\x00\x00ownedK\x01s",
    "APPENDS": b"(K\x01K\x02e",
}


def _program(name: tuple[str, str], change: bytes, path: Path, zipped: bool) -> Path:
    """A file that fetches `name` and changes it."""
    code = b"\x80\x02" + f"c{name[0]}\n{name[1]}\n".encode() + change + b"."
    if not zipped:
        header = (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {})
        path.write_bytes(b"".join(pickle.dumps(value, 2) for value in header) + code + pickle.dumps([], 2))
        return path
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("f/data.pkl", code)
        archive.writestr("f/version", "3\n")
        archive.writestr("f/byteorder", "little")
    return path


def _process() -> dict[str, Any]:
    """The attributes of everything that a pickle could have been given instead of a stand-in, and of the reader."""
    kinds = [torch.Size, torch.device, torch.dtype, torch.Tensor, nn.Parameter, OrderedDict, Shell]
    kinds += [kind for name, kind in vars(torch).items() if name.endswith("Storage")]
    kinds += [kind for kind in vars(pickles).values() if isinstance(kind, type)]
    calls = [call for call in vars(torch._utils).values() if isinstance(call, types.FunctionType)]
    calls += [call for call in vars(pickles).values() if isinstance(call, types.FunctionType)]
    return {f"{i} {thing!r}": dict(vars(thing)) for i, thing in enumerate([*kinds, *calls, builtins, torch])}


@FORMATS
@pytest.mark.parametrize("change", CHANGES)
def test_a_pickle_changes_nothing_that_it_is_given(change: str, zipped: bool, tmp_path: Path) -> None:
    """Of every name that is allowed; whether the file is then refused or read does not matter."""
    whole = _save({"w": torch.ones(2)}, tmp_path / "whole.pt", zipped)
    names = [*pickles._allowed(), ("fairseq", "Shell"), ("torch", "UntypedStorage"), ("torch.storage", "TypedStorage")]
    assert len(names) > 60
    before = _process()
    for name in names:
        with contextlib.suppress(CheckpointError):
            read_pickle(_program(name, CHANGES[change], tmp_path / "f.pt", zipped))
        assert _process() == before, f"{change} on {'.'.join(name)}"
    assert torch.equal(read_pickle(whole)["w"], torch.ones(2))


def test_nothing_of_torch_is_given_to_a_pickle() -> None:
    for name, given in pickles._allowed().items():
        immutable = isinstance(given, (pickles._Given, torch.dtype)) or given in pickles._BUILTINS.values()
        assert immutable, name


def test_a_legacy_file_writes_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.load writes the "patch" of a class whose source differs, to a path that the class names."""
    monkeypatch.chdir(tmp_path)
    text = lambda value: b"X" + len(value).to_bytes(4, "little") + value  # noqa: E731
    fields = text(b"__wrapped__") + b"cfairseq\nShell\n" + text(b"dump_patches") + b"\x88"
    storage = b"ctorch\nFloatStorage\n}(" + fields + text(b"__name__") + text(str(tmp_path / "owned").encode()) + b"ub"
    asked = b"(" + text(b"module") + storage + text(b"x.py") + text(b"class Shell: ...") + b"tQ"
    header = (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {})
    code = b"\x80\x02" + asked + b"."
    path = tmp_path / "f.pt"
    path.write_bytes(b"".join(pickle.dumps(value, 2) for value in header) + code + pickle.dumps([], 2))
    with pytest.raises(CheckpointError, match="asks for something that is no storage"):
        read_pickle(path)
    assert [p.name for p in tmp_path.iterdir()] == ["f.pt"]


def test_hooks_of_a_tensor_are_left_out(tmp_path: Path) -> None:
    """They would be called by a backward pass."""
    tensor = torch.ones(2, requires_grad=True)
    hooks = OrderedDict({0: complex})
    storage = tensor.detach().untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    armed = Evil(torch._utils._rebuild_tensor_v2, typed, 0, (2,), (1,), True, hooks)
    got = read_pickle(_save({"w": armed}, tmp_path / "f.pt", True))["w"]
    assert torch.equal(got, torch.ones(2))
    assert not got._backward_hooks


def test_an_archive_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "f.pt", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    with pytest.raises(CheckpointError, match="is a tar archive; give a file of"):
        read_pickle(tmp_path / "f.pt")


@FORMATS
def test_settings_of_other_programs_become_plain(zipped: bool, tmp_path: Path, foreign: dict[str, type]) -> None:
    node = foreign["AnyNode"]()
    node._val, node._parent = 16, None
    config = foreign["DictConfig"]()
    config._content, config._metadata = {"encoder_attention_heads": node}, foreign["AnyNode"]()
    dictionary = foreign["Dictionary"]()
    dictionary.symbols = ["<s>", "<pad>"]
    value = {
        "cfg": {"model": config, "task": {"labels": ["km"], "sample_rate": 25}},
        "args": argparse.Namespace(rank=32, llm_model="meta-llama/Llama-3.2-1B"),
        "task_state": {"dictionaries": [dictionary]},
        "model": {"w": torch.ones(2)},
    }
    got = read_pickle(_save(value, tmp_path / "f.pt", zipped))
    assert plain(got["cfg"])["model"] == {"encoder_attention_heads": 16}
    assert plain(got["args"]) == {"rank": 32, "llm_model": "meta-llama/Llama-3.2-1B"}
    assert isinstance(got["task_state"]["dictionaries"][0], Shell)
    assert plain(got["task_state"]) == {"dictionaries": [{"symbols": ["<s>", "<pad>"]}]}


@pytest.fixture
def foreign() -> Iterator[dict[str, type]]:
    """Classes of omegaconf and fairseq as far as pickle sees them."""
    made, before = {}, dict(sys.modules)
    for module, name in (
        ("omegaconf.dictconfig", "DictConfig"),
        ("omegaconf.nodes", "AnyNode"),
        ("fairseq.data.dictionary", "Dictionary"),
    ):
        kind = type(name, (), {"__module__": module, "__qualname__": name})
        for part in (module.partition(".")[0], module.rpartition(".")[0], module):
            sys.modules.setdefault(part, types.ModuleType(part))
        setattr(sys.modules[module], name, kind)
        made[name] = kind
    yield made
    for module in set(sys.modules) - set(before):
        if module.partition(".")[0] in ("omegaconf", "fairseq"):
            del sys.modules[module]


def test_numbers_of_numpy_are_not_made(tmp_path: Path) -> None:
    import numpy as np

    got = read_pickle(_save({"best": np.float64(0.5), "w": torch.ones(1)}, tmp_path / "f.pt", True))
    assert isinstance(got["best"], Shell)
    assert torch.equal(got["w"], torch.ones(1))


@FORMATS
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated(zipped: bool, share: float, tmp_path: Path) -> None:
    path = _save({"w": torch.randn(1000)}, tmp_path / "f.pt", zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"f\.pt is not a complete PyTorch file.*download it again"):
        read_pickle(path)


def test_something_else(tmp_path: Path) -> None:
    (tmp_path / "page.pt").write_text("<html>please accept the licence first</html>")
    with pytest.raises(CheckpointError, match="not a complete PyTorch file"):
        read_pickle(tmp_path / "page.pt")
    with pytest.raises(CheckpointError, match="there is no file"):
        read_pickle(tmp_path / "none.pt")


def test_programs_are_not_weights(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("m/constants.pkl", b"")
        archive.writestr("m/data.pkl", b"")
    (tmp_path / "m.pt").write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_pickle(tmp_path / "m.pt")
