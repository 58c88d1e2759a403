from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from omni_avsr.transcribe.budget import settings
from omni_avsr.transcribe.transcriber import Transcriber

Run = Callable[..., Result]


def test_bench_prints_stages_and_what_the_machine_allows(run: Run, model_folder: Path, monkeypatch) -> None:
    monkeypatch.setattr("omni_avsr.bench.floor.WIDTH", 256)  # a small product is enough here
    result = run("bench", model_folder, "--task", "asr", "--beam_size", 2, "--clock", "cpu", "--json", "--threads", 1)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["rtf"] > 0
    assert found["llm_passes"] > 0
    assert [row["stage"] for row in found["stages"] if row["gflop"]]
    assert all(found[key] > 0 for key in ("machine_gflops", "machine_gb_per_second", "peak_memory_gib"))
    table = run("bench", model_folder, "--task", "asr", "--beam_size", 1)
    assert table.exit_code == 0
    assert "audio encoder" in table.stdout
    assert "real-time factor" in " ".join(table.stdout.split())


def test_calibrate_measures_every_setting(run: Run, model_folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("OMNI_AVSR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Transcriber, "_cost", lambda self, beam_size, setting: 3.0)
    result = run("bench", model_folder, "--calibrate", "--json")
    assert result.exit_code == 0, result.output
    expected = settings(Transcriber(model_folder).model.config)
    assert [row["task"] for row in json.loads(result.stdout)] == [setting.task for setting in expected]
    assert list((tmp_path / "cache" / "costs").glob("*.json"))
    assert "s of work per second" in run("bench", model_folder, "--calibrate").stdout


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--clock", "sun", "--clock sun"),
        ("--compute_type", "int3", "'int3' is unknown"),
        ("--device", "moon", "'moon'"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    run: Run, model_folder: Path, option: str, value: str, message: str, caplog
):
    assert run("bench", model_folder, option, value).exit_code == 1
    assert message in caplog.text
