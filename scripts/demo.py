"""`make demo`: the bundled clip by ear, by lips and by both, clean and in noise, at two budgets, by one model.

Everything here is the public Python API; nothing is special to the demo.
"""

from __future__ import annotations

import logging
import sys
import time
from importlib import resources
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from omni_avsr import Transcriber
from omni_avsr.data.augment import mix_noise
from omni_avsr.media.reader import read_clip
from omni_avsr.types import FPS, SAMPLE_RATE, Clip

TRUTH = "place blue at f two now"
BUDGETS = ((4, 2), (16, 5))
NOISE_SNR_DB = -5.0


def main(out: Path) -> None:
    """Writes the noisy clip's subtitles to `out` and prints the table."""
    logging.disable(logging.WARNING)
    console = Console(width=100)
    sample = Path(str(resources.files("omni_avsr") / "assets" / "sample.mp4"))
    clip = read_clip(sample)
    noisy = add_noise(clip)
    console.print(f"Clip: {sample.name}, {len(clip.frames) / FPS:.1f} s. A drawn face says: [bold]{TRUTH}")
    console.print(f"Noise: white, {NOISE_SNR_DB:g} dB (louder than the voice).")
    transcriber = Transcriber("default")
    table = Table("task", "tokens/s", "clean", "in noise", "seconds", title="One model, three tasks, two budgets")
    for audio_rate, video_rate in BUDGETS:
        for task in ("asr", "vsr", "avsr"):
            table.add_row(*row(transcriber, task, audio_rate, video_rate, clip, noisy))
        table.add_section()
    console.print(table)
    console.print("Now yours: [bold]omni-avsr transcribe VIDEO[/] (the default model knows only the GRID vocabulary)")


def add_noise(clip: Clip) -> np.ndarray:
    """(S,) float32: the clip's audio in white noise, from a fixed seed."""
    assert clip.audio is not None
    noise = np.random.default_rng(0).standard_normal(len(clip.audio)).astype(np.float32)
    return mix_noise(clip.audio, noise, NOISE_SNR_DB)


def row(t: Transcriber, task: str, audio_rate: int, video_rate: int, clip: Clip, noisy: np.ndarray) -> list[str]:
    """One line of the table."""
    start = time.perf_counter()
    texts = [transcribe(t, task, audio_rate, video_rate, clip, audio) for audio in (clip.audio, noisy)]
    rates = {"asr": 50 / audio_rate, "vsr": 25 / video_rate}
    per_second = rates.get(task, sum(rates.values()))
    return [task, f"{per_second:.1f}", *texts, f"{time.perf_counter() - start:.2f}"]
