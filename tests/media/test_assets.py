"""The face networks: found, checked, fetched once, or their absence explained; never half there."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import omni_avsr.media.assets as assets
from omni_avsr.errors import AssetError
from omni_avsr.media.assets import Asset, ensure_face_models

CONTENTS = {"mediapipe/modules/a/one.tflite": b"the first", "mediapipe/modules/b/two.tflite": b"the second"}


class Index:
    """Stands for pip and the package index: puts a wheel into --dest, or fails."""

    def __init__(self, members: dict[str, bytes] | None) -> None:
        self.members = members
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        if self.members is None:
            return subprocess.CompletedProcess(command, 1, "", "noise\nERROR: no such distribution\n")
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "mediapipe-0.10.21-any.whl", "w") as wheel:
            for name, data in self.members.items():
                wheel.writestr(name, data)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, two small assets, and no mediapipe."""
    wanted = tuple(Asset(name, hashlib.sha256(data).hexdigest()) for name, data in CONTENTS.items())
    monkeypatch.setattr(assets, "FACE_ASSETS", wanted)
    monkeypatch.setenv("OMNI_AVSR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OMNI_AVSR_OFFLINE", raising=False)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mediapipe" else real(name))
    return tmp_path / "cache" / "faces"


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Index:
    index = Index(dict(CONTENTS))
    monkeypatch.setattr(subprocess, "run", index)
    return index


def test_they_are_fetched_once(cache: Path, index: Index) -> None:
    for _ in range(2):
        assert ensure_face_models() == cache
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == {
        "one.tflite": b"the first",
        "two.tflite": b"the second",
    }
    assert len(index.commands) == 1
    assert index.commands[0][:3] == [sys.executable, "-m", "pip"]  # whose configuration names the index
    assert "mediapipe==0.10.21" in index.commands[0]


def test_a_damaged_copy_is_replaced(cache: Path, index: Index) -> None:
    ensure_face_models()
    (cache / "one.tflite").write_bytes(b"the fir")
    ensure_face_models()
    assert (cache / "one.tflite").read_bytes() == b"the first"
    assert len(index.commands) == 2


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_offline_says_what_is_missing_and_where_to_put_it(
    cache: Path, index: Index, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "environment":
        monkeypatch.setenv("OMNI_AVSR_OFFLINE", "1")
    with pytest.raises(AssetError) as caught:
        ensure_face_models(offline=how == "argument")
    for part in ("one.tflite", "two.tflite", str(cache), "mediapipe==0.10.21", "offline"):
        assert part in str(caught.value)
    assert index.commands == []


def test_offline_is_no_obstacle_once_they_are_there(cache: Path, index: Index) -> None:
    ensure_face_models()
    assert ensure_face_models(offline=True) == cache


def test_an_index_without_the_wheel_is_said_so(cache: Path, index: Index) -> None:
    index.members = None
    with pytest.raises(AssetError, match="ERROR: no such distribution"):
        ensure_face_models()
    assert not cache.exists() or not list(cache.iterdir())


def test_foreign_content_is_refused_and_nothing_is_kept(cache: Path, index: Index) -> None:
    index.members = dict.fromkeys(CONTENTS, b"something else")
    with pytest.raises(AssetError, match="SHA-256"):
        ensure_face_models()
    assert not cache.exists() or not list(cache.iterdir())


def test_an_installed_mediapipe_is_used_without_importing_it(
    cache: Path, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, data in CONTENTS.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    (tmp_path / "site" / "mediapipe" / "__init__.py").write_text("raise RuntimeError('imported')")
    spec = importlib.machinery.ModuleSpec("mediapipe", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path / "site" / "mediapipe")]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert ensure_face_models(offline=True) == cache
    assert (cache / "two.tflite").read_bytes() == b"the second"
    assert index.commands == []


def test_an_unwritable_cache_is_said_so(cache: Path, index: Index) -> None:
    cache.parent.parent.mkdir(exist_ok=True)
    cache.parent.write_text("a file where the folder should be")
    with pytest.raises(AssetError, match="OMNI_AVSR_CACHE"):
        ensure_face_models()
