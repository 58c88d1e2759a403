"""What `transcribe` makes of real clips joined into one film, whole, and with the microphone or the face lost midway.

    python benchmarks/product.py ../shared/data/grid -o benchmarks/results/product.json

The loss comes in the middle of a sentence in the middle of the film and stays. All is decided by `--task auto`.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import jiwer
import numpy as np

from omni_avsr import Transcriber
from omni_avsr.checkpoints.folder import folder_digest, locate
from omni_avsr.evaluate.provenance import provenance
from omni_avsr.media.reader import read_clip
from omni_avsr.types import FPS, SAMPLES_PER_FRAME, Clip

INTO = 30  # frames of the middle sentence that are whole: 1.2 s
LOSSES = ("nothing", "microphone", "face")


def main() -> None:
    """Prints a line per loss, and writes the JSON."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("grid", type=Path)
    options.add_argument("--clips", type=int, default=20)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--model", default="default")
    options.add_argument("-o", "--out", type=Path)
    asked = options.parse_args()
    transcriber = Transcriber(asked.model, offline=True)
    clip, sentences = film(asked.grid, asked.clips, asked.seed)
    rows = {}
    for loss in LOSSES:
        rows[loss] = measure(transcriber, damaged(clip, len(sentences), loss), " ".join(sentences))
        print(loss, rows[loss], flush=True)
    assert clip.frames is not None
    about = {"clips": len(sentences), "seconds": len(clip.frames) / FPS, "seed": asked.seed, "task": "auto"}
    about |= {"weights": folder_digest(locate(asked.model, offline=True)), **provenance(transcriber.device)}
    if asked.out:
        asked.out.write_text(json.dumps({"rows": rows, "meta": about}, indent=1) + "\n")


def film(grid: Path, count: int, seed: int) -> tuple[Clip, list[str]]:
    """Clips of the dev split one after the other, drawn by `seed`, and what is said in each."""
    with (grid / "manifest.csv").open(newline="") as file:
        dev = [row for row in csv.DictReader(file) if row["split"] == "dev"]
    drawn = [dev[i] for i in np.random.default_rng(seed).permutation(len(dev))[:count]]
    sounds, pictures = [], []
    for row in drawn:
        clip = read_clip(grid / row["path"])
        assert clip.audio is not None
        assert clip.frames is not None
        frames = min(len(clip.frames), len(clip.audio) // SAMPLES_PER_FRAME)
        sounds.append(clip.audio[: frames * SAMPLES_PER_FRAME])
        pictures.append(clip.frames[:frames])
    return Clip(np.concatenate(sounds), np.concatenate(pictures)), [row["transcript"] for row in drawn]


def damaged(clip: Clip, sentences: int, loss: str) -> Clip:
    """The clip without sound, or with black pictures, from the middle of the middle sentence on."""
    assert clip.audio is not None
    assert clip.frames is not None
    frame = len(clip.frames) // sentences * (sentences // 2) + INTO
    audio, frames = clip.audio, clip.frames
    if loss == "microphone":
        audio = np.concatenate([audio[: frame * SAMPLES_PER_FRAME], np.zeros_like(audio[frame * SAMPLES_PER_FRAME :])])
    if loss == "face":
        frames = np.concatenate([frames[:frame], np.zeros_like(frames[frame:])])
    return Clip(audio, frames)


def measure(transcriber: Transcriber, clip: Clip, truth: str) -> dict[str, Any]:
    """Word error rate over the film, words, and how many segments each task got."""
    segments, _ = transcriber.transcribe(clip)
    found = list(segments)
    said = " ".join(segment.text for segment in found)
    return {
        "wer": round(jiwer.wer(truth, said), 4),
        "words": len(said.split()),
        "spoken": len(truth.split()),
        "segments": dict(Counter(segment.av["task"] for segment in found)),
    }


if __name__ == "__main__":
    main()
