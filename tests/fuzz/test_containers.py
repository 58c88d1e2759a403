"""The watch sees what it should, and a sample of the damaged containers; `make fuzz` runs thousands."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from omni_avsr.checkpoints import save_model
from omni_avsr.config import ModelConfig
from omni_avsr.model.omni import build_model
from tests.conftest import TEXTS, TINY
from tests.fuzz.__main__ import run, summary
from tests.fuzz.mutants import SEEDS, make_seeds, mutant
from tests.fuzz.watch import Watch

WORKER = """
import json, os, sys, time
print("ready", flush=True)
for line in sys.stdin:
    name = os.path.basename(line.strip())
    if name == "crash": os.abort()
    if name == "exit": sys.exit(3)
    if name == "hang": time.sleep(60)
    if name == "hungry": held = bytearray(b"x" * 300_000_000); del held
    print(json.dumps({"outcome": "error" if name == "bug" else "text", "message": "", "seconds": 0.0}), flush=True)
"""


@pytest.fixture
def watch() -> Watch:
    return Watch([sys.executable, "-c", WORKER], patience=30.0, memory=200_000_000)


@pytest.mark.parametrize(
    ("name", "outcome", "message"),
    [
        ("fine", "text", ""),
        ("bug", "error", ""),
        ("crash", "crash", "SIGABRT"),
        ("exit", "crash", "exit code 3"),
        ("hungry", "memory", ""),
    ],
)
def test_the_watch_tells_what_happened_and_goes_on(watch: Watch, name: str, outcome: str, message: str) -> None:
    with watch:
        verdict = watch.file(Path(name))
        assert (verdict.outcome, verdict.message, verdict.good) == (outcome, message, name == "fine")
        assert watch.file(Path("fine")).outcome == "text"


def test_the_watch_does_not_wait_for_ever() -> None:
    with Watch([sys.executable, "-c", WORKER], patience=5.0) as watch:
        assert watch.file(Path("hang")).outcome == "hang"
        assert watch.file(Path("fine")).outcome == "text"


def test_a_case_is_the_same_bytes_every_time_and_never_the_seed() -> None:
    seeds = [bytes(range(256)) * (20 + number) for number in range(len(SEEDS))]
    for case in range(100):
        number, data = mutant(case, seeds)
        assert mutant(case, seeds) == (number, data)
        assert number == case % len(seeds)
    assert sum(mutant(case, seeds)[1] != seeds[case % len(seeds)] for case in range(100)) > 90


def test_the_summary_names_the_worst_cases_and_the_code_they_ran_on() -> None:
    rows = [
        {"case": 0, "outcome": "text", "seconds": 0.5, "peak": 300 * 2**20, "commit": "b"},
        {"case": 1, "outcome": "refused", "seconds": 2.5, "peak": 0, "commit": "a"},
        {"case": 2, "outcome": "text", "seconds": 0.1, "peak": 400 * 2**20, "commit": "b"},
    ]
    found = summary(rows)
    assert (found["cases"], found["outcomes"], found["commits"]) == (3, {"text": 2, "refused": 1}, ["a", "b"])
    assert (found["slowest"], found["peak"]) == ({"case": 1, "seconds": 2.5}, {"case": 2, "mib": 400.0})


@pytest.mark.slow
def test_damaged_containers_give_text_or_a_sentence(tmp_path: Path) -> None:
    model = build_model(ModelConfig.model_validate(TINY), TEXTS)
    folder = save_model(model, tmp_path / "model", origin={"made_by": "a test"})
    seeds = make_seeds(tmp_path / "seeds")
    with Watch.transcriber(folder) as watch:
        assert {watch.file(path).outcome for path in seeds} == {"text"}
        verdicts = {case: run(case, seeds, tmp_path, watch) for case in range(96)}
    assert {case: verdict for case, verdict in verdicts.items() if not verdict.good} == {}
    assert {verdict.outcome for verdict in verdicts.values()} == {"text", "refused"}
