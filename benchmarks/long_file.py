"""Does memory stay flat over two hours? Makes a long film from the bundled clip and transcribes it.

    python benchmarks/long_file.py --hours 2 -o benchmarks/results/long_file.json

The film has the clip's voice with pauses and, once a second, one of its pictures: every one of 25 frames a second is
followed, cut out and held as in any film, while the face networks see each picture once.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import av
import numpy as np

from omni_avsr import Transcriber
from omni_avsr.checkpoints.folder import folder_digest, locate
from omni_avsr.media.reader import read_clip
from omni_avsr.types import SAMPLE_RATE

PAUSE = 1.0  # seconds between two sentences


def main() -> None:
    """Prints a line per ten minutes of film, and writes the JSON."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--hours", type=float, default=2.0)
    options.add_argument("--model", default="default")
    options.add_argument("-o", "--out", type=Path)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(film(Path(folder) / "long.mkv", 3600 * asked.hours), asked.model)
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=1) + "\n")


def film(path: Path, seconds: float) -> Path:
    """The bundled clip over and over, its picture at one frame a second."""
    clip = read_clip(Path(str(resources.files("omni_avsr") / "assets" / "sample.mp4")))
    assert clip.audio is not None
    assert clip.frames is not None
    sentence = np.concatenate([clip.audio, np.full(round(PAUSE * SAMPLE_RATE), 1e-3, np.float32)])
    blocks = round(seconds * SAMPLE_RATE / len(sentence))
    with av.open(str(path), "w") as out:
        picture = out.add_stream("libx264", rate=1, options={"preset": "ultrafast"})
        picture.height, picture.width, picture.pix_fmt = *clip.frames.shape[1:3], "yuv420p"
        sound = out.add_stream("flac", rate=SAMPLE_RATE, layout="mono")
        shown = 0
        for number in range(blocks):
            block = av.AudioFrame.from_ndarray((sentence * 32767).astype(np.int16)[None], "s16", "mono")
            block.sample_rate, block.pts = SAMPLE_RATE, number * len(sentence)
            out.mux(sound.encode(block))
            while shown < (number + 1) * len(sentence) / SAMPLE_RATE:
                out.mux(picture.encode(av.VideoFrame.from_ndarray(clip.frames[shown * 7 % len(clip.frames)], "rgb24")))
                shown += 1
        out.mux(picture.encode())
        out.mux(sound.encode())
    return path


def measure(path: Path, model: str) -> dict[str, object]:
    """Resident memory at every ten minutes of film."""
    began = time.perf_counter()
    segments, info = Transcriber(model, offline=True).transcribe(path, beam_size=1)
    rows: list[dict[str, float]] = []
    count = 0
    for segment in segments:
        count += 1
        if segment.end >= 600 * len(rows):
            row = {"film": segment.end, "seconds": time.perf_counter() - began, "mib": resident(), "segments": count}
            rows.append({name: round(value, 1) for name, value in row.items()})
            print(rows[-1], flush=True)
    return {
        "model": model,
        "weights": folder_digest(locate(model, offline=True)),
        "film_seconds": round(info.duration, 1),
        "segments": count,
        "seconds": round(time.perf_counter() - began, 1),
        "rows": rows,
        "machine": f"{platform.machine()}, {platform.system()}",
    }


def resident() -> float:
    """MiB of this process in memory."""
    pages: Iterator[str] = iter(Path("/proc/self/statm").read_text().split())
    next(pages)
    return int(next(pages)) * 4096 / 2**20


if __name__ == "__main__":
    main()
