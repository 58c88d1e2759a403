"""One way to read files and arrays."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from omni_avsr.errors import InputError, MediaError
from omni_avsr.transcribe.inputs import open_input
from omni_avsr.types import Clip
from tests.clips import grey, silence, video, voice, wav


def test_arrays_are_read_like_a_file(tmp_path: Path) -> None:
    file = open_input(video(tmp_path / "a.mkv", grey(3), voice()))
    arrays = open_input(audio=voice(), video=grey(3), fps=25)
    for start, end in ((0.0, None), (0.5, 1.3), (2.9, 9.0), (0.51, 0.99)):
        there, here = (np.concatenate(list(m.audio_blocks(start, end))) for m in (file, arrays))
        assert len(there) == len(here)
        assert np.abs(there - here).max() < 1e-3  # 16 bits
        assert len(list(file.frames(start, end))) == len(list(arrays.frames(start, end)))
    assert arrays.info.duration == pytest.approx(file.info.duration, abs=0.05)
    assert (arrays.info.has_audio, arrays.info.has_video) == (True, True)


@pytest.mark.parametrize("give", ["positional", "keyword", "clip"])
def test_sound_alone_in_every_form(give: str) -> None:
    forms = {
        "positional": lambda: open_input(voice()),
        "keyword": lambda: open_input(audio=voice()),
        "clip": lambda: open_input(Clip(voice(), None)),
    }
    media = forms[give]()
    assert (media.info.has_audio, media.info.has_video, media.info.duration) == (True, False, 3.0)
    assert list(media.frames()) == []
    media.close()


def test_a_file_object(tmp_path: Path) -> None:
    data = io.BytesIO(wav(tmp_path / "a.wav", voice()).read_bytes())
    media = open_input(data)
    assert sum(map(len, media.audio_blocks())) == len(voice())
    media.close()
    assert not data.closed


def test_video_without_fps_is_refused() -> None:
    with pytest.raises(MediaError, match="pass fps"):
        open_input(video=grey(1))


@pytest.mark.parametrize(
    "arguments", [{}, {"source": "a.mp4", "audio": silence(1)}, {"source": silence(1), "audio": silence(1)}]
)
def test_one_input_and_not_two(arguments: dict[str, object]) -> None:
    with pytest.raises(InputError, match="one of the two"):
        open_input(**arguments)  # type: ignore[arg-type]
