"""The other commands, and what all of them share."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import omni_avsr
from omni_avsr.cli import COMMANDS, app
from omni_avsr.errors import CheckpointError, TrainingInterrupted
from tests.clips import voice, wav

Run = Callable[..., Result]
UNKNOWN_KEY = 'model = { audio_ratez = [4] }\nname = "x"\n'


def test_version(run: Run) -> None:
    assert run("--version").stdout == f"omni-avsr {omni_avsr.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_help_starts_without_torch() -> None:
    code = "import sys, omni_avsr.cli; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'av', 'cv2')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_python_m_is_the_same_program() -> None:
    done = subprocess.run([sys.executable, "-m", "omni_avsr", "--version"], capture_output=True, text=True, check=False)
    assert done.stdout == f"omni-avsr {omni_avsr.__version__}\n"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("omni-avsr tr", {"train", "transcribe"}),
        ("omni-avsr transcribe --task ", {"auto", "asr", "vsr", "avsr"}),
        ("omni-avsr transcribe -f s", {"srt"}),
        ("omni-avsr train omni_s", {"omni_s", "omni_st", "omni_smop"}),
        ("omni-avsr info --log_format ", {"text", "json"}),
    ],
)
def test_the_shell_completes(monkeypatch: pytest.MonkeyPatch, typed: str, expected: set[str]) -> None:
    monkeypatch.setenv("_OMNI_AVSR_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split(" ")) - 1))
    assert set(CliRunner().invoke(app, prog_name="omni-avsr").stdout.split()) == expected


# ---- evaluate --------------------------------------------------------------------------------


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = []
    for i in range(2):
        wav(tmp_path / f"{i}.wav", voice())
        rows.append(
            {"id": str(i), "media": f"{i}.wav", "text": "Bin blue, at F two now.", "split": "dev", "speaker": "s"}
        )
    path = tmp_path / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_evaluate_as_the_contract_types_it(run: Run, says: None, model_folder: Path, manifest: Path) -> None:
    result = run(
        "evaluate", manifest, "--model", model_folder, "--tasks", "asr", "--audio_rates", 4, 16, "--video_rates", 2, 5,
        "--snrs", "clean", 10, -5, "--noise", "white", "--seed", 0, "--normalizer", "basic", "-o", "OUT",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    rows = json.loads(Path("OUT/results.json").read_text())["rows"]
    assert [(r["task"], r["audio_rate"], r["snr_db"], r["noise"]) for r in rows] == [
        ("asr", rate, snr, noise) for rate in (4, 16) for snr, noise in ((None, None), (10.0, "white"), (-5.0, "white"))
    ]
    assert {r["wer"] for r in rows} == {0.0}
    assert len(result.stdout.splitlines()) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--snrs", "loud"], "--snrs loud: expected 'clean' or a number"),
        (["--tasks", "asr", "vrs"], "vsr"),
        (["--audio_rates", "5"], "this model was trained for 4, 16"),
        (["--noise", "nois.wav", "--snrs", "0"], "no noise 'nois.wav'"),
        (["--normalizer", "oficial"], "did you mean 'official'"),
    ],
)
def test_evaluate_refuses(run: Run, model_folder: Path, manifest: Path, arguments: list[str], message: str) -> None:
    result = run("evaluate", manifest, "--model", model_folder, "-o", "OUT", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not Path("OUT").exists()


def test_evaluate_names_the_row_of_a_missing_file(run: Run, model_folder: Path, manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "1.wav").unlink()
    result = run("evaluate", manifest, "--model", model_folder, "-o", "OUT")
    assert result.exit_code == 1
    assert "row 2" in result.stderr
    assert "1.wav" in result.stderr


# ---- train, prepare, info, import ------------------------------------------------------------


def test_train_names_its_recipes(run: Run) -> None:
    result = run("train", "list")
    assert result.exit_code == 0
    assert {"omni_st", "smop_dedr", "llama_mtsk"} <= {line.split()[0] for line in result.stdout.splitlines()}


def test_train_passes_on_what_was_typed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def fake(recipe: object, out: Path, resume: bool) -> Path:
        seen.extend([recipe.train.lr, recipe.train.epochs, recipe.name, out, resume])  # type: ignore[attr-defined]
        return out / "model"

    monkeypatch.setattr("omni_avsr.train.loop.train", fake)
    result = run("train", "omni_st", "--tiny", "--set", "train.lr=0.5", "train.epochs=2", "--resume")
    assert (result.exit_code, result.stdout) == (0, "runs/omni_st/model\n")
    assert seen == [0.5, 2, "omni_st", Path("runs/omni_st"), True]


def test_train_suggests_the_nearest_key_and_recipe(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(UNKNOWN_KEY)
    for arguments, message in (
        (["mine.toml"], "did you mean 'audio_rates'"),
        (["omni_st", "--set", "train.leer=1"], "did you mean 'lr'"),
        (["omni_sst"], "did you mean 'omni_st'"),
    ):
        result = run("train", *arguments)
        assert result.exit_code == 1
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "code"), [(TrainingInterrupted("saved; go on with --resume"), 130), (CheckpointError("disk full"), 1)]
)
def test_train_ends_with_the_errors_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("omni_avsr.train.loop.train", fails)
    result = run("train", "omni_st", "--tiny", "-o", "run")
    assert (result.exit_code, result.stderr) == (code, f"error: {error}\n")


def test_prepare_a_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    for name, loudness in (("a", 1.0), ("b", 0.5)):
        wav(tmp_path / "corpus" / f"{name}.wav", voice() * loudness)
        (tmp_path / "corpus" / f"{name}.txt").write_text("bin blue at f two now")
    result = run("prepare", "folder", "corpus", "-o", "out", "--workers", 0)
    assert result.exit_code == 0, result.stderr
    rows = [json.loads(line) for line in Path("out/manifest.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rows} == {"a", "b"}
    assert {row["text"] for row in rows} == {"bin blue at f two now"}


def test_prepare_refuses_an_unknown_kind(run: Run) -> None:
    result = run("prepare", "foldr", ".", "-o", "out")
    assert result.exit_code == 1
    assert "did you mean 'folder'" in result.stderr


def test_info_says_what_a_model_is(run: Run, model_folder: Path) -> None:
    result = run("info", model_folder)
    assert result.exit_code == 0
    for text in ("asr, vsr, avsr", "audio rates   4, 16", "video rates   2, 5", "ST, rank 2", "a test"):
        assert text in result.stdout
    assert json.loads(run("info", model_folder, "--json").stdout)["rates"] == {"audio": [4, 16], "video": [2, 5]}


def test_info_of_nothing(run: Run) -> None:
    result = run("info", "nowhere")
    assert result.exit_code == 1
    assert "is not a model folder" in result.stderr


def test_import_refuses_an_unknown_kind(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.pth").touch()
    result = run("import", "omni-asr", "x.pth", "--llm", "llm", "-o", "out")
    assert result.exit_code == 1
    assert "did you mean 'omni-avsr'" in result.stderr
