"""What `make demo` shows of a transcript."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

DEMO = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "demo.py"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("place blue at f two now", "place blue at f two now"),
        ("place blue at s two now", "place blue at [red]s[/] two now"),
        ("blue blue at f two now", "[red]blue[/] blue at f two now"),  # said, but not there
        ("place blue at f now", "place blue at f [red]-[/] now"),
        ("place blue blue at f two now", "place blue [red]blue[/] at f two now"),
        ("", "[dim](nothing)[/]"),
    ],
)
def test_wrong_words_are_red(text: str, shown: str) -> None:
    assert DEMO["TRUTH"] == "place blue at f two now"
    assert DEMO["marked"](text) == shown
