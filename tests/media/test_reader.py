"""The reader: one clock for every container, codec, rate and timing; clear errors for what cannot be read."""

from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omni_avsr.errors import MediaError
from omni_avsr.media.clock import mono, packets
from omni_avsr.media.reader import array_clip, open_media, read_clip
from omni_avsr.types import FPS, SAMPLE_RATE

from .conftest import Writer, counter, numbers, tone, write


def correlated(one: np.ndarray, other: np.ndarray) -> float:
    """Normalised correlation at lag 0: 1 = the same signal, in place."""
    n = min(len(one), len(other))
    one, other = one[:n] - one[:n].mean(), other[:n] - other[:n].mean()
    return float(one @ other / np.sqrt((one @ one) * (other @ other)))


def noise(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """(samples, channels) float32 band-limited noise, which no shift leaves alike."""
    raw = np.random.default_rng(seed).normal(size=(round(seconds * rate), 1))
    kernel = np.hanning(max(3, rate // 3000))[:, None]
    smooth = np.apply_along_axis(lambda c: np.convolve(c, kernel[:, 0], "same"), 0, raw)
    return np.repeat((0.3 * smooth / np.abs(smooth).max()).astype(np.float32), channels, axis=1)


# ---- sound -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("16k.wav", {"rate": 16_000, "acodec": "pcm_s16le"}),
        ("24bit.wav", {"rate": 48_000, "acodec": "pcm_s24le"}),
        ("8bit.wav", {"rate": 16_000, "acodec": "pcm_u8"}),
        ("float.wav", {"rate": 44_100, "acodec": "pcm_f32le"}),
        ("stereo.flac", {"rate": 48_000, "acodec": "flac", "layout": "stereo"}),
        ("surround.wav", {"rate": 48_000, "acodec": "pcm_s16le", "layout": "5.1"}),
        ("opus.webm", {"rate": 48_000, "acodec": "libopus", "layout": "stereo"}),
        ("opus.ogg", {"rate": 48_000, "acodec": "libopus"}),
        ("mp3.mp3", {"rate": 44_100, "acodec": "libmp3lame", "layout": "stereo"}),
        ("aac.m4a", {"rate": 44_100, "acodec": "aac"}),
        ("telephone.wav", {"rate": 8_000, "acodec": "pcm_mulaw"}),
    ],
)
def test_every_kind_of_sound_comes_out_in_place_and_at_level(media: Writer, name: str, what: dict) -> None:
    channels = {"stereo": 2, "5.1": 6}.get(what.get("layout", "mono"), 1)
    source = noise(2.0, what["rate"], channels)
    clip = read_clip(media(name, audio=source, **what))
    expected = array_clip(audio=source[:, :1], sample_rate=what["rate"]).audio
    assert clip.frames is None
    assert clip.audio.dtype == np.float32
    assert clip.audio.ndim == 1
    assert len(clip.audio) == pytest.approx(2 * SAMPLE_RATE, abs=0.07 * SAMPLE_RATE)  # codecs pad the end
    assert correlated(clip.audio, expected) > 0.97
    n = len(expected) // 2
    assert np.std(clip.audio[:n]) == pytest.approx(np.std(expected[:n]), rel=0.1)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rate=st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000]), length=st.integers(400, 30_000))
def test_a_wav_file_is_its_array(tmp_path: Path, rate: int, length: int) -> None:
    source = noise(length / rate, rate)[:, 0]
    path = tmp_path / f"{rate}-{length}.wav"
    soundfile.write(path, source, rate, subtype="FLOAT")
    got = read_clip(path).audio
    expected = array_clip(audio=source, sample_rate=rate).audio
    assert abs(len(got) - len(source) * SAMPLE_RATE / rate) <= 1
    n = min(len(got), len(expected))
    np.testing.assert_allclose(got[:n], expected[:n], atol=2e-4)


def test_opposite_channels_do_not_clip_and_the_centre_is_heard(media: Writer) -> None:
    loud = np.ones((16_000, 2), np.float32) * 0.99
    both = read_clip(media("loud.wav", audio=loud, rate=16_000, acodec="pcm_s16le", layout="stereo")).audio
    assert np.abs(both - 0.99).max() < 1e-3  # equal channels keep their level
    speech = np.zeros((48_000, 6), np.float32)
    speech[:, 2] = tone(1.0, 48_000)[:, 0]  # FC
    speech[:, 3] = 0.9  # LFE is not heard
    heard = read_clip(media("centre.wav", audio=speech, rate=48_000, acodec="pcm_s16le", layout="5.1")).audio
    assert abs(heard.mean()) < 1e-3
    assert np.abs(heard).max() > 0.1


def test_more_than_eight_channels_are_mixed(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "many.wav", np.repeat(tone(0.5, 48_000), 16, axis=1), 48_000, subtype="FLOAT")
    audio = read_clip(tmp_path / "many.wav").audio
    assert np.abs(audio[1000:7000]).max() == pytest.approx(0.5, abs=0.01)


def test_planes_beyond_the_channels_are_never_touched() -> None:
    """PyAV 18 counts more planes than a frame of many channels has; reading one ends the process."""
    channels = [SimpleNamespace(name=f"C{n}") for n in range(32)]
    frame = SimpleNamespace(
        layout=SimpleNamespace(channels=channels),
        format=SimpleNamespace(name="fltp", is_planar=True),
        planes=(*(np.full(8, n, np.float32) for n in range(32)), *[None] * 10),
        samples=5,
    )
    assert mono(frame).tolist() == [15.5] * 5


def test_values_beyond_one_and_not_a_number_are_bounded(tmp_path: Path) -> None:
    wild = np.array([5.0, -7.0, np.nan, np.inf] * 1000, np.float32)
    soundfile.write(tmp_path / "wild.wav", wild, SAMPLE_RATE, subtype="FLOAT")
    audio = read_clip(tmp_path / "wild.wav").audio
    assert np.isfinite(audio).all()
    assert np.abs(audio).max() <= 1


def test_blocks_are_equal_but_for_the_last(media: Writer) -> None:
    path = media("long.wav", audio=tone(3.3, 44_100), rate=44_100, acodec="pcm_s16le")
    with open_media(path) as file:
        lengths = [len(block) for block in file.audio_blocks()]
    assert lengths == [16_000, 16_000, 16_000, 4_800]


# ---- picture ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [12, 24, 25, 30, 50, 60, Fraction(30_000, 1001), Fraction(24_000, 1001)])
def test_any_frame_rate_falls_on_the_grid(media: Writer, fps: Fraction) -> None:
    count = round(2 * fps)
    frames = numbers(read_clip(media("clip.mp4", frames=counter(count), fps=fps)).frames)
    assert len(frames) == round(count / Fraction(fps) * FPS)
    for k, number in enumerate(frames):
        held = Fraction(1) if number == count - 1 else Fraction(1, 2)  # the last one has no follower to give way to
        assert abs(Fraction(int(number)) / Fraction(fps) - Fraction(k, FPS)) <= held / Fraction(fps) + Fraction(1, 1000)


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.integers(10, 200), min_size=3, max_size=25), shift=st.integers(0, 500))
def test_variable_frame_rate_shows_the_nearest_frame(tmp_path: Path, steps: list[int], shift: int) -> None:
    times = [Fraction(t, 1000) for t in itertools.accumulate([shift, *steps])]
    path = write(tmp_path / "vfr.mkv", frames=counter(len(times)), times=times)
    shown = numbers(read_clip(path).frames)
    began = [t - times[0] for t in times]  # without sound the first frame is the beginning
    for k, number in enumerate(shown):
        distance = abs(began[number] - Fraction(k, FPS))
        assert distance <= min(abs(t - Fraction(k, FPS)) for t in began) + Fraction(1, 500)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv422p10le", "yuv420p10le", "gray"])
def test_pixel_formats_become_rgb8(media: Writer, pix_fmt: str) -> None:
    grey = np.linspace(20, 235, 64, dtype=np.uint8)
    frame = np.repeat(np.tile(grey, (48, 1))[..., None], 3, axis=2)
    clip = read_clip(media("clip.mkv", frames=[frame] * 3, vcodec="ffv1", pix_fmt=pix_fmt))
    assert clip.frames.dtype == np.uint8
    assert clip.frames.shape == (3, 48, 64, 3)
    assert np.abs(clip.frames[1].astype(int) - frame).max() <= 4


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_phones_that_turn_the_picture(media: Writer, turn: int, mirrored: bool) -> None:
    upright = np.zeros((48, 64, 3), np.uint8)
    upright[4:20, 4:28] = (250, 20, 20)  # one red corner and one blue, so that no two turns look alike
    upright[30:44, 36:60] = (20, 20, 250)
    stored = np.ascontiguousarray(np.rot90(upright[:, ::-1] if mirrored else upright, -turn // 90))
    path = media("phone.mp4", frames=[stored] * 3, rotate=turn, hflip=mirrored)
    with open_media(path) as file:
        shown = next(file.frames())
        assert (file.info.width, file.info.height) == (64, 48)
        assert file.info.rotation == (-turn % 360 if not mirrored else file.info.rotation)
    assert np.abs(shown.astype(int) - upright).mean() < 8


def test_a_size_that_changes_midway_keeps_that_of_the_first_frame(tmp_path: Path, media: Writer) -> None:
    small = media("small.ts", frames=counter(10, (64, 48)))
    large = media("large.ts", frames=counter(10, (128, 96)))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    with open_media(joined) as file:
        assert {frame.shape for frame in file.frames()} == {(48, 64, 3)}


# ---- both on one clock -----------------------------------------------------------------------


def clicks_and_flashes(seconds: float, every: float, fps: Fraction, rate: int) -> tuple[Iterator, Iterator]:
    """Three white frames and a burst of sound that begin at the same instants."""
    step = round(every * fps)

    def pictures() -> Iterator[np.ndarray]:
        dark, white = np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8)
        for number in range(round(seconds * fps)):
            yield white if 0 <= number % step - step // 2 < 3 else dark

    def sounds() -> Iterator[np.ndarray]:
        whole = np.zeros((round(seconds * rate), 1), np.float32)
        for number in range(step // 2, round(seconds * fps), step):
            begin = round(number / fps * rate)
            whole[begin : begin + rate // 25] = tone(0.04, rate, 1000)[: len(whole) - begin]
        yield whole

    return pictures(), sounds()


def events(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of flashes and of clicks, as read."""
    with open_media(path) as file:
        bright = np.array([frame.mean() for frame in file.frames()]) > 128
        loud = np.abs(np.concatenate(list(file.audio_blocks()))) > 0.15
    flashes = np.flatnonzero(bright & ~np.roll(bright, 1)) / FPS
    at = np.flatnonzero(loud) / SAMPLE_RATE
    return flashes, at[np.flatnonzero(np.diff(at, prepend=-10) > 0.5)]


def test_ten_minutes_stay_in_step_to_one_frame(tmp_path: Path) -> None:
    fps = Fraction(15_000, 1001)  # neither divides 25 nor a whole number: drift would show
    pictures, sounds = clicks_and_flashes(600, 20, fps, 44_100)
    path = write(tmp_path / "long.mp4", frames=pictures, fps=fps, vcodec="mpeg4", audio=sounds, rate=44_100)
    flashes, clicks = events(path)
    assert len(flashes) == len(clicks) == 30
    assert np.abs(flashes - clicks).max() <= 1 / FPS
    assert abs((flashes - clicks)[-10:].mean() - (flashes - clicks)[:10].mean()) < 0.01  # and nothing creeps


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.webm", "clip.ts", "clip.avi", "clip.mov"])
def test_containers_keep_sound_and_picture_together(media: Writer, name: str) -> None:
    webm = name.endswith("webm")
    pictures, sounds = clicks_and_flashes(4, 1, Fraction(30), 48_000)
    codecs = {"acodec": "libopus", "vcodec": "libvpx"} if webm else {}
    codecs |= {"acodec": "pcm_s16le", "vcodec": "mpeg4"} if name.endswith("avi") else {}
    flashes, clicks = events(media(name, frames=pictures, fps=30, audio=sounds, rate=48_000, **codecs))
    assert len(flashes) == len(clicks) == 4
    assert np.abs(flashes - clicks).max() <= 1 / FPS


@pytest.mark.parametrize("late", [0.5, 1.0])
def test_sound_that_begins_late_is_led_in_by_silence(media: Writer, late: float) -> None:
    path = media("late.mkv", frames=counter(75), audio=tone(2.0, 48_000), rate=48_000, audio_at=late, acodec="flac")
    clip = read_clip(path)
    onset = np.flatnonzero(np.abs(clip.audio) > 0.05)[0] / SAMPLE_RATE
    assert onset == pytest.approx(late, abs=0.005)
    assert not clip.audio[: round((late - 0.01) * SAMPLE_RATE)].any()
    assert numbers(clip.frames[:5]) == [0, 1, 2, 3, 4]


def test_picture_that_begins_late_repeats_its_first_frame(media: Writer) -> None:
    times = [Fraction(2, 5) + Fraction(k, 25) for k in range(50)]
    path = media("late.mkv", frames=counter(50), times=times, audio=tone(2.4), acodec="flac")
    shown = numbers(read_clip(path).frames)
    assert shown == [0] * 10 + list(range(50))


def test_a_gap_in_the_sound_is_filled_with_silence(media: Writer) -> None:
    source = tone(3.0, 16_000)
    path = media("gap.mkv", audio=source, rate=16_000, acodec="pcm_s16le", gap=(1.0, 2.0), frames=counter(75))
    audio = read_clip(path).audio
    assert len(audio) == pytest.approx(48_000, abs=400)
    missing = np.flatnonzero(np.convolve(np.abs(audio) > 0, np.ones(50), "same") == 0) / SAMPLE_RATE
    assert missing.min() == pytest.approx(1.0, abs=0.08)
    assert missing.max() == pytest.approx(2.0, abs=0.08)
    # What follows the gap is where it was, not moved up.
    assert correlated(audio[34_000:46_000], source[34_000:46_000, 0]) > 0.99


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.floats(0, 5.5), length=st.floats(0.1, 3))
def test_a_stretch_is_that_part_of_the_whole(tmp_path: Path, start: float, length: float) -> None:
    path = tmp_path / "clip.mp4"  # whose timestamps are exact; those of mkv are rounded to 1 ms
    if not path.exists():
        write(path, frames=counter(150), audio=noise(6.0, 44_100), rate=44_100, acodec="flac")
    whole, part = read_clip(path), read_clip(path, start, start + length)
    first, last = round(start * FPS), round((start + length) * FPS)
    assert part.start == first / FPS
    assert numbers(part.frames) == numbers(whole.frames[first:last])
    assert len(part.audio) == len(whole.audio[first * 640 : last * 640])
    np.testing.assert_allclose(part.audio, whole.audio[first * 640 : last * 640], atol=2e-4)


# ---- sources ---------------------------------------------------------------------------------


class Pipe(io.RawIOBase):
    """A file object that cannot seek, as standard input."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        return self._data.readinto(buffer)


def test_paths_file_objects_and_pipes_read_alike(media: Writer) -> None:
    path = media("clip.mp4", frames=counter(20), audio=tone(0.8, 44_100), rate=44_100)
    expected = read_clip(path)
    data = path.read_bytes()
    for source in (str(path), io.BytesIO(data), Pipe(data)):
        clip = read_clip(source)
        assert np.array_equal(clip.audio, expected.audio)
        assert np.array_equal(clip.frames, expected.frames)


def test_sound_and_picture_of_one_file_object_interleave(media: Writer) -> None:
    path = media("clip.mp4", frames=counter(100), audio=tone(4.0, 44_100), rate=44_100)
    expected = read_clip(path)
    with path.open("rb") as handle, open_media(handle) as file:
        blocks, frames = file.audio_blocks(), file.frames()
        got = [(next(blocks), list(itertools.islice(frames, 25))) for _ in range(4)]
    assert np.array_equal(np.concatenate([b for b, _ in got]), expected.audio[: 4 * SAMPLE_RATE])
    assert np.array_equal(np.stack([f for _, fs in got for f in fs]), expected.frames)


def test_reading_is_lazy(media: Writer) -> None:
    path = media("clip.mkv", frames=counter(250), audio=tone(10.0), acodec="flac")
    calls = []

    class Counted(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            calls.append(len(data))
            return data

    data = path.read_bytes()
    with open_media(Counted(data)) as file:
        calls.clear()
        frames = file.frames()
        assert sum(calls) == 0  # nothing is read before it is asked for
        next(frames)
        assert sum(calls) < len(data)
        frames.close()


def test_info_describes_the_source(media: Writer) -> None:
    path = media(
        "clip.mp4", frames=counter(60), fps=30, audio=tone(2.0, 48_000).repeat(2, 1), rate=48_000, layout="stereo"
    )
    with open_media(path) as file:
        info = file.info
    assert (info.has_audio, info.has_video, info.sample_rate, info.channels) == (True, True, 48_000, 2)
    assert (info.width, info.height, info.fps) == (64, 48, 30.0)
    assert info.duration == pytest.approx(2.0, abs=0.05)


def test_duration_is_counted_where_the_header_has_none(media: Writer) -> None:
    path = media("clip.webm", frames=counter(75), vcodec="libvpx", options={"live": "1"})
    with open_media(path) as file:
        assert file.info.duration == pytest.approx(3.0, abs=0.05)


# ---- what cannot be read -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.mp4", b"", "is empty"),
        ("notes.txt", b"just a few words\n" * 50, "'"),
        ("notes.mp4", b"just a few words\n" * 50, "cannot be read as media"),
        ("zeros.wav", bytes(4096), "cannot be read as media"),
    ],
)
def test_what_is_no_media_is_said_so(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MediaError, match=says) as caught:
        open_media(path)
    assert name in str(caught.value)


def test_missing_files_folders_and_pictures_are_said_so(tmp_path: Path, media: Writer) -> None:
    with pytest.raises(MediaError, match="does not exist"):
        open_media(tmp_path / "nowhere.mp4")
    with pytest.raises(MediaError, match="is a folder"):
        open_media(tmp_path)
    with pytest.raises(MediaError, match="is empty"):
        open_media(io.BytesIO())
    with pytest.raises(MediaError, match="is a picture"):
        open_media(media("still.png", frames=counter(1), vcodec="png", pix_fmt="rgb24"))


@settings(deadline=None, max_examples=30)
@given(data=st.binary(min_size=1, max_size=3000))
def test_random_bytes_raise_only_media_errors(data: bytes) -> None:
    try:
        clip = read_clip(io.BytesIO(data))
    except MediaError:
        return
    assert clip.audio is not None or clip.frames is not None


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=40))
def test_damage_never_raises_anything_else(tmp_path: Path, damage: list[tuple[float, int]]) -> None:
    path = tmp_path / "clip.mp4"
    if not path.exists():
        write(path, frames=counter(20), audio=tone(0.8, 44_100), rate=44_100)
    data = bytearray(path.read_bytes())
    for place, value in damage:
        data[round(place * (len(data) - 1))] = value
    try:
        clip = read_clip(io.BytesIO(bytes(data)))
    except MediaError:
        return
    assert clip.audio is None or np.abs(clip.audio).max(initial=0) <= 1
    assert clip.frames is None or clip.frames.dtype == np.uint8


def test_a_truncated_file_gives_what_decodes_and_warns(media: Writer, caplog: pytest.LogCaptureFixture) -> None:
    what = {"frames": counter(150), "audio": noise(6.0, 44_100), "rate": 44_100}
    whole = media("whole.mp4", **what, options={"movflags": "faststart"})  # index first: the beginning decodes
    cut = whole.with_name("cut.mp4")
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    with caplog.at_level(logging.WARNING):
        clip = read_clip(cut)
    assert 20 < len(clip.frames) < 140
    assert numbers(clip.frames[:20]) == list(range(20))
    assert "cut short" in caplog.text
    matroska = media("whole.mkv", frames=counter(150))  # it says how long its streams are in tags
    matroska.write_bytes(matroska.read_bytes()[: matroska.stat().st_size * 6 // 10])
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        read_clip(matroska)
    assert "announces 6.0 s but ends after" in caplog.text
    headless = media("headless.mp4", **what)  # index last, and lost
    headless.write_bytes(headless.read_bytes()[: headless.stat().st_size // 2])
    with pytest.raises(MediaError, match="cannot be read as media"):
        open_media(headless)


def test_timestamps_that_cannot_be_true_are_not_filled_up_to(media: Writer) -> None:
    apart = read_clip(media("apart.mkv", frames=counter(25), audio=tone(1.0), acodec="flac", audio_at=80_000.0))
    assert (len(apart.frames), len(apart.audio)) == (25, pytest.approx(16_000, abs=700))
    times = [Fraction(k, 25) + (50_000 if k >= 10 else 0) for k in range(25)]
    jump = read_clip(media("jump.mkv", frames=counter(25), times=times))
    assert numbers(jump.frames) == list(range(25))


def test_recordings_joined_byte_by_byte_follow_one_another(tmp_path: Path, media: Writer) -> None:
    what = {"frames": counter(100), "audio": tone(4.0, 48_000), "rate": 48_000}
    one = media("one.ts", **what).read_bytes()
    (tmp_path / "both.ts").write_bytes(one + one)  # the second one's timestamps begin anew
    clip = read_clip(tmp_path / "both.ts")
    assert len(clip.frames) == pytest.approx(200, abs=3)
    assert len(clip.audio) == pytest.approx(8 * SAMPLE_RATE, abs=2000)


def test_a_stream_that_appears_midway_does_not_end_the_others() -> None:
    class Container:
        """As PyAV 18: the first packet of an unknown stream raises, and the next call reads on."""

        left = [1, 2, None, 3, 4]

        def demux(self) -> Iterator[int]:
            while self.left:
                packet = self.left.pop(0)
                if packet is None:
                    raise IndexError("list index out of range")
                yield packet

    assert list(packets(Container())) == [1, 2, 3, 4]


def test_what_does_not_fit_into_memory_is_refused_not_tried(media: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omni_avsr.media.reader.MAX_CLIP", 40 * 64 * 48 * 3)
    path = media("clip.mp4", frames=counter(50))
    with pytest.raises(MediaError, match="as a stream"):
        read_clip(path)
    assert len(read_clip(path, 0, 1).frames) == 25


def test_a_stretch_outside_the_file_is_said_so(media: Writer) -> None:
    with pytest.raises(MediaError, match=r"lasts 1\.00 s"):
        read_clip(media("short.wav", audio=tone(1.0), acodec="pcm_s16le"), start=5.0)


# ---- arrays ----------------------------------------------------------------------------------


@given(count=st.integers(1, 40), fps=st.floats(5, 120))
def test_arrays_are_resampled_by_time(count: int, fps: float) -> None:
    video = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    frames = array_clip(video=video, fps=fps).frames[:, 0, 0, 0]
    assert len(frames) == max(1, round(count / fps * FPS))
    for k, number in enumerate(frames):
        best = min(abs(n / fps - k / FPS) for n in range(count))
        assert abs(number / fps - k / FPS) <= best + 1e-6


def test_arrays_say_what_they_lack() -> None:
    video = np.zeros((5, 8, 8, 3), np.uint8)
    with pytest.raises(MediaError, match="Neither"):
        array_clip()
    with pytest.raises(MediaError, match="pass fps"):
        array_clip(video=video)
    with pytest.raises(MediaError, match="expected"):
        array_clip(video=video.astype(np.float32), fps=25)
    with pytest.raises(MediaError, match="transpose"):
        array_clip(audio=np.zeros((2, 100)))
    with pytest.raises(MediaError, match="not empty"):
        array_clip(audio=np.zeros(0))
    int16 = array_clip(audio=np.full(100, 16_384, np.int16)).audio
    assert int16 == pytest.approx(0.5)
