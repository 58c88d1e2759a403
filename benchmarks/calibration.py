"""How honest are word probabilities? Measures them on a manifest, and draws what was measured.

    python benchmarks/calibration.py measure runs/data/grid/manifest.jsonl     # -> docs/calibration.json
    python benchmarks/calibration.py draw                                      # -> docs/calibration.png, calibration.md

A word of a hypothesis counts as right where the alignment with the truth puts the same word. Clean and in babble, by
ear, by lips and by both; every probability as the language model gives it, with its label smoothing undone, and after
the second opinions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np

from omni_avsr import Transcriber
from omni_avsr.checkpoints.folder import folder_digest, locate
from omni_avsr.data.manifest import Row, read_manifest
from omni_avsr.data.mouth_store import read_store, to_float
from omni_avsr.data.noise import NOISES, mix_noise
from omni_avsr.evaluate.provenance import provenance
from omni_avsr.media.features import extract
from omni_avsr.model.decode import DecodeOptions
from omni_avsr.tasks import TASKS
from omni_avsr.transcribe.agreement import DOUBT, doubted
from omni_avsr.transcribe.recognition import Recognised, Utterance
from omni_avsr.transcribe.words import said_words
from omni_avsr.types import Features

DOCS = Path(__file__).parents[1] / "docs"
BINS = 10
CONDITIONS = (("asr", None), ("avsr", None), ("vsr", None), ("asr", 0.0), ("avsr", 0.0))  # task, SNR of babble in dB
BATCH = 10
KINDS = {"raw": "as the LLM gives it", "model": "label smoothing undone", "doubted": "and second opinions"}


def main() -> None:
    """measure, draw, or both one after the other."""
    options = argparse.ArgumentParser(description=__doc__)
    commands = options.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("manifest", type=Path)
    measuring.add_argument("--model", default="default")
    measuring.add_argument("--split", default="dev")
    commands.add_parser("draw")
    asked = options.parse_args()
    if asked.command == "measure":
        stored = measure(asked.manifest, asked.model, asked.split)
        (DOCS / "calibration.json").write_text(json.dumps(stored) + "\n")
    stored = json.loads((DOCS / "calibration.json").read_text())
    draw(stored, DOCS / "calibration.png")
    (DOCS / "calibration.md").write_text(page(stored))


# ---- measuring -------------------------------------------------------------------------------


def measure(manifest: Path, model: str, split: str) -> dict[str, Any]:
    """Every word: [probability the LLM gives, what it means by it, agreement, 1 where it is right], by condition."""
    transcriber = Transcriber(model, offline=True)
    rows = [row for row in read_manifest(manifest) if row.split == split and row.mouths]
    voices = [to_float(stored) for row in rows if (stored := read_store(row.source, video=False).audio) is not None]
    words: dict[str, list[list[float]]] = {}
    for task, snr in CONDITIONS:
        name = task if snr is None else f"{task}, babble {snr:g} dB"
        words[name] = []
        rng = np.random.default_rng(0)
        for at in range(0, len(rows), BATCH):
            group = rows[at : at + BATCH]
            seen = [features(transcriber, row, task, snr, voices, rng) for row in group]
            rates = transcriber.model.check_rates(task)
            asked = [Utterance(each, task, rates, agreement=True) for each in seen]
            for row, found in zip(group, transcriber.recognise(asked, DecodeOptions(5)), strict=True):
                words[name] += judged(found, row.text.split(), transcriber.model.tokenizer.decode)
    about = {"manifest": str(manifest), "split": split, "clips": len(rows), "model": model, "beam_size": 5, "seed": 0}
    about |= {"weights": folder_digest(locate(model)), "label_smoothing": transcriber.model.label_smoothing}
    return {"about": about | provenance(transcriber.device), "words": words}


def features(
    transcriber: Transcriber,
    row: Row,
    task: str,
    snr: float | None,
    voices: Sequence[np.ndarray],
    rng: np.random.Generator,
) -> Features:
    """The streams of one row, its sound in babble where an SNR is given."""
    stored = read_store(row.source)
    audio = None if stored.audio is None else to_float(stored.audio)
    if audio is not None and snr is not None:
        babble = NOISES["babble"](len(audio), rng, lambda n, r: [voices[i] for i in r.integers(len(voices), size=n)])
        audio = mix_noise(audio, babble, snr)
    used = TASKS[task].modalities
    return extract(
        audio if "audio" in used else None,
        stored.crops if "video" in used else None,
        transcriber.model.config.preprocess,
        id=row.id,
    )


def judged(found: Recognised, truth: Sequence[str], decode: Callable[[Sequence[int]], str]) -> list[list[float]]:
    """[probability the LLM gives, what it means by it, agreement, right] of each word."""
    answer = found.hypothesis
    raw = said_words(answer.text, answer.tokens, answer.token_logprobs, decode)
    matcher = SequenceMatcher(None, [word.text for word in found.words], list(truth), autojunk=False)
    right = {i for block in matcher.get_matching_blocks() for i in range(block.a, block.a + block.size)}
    out = []
    for i, word in enumerate(found.words):
        assert word.agreement is not None
        out.append([raw[i].probability, word.alone, word.agreement, float(i in right)])
    return [[round(value, 4) for value in row] for row in out]


# ---- drawing ---------------------------------------------------------------------------------


def curve(probability: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mean probability, share that is right and number of words per bin; and the expected calibration error."""
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    used = [b for b in range(BINS) if (bins == b).any()]
    sure = np.array([probability[bins == b].mean() for b in used])
    true = np.array([right[bins == b].mean() for b in used])
    counts = np.array([(bins == b).sum() for b in used])
    return sure, true, counts, float(np.sum(counts * np.abs(sure - true)) / counts.sum())


def columns(words: Sequence[Sequence[float]]) -> dict[str, np.ndarray]:
    """What was measured, by name, and the probability that users see."""
    data = dict(zip(("raw", "model", "agreement", "right"), np.array(words).T, strict=True))
    pairs = zip(data["model"], data["agreement"], strict=True)
    return data | {"doubted": np.array([doubted(*pair) for pair in pairs])}


def draw(stored: dict[str, Any], path: Path) -> None:
    """Reliability of all kinds of probability over all words, and what agreement tells."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    data = columns([word for part in stored["words"].values() for word in part])
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    left.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for kind, colour in zip(KINDS, ("0.6", "tab:orange", "tab:blue"), strict=True):
        sure, true, counts, error = curve(data[kind], data["right"])
        left.plot(sure, true, color=colour, linewidth=1, label=f"{KINDS[kind]} (ECE {100 * error:.1f} %)")
        left.scatter(sure, true, s=8 + counts / 4, color=colour)
    left.set(xlabel="probability of the word", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    left.legend(loc="lower right", frameon=False)
    levels = sorted(set(data["agreement"]))
    shares = [data["right"][data["agreement"] == level].mean() for level in levels]
    right.bar([f"{level:.2g}" for level in levels], shares, color="tab:blue", width=0.6)
    for number, (level, share) in enumerate(zip(levels, shares, strict=True)):
        right.text(number, share + 0.02, f"{int((data['agreement'] == level).sum())} words", ha="center", fontsize=8)
    right.set(
        xlabel="share of the second opinions that have the word too", ylabel="share that is right", ylim=(0, 1.08)
    )
    figure.savefig(path, dpi=110)


def page(stored: dict[str, Any]) -> str:
    """docs/calibration.md."""
    about = stored["about"]
    rows = []
    for name, words in [*stored["words"].items(), ("all", [w for part in stored["words"].values() for w in part])]:
        data = columns(words)
        errors = " | ".join(f"{100 * curve(data[kind], data['right'])[3]:.1f}" for kind in KINDS)
        wrong, right = data["agreement"][data["right"] == 0], data["agreement"][data["right"] == 1]
        rows.append(
            f"| {name} | {len(words)} | {100 * data['right'].mean():.1f} | {errors} "
            f"| {right.mean():.2f} | {wrong.mean():.2f} |"
        )
    return f"""# How far can word probabilities be trusted?

Made by `benchmarks/calibration.py` from `calibration.json`; nothing here is typed by hand.
{about["clips"]} clips of `{about["manifest"]}` ({about["split"]}), model `{about["model"]}` (weights
`{about["weights"][:12]}`), beam {about["beam_size"]}, {about["date"][:10]}, commit
{about["commit"][:12]}{"+ changes" * about["commit"].endswith("+")}.

![Reliability](calibration.png)

A word's probability is honest where, of all words with probability 0.8, 80 % are right. The expected calibration error
(ECE, ten bins) is the mean distance from that. This model was trained with label smoothing of
{about["label_smoothing"]:g}: it was taught to leave so much of the probability to other words, so one that is sure
says {1 - about["label_smoothing"]:g}. That is known (it stands in `origin.json`) and undone, p → (p − s/V) / (1 − s)
for a vocabulary of V; nothing is fitted to any clip. Second opinions are the same weights run by ear, by lips and by
both at the coarsest rates; a word that none of them has keeps {100 * (1 - DOUBT):.0f} % of its probability, one that
all have keeps it all. That share was chosen on these clips. The right panel is what agreement alone tells.

| | words | right, % | ECE as the LLM gives it, % | undone, % | with second opinions, % | agreement, right | wrong |
|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""


if __name__ == "__main__":
    main()
