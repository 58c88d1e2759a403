"""Processor seconds per second of video, stage by stage, for the default model, and what a million hours take by them.

    OMP_NUM_THREADS=1 python -m benchmarks.stages    measures, stores, and writes its part of docs/scaling.md
    python -m benchmarks.stages --page               writes that part anew from what is stored

The packaged clip, scaled to several sizes. Processor time and not the clock, so that other jobs count little.
"""

from __future__ import annotations

import argparse
import json
import os
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

from benchmarks.pages import replaced
from omni_avsr import Transcriber
from omni_avsr.checkpoints.folder import folder_digest, locate
from omni_avsr.media.features import extract
from omni_avsr.media.mouth import mouths
from omni_avsr.media.reader import read_clip
from omni_avsr.media.speech import speech_spans
from omni_avsr.model.decode import DecodeOptions
from omni_avsr.transcribe.recognition import Utterance, recognise

SIZES = ((360, 288), (640, 480), (1280, 720))
OUTPUT = Path(__file__).parent / "results" / "stages.json"
DOCS = Path(__file__).parents[1] / "docs" / "scaling.md"
PUBLISHED = Path(__file__).parent / "results" / "vs_reference.json"
CORES, USED, NODES = 64, 0.8, 10  # of a node, the share of them that works, and how many there are
HOURS = 1_000_000
MEGABITS = 1.5  # a second, of the input; the clip's own film is smaller than most
JSON, TEXT = 784, 27  # bytes for 3 s: the outputs of the packaged clip


def main() -> None:
    """Measures, prints and stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT)
    parser.add_argument("--page", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    if not arguments.page:
        cv2.setNumThreads(1)
        date, load = datetime.now(UTC).isoformat(timespec="seconds"), round(os.getloadavg()[1], 1)
        weights = folder_digest(locate("default"))
        results = {"date": date, "weights": weights, "unit": "CPU s per media s", "load_average": load}
        results |= {"rows": measure(arguments.rounds)}
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    if arguments.output == OUTPUT:
        DOCS.write_text(replaced(DOCS.read_text(), "stages", part()))


# ---- what follows ------------------------------------------------------------------------------


def part() -> str:
    """The page's part, from what is stored."""
    stored = json.loads(OUTPUT.read_text())
    rows = stored["rows"]
    names = [f"{width} x {height}" for width, height in SIZES]
    heard, model = rows["voice activity"] + rows["features"], rows["model, 5 beams, 8 in a batch"]
    seen = {name: (rows[f"decode, {name}"], rows[f"face and mouth, {name}"]) for name in names}
    table = {
        "decode": [seen[name][0] for name in names],
        "face and mouth": [seen[name][1] for name in names],
        "voice activity, features": [heard] * len(names),
        "model": [model] * len(names),
    }
    table["**sum**"] = [sum(column) for column in zip(*table.values(), strict=True)]
    lines = [f"| stage | {' | '.join(names).replace('x', '×')} |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {stage} | {' | '.join(f'{value:.3f}' for value in row)} |" for stage, row in table.items()]
    before = sum(seen[names[1]]) + heard  # perception at 640 x 480
    return "\n".join(
        [
            f"Measured {stored['date'][:10]} by `benchmarks/stages.py` (`results/stages.json`), processor seconds per "
            "second of video on one core of an AMD EPYC (Zen 5): default model, audio-visual, rates 4 and 2, five "
            f"beams, batches of eight; the machine had a load average of {stored['load_average']} from other work on "
            "two cores, which raises processor time too.",
            "",
            *lines,
            "",
            *arithmetic(
                before, model, published(), table["face and mouth"][1], sum(seen[names[2]]) / sum(seen[names[1]])
            ),
        ]
    )


def published() -> float:
    """Processor seconds per second of video of a model of published size: int8, greedy."""
    stored = json.loads(PUBLISHED.read_text())
    row = next(row for row in stored["rows"] if row["side"] == "int8 fast 1")
    return row["total"] / sum(stored["meta"]["clips"])


def arithmetic(before: float, small: float, large: float, face: float, picture: float) -> list[str]:
    """What a million hours take.

    Args:
        before: CPU seconds per second of video before the model, at 640 x 480.
        small: of the default model.
        large: of one of published size.
        face: of finding faces and mouths, which is part of `before`.
        picture: how much more decoding and faces cost at 1280 x 720.
    """
    costs = [before + small, before + large]
    speeds = [CORES * USED / cost for cost in costs]  # hours of video in an hour of a node
    rows = {
        "core-seconds per second": [
            f"{before:.3f} + {m:.3f} = {c:.3f}" for m, c in zip((small, large), costs, strict=True)
        ],
        "core-hours": [rounded(HOURS * cost) for cost in costs],
        "hours of video per node-hour": [f"{speed:.0f}" for speed in speeds],
        "node-hours": [rounded(HOURS / speed) for speed in speeds],
        f"days on {NODES} nodes": [f"{HOURS / speed / NODES / 24:.0f}" for speed in speeds],
    }
    return [
        "A model of published size (Whisper medium, AV-HuBERT large, Llama-3.2-1B, int8, greedy) takes "
        f"{large:.2f} in place of {small:.3f} (`results/vs_reference.json`).",
        "",
        f"Arithmetic for a million hours at 640 × 480, all of it speech, nodes of {CORES} such cores used to "
        f"{100 * USED:.0f} %. That a node does as much as its cores one by one is assumed: actors share nothing but "
        "the disk.",
        "",
        "| | default model | published size, int8, on CPUs |",
        "|---|---|---|",
        *(f"| {name} | {first} | {second} |" for name, (first, second) in rows.items()),
        "",
        f"**The bottleneck** is the face with the small model ({100 * face / costs[0]:.0f} % of the time) and the "
        f"model with the large one ({100 * large / costs[1]:.0f} %). What moves the sum most, in this order:",
        f"- *Silence*: windows without a voice never reach the model. At a speech share *s* the large model costs "
        f"{before:.3f} + {large:.2f} *s*: at *s* = 0.4, {before + 0.4 * large:.2f}.",
        "- *Budget*: rates 16 and 5 read a quarter to two fifths of the tokens; `--task asr` drops the face and the "
        "video encoder (but then nothing is read from lips).",
        f"- *Size of the picture*: decode and face cost {picture:.1f} times as much at 1280 × 720; a mouth of 96 "
        "pixels needs no more than 640 × 480.",
        "- *GPUs* take the model's part only. Not measured here, no GPU could be had. Perception then sets the number "
        f"of cores beside each: a GPU that does *g* seconds of video a second needs {before:.3f} *g* cores, so 16 "
        f"cores feed *g* = {16 / before:.0f}; above that the GPU waits.",
        "",
        f"**Storage and network** (arithmetic): at {MEGABITS} Mbit/s the input is "
        f"{HOURS * 3600 * MEGABITS / 8e6:.0f} TB. A node reads {speeds[0] * MEGABITS:.0f} Mbit/s with the small model "
        f"and {speeds[1] * MEGABITS:.0f} with the large one, {NODES} nodes at most "
        f"{NODES * speeds[0] * MEGABITS / 1e3:.1f} Gbit/s, which one storage server gives. Outputs at {JSON} bytes of "
        f"JSON and {TEXT} of text for 3 s (the sample) are {HOURS * 1200 * JSON / 1e12:.2f} TB and "
        f"{HOURS * 1200 * TEXT / 1e9:.0f} GB.",
    ]


def rounded(number: float) -> str:
    """Three digits of it."""
    return f"{float(f'{number:.3g}'):,.0f}"


# ---- measuring ---------------------------------------------------------------------------------


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
