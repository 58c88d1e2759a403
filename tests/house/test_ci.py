"""What CI does about the browser: it may lack one only where none can be had."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / ".ci" / "run"
INSTALLS = 'case "$*" in *install*) ln -s /bin/true "$(dirname "$0")/chromium" ;; esac'


@pytest.mark.parametrize(
    ("there", "apt", "required"),
    [
        (True, "exit 100", True),
        (False, INSTALLS, True),
        (False, 'case "$*" in *install*) exit 100 ;; esac', False),  # as where no mirror answers: update only warns
        (False, "exit 100", False),
        (False, "exit 0", False),  # it says yes and gives none
    ],
)
def test_a_browser_is_required_where_one_can_be_had(tmp_path: Path, there: bool, apt: str, required: bool) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "env", "ln", "rm", "timeout"):
        (tools / name).symlink_to(shutil.which(name) or name)
    told = "$OMNI_AVSR_REQUIRE_BROWSER"
    for name, script in (("apt-get", apt), ("make", f"echo make $1 {told}")):
        (tools / name).write_text(f"#!{tools / 'bash'}\n{script}\n")
        (tools / name).chmod(0o755)
    if there:
        (tools / "chromium").symlink_to("/bin/true")
    (tmp_path / ".ci").mkdir()
    script = shutil.copy(RUN, tmp_path / ".ci" / "run")
    clean = {name: value for name, value in os.environ.items() if name != "OMNI_AVSR_REQUIRE_BROWSER"}
    done = subprocess.run(
        [tools / "bash", script], env=clean | {"PATH": str(tools)}, capture_output=True, text=True, check=True
    )
    *before, test, slow, scale, demo = done.stdout.splitlines()
    targets = ("test", "test-slow", "test-scale", "demo")
    said = "1" if required else ""
    assert [test, slow, scale, demo] == [f"make {target} {said}".rstrip() for target in targets]
    assert len(before) == (not required)  # one line says that it is not tested
