"""A folder as people have them: two hundred files, good, odd and broken."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from typer.testing import Result

from tests.clips import grey, sample, silence, video, voice, wav
from tests.media.conftest import write

Run = Callable[..., Result]

FILES = 200
GOOD, NOTED, FAILED, QUIET = "transcribed", "transcribed, with a note", "failed", "no words"


def hdr(path: Path, frames: np.ndarray, audio: np.ndarray) -> Path:
    """Ten bits per colour, BT.2020 primaries, perceptual quantizer, as phones and cameras write it."""
    with av.open(str(path), "w") as out:
        picture = out.add_stream("libx265", rate=25, options={"preset": "ultrafast", "x265-params": "log-level=none"})
        picture.height, picture.width, picture.pix_fmt = *frames.shape[1:3], "yuv420p10le"
        context = picture.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 9, 16, 9
        sound = out.add_stream("aac", rate=16_000, layout="mono")
        for frame in frames:
            out.mux(picture.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        out.mux(picture.encode(None))
        block = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio[None]), "fltp", "mono")
        block.sample_rate, block.pts = 16_000, 0
        out.mux([*sound.encode(block), *sound.encode(None)])
    return path


def originals(folder: Path) -> dict[str, tuple[Path, str]]:
    """Name -> one file of each kind, and what is expected of it."""
    folder.mkdir()
    frames, audio = sample().frames, voice()
    assert frames is not None
    small, mono = frames[:75, ::2, ::2], audio[:, None]
    turned = np.ascontiguousarray(np.rot90(small, 1, (1, 2)))
    tall = np.ascontiguousarray(np.pad(small, ((0, 0), (120, 120), (0, 0), (0, 0)), mode="edge"))
    large = np.stack([cv2.resize(frame, (3840, 2160)) for frame in frames[:30]])

    def file(name: str, **what: object) -> Path:
        return write(folder / name, **what)  # type: ignore[arg-type]

    whole = file("plain.mp4", frames=small, audio=mono)
    (folder / "headless.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    matroska = file("cut.mkv", frames=small, audio=mono, acodec="flac")
    matroska.write_bytes(matroska.read_bytes()[: int(matroska.stat().st_size * 0.4)])
    (folder / "text.mp4").write_text("not media at all " * 100)
    (folder / "zero.mp4").touch()
    (folder / "photo.mp4").write_bytes(cv2.imencode(".jpg", frames[0])[1].tobytes())
    return {
        "plain": (whole, GOOD),
        "rotated": (file("rotated.mp4", frames=turned, audio=mono, rotate=90), GOOD),
        "twelve": (file("twelve.mp4", frames=small[::2], fps=Fraction(25, 2), audio=mono), GOOD),
        "surround": (
            file("surround.mkv", frames=small, audio=np.repeat(mono, 6, 1), acodec="flac", layout="5.1"),
            GOOD,
        ),
        "hdr": (hdr(folder / "hdr.mp4", small, audio), GOOD),
        "portrait": (file("portrait.mp4", frames=tall, audio=mono), GOOD),
        "uhd": (file("uhd.mp4", frames=large, audio=mono[: 30 * 640]), GOOD),
        "mute": (file("mute.mp4", frames=small), GOOD),
        "sound": (wav(folder / "sound.wav", audio), GOOD),
        "silent": (wav(folder / "silent.wav", silence(3)), QUIET),
        "faceless": (video(folder / "faceless.mkv", grey(3), audio), NOTED),
        "cut": (matroska, NOTED),
        "headless": (folder / "headless.mp4", FAILED),
        "text": (folder / "text.mp4", FAILED),
        "zero": (folder / "zero.mp4", FAILED),
        "photo": (folder / "photo.mp4", FAILED),
    }


@pytest.mark.slow
def test_two_hundred_files_good_odd_and_broken(run: Run, says: None, model_folder: Path, tmp_path: Path) -> None:
    kinds = originals(tmp_path / "originals")
    names = [*kinds, *(name for name in kinds if name != "uhd")]  # one of 4K is enough
    (tmp_path / "in").mkdir()
    expected = {}
    for number in range(FILES):
        path, fate = kinds[names[number % len(names)]]
        link = tmp_path / "in" / f"{number:03d}-{path.name}"
        os.link(path, link) if path.stat().st_size else shutil.copy(path, link)
        expected[link.name] = fate

    result = run("transcribe", "in", "--model", model_folder, "--beam_size", 1, "-f", "json", "-o", "out", "--offline")

    of = {fate: {name for name, f in expected.items() if f == fate} for fate in (GOOD, NOTED, FAILED, QUIET)}
    *lines, total = result.stderr.splitlines()
    assert result.exit_code == 1
    assert total == f"{len(of[FAILED])} of {FILES} files failed"
    assert len(lines) == len(of[FAILED]) + len(of[NOTED]), "one line for each file with a problem, and no other"
    said = {line.split(": ")[1].removeprefix("in/"): line.split(": ")[0] for line in lines}
    assert said == dict.fromkeys(of[FAILED], "failed") | dict.fromkeys(of[NOTED], "note")
    words = {p.name: json.loads(p.read_text())["text"] for p in (tmp_path / "out").iterdir()}
    stems = {Path(name).stem: name for name in expected}
    assert {stems[Path(out).stem]: text for out, text in words.items()} == {
        name: "" if fate == QUIET else "bin blue at f two now" for name, fate in expected.items() if fate != FAILED
    }
