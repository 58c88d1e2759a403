"""The Dockerfile and the compose file: what they copy exists, what they promise holds, what they install installs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"


def instructions() -> list[tuple[str, str]]:
    """(FROM, ...), (RUN, ...) of the Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", (DEPLOY / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def of(kind: str) -> list[str]:
    return [rest for word, rest in instructions() if word == kind]


def test_every_line_is_an_instruction() -> None:
    known = {"ARG", "FROM", "RUN", "ENV", "WORKDIR", "COPY", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT"}
    assert {word for word, _ in instructions()} <= known


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    kept = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in of("COPY"):
        for source in line.split()[:-1]:
            assert (REPOSITORY / source).exists()
            assert source in kept


def test_it_does_not_run_as_root_and_says_how_it_is() -> None:
    order = [word for word, _ in instructions()]
    assert order.index("USER") < order.index("ENTRYPOINT")
    assert of("USER") == ["omni"]
    assert any(f"useradd --create-home --uid 10001 {of('USER')[0]}" in line for line in of("RUN"))
    assert "/health" in of("HEALTHCHECK")[0]


def test_the_entry_is_a_command_that_parses() -> None:
    from omni_avsr.cli import COMMANDS

    program, command, *options = yaml.safe_load(of("ENTRYPOINT")[0])
    assert program == "omni-avsr"
    assert command in COMMANDS
    port = options[options.index("--port") + 1]
    assert of("EXPOSE") == [port]
    assert f":{port}/" in of("HEALTHCHECK")[0]


def test_compose_and_prometheus_agree() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    server, prometheus = compose["services"]["server"], compose["services"]["prometheus"]
    assert (DEPLOY / server["build"]["context"] / server["build"]["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    assert server["ports"] == ["8000:8000"]
    mounted = prometheus["volumes"][0].split(":")[0]
    scrape = yaml.safe_load((DEPLOY / mounted).read_text())
    assert scrape["scrape_configs"][0]["static_configs"][0]["targets"] == ["server:8000"]


def test_the_launch_files_are_what_launchers_read() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(DEPLOY / "launch.yaml"))
    assert config.num_processes % config.num_machines == 0
    told = (REPOSITORY / "docs" / "training.md").read_text()
    assert all(f"deploy/{name}" in told for name in ("launch.yaml", "train.sbatch"))
    assert subprocess.run(["bash", "-n", DEPLOY / "train.sbatch"], check=False).returncode == 0


@pytest.mark.slow
def test_the_install_lines_install(tmp_path: Path) -> None:
    """As the image does it, with the package index of this machine in the place of PyTorch's."""
    for line in of("COPY"):
        for source in line.split()[:-1]:
            path = REPOSITORY / source
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, tmp_path / source)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    bins = tmp_path / "venv" / "bin"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PATH": f"{bins}:{os.environ['PATH']}"}
    installs = [line for line in of("RUN") if line.startswith(("pip install", "python -m omni_avsr"))]
    assert len(installs) == 3
    for line in installs:
        command = re.sub(r"--index-url \S+ ", "", line)
        subprocess.run(shlex.split(command), cwd=tmp_path, env=environment, check=True, timeout=1200)
    shown = subprocess.run(
        ["omni-avsr", "serve", "--help"], cwd="/", env=environment, check=True, capture_output=True, text=True
    )
    assert "--max_megabytes" in shown.stdout
