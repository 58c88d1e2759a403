"""The command `doctor`: what a person, a program and a browser get of it."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from omni_avsr.media.assets import ensure_face_models
from tests.clips import SAMPLE, grey, silence, video

Run = Any


@pytest.fixture(autouse=True)
def _networks() -> None:
    ensure_face_models(offline=True)


def test_a_person_gets_a_verdict_and_a_row_per_finding(run: Run) -> None:
    result = run("doctor", SAMPLE, "--offline")
    assert result.exit_code == 0
    head, *rows = [line for line in result.stdout.splitlines() if line.strip()]
    assert head.endswith("sample.mp4: usable by ear and by lips")
    assert len(rows) >= 15
    assert all(row.split()[0] == "fine" for row in rows)


def test_a_program_gets_json(run: Run) -> None:
    result = run("doctor", SAMPLE, "--json", "--offline")
    found = json.loads(result.stdout)
    assert (found["usable"], found["tasks"]) == (True, ["avsr", "asr", "vsr"])
    assert {"check", "measured", "severity", "advice"} == set(found["findings"][0])
    assert found["timing"]["constant"] is True
    assert found["audio"]["snr"] > 15
    assert found["faces"][0]["video"]["mouth"] > 30


class Page(HTMLParser):
    """Pictures and links of a page, and whether its tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]


def test_a_browser_gets_one_page_with_everything_in_it(run: Run, tmp_path: Path) -> None:
    assert run("doctor", SAMPLE, "--html", "out/page.html", "--offline").exit_code == 0
    text = (tmp_path / "out" / "page.html").read_text("utf-8")
    page = Page()
    page.feed(text)
    assert len(page.sources) == 7  # six scenes, one strip of crops
    assert all(source.startswith("data:image/") for source in page.sources)
    assert not re.search(r"https?://", text)
    strip = base64.b64decode(page.sources[-1].partition(",")[2])
    assert cv2.imdecode(np.frombuffer(strip, np.uint8), cv2.IMREAD_GRAYSCALE).shape == (96, 12 * 96)


def test_what_cannot_be_used_is_exit_code_1(run: Run, tmp_path: Path) -> None:
    wall = video(tmp_path / "wall & <b>.mkv", grey(1, 160), silence(1))
    result = run("doctor", wall, "--html", "page.html", "--offline")
    assert result.exit_code == 1
    assert "not usable" in result.stdout
    assert "wall &amp; &lt;b&gt;.mkv" in (tmp_path / "page.html").read_text("utf-8")
    missing = run("doctor", "nothing.mp4")
    assert missing.exit_code == 1
    assert "'nothing.mp4' does not exist" in missing.stderr
