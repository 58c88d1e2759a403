"""One contract for every corruption of both tables, and what single ones promise beyond it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from omni_avsr.data import corrupt
from omni_avsr.data.corrupt import AUDIO_CORRUPTIONS, VIDEO_CORRUPTIONS
from omni_avsr.types import SAMPLE_RATE


def mouths(frames: int) -> np.ndarray:
    """(T, 96, 96) uint8, smooth, every frame different."""
    rng = np.random.default_rng(0)
    return np.stack(
        [cv2.GaussianBlur(rng.integers(0, 256, (96, 96)).astype(np.uint8), (0, 0), 2) for _ in range(frames)]
    )


def tones(samples: int) -> np.ndarray:
    """100 Hz, 1 kHz and 6 kHz, equally loud."""
    time = np.arange(samples) / SAMPLE_RATE
    return sum(0.1 * np.sin(2 * np.pi * hertz * time) for hertz in (100, 1000, 6000)).astype(np.float32)


CASES = [(VIDEO_CORRUPTIONS, name, mouths, length) for name in VIDEO_CORRUPTIONS for length in (1, 2, 60)]
CASES += [(AUDIO_CORRUPTIONS, name, tones, length) for name in AUDIO_CORRUPTIONS for length in (1, 500, 40000)]


@pytest.mark.parametrize(
    ("table", "name", "make", "length"), CASES, ids=lambda case: str(case) if len(str(case)) < 15 else ""
)
def test_shape_type_seed_and_untouched_input(table: dict, name: str, make: object, length: int) -> None:
    signal = make(length)  # type: ignore[operator]
    before = signal.copy()
    out = table[name](signal, np.random.default_rng(1))
    assert out.shape == signal.shape
    assert out.dtype == signal.dtype
    assert np.isfinite(out).all()
    assert np.array_equal(out, table[name](signal, np.random.default_rng(1)))
    assert np.array_equal(signal, before)
    assert not np.shares_memory(out, signal)
    if length >= 60:
        outs = [table[name](signal, np.random.default_rng(seed)) for seed in range(8)]
        assert sum(not np.array_equal(o, signal) for o in outs) >= 6  # a stretch may be of no length


def share(audio: np.ndarray, hertz: int) -> float:
    """How loud `hertz` is, of what it was in `tones`."""
    spectrum, before = (np.abs(np.fft.rfft(a[:32000])) for a in (audio, tones(len(audio))))
    return float(spectrum[2 * hertz] / before[2 * hertz])


def test_bands_keep_what_they_should() -> None:
    telephone = AUDIO_CORRUPTIONS["telephone"](tones(32000), np.random.default_rng(0))
    assert share(telephone, 100) < 0.05
    assert share(telephone, 1000) == pytest.approx(1, abs=0.05)
    assert share(telephone, 6000) < 0.05
    muffled = AUDIO_CORRUPTIONS["muffle"](tones(32000), np.random.default_rng(3))
    assert share(muffled, 100) == pytest.approx(1, abs=0.05)
    assert share(muffled, 6000) < 0.05


def test_reverb_keeps_loudness_and_delays_nothing() -> None:
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[4000] = 1
    wet = AUDIO_CORRUPTIONS["reverb"](click, np.random.default_rng(0))
    assert np.abs(wet[:4000]).max() < 1e-4  # nothing before the direct sound
    assert np.abs(wet).argmax() == 4000
    assert np.square(wet[12001:]).sum() < 1e-5 * np.square(wet).sum()  # 0.5 s later: -60 dB
    assert np.linalg.norm(wet) == pytest.approx(1, rel=1e-4)


def test_overdrive_cuts_peaks_only() -> None:
    audio = tones(20000)
    out = AUDIO_CORRUPTIONS["overdrive"](audio, np.random.default_rng(0))
    cut = out != audio
    assert 0.004 < cut.mean() < 0.11
    assert np.abs(out).max() <= np.abs(audio[cut]).min()


def test_pictures_that_stand_still_black_out_or_stutter() -> None:
    clip = mouths(50)
    frozen = VIDEO_CORRUPTIONS["freeze"](clip, np.random.default_rng(0))
    held = [t for t in range(50) if not np.array_equal(frozen[t], clip[t])]
    assert 0 < len(held) <= 20
    assert all(np.array_equal(frozen[t], clip[held[0] - 1]) for t in held)
    black = VIDEO_CORRUPTIONS["blank"](clip, np.random.default_rng(0)).max((1, 2)) == 0
    assert 5 <= black.sum() <= 30
    assert np.flatnonzero(black).tolist() == list(range(black.argmax(), black.argmax() + black.sum()))
    slow = VIDEO_CORRUPTIONS["stutter"](clip, np.random.default_rng(0))
    assert len({frame.tobytes() for frame in slow}) in (13, 17, 25)


def test_light_keeps_the_order_of_greys() -> None:
    ramp = np.tile(np.arange(96, dtype=np.uint8) * 2, (1, 96, 1))
    for seed in range(10):
        assert (np.diff(VIDEO_CORRUPTIONS["light"](ramp, np.random.default_rng(seed)).astype(int)) >= 0).all()


def test_every_function_of_the_module_is_in_a_table() -> None:
    rows = {**VIDEO_CORRUPTIONS, **AUDIO_CORRUPTIONS}
    own = {n for n, f in vars(corrupt).items() if getattr(f, "__module__", "") == corrupt.__name__ and n.islower()}
    assert {n for n in own if not n.startswith("_")} == set(rows)
