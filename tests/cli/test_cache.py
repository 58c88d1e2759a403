"""What is kept on the machine, and fetching it beforehand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from omni_avsr.media.assets import ensure_face_models

Run = Callable[..., Result]


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Caches of our own: a face network of 2 MB and a hub model of 1 MB."""
    monkeypatch.setenv("OMNI_AVSR_CACHE", str(tmp_path / "own"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "own" / "faces").mkdir(parents=True)
    (tmp_path / "own" / "faces" / "net.tflite").write_bytes(bytes(2_000_000))
    model = tmp_path / "hub" / "models--org--tiny"
    (model / "blobs").mkdir(parents=True)
    (model / "blobs" / "abc").write_bytes(bytes(1_000_000))
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("1234")
    (model / "snapshots" / "1234").mkdir(parents=True)
    (model / "snapshots" / "1234" / "weights").symlink_to(model / "blobs" / "abc")
    return tmp_path


def test_everything_that_is_kept_has_a_line(run: Run, caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("cache")
    assert result.exit_code == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows == [
        ["face", "networks", "2.0", "MB", str(caches / "own" / "faces")],
        ["org/tiny", "1.0", "MB", str(caches / "hub" / "models--org--tiny")],
    ]


def test_nothing_is_kept_before_anything_is_fetched(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNI_AVSR_CACHE", str(tmp_path / "none"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "none"))
    result = run("cache")
    assert (result.exit_code, result.stdout) == (0, "")


def test_fetching_what_is_here_needs_no_network_and_what_is_not_says_so(run: Run, model_folder: Path) -> None:
    here = run("cache", "--fetch", model_folder, "--offline")
    assert here.exit_code == 0, here.stderr
    assert here.stderr.splitlines() == [f"here: {ensure_face_models(offline=True)}", f"here: {model_folder}"]
    gone = run("cache", "--fetch", "org/not-there", "--offline")
    assert gone.exit_code == 1
    assert "it is not in the local cache and offline was asked for" in gone.stderr
