"""Imports point one way; read from the source, so a lazy import inside a function counts too."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import omni_avsr

ROOT = Path(omni_avsr.__file__).parent

LEVELS: tuple[tuple[str, ...], ...] = (
    ("config", "types", "tasks", "errors"),
    ("media", "model"),
    ("data", "checkpoints"),
    ("evaluate", "transcribe"),
    ("train", "serve", "live", "bench"),
    ("scale",),
    ("cli",),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
GROUND = set(LEVELS[0])


def room_of(path: Path) -> str:
    """The first part of a module's path below the package."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Rooms of this package that the file imports, `TYPE_CHECKING` blocks included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names |= {f"{module}.{alias.name}" for alias in node.names} if module == "omni_avsr" else {module}
    return {name.split(".")[1] for name in names if name.startswith("omni_avsr.")} - {"__version__"}


MODULES = [p for p in sorted(ROOT.rglob("*.py")) if p != ROOT / "__init__.py" and "assets" not in p.parts]


def test_every_room_has_a_level() -> None:
    assert {room_of(p) for p in MODULES} <= set(LEVEL)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    for other in imports(path) - {room}:
        downward = LEVEL[other] < LEVEL[room] or (room in GROUND and other in GROUND)
        assert downward, f"{path.relative_to(ROOT)} imports {other}: {room} may import only what lies below it"


def test_nothing_nests_deeper_than_room_and_file() -> None:
    assert max(len(p.relative_to(ROOT).parts) for p in MODULES) <= 2
