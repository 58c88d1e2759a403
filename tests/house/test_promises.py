"""What the documents promise exists: commands, recipes, tables, public names, file sizes."""

from __future__ import annotations

import ast
import importlib
import json
import re
from pathlib import Path

import pytest
import typer

import omni_avsr
from benchmarks.stale import measured
from omni_avsr.checkpoints.folder import folder_digest
from omni_avsr.cli import COMMANDS, app
from omni_avsr.config import recipes

REPOSITORY = Path(__file__).parents[2]
PACKAGE = Path(omni_avsr.__file__).parent
DOCUMENTS = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")]


def test_public_names_resolve_and_are_sorted() -> None:
    assert omni_avsr.__all__ == sorted(omni_avsr.__all__, key=lambda n: (n.startswith("_"), n))
    for name in omni_avsr.__all__:
        assert getattr(omni_avsr, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = omni_avsr.Nothing


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda p: p.name)
def test_documents_name_commands_that_exist(page: Path) -> None:
    for command in re.findall(r"^(?:\S*/)?omni-avsr ([a-z]+)", "\n".join(_code(page.read_text("utf-8"))), re.M):
        assert command in COMMANDS, f"{page.name} shows 'omni-avsr {command}'"


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda p: p.name)
def test_documents_name_options_that_exist(page: Path) -> None:
    group = typer.main.get_command(app)
    known = {name: {o for p in c.params for o in (*p.opts, *p.secondary_opts)} for name, c in group.commands.items()}
    for command, rest in re.findall(
        r"^(?:\S*/)?omni-avsr ([a-z]+)(.*)", "\n".join(_code(page.read_text("utf-8"))), re.M
    ):
        for option in re.findall(r"(?<= )--?[a-z][\w-]*", rest.partition("#")[0].partition("--set")[0]):
            assert option.replace("-", "_").replace("__", "--") in known[command] or option in known[command], (
                f"{page.name} shows 'omni-avsr {command} {option}'"
            )


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda p: p.name)
def test_documents_name_files_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_documents_name_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text("utf-8"), re.M))
    for page in DOCUMENTS:
        for name in re.findall(r"^make ([a-z-]+)", "\n".join(_code(page.read_text("utf-8"))), re.M):
            assert name in targets, f"{page.name} shows 'make {name}'"


def test_tables_of_the_architecture_exist() -> None:
    homes = {
        "ENCODERS": "model.encoders",
        "COMPRESSORS": "model.compress",
        "PROJECTORS": "model.projectors",
        "LORA": "model.lora",
        "LLM_FAMILIES": "model.llm",
        "TASKS": "tasks",
        "DETECTORS": "media.face",
        "CHECKS": "media.doctor",
        "NOISES": "data.noise",
        "PREPARERS": "data.prepare",
        "WRITERS": "transcribe.subtitles",
    }
    page = (REPOSITORY / "ARCHITECTURE.md").read_text("utf-8")
    for table, home in homes.items():
        assert table in page
        assert len(getattr(importlib.import_module(f"omni_avsr.{home}"), table)) > 0


def test_every_recipe_is_described() -> None:
    assert {"omni_s", "omni_t", "omni_st", "smop_dedr", "smop_jedr", "smop_jejr", "omni_smop"} <= set(recipes())
    assert {"llama_avsr", "llama_mtsk", "llama_mt", "default"} <= set(recipes())


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_and_functions_stay_small(path: Path) -> None:
    source = path.read_text("utf-8")
    tree = ast.parse(source)
    assert ast.get_docstring(tree), f"{path} has no module docstring"
    assert len(source.splitlines()) <= 500, f"{path} is long; split it"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            doc = ast.get_docstring(node, clean=False)
            lines = (node.end_lineno or node.lineno) - node.lineno + 1 - (doc.count("\n") + 1 if doc else 0)
            assert lines <= 60, f"{path}: {node.name} has {lines} lines"


def test_shipped_weights_are_small() -> None:
    weights = [p for p in PACKAGE.rglob("*") if p.suffix in {".safetensors", ".pt", ".onnx"}]
    assert sum(p.stat().st_size for p in weights) <= 25e6


def _code(text: str) -> list[str]:
    """Code blocks and code spans of a Markdown page."""
    return re.findall(r"```[a-z]*\n(.*?)```", text, re.S) + re.findall(r"`([^`\n]+)`", text)


def test_error_rates_of_the_readme_are_the_stored_ones() -> None:
    stored = json.loads((REPOSITORY / "benchmarks/results/default_grid_dev.json").read_text("utf-8"))
    rows = [row for row in stored["rows"] if row["noise"] in (None, "babble")]
    wer = {(r["task"], r["audio_rate"], r["video_rate"], r["snr_db"]): 100 * r["wer"] for r in rows}
    table = re.findall(r"^\| (\d+), (\d+) \|(.+)\|$", (REPOSITORY / "README.md").read_text("utf-8"), re.M)
    assert len(table) == 2
    for audio, video, cells in table:
        a, v = int(audio), int(video)
        keys = (
            ("asr", a, None, None),
            ("vsr", None, v, None),
            ("avsr", a, v, None),
            ("asr", a, None, 0),
            ("avsr", a, v, 0),
        )
        assert [float(cell) for cell in cells.split("|")] == [round(wer[key], 1) for key in keys]
    ear, lips, both = (f"{wer[key]:.1f}" for key in (("asr", 4, None, -5), ("vsr", None, 2, -5), ("avsr", 4, 2, -5)))
    page = (REPOSITORY / "README.md").read_text("utf-8")
    assert f"at -5 dB the ear has {ear}, the lips {lips}, both {both}" in page
    strangers = json.loads((REPOSITORY / "benchmarks/results/default_strangers.json").read_text("utf-8"))
    ear, lips, both = (f"{100 * row['wer']:.1f}" for row in strangers["rows"])
    assert f"{ear} by ear, {lips} by lips, {both} by both" in page


@pytest.mark.parametrize(
    "stored",
    [
        *("benchmarks/results/default_grid_dev.json", "benchmarks/results/default_strangers.json"),
        *("benchmarks/results/findings/noise.json", "benchmarks/results/findings/frontier.json"),
        "docs/calibration.json",
    ],
)
def test_what_the_pages_say_of_the_default_model_was_measured_with_its_weights(stored: str) -> None:
    """`python benchmarks/stale.py` lists all that is to be measured again after a change of weights."""
    assert measured(REPOSITORY / stored) == folder_digest(PACKAGE / "assets" / "default")
