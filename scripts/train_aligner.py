"""Trains the two networks of `transcribe/aligner.py` and writes `omni_avsr/assets/aligner.safetensors`.

    python scripts/train_aligner.py runs/data/grid/manifest.jsonl

The ear learns from synthetic voices, whose times are known. The eye learns from synthetic heads, and from the
recorded clips of a manifest, whose times the ear tells it. Inside a word the letters are spread evenly at first;
every few epochs they move to where the network finds them.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

import omni_avsr
from omni_avsr.data.manifest import read_manifest
from omni_avsr.data.mouth_store import read_store, to_float
from omni_avsr.data.noise import NOISES, mix_noise
from omni_avsr.data.speech_synthesis import Utterance
from omni_avsr.data.synthetic import utterances
from omni_avsr.data.talking_head import render
from omni_avsr.media.features import log_mel
from omni_avsr.media.mouth import mouths
from omni_avsr.transcribe.aligner import BANDS, CLASSES, LETTERS, RATE, Ear, Eye, align, best_path, lips_of
from omni_avsr.types import FPS, Word

log = logging.getLogger("train_aligner")
ROWS = 16  # utterances per step
NOISY = ("white", "pink", "babble", "music")  # rows of NOISES that every second voice gets one of


@dataclass(frozen=True)
class Lesson:
    """One utterance as a network sees it, and the letter of each of its moments."""

    signal: Tensor  # (80, F) log-mel at 100/s, or (T, 24, 24) lips at 25/s
    labels: Tensor  # (N,) int64 classes at the network's rate
    words: tuple[Word, ...]


def main() -> None:
    """Ear, then eye, then what both measure on voices and heads they have not met."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("manifest", type=Path, help="recorded clips with mouths, for the eye")
    options.add_argument("--voices", type=int, default=2400)
    options.add_argument("--heads", type=int, default=120)
    options.add_argument("--epochs", type=int, default=9)
    options.add_argument("-o", "--out", type=Path, default=Path(omni_avsr.__file__).parent / "assets")
    asked = options.parse_args()
    torch.manual_seed(0)
    ear = learn(Ear(), voices(asked.voices), RATE, asked.epochs)
    lessons = [*heads(asked.heads), *recorded(asked.manifest, ear)]
    eye = learn(Eye(), lessons, FPS, 2 * asked.epochs, varied=moved)
    parts = {"ear": ear, "eye": eye}
    weights = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    save_file({key: value.half().contiguous() for key, value in weights.items()}, asked.out / "aligner.safetensors")


# ---- lessons ---------------------------------------------------------------------------------


def voices(count: int) -> list[Lesson]:
    """Synthetic sentences of many voices, half of them in noise."""
    rng = np.random.default_rng(0)
    half = count // 2
    spoken = [*islice(utterances("grid", seed=11), half), *islice(utterances("phrases", seed=12), count - half)]

    def others(number: int, rng: np.random.Generator) -> list[np.ndarray]:
        return [spoken[i].audio for i in rng.integers(len(spoken), size=number)]

    lessons = []
    for number, utterance in enumerate(spoken):
        audio = utterance.audio
        if number % 2:
            noise = NOISES[NOISY[number // 2 % len(NOISY)]](len(audio), rng, others)
            audio = mix_noise(audio, noise, float(rng.uniform(-5, 25)))
        mel = log_mel(audio, BANDS)
        lessons.append(Lesson(mel, spread(utterance.words, (mel.shape[1] + 1) // 2, RATE), utterance.words))
    return lessons


def heads(count: int) -> Iterable[Lesson]:
    """Synthetic faces that speak."""
    for number, utterance in enumerate(islice(utterances("grid", seed=13), count)):
        yield filmed(utterance, number)


def filmed(utterance: Utterance, seed: int) -> Lesson:
    """A face that says `utterance`, as its mouth crops."""
    frames = render(utterance.phonemes, utterance.duration, seed=seed).frames
    lips = lips_of(mouths(frames).crops)
    return Lesson(lips, spread(utterance.words, len(lips), FPS), utterance.words)


def recorded(manifest: Path, ear: Ear) -> Iterable[Lesson]:
    """Real faces, their words timed by the ear."""
    for row in read_manifest(manifest):
        if row.split != "train" or row.mouths is None:
            continue
        stored = read_store(row.mouths)
        assert stored.audio is not None
        assert stored.crops is not None
        with torch.inference_mode():
            scores = ear(log_mel(to_float(stored.audio), BANDS)[None])[0].numpy()
        spans = align(scores, row.text.split())
        if spans:
            pairs = zip(spans, row.text.split(), strict=True)
            words = tuple(Word(span.start / RATE, span.end / RATE, word, 1.0) for span, word in pairs)
            lips = lips_of(stored.crops)
            yield Lesson(lips, spread(words, len(lips), FPS), words)


def frames_of(word: Word, count: int, rate: int) -> slice:
    """The frames of `word` among `count`, one at least."""
    start = min(round(word.start * rate), count - 1)
    return slice(start, min(max(round(word.end * rate), start + 1), count))


def spelled(word: str) -> np.ndarray:
    """(L,) classes of the letters."""
    return np.array([LETTERS.index(c) + 1 for c in word.lower() if c in LETTERS])


def spread(words: Sequence[Word], count: int, rate: int) -> Tensor:
    """(count,) labels: rest, and in each word its letters evenly."""
    labels = torch.zeros(count, dtype=torch.long)
    for word in words:
        frames, letters = frames_of(word, count, rate), spelled(word.word)
        places = np.arange(frames.stop - frames.start) * len(letters) // max(1, frames.stop - frames.start)
        labels[frames] = torch.from_numpy(letters[places])
    return labels


def moved_to(lesson: Lesson, scores: np.ndarray, rate: int) -> Lesson:
    """The letters of each word where the network finds them inside the word."""
    labels = lesson.labels.clone()
    for word in lesson.words:
        frames, letters = frames_of(word, len(labels), rate), spelled(word.word)
        path = best_path(scores[frames][:, letters], np.zeros(len(letters), bool))
        if path is not None:
            labels[frames] = torch.from_numpy(letters[path])
    return replace(lesson, labels=labels)


# ---- learning --------------------------------------------------------------------------------


def moved(lips: Tensor) -> Tensor:
    """(B, T, 24, 24) with the camera a pixel off, and mirrored half of the time."""
    shift = torch.randint(-1, 2, (2,)).tolist()
    lips = torch.roll(lips, shift, (2, 3))
    return lips.flip(3) if torch.rand(()) < 0.5 else lips


def learn(
    network: nn.Module,
    lessons: Iterable[Lesson],
    rate: int,
    epochs: int,
    varied: Callable[[Tensor], Tensor] | None = None,
) -> nn.Module:
    """Frame by frame; letters move within their words after a quarter and after half of the epochs."""
    # rows of one step have nearly one length, and are cut to the shortest
    lessons = sorted(lessons, key=lambda lesson: len(lesson.labels))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.01)
    steps = epochs * -(-len(lessons) // ROWS)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps, pct_start=0.1)
    for epoch in range(epochs):
        if epoch in (epochs // 4, epochs // 2):
            lessons = [moved_to(lesson, heard(network, lesson), rate) for lesson in lessons]
        total = 0.0
        for at in torch.randperm(-(-len(lessons) // ROWS)).tolist():
            rows = lessons[at * ROWS : (at + 1) * ROWS]
            signals, labels = stacked(rows)
            scores = network(varied(signals) if varied else signals)[:, : labels.shape[1]]
            loss = F.nll_loss(scores.reshape(-1, CLASSES), labels[:, : scores.shape[1]].reshape(-1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) / -(-len(lessons) // ROWS)
        log.info("%s epoch %d loss %.3f", type(network).__name__, epoch + 1, total)
    return network.eval()


def heard(network: nn.Module, lesson: Lesson) -> np.ndarray:
    """(N, CLASSES) what the network makes of one lesson."""
    with torch.inference_mode():
        return network(lesson.signal[None])[0].numpy()


def stacked(rows: Sequence[Lesson]) -> tuple[Tensor, Tensor]:
    """Signals and labels of `rows`, cut to the shortest."""
    count = min(len(row.labels) for row in rows) - 1  # the last mel frame may be missing
    sounds = rows[0].signal.ndim == 2
    signals = [row.signal[:, : 2 * count] if sounds else row.signal[:count] for row in rows]
    return torch.stack(signals), torch.stack([row.labels[:count] for row in rows])


if __name__ == "__main__":
    main()
