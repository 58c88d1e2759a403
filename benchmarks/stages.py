"""Processor seconds per second of video, stage by stage, for the default model: the inputs of `docs/scaling.md`.

    OMP_NUM_THREADS=1 python benchmarks/stages.py -o benchmarks/results/stages.json

The packaged clip, scaled to several sizes. Processor time and not the clock, so that other jobs do not count.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from omni_avsr import Transcriber
from omni_avsr.media.features import extract
from omni_avsr.media.mouth import mouths
from omni_avsr.media.reader import read_clip
from omni_avsr.media.speech import speech_spans
from omni_avsr.model.decode import DecodeOptions
from omni_avsr.transcribe.recognition import Utterance, recognise

SIZES = ((360, 288), (640, 480), (1280, 720))


def main() -> None:
    """Measures, prints and stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    rows = measure(arguments.rounds)
    results = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "unit": "CPU s per media s", "rows": rows}
    arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


def measure(rounds: int) -> dict[str, Any]:
    """Stage -> the least of `rounds`, per second of media."""
    clip = read_clip(Path(str(resources.files("omni_avsr") / "assets" / "sample.mp4")))
    assert clip.frames is not None
    assert clip.audio is not None
    model = Transcriber("default", device="cpu").model
    seconds, out = len(clip.frames) / 25, dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        for width, height in SIZES:
            path = scaled(Path(folder) / f"{width}.mp4", clip.frames, width, height)
            frames = read_clip(path).frames
            assert frames is not None
            name = f"{width} x {height}"
            out[f"decode, {name}"] = least(rounds, lambda path=path: read_clip(path)) / seconds
            out[f"face and mouth, {name}"] = least(rounds, lambda frames=frames: mouths(frames)) / seconds
            out[f"megabits a second, {name}"] = path.stat().st_size * 8e-6 / seconds
    crops, contract = mouths(clip.frames).crops, model.config.preprocess
    features = extract(clip.audio, crops, contract)
    out["voice activity"] = least(rounds, lambda: speech_spans(clip.audio)) / seconds
    out["features"] = least(rounds, lambda: extract(clip.audio, crops, contract)) / seconds
    for beams in (1, 5):
        for rows in (1, 8):
            batch = [Utterance(features, "avsr", {"audio": 4, "video": 2})] * rows
            spent = least(rounds, lambda batch=batch, beams=beams: recognise(model, batch, DecodeOptions(beams)))
            out[f"model, {beams} beams, {rows} in a batch"] = spent / seconds / rows
    return {name: round(value, 4) for name, value in out.items()}


def least(rounds: int, work: Callable[[], object]) -> float:
    """Processor seconds of the quickest round."""
    spent = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return min(spent)


def scaled(path: Path, frames: np.ndarray, width: int, height: int) -> Path:
    """The pictures in another size, as H.264 of usual quality."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "23", "preset": "veryfast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(cv2.resize(frame, (width, height)), "rgb24")))
        out.mux(stream.encode(None))
    return path


if __name__ == "__main__":
    main()
