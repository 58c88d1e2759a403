"""`omni-avsr evaluate`: how the model computes, and which systems a budget chooses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from omni_avsr.data.manifest import Row, write_manifest
from omni_avsr.data.mouth_store import write_store
from omni_avsr.transcribe.budget import settings
from omni_avsr.transcribe.transcriber import Transcriber
from tests.clips import voice, wav

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One row with both streams."""
    folder = tmp_path_factory.mktemp("corpus")
    store = write_store(folder / "a.mkv", np.full((20, 96, 96), 99, np.uint8), voice()[: 640 * 20])
    return write_manifest(folder / "manifest.jsonl", [Row("a", store, "bin blue", "dev", mouths=store, frames=20)])


def measured(run: Run, manifest: Path, model: Path, *options: object) -> dict[str, Any]:
    result = run("evaluate", manifest, "--model", model, "--beam_size", 1, "-o", "out", *options)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(Path("out/results.json").read_text())
    return found


@pytest.mark.parametrize("compute_type", ["default", "bfloat16", "int8"])
def test_the_compute_type_is_used_and_recorded(
    run: Run, model_folder: Path, manifest: Path, compute_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omni_avsr.checkpoints import native
    from omni_avsr.model import compute

    used = []
    prepare = compute.prepare
    monkeypatch.setattr(native.compute, "prepare", lambda model, row: used.append(row.name) or prepare(model, row))
    meta = measured(run, manifest, model_folder, "--tasks", "asr", "--compute_type", compute_type, "--fast")["meta"]
    assert used == [compute_type]
    assert (meta["compute_type"], meta["fast"]) == (compute_type, True)


def test_a_budget_chooses_the_rates_of_each_task(
    run: Run, model_folder: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch, says: None
) -> None:
    monkeypatch.setattr(
        Transcriber, "costs", lambda self, beam_size: {s: s.tokens for s in settings(self.model.config)}
    )

    def systems(*options: object) -> list[tuple[str, int | None, int | None]]:
        rows = measured(run, manifest, model_folder, *options)["rows"]
        return [(row["task"], row["audio_rate"], row["video_rate"]) for row in rows]

    assert systems("--budget", "fast") == [("asr", 16, None)]
    assert systems("--budget", "fast", "--tasks", "vsr", "avsr") == [("vsr", None, 5), ("avsr", 16, 5)]
    assert systems("--target_rtf", 20) == [("avsr", 4, 5)]


def test_a_row_that_cannot_be_read_is_the_exit_status_and_the_others_are_measured(
    run: Run, model_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cut.wav").write_bytes(b"no media" * 100)
    rows = [Row(name, tmp_path / f"{name}.wav", "bin blue", "dev", frames=20) for name in ("cut", "whole")]
    wav(tmp_path / "whole.wav", voice()[: 640 * 20])
    manifest = write_manifest(tmp_path / "manifest.jsonl", rows)
    result = run("evaluate", manifest, "--model", model_folder, "--tasks", "asr", "--beam_size", 1, "-o", "out")
    assert result.exit_code == 1
    assert "row 'cut' is left out" in caplog.text
    assert json.loads(Path("out/results.json").read_text())["rows"][0]["utterances"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--budget", "cheap"], "'cheap' is unknown"),
        (["--budget", "fast", "--audio_rates", "4"], "leave out --audio_rates"),
        (["--budget", "fast", "--tasks", "asrr"], "did you mean 'asr'"),
        (["--compute_type", "int9"], "'int9' is unknown"),
        (["--noise", "white"], "--noise white: say how loud"),
        (["--snrs", "loud"], "--snrs loud: expected 'clean' or a number"),
    ],
)
def test_what_does_not_go_together_is_refused(
    run: Run, model_folder: Path, manifest: Path, options: list[str], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert run("evaluate", manifest, "--model", model_folder, "-o", "out", *options).exit_code == 1
    assert message in caplog.text
    assert not Path("out").exists()
