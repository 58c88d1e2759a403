"""Synthetic corpora: sentences spoken by many voices, with or without a talking head, as files and a manifest.

    make_corpus("runs/data/heads", sentences="grid", utterances=2000, seed=1, workers=2)      # mp4
    make_corpus("runs/data/voices", sentences="grid", utterances=9000, video=False)           # flac

The same specification makes the same corpus. Files that exist are kept, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from omni_avsr.data.casting import random_face, random_scene
from omni_avsr.data.manifest import Row, write_manifest
from omni_avsr.data.mouth_store import X264
from omni_avsr.data.portrait import Face
from omni_avsr.data.sentences import SENTENCES, Grammar, from_lines
from omni_avsr.data.speech_synthesis import VOICES, Utterance, Voice, random_voice, synthesize
from omni_avsr.data.stage import Scene
from omni_avsr.data.talking_head import render
from omni_avsr.errors import ConfigError, DataError, nearest
from omni_avsr.types import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME

logger = logging.getLogger(__name__)

MANIFEST, SPECIFICATION = "manifest.jsonl", "synthetic.toml"

SAMPLE_TEXT, SAMPLE_SECONDS = "place blue at f two now", 3.0
SAMPLE_VOICE = Voice("en-gb-x-rp+f2", rate=125, pitch=48, pitch_range=60, word_gap=0.02, warp=0.96, level=-20)
SAMPLE_FACE = Face(
    skin=(0.87, 0.69, 0.58),
    jaw=0.80,
    lips=(0.70, 0.38, 0.40),
    upper_lip=1.1,
    iris=(0.25, 0.17, 0.10),
    brow=0.9,
    hair="fringe",
    hair_colour=(0.13, 0.09, 0.08),
    nose_width=0.95,
    age=0.1,
    seed=3,
)
SAMPLE_SCENE = Scene(
    scale=60,
    centre=(0.5, 0.55),
    wall=(0.28, 0.52, 0.62),
    clothes=(0.22, 0.26, 0.38),
    noise=1.0,
    blur=0.4,
    liveliness=0.8,
)


@dataclass(frozen=True)
class CorpusSpec:
    """What a synthetic corpus holds; a folder's `synthetic.toml` has these keys."""

    sentences: str | Sequence[str] = "grid"  # row of `SENTENCES`, or the lines themselves
    utterances: int = 100
    seed: int = 0
    video: bool = True  # mp4 with a talking head, or flac
    speakers: int | None = None  # voices (and faces); None = one for ten utterances
    language: str = "en"  # row of `speech_synthesis.VOICES`
    voices: Sequence[str] = ()  # names to draw from instead
    size: tuple[int, int] = (360, 288)  # pixels, width and height
    splits: Mapping[str, float] = field(default_factory=lambda: {"train": 0.9, "dev": 0.05, "test": 0.05})  # shares

    def __post_init__(self) -> None:
        if self.utterances < 1:
            raise ConfigError(f"utterances = {self.utterances}; a corpus needs at least 1.")
        if not self.voices and self.language not in VOICES:
            raise ConfigError(f"language = '{self.language}' has no voices; {nearest(self.language, VOICES)}.")
        if not self.splits or min(self.splits.values()) < 0 or sum(self.splits.values()) <= 0:
            raise ConfigError(f"splits = {dict(self.splits)}; give at least one share above 0.")
        if self.video and (self.size[0] % 2 or self.size[1] % 2 or min(self.size) < 64):
            raise ConfigError(f"size = {tuple(self.size)}; H.264 needs even numbers, and a face 64 pixels at least.")


@dataclass(frozen=True)
class Planned:
    """One utterance before it is made; with the specification it decides every sample and pixel."""

    id: str
    text: str
    split: str
    speaker: int
    number: int


def make_corpus(out: str | Path, *, workers: int = 1, **specification: Any) -> Path:
    """Make the corpus of `CorpusSpec(**specification)` in `out` and return its manifest.

    Raises:
        ConfigError: an unknown key, sentence source or language, or a value that cannot be.
        MissingExtraError: espeakng-loader is not installed.
    """
    spec, out = _specification(specification), Path(out)
    plan = plan_corpus(spec)
    out.mkdir(parents=True, exist_ok=True)
    missing = [planned for planned in plan if not _media(planned, spec, out).exists()]
    logger.info("%d utterances, %d of them to be made, in '%s'", len(plan), len(missing), out)
    make = partial(_make, spec=spec, out=out)
    if missing:
        make(missing.pop(0))  # here, so that a wrong set-up is one clear error and not many in other processes
    if workers > 1 and len(missing) > 1:
        methods = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            for _ in pool.map(make, missing, chunksize=8):
                pass
    else:
        for planned in missing:
            make(planned)
    return write_manifest(out / MANIFEST, [_row(planned, spec, out) for planned in plan])


def corpus_rows(root: Path) -> Iterator[Row]:
    """The rows of the folder `root`, whose `synthetic.toml` is a `CorpusSpec`; what is missing is made first.

    Raises:
        DataError: there is no such file, or it is not TOML.
    """
    path = root / SPECIFICATION
    try:
        specification = tomllib.loads(path.read_text("utf-8"))
    except OSError:
        example = 'sentences = "grid" and utterances = 100'
        raise DataError(f"'{path}' cannot be read; a synthetic corpus is described there, as {example}.") from None
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"'{path}' is not TOML: {error}.") from None
    spec = _specification(specification)
    make_corpus(root, workers=os.cpu_count() or 1, **specification)
    yield from (_row(planned, spec, root) for planned in plan_corpus(spec))


def utterances(
    sentences: str | Sequence[str] = "grid",
    *,
    seed: int = 0,
    language: str = "en",
    voices: Sequence[str] = (),
    start: int = 0,
    step: int = 1,
) -> Iterator[Utterance]:
    """Speech without end, each utterance by a voice of its own; number `start`, `start + step`, … of one fixed series.

    Processes that share the work take `start` = their rank and `step` = their number.
    """
    grammar = _grammar(sentences)
    for number in itertools.count(start, step):
        rng = np.random.default_rng((seed, number))
        voice = random_voice(rng, language, names=voices)
        yield _say(grammar.draw(rng), voice, grammar, rng)


def make_sample(path: str | Path, seed: int = 7) -> Path:
    """Make the clip that the package carries as `assets/sample.mp4`: a GRID sentence, 3 s, 360 x 288.

    python -c "from omni_avsr.data.synthetic import make_sample; make_sample('omni_avsr/assets/sample.mp4')"
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    grammar = SENTENCES["grid"]
    speech = synthesize(SAMPLE_TEXT, SAMPLE_VOICE, seed=seed, respellings=grammar.respellings, silence=(0.4, 0.0))
    clip = render(speech.phonemes, SAMPLE_SECONDS, seed=seed, face=SAMPLE_FACE, scene=SAMPLE_SCENE)
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write_clip(beside, clip.frames, speech.audio)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


# ---- the plan --------------------------------------------------------------------------------


def plan_corpus(spec: CorpusSpec) -> list[Planned]:
    """Which sentence is spoken by whom, for each utterance. Splits share no speaker, and no sentence where there are
    enough of them."""
    rng = np.random.default_rng(spec.seed)
    pool = _grammar(spec.sentences).sample(spec.utterances, rng)
    shares = {name: share / sum(spec.splits.values()) for name, share in spec.splits.items() if share > 0}
    speakers = spec.speakers or max(len(shares), spec.utterances // 10)
    if speakers < len(shares):
        raise ConfigError(f"speakers = {speakers} for the splits {', '.join(shares)}; each split needs its own.")
    counts = _divide(spec.utterances, shares)
    voices, texts = _divide(speakers, shares), _divide(len(pool), shares)
    if min(texts.values()) == 0:
        logger.warning("%d different sentences are too few to give each split its own; they are shared", len(pool))
    plan: list[Planned] = []
    first_voice = first_text = 0
    for name in shares:
        own = pool[first_text : first_text + texts[name]] if min(texts.values()) else pool
        for i in range(counts[name]):
            speaker, number = first_voice + i % voices[name], len(plan)
            planned = Planned(f"{speaker:05d}/{number:06d}", own[i % len(own)], name, speaker, number)
            plan.append(planned)
        first_voice, first_text = first_voice + voices[name], first_text + texts[name]
    return plan


def _divide(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """`total` things in the given shares; no part is empty while there is one for each."""
    edges = np.round(np.cumsum(list(shares.values())) * total).astype(int)
    parts = dict(zip(shares, np.diff(edges, prepend=0).tolist(), strict=True))
    for name in parts:
        if total >= len(parts) and parts[name] == 0:
            parts[max(parts, key=lambda n: parts[n])] -= 1
            parts[name] = 1
    return parts


def _grammar(sentences: str | Sequence[str]) -> Grammar:
    if not isinstance(sentences, str):
        return from_lines(sentences)
    if sentences not in SENTENCES:
        raise ConfigError(f"No sentences '{sentences}'; {nearest(sentences, SENTENCES)}. Or give a list of lines.")
    return SENTENCES[sentences]


def _specification(values: Mapping[str, Any]) -> CorpusSpec:
    known = {f.name for f in fields(CorpusSpec)}
    for key in values:
        if key not in known:
            raise ConfigError(f"A synthetic corpus has no '{key}'; {nearest(key, known)}.")
    return CorpusSpec(**values)


# ---- one utterance ---------------------------------------------------------------------------


def _speaker(spec: CorpusSpec, number: int) -> tuple[Voice, Face]:
    rng = np.random.default_rng((spec.seed, 1, number))
    return random_voice(rng, spec.language, names=spec.voices), random_face(rng)


def _say(text: str, voice: Voice, grammar: Grammar, rng: np.random.Generator) -> Utterance:
    silence = (float(rng.uniform(0.1, 0.6)), float(rng.uniform(0.15, 0.6)))
    seed = int(rng.integers(2**31))
    return synthesize(text, voice, seed=seed, respellings=grammar.respellings, silence=silence)


def _make(planned: Planned, spec: CorpusSpec, out: Path) -> None:
    """Speak, film and write one utterance beside its place, then rename."""
    voice, face = _speaker(spec, planned.speaker)
    rng = np.random.default_rng((spec.seed, 2, planned.number))
    voice = replace(voice, rate=voice.rate * float(np.exp(rng.normal(0, 0.06))), level=voice.level + rng.normal(0, 2))
    speech = _say(planned.text, voice, _grammar(spec.sentences), rng)
    path = _media(planned, spec, out)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        if spec.video:
            scene = random_scene(rng, size=spec.size)
            clip = render(
                speech.phonemes, speech.duration, seed=int(rng.integers(2**31)), size=spec.size, face=face, scene=scene
            )
            write_clip(beside, clip.frames, speech.audio)
        else:
            _write_audio(beside, speech.audio)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _media(planned: Planned, spec: CorpusSpec, out: Path) -> Path:
    return out / "media" / f"{planned.id}.{'mp4' if spec.video else 'flac'}"


def _row(planned: Planned, spec: CorpusSpec, out: Path) -> Row:
    path = _media(planned, spec, out)
    return Row(planned.id, path, planned.text, planned.split, f"synthetic-{spec.seed}-{planned.speaker:05d}")


def write_clip(path: Path, frames: np.ndarray, audio: np.ndarray, *, crf: int = 23) -> None:
    """Write (T, h, w, 3) uint8 frames at 25 fps and (S,) float32 at 16 kHz as H.264 and AAC; sound is cut or padded to
    the picture's length."""
    wanted = len(frames) * SAMPLES_PER_FRAME
    audio = np.pad(audio, (0, max(0, wanted - len(audio))))[:wanted]
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        options = {"crf": str(crf), "preset": "veryfast", "x264-params": X264}
        picture = container.add_stream("libx264", rate=FPS, options=options)
        picture.width, picture.height, picture.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        picture.thread_count = 1  # workers share the cores already
        sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        sound.bit_rate = 64_000
        for image in frames:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(picture.encode())
        container.mux(sound.encode(_audio_frame(audio[None].astype(np.float32), "fltp")))
        container.mux(sound.encode())


def _write_audio(path: Path, audio: np.ndarray) -> None:
    pcm = (np.clip(audio, -1, 1) * 32767).round().astype(np.int16)
    with av.open(str(path), "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono")
        stream.format = "s16"
        container.mux(stream.encode(_audio_frame(pcm[None], "s16")))
        container.mux(stream.encode())


def _audio_frame(samples: np.ndarray, kind: str) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(samples, format=kind, layout="mono")
    frame.sample_rate = SAMPLE_RATE
    frame.pts = 0
    return frame
