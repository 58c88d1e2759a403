"""The report: everything measured is in it, and nothing a transcript says can break the page."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from typing import Any

import pytest

from omni_avsr.evaluate.report import aligned, condition, render, system, tokens_per_second


def row(task: str, audio_rate: int | None, video_rate: int | None, snr: float | None, wer: float) -> dict[str, Any]:
    edits = {"substitutions": 3, "deletions": 1, "insertions": 0, "words": 300, "utterances": 50}
    rates = {"task": task, "audio_rate": audio_rate, "video_rate": video_rate}
    noise = {"snr_db": snr, "noise": None if snr is None else "babble"}
    return {**rates, **noise, "wer": wer, "cer": wer / 2, **edits, "wer_ci95": [wer * 0.8, wer * 1.2]}


def results() -> dict[str, Any]:
    rows = [
        row(task, a, v, snr, wer * (1 if snr is None else 2))
        for task, a, v, wer in [
            ("asr", 4, None, 0.02),
            ("asr", 16, None, 0.05),
            ("vsr", None, 2, 0.3),
            ("avsr", 4, 2, 0.01),
        ]
        for snr in (None, 5.0, -5.0)
    ]
    return {"rows": rows, "meta": {"model": "default", "manifest": "dev.jsonl", "seed": 0, "date": "2026-01-01"}}


def utterance(**changes: Any) -> dict[str, Any]:
    base = row("asr", 4, None, None, 0.5)
    return {**base, "id": "u1", "reference": "bin blue", "hypothesis": "bin red", **changes}


class Page(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name in ("src", "onerror") for name, _ in attrs)
        assert not any(name == "href" and str(value).startswith("http") for name, value in attrs)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_every_condition_is_in_the_table_and_the_curves_are_inline() -> None:
    page = Page(render(results(), [utterance()]))
    text = " ".join(page.words)
    assert page.tags.count("svg") == 2
    assert page.tags.count("table") == 1
    assert all(system(r) in text and condition(r) in text for r in results()["rows"])
    assert "60.0" in text  # VSR in noise, in per cent


def test_a_clean_single_condition_needs_no_curves() -> None:
    one = {**results(), "rows": [row("asr", 4, None, None, 0.0)]}
    page = Page(render(one, [utterance(wer=0.0)]))
    assert "svg" not in page.tags
    assert "every word is right" in " ".join(page.words)


def test_worst_first() -> None:
    page = render(
        results(), [utterance(id="good", wer=0.1), utterance(id="bad", wer=2.0), utterance(id="right", wer=0)]
    )
    assert page.index("bad") < page.index("good")
    assert ">right<" not in page


def test_text_cannot_break_the_page() -> None:
    evil = "<script>alert(1)</script> <img src=x onerror=y>"
    page = Page(render(results(), [utterance(id=evil, reference=evil, hypothesis="&amp;")]))
    assert "script" not in page.tags
    assert "img" not in page.tags


def test_without_matplotlib_the_numbers_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = Page(render(results(), [utterance()]))
    assert "svg" not in page.tags
    assert "omni-avsr[train]" in " ".join(page.words)


def test_what_was_heard_stands_below_what_was_said_word_by_word() -> None:
    def pairs(reference: str, hypothesis: str) -> list[str]:
        return re.findall(r"<span class=pair>(.*?)</span>", aligned(reference, hypothesis))

    assert pairs("bin blue now", "bin red now") == ["bin", "<del>blue</del><ins>red</ins>", "now"]
    assert pairs("set blue at f", "set red by f") == [
        *("set", "<del>blue</del><ins>red</ins>", "<del>at</del><ins>by</ins>", "f"),
    ]
    assert pairs("a b", "b") == ["<del>a</del><ins></ins>", "b"]
    assert pairs("", "you") == ["<del></del><ins>you</ins>"]


def test_recordings_are_called_by_their_last_name_and_rows_left_out_are_told() -> None:
    assert condition({"snr_db": -5.0, "noise": "/a/b/street.wav"}) == "-5 dB street.wav"
    assert condition({"snr_db": 0.0, "noise": "babble=../voices/"}) == "0 dB babble=voices"
    told = results()
    told["meta"]["left_out"] = {"u9": "'<x>.mp4' cannot be read"}
    text = " ".join(Page(render(told, [utterance()])).words)
    assert "Left out: 1" in text
    assert "u9" in text
    assert "'<x>.mp4' cannot be read" in text
    assert "Left out" not in render(results(), [utterance()])


def test_tokens_are_counted_per_stream() -> None:
    assert tokens_per_second(row("asr", 4, None, None, 0)) == 12.5
    assert tokens_per_second(row("avsr", 4, 2, None, 0)) == 25.0
