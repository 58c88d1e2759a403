"""The examples of docs/api.md run as they stand."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from omni_avsr.errors import AssetError
from omni_avsr.media.assets import ensure_face_models
from tests.clips import SAMPLE

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def test_every_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        ensure_face_models(offline=True)
    except AssetError:
        pytest.skip("the face networks are not on this machine")
    monkeypatch.chdir(tmp_path)
    shutil.copy(SAMPLE, "clip.mp4")
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    assert len(examples) == 8
    scope: dict[str, object] = {}
    for example in examples:
        exec(compile(example, str(PAGE), "exec"), scope)
    assert sorted(path.suffix for path in Path("out").iterdir()) == [".json", ".srt", ".tsv", ".txt", ".vtt"]
    out = capsys.readouterr().out
    assert "3.0 s, avsr" in out
    assert "3.0 of 3.0 s" in out
    assert "does not exist" in out
    assert "this model was trained for 4, 16" in out
