from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest

from omni_avsr.serve import run


class Enough(Exception):
    pass


def test_free_memory_goes_back_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def sleep(seconds: float) -> None:
        assert seconds == run.TRIM
        if len(asked) == 6:
            raise Enough
        asked.append("sleep")

    monkeypatch.setattr(run, "time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(malloc_trim=lambda pad: asked.append("trim")))
    with pytest.raises(Enough):
        run._trim()
    assert asked == ["sleep", "trim"] * 3
