"""`make demo`: the bundled clip by ear, by lips and by both, clean and in noise, at two budgets, by one model.

Everything here is the public API; nothing is special to the demo.
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
from rapidfuzz.distance import Levenshtein
from rich.console import Console
from rich.table import Table

from omni_avsr import Transcriber
from omni_avsr.data.noise import mix_noise
from omni_avsr.media.reader import read_clip
from omni_avsr.transcribe.subtitles import formats, save
from omni_avsr.types import FPS, Clip, Transcript

TRUTH = "place blue at f two now"
BUDGETS = ((4, 2), (16, 5))  # audio rate, video rate: encoder frames per token
SNR_DB = -5.0


def main(out: Path) -> None:
    """Prints the table; writes the audio-visual transcript of the clean clip to `out`."""
    logging.disable(logging.WARNING)
    console = Console(width=110, highlight=False)
    path = Path(str(resources.files("omni_avsr") / "assets" / "sample.mp4"))
    clip = read_clip(path)
    assert clip.audio is not None
    assert clip.frames is not None
    console.print(f"{path.name}: {len(clip.frames) / FPS:.1f} s, a synthetic face and voice say: [bold]{TRUTH}[/]")
    console.print(f"noise: white, {SNR_DB:g} dB, so louder than the voice; what is wrong is [red]red[/]\n")
    noise = np.random.default_rng(0).standard_normal(len(clip.audio))
    noisy = replace(clip, audio=mix_noise(clip.audio, noise, SNR_DB))

    transcriber = Transcriber("default", offline=True)
    table = Table("task", "tokens/s", "clean", "in noise", "seconds for both")
    for audio_rate, video_rate in BUDGETS:
        tokens = {"asr": 50 / audio_rate, "vsr": 25 / video_rate}
        for task in ("asr", "vsr", "avsr"):
            began = time.perf_counter()
            texts = [recognise(transcriber, c, task, audio_rate, video_rate).text for c in (clip, noisy)]
            seconds = time.perf_counter() - began
            rate = tokens.get(task, sum(tokens.values()))
            table.add_row(task, f"{rate:.1f}", *map(marked, texts), f"{seconds:.1f}")
        table.add_section()
    console.print(table)
    files = save(recognise(transcriber, clip, "avsr", *BUDGETS[0]), out, path.stem, formats("all"))
    console.print(f"\nwritten: {', '.join(str(f) for f in files)}")
    console.print(
        "now yours: [bold].venv/bin/omni-avsr transcribe VIDEO[/] (the default model knows the GRID words only)"
    )


def recognise(transcriber: Transcriber, clip: Clip, task: str, audio_rate: int, video_rate: int) -> Transcript:
    """The whole transcript of `clip`."""
    segments, info = transcriber.transcribe(clip, task=task, audio_rate=audio_rate, video_rate=video_rate)
    return Transcript(tuple(segments), info)


def marked(text: str) -> str:
    """`text` with the words that were not said there in red, and a red dash for a word that is missing."""
    said, heard = TRUTH.split(), text.split()
    if not heard:
        return "[dim](nothing)[/]"
    parts: list[str] = []
    for step in Levenshtein.opcodes(said, heard):
        words = heard[step.dest_start : step.dest_end] or ["-"] * (step.src_end - step.src_start)
        parts += words if step.tag == "equal" else [f"[red]{word}[/]" for word in words]
    return " ".join(parts)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/demo"))
