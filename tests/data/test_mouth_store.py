"""Mouth files: audio comes back bit for bit, pictures nearly so, and notes tell finished from damaged."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from omni_avsr.data.mouth_store import CODECS, read_note, read_store, to_float, to_int16, write_store
from omni_avsr.errors import ConfigError, DataError

LARGEST_RMS = {"h264": 2.5, "ffv1": 0.0}  # of 255


def picture(frames: int = 20) -> np.ndarray:
    """(T, 96, 96) uint8 from black to white: smooth, moving, a little noisy."""
    rng = np.random.default_rng(0)
    base = cv2.GaussianBlur(rng.uniform(0, 255, (96, 96 + frames)).astype(np.float32), (0, 0), 6)
    base = (base - base.min()) / np.ptp(base) * 255
    moving = np.stack([base[:, t : t + 96] for t in range(frames)])
    return (moving + rng.normal(0, 1.5, moving.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("frames", [1, 2, 33])
def test_crops_and_audio_come_back(tmp_path: Path, codec: str, frames: int) -> None:
    crops = picture(frames)
    audio = np.random.default_rng(1).integers(-32768, 32768, frames * 640 - 77).astype(np.int16)
    found = np.arange(frames) % 7 < 5
    stored = read_store(write_store(tmp_path / "a.mkv", crops, audio, found, {"share": 0.5}, codec))
    assert stored.crops is not None
    assert stored.audio is not None
    assert stored.found is not None
    assert stored.crops.shape == crops.shape
    assert stored.crops.dtype == np.uint8
    assert np.sqrt(np.mean((stored.crops.astype(float) - crops) ** 2)) <= LARGEST_RMS[codec]
    assert np.array_equal(stored.audio, audio)
    assert np.array_equal(stored.found, found)
    assert stored.note == {"share": 0.5}


@pytest.mark.parametrize("codec", CODECS)
def test_the_full_range_of_greys_survives(tmp_path: Path, codec: str) -> None:
    flat = np.repeat(np.array([0, 5, 128, 250, 255], np.uint8), 8)[:, None, None] * np.ones((96, 96), np.uint8)
    stored = read_store(write_store(tmp_path / "a.mkv", flat, None, codec=codec)).crops
    assert stored is not None
    assert abs(stored.astype(int) - flat.astype(int)).max() <= 3


def test_one_stream_alone_and_streams_asked_for(tmp_path: Path) -> None:
    crops, audio = picture(5), np.zeros(3200, np.float32)
    only_audio = read_store(write_store(tmp_path / "a.mkv", None, audio))
    assert only_audio.crops is None
    assert only_audio.found is None
    assert only_audio.audio is not None
    only_video = read_store(write_store(tmp_path / "v.mkv", crops, None))
    assert only_video.audio is None
    assert only_video.crops is not None
    both = write_store(tmp_path / "b.mkv", crops, audio)
    assert read_store(both, video=False).crops is None
    assert read_store(both, audio=False).audio is None


def test_the_same_input_makes_the_same_bytes(tmp_path: Path) -> None:
    crops, audio = picture(30), np.zeros(19200, np.float32)
    first, second = (write_store(tmp_path / name, crops, audio).read_bytes() for name in ("a.mkv", "b.mkv"))
    assert first == second


def test_damage_is_an_error_and_no_note(tmp_path: Path) -> None:
    path = write_store(tmp_path / "a.mkv", picture(), np.zeros(9000, np.float32), note={"x": 1})
    assert read_note(path) == {"x": 1}
    path.write_bytes(path.read_bytes()[:40])
    assert read_note(path) is None
    assert read_note(tmp_path / "none.mkv") is None
    with pytest.raises(DataError, match="run prepare again"):
        read_store(path)


def test_a_foreign_video_is_refused(tmp_path: Path) -> None:
    path = write_store(tmp_path / "a.mkv", picture(3), None)
    path.write_bytes(path.read_bytes().replace(b"OMNI_AVSR", b"SOMETHING"))
    with pytest.raises(DataError, match="not a mouth file"):
        read_store(path)


@pytest.mark.parametrize(
    ("crops", "audio"),
    [(None, None), (np.zeros((2, 88, 88), np.uint8), None), (np.zeros((0, 96, 96), np.uint8), None),
     (None, np.zeros(0, np.float32)), (None, np.zeros((5, 2), np.float32)), (np.zeros((2, 96, 96)), None)],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_leaves_no_file(
    tmp_path: Path, crops: np.ndarray | None, audio: np.ndarray | None
) -> None:
    with pytest.raises(DataError):
        write_store(tmp_path / "a.mkv", crops, audio)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="did you mean 'h264'"):
        write_store(tmp_path / "a.mkv", picture(2), None, codec="h256")


def test_sixteen_bits_there_and_back() -> None:
    every = np.arange(-32768, 32768).astype(np.int16)
    assert np.array_equal(to_int16(to_float(every)), every)
    assert to_int16(np.array([1.5, -1.5], np.float32)).tolist() == [32767, -32768]
