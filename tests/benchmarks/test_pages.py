"""Pages hold what the stored results give: nothing in their generated parts is typed."""

from __future__ import annotations

import json

import pytest

from benchmarks import calibration, stages
from benchmarks.pages import replaced


def test_a_part_is_replaced_and_the_rest_stays() -> None:
    page = "# A\n\n<!-- x -->\nold\n\n<!-- end of x -->\n\nB\n"
    new = replaced(page, "x", "| new |\n")
    assert new == "# A\n\n<!-- x -->\n| new |\n\n<!-- end of x -->\n\nB\n"
    assert replaced(new, "x", "| new |") == new
    with pytest.raises(AssertionError, match="no place 'y'"):
        replaced(page, "y", "")


def test_the_plan_for_a_million_hours_is_what_the_stored_times_give() -> None:
    """After a change of times or of the part: `python -m benchmarks.stages --page`."""
    page = stages.DOCS.read_text("utf-8")
    assert replaced(page, "stages", stages.part()) == page


def test_the_page_on_probabilities_is_what_the_stored_words_give() -> None:
    """After a change of words or page: `python benchmarks/calibration.py draw`."""
    stored = json.loads((calibration.DOCS / "calibration.json").read_text("utf-8"))
    assert (calibration.DOCS / "calibration.md").read_text("utf-8") == calibration.page(stored)


def test_the_arithmetic() -> None:
    text = "\n".join(stages.arithmetic(before=0.1, small=0.028, large=0.9, face=0.064, picture=2.0))
    assert "| core-seconds per second | 0.100 + 0.028 = 0.128 | 0.100 + 0.900 = 1.000 |" in text
    assert "| hours of video per node-hour | 400 | 51 |" in text  # 64 cores at 80 %
    assert "| node-hours | 2,500 | 19,500 |" in text
    assert "(50 % of the time)" in text
    assert "*g* = 160" in text
    assert "the input is 675 TB" in text
