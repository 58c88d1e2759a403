"""GRID sentences by speech programs other than espeak-ng: voices made from recordings of people.

    python scripts/speak.py met 600 -o runs/data/met
    python scripts/speak.py unmet 200 --root /tmp/trixie -o runs/data/unmet

Debian has the programs: `apt install flite rhvoice rhvoice-english libttspico-utils festival festvox-kallpc16k` for
`met`, which trains the default model, and `festvox-kdlpc16k festvox-rablpc16k mbrola mbrola-en1 ...` for `unmet`, which
measures it and trains nothing: the licences of those voices do not allow all uses. Writes a manifest of sound.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

from omni_avsr.data.sentences import SENTENCES
from omni_avsr.types import FPS, SAMPLE_RATE

Say = Callable[[str, str, float, float, str], list[str]]  # voice, text, slowness, pitch, path -> a command
PROGRAMS: dict[str, Say] = {
    "flite": lambda voice, text, slow, pitch, path: [
        *("flite", "-voice", voice, "-t", text, "-o", path, "--setf", f"duration_stretch={slow:.2f}"),
    ],
    "rhvoice": lambda voice, text, slow, pitch, path: [
        *("RHVoice-test", "-p", voice, "-r", f"{100 / slow:.0f}", "-t", f"{100 * pitch:.0f}", "-o", path, "-i", text),
    ],
    "pico": lambda voice, text, slow, pitch, path: [
        *("pico2wave", "-l", voice, "-w", path),
        f"<speed level='{100 / slow:.0f}'><pitch level='{100 * pitch:.0f}'>{text}</pitch></speed>",
    ],
    "festival": lambda voice, text, slow, pitch, path: [
        *("festival", "-b"),
        f"(begin (voice_{voice}) (Parameter.set 'Duration_Stretch {slow:.2f})"
        f' (utt.save.wave (utt.synth (Utterance Text "{text}")) "{path}" \'riff))',
    ],
    "mbrola": lambda voice, text, slow, pitch, path: [
        *("espeak-ng", "-v", f"mb-{voice}", "-s", f"{160 / slow:.0f}", "-p", f"{50 * pitch:.0f}", "-w", path, text),
    ],
}  # fmt: skip
FOREIGN = ("af1", "de4", "de5", "de6", "fr1", "fr4", "gr2", "hu1", "nl2", "pl1", "ro1", "sw1", "sw2")
SPLITS = {"met": "train", "unmet": "test"}
CASTS: dict[str, tuple[str, ...]] = {
    "met": (
        *("flite slt", "flite awb", "flite rms", "flite kal16"),
        *("rhvoice alan", "rhvoice bdl", "rhvoice clb", "rhvoice slt"),
        *("pico en-GB", "pico en-US", "festival kal_diphone"),
    ),
    "unmet": (
        *("festival ked_diphone", "festival rab_diphone", "rhvoice evgeniy-eng", "rhvoice lyubov"),
        *(f"mbrola {name}" for name in ("en1", "us1", "us2", "us3")),
        *(f"mbrola {name}-en" for name in FOREIGN),
    ),
}


def main() -> None:
    """Speaks and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cast", choices=CASTS)
    parser.add_argument("count", type=int)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--root", type=Path, default=Path("/"), help="of a Debian with the programs, if not this one")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    grammar, cast = SENTENCES["grid"], CASTS[options.cast]
    (options.out / "media").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in tqdm(range(options.count)):
        speaker, text = cast[number % len(cast)], grammar.draw(rng)
        slow, pitch = np.exp(rng.uniform(-0.2, 0.2, 2))
        audio = spoken(speaker, text, slow, pitch, options.root)
        audio = np.pad(audio, [int(seconds * SAMPLE_RATE) for seconds in rng.uniform(0, 0.5, 2)])
        media = f"media/{number:04d}.flac"
        soundfile.write(options.out / media, audio, SAMPLE_RATE)
        row = {"id": f"{options.cast}{number:04d}", "media": media, "text": text, "split": SPLITS[options.cast]}
        rows.append({**row, "speaker": speaker, "frames": len(audio) * FPS // SAMPLE_RATE})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (options.out / "manifest.jsonl").write_text(lines, "utf-8")


def spoken(speaker: str, text: str, slow: float, pitch: float, root: Path) -> np.ndarray:
    """(S,) float32 at 16 kHz, between its first and its last sound."""
    program, voice = speaker.split()
    text = " ".join(respelled(word, program) for word in text.split())
    path, said = "/tmp/spoken.wav", "/tmp/said.txt"
    (root / said[1:]).write_text(text)
    command = PROGRAMS[program](voice, said if program == "rhvoice" else text, slow, pitch, path)
    within = [] if root == Path("/") else ["chroot", str(root)]
    try:
        subprocess.run([*within, *command], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(
            f"'{speaker}' cannot speak: {error}; install what --help names, or say where it is by --root"
        ) from None
    audio, rate = soundfile.read(root / path[1:], dtype="float32")
    audio = soxr.resample(audio, rate, SAMPLE_RATE)
    loud = np.flatnonzero(np.abs(audio) > 0.01 * np.abs(audio).max())
    return audio[loud[0] : loud[-1] + 1]


def respelled(word: str, program: str) -> str:
    """As the program has to read it: "a" is a letter and no article, "z" the British zed, letters are capitals."""
    if word == "a":
        return "eigh" if program == "mbrola" else "ay"
    return "zed" if word == "z" else word.upper() if len(word) == 1 else word


if __name__ == "__main__":
    main()
