"""Asking a model the same utterances under many conditions, with as little work as that takes.

A batch of utterances is read once and stays while every condition is measured on it: the sound is encoded once per
condition, the lips once for all, whatever tasks and rates follow. Noise is a function of seed,
noise and utterance, so that levels differ in loudness alone and every run hears the same.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from omni_avsr.data.dataset import Voices, load_sample
from omni_avsr.data.journal import Journal
from omni_avsr.data.manifest import Row
from omni_avsr.data.noise import Recordings, load_noises, mix_noise
from omni_avsr.data.normalize import normalize
from omni_avsr.errors import ConfigError, DataError, InputError
from omni_avsr.media.features import extract
from omni_avsr.model.batch import collate
from omni_avsr.model.decode import DecodeOptions, decode
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.tasks import TASKS
from omni_avsr.types import Encoded, Hypothesis, Sample

TRIES = 20  # stretches of a recording that are drawn before one that is not silent
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Condition:
    """What is done to the sound."""

    snr_db: float | None = None  # None = clean
    noise: str | None = None


@dataclass(frozen=True)
class System:
    """One way of using the model."""

    task: str
    audio_rate: int | None
    video_rate: int | None

    @property
    def rates(self) -> dict[str, int]:
        """Modality -> rate, of the streams that the task perceives."""
        both = {"audio": self.audio_rate, "video": self.video_rate}
        return {m: rate for m, rate in both.items() if rate is not None}


@dataclass(frozen=True)
class Heard:
    """What one system made of one utterance."""

    row: Row
    reference: str  # normalised
    hypothesis: str  # normalised
    avg_logprob: float


Answers = dict[tuple[System, Condition], dict[str, Heard]]  # by utterance


@dataclass(frozen=True)
class Options:
    """How to measure."""

    tasks: Sequence[str] | None = None  # None = those of the model
    audio_rates: Sequence[int] | None = None  # None = those it was trained for
    video_rates: Sequence[int] | None = None
    snrs: Sequence[float | None] = (None,)  # decibels; None = clean
    noises: Sequence[str] = ("babble",)  # as data.noise.load_noises takes them
    seed: int = 0
    split: str = ""  # empty = every row
    normalizer: str = ""  # row of data.normalize.NORMALIZERS; empty = the model's
    beam_size: int = 5
    batch_size: int = 16
    systems: Sequence[System] | None = None  # instead of every combination of tasks and rates


# ---- what is measured --------------------------------------------------------------------------


def conditions(snrs: Sequence[float | None], noises: Sequence[str]) -> list[Condition]:
    """Clean once, every other level with every noise; each once, in the order asked for.

    Raises:
        ConfigError: a level that is no number.
    """
    for snr in snrs:
        if snr is not None and not math.isfinite(snr):
            raise ConfigError(f"snr {snr}: expected a number of decibels, or clean")
    out = [Condition() if snr is None else Condition(snr, n) for n in noises for snr in snrs]
    return list(dict.fromkeys(out))


def systems(model: OmniAVSR, options: Options) -> list[System]:
    """Every task at every combination of the rates of its streams, unless the options name the systems.

    Raises:
        ConfigError, RateError: a task or rate that the model does not have.
    """
    config = model.config
    wanted = {
        "audio": options.audio_rates or sorted(config.audio_rates),
        "video": options.video_rates or sorted(config.video_rates),
    }
    out = list(options.systems or ())
    for system in out:
        model.check_rates(system.task, system.audio_rate, system.video_rate)
    for task in () if out else options.tasks or config.tasks:
        heard = wanted["audio"] if task in TASKS and "audio" in TASKS[task].modalities else [None]
        seen = wanted["video"] if task in TASKS and "video" in TASKS[task].modalities else [None]
        for audio_rate, video_rate in itertools.product(heard, seen):
            model.check_rates(task, audio_rate, video_rate)
            out.append(System(task, audio_rate, video_rate))
    return list(dict.fromkeys(out))


# ---- measuring ---------------------------------------------------------------------------------


class Grid:
    """The conditions and systems of one evaluation, and the way through them.

    Attributes:
        left_out: id -> reason, of rows that could not be read; filled by `measure`.
    """

    def __init__(self, model: OmniAVSR, rows: list[tuple[Row, str]], options: Options) -> None:
        self.model, self.rows, self.options = model, rows, options
        self.systems = systems(model, options)
        self.conditions = conditions(options.snrs, options.noises)
        names = list(dict.fromkeys(c.noise for c in self.conditions if c.noise is not None))
        self.noises = dict(zip(names, load_noises(names), strict=True))
        self.voices = Voices([row for row, _ in rows], options.seed)
        self.left_out: dict[str, str] = {}
        if "babble" in self.noises and len(rows) < 2:
            raise ConfigError("noise 'babble' is mixed from other utterances, and there are none; choose white or pink")

    def measure(self, progress: bool, journal: Journal | None = None, of: str = "") -> Answers:
        """The answers of every system in every condition; what no noise can change is asked once.

        A row that cannot be read is reported and left out; the others go on.

        Args:
            progress: a bar on standard error.
            journal: where answers are written down as they come; utterances that it has are not asked again.
            of: names the weights, so that answers of others are not taken for theirs.
        """
        answers: Answers = defaultdict(dict)
        mark = self._fingerprint(of)
        keys = {row.id: _key(mark, row, text) for row, text in self.rows}
        new = [row for row in self.rows if journal is None or keys[row[0].id] not in journal]
        if journal is not None:
            for row, text in self.rows:
                if keys[row.id] in journal:
                    self._recall(row, text, journal[keys[row.id]], answers)
        with _bar(len(self.rows), progress) as advance, _at_rest(self.model):
            advance(len(self.rows) - len(new))
            for start in range(0, len(new), self.options.batch_size):
                group = new[start : start + self.options.batch_size]
                for alike in _alike(self._loaded(group)):
                    self._measure_batch(alike, answers)
                if journal is not None:
                    for row, _ in group:
                        if any(said := self._said(row, answers)):
                            journal.put(keys[row.id], said)
                advance(len(group))
        for task, system in {system.task: system for system in self.systems}.items():
            missing = len(self.rows) - len(self.left_out) - len(answers[system, self.conditions[0]])
            if missing:
                log.warning("%s: %d row(s) lack sound, picture or face and are left out", task, missing)
        return answers

    def _loaded(self, group: Iterable[tuple[Row, str]]) -> Iterator[tuple[Sample, Row, str]]:
        """The signals of `group`, without the rows that cannot be read."""
        for row, text in group:
            try:
                sample = load_sample(row)
            except (InputError, DataError) as error:
                self.left_out[row.id] = str(error)
                log.error("row '%s' is left out: %s", row.id, error)
                continue
            if sample.mouths is not None and not sample.mouths.any():  # no face in any frame
                sample = replace(sample, mouths=None)
            yield sample, row, text

    def recorded(self) -> list[dict[str, Any]]:
        """What was mixed, for the record: each noise by name; recordings with their number and sha256; babble with
        how many speakers say the utterances that it is mixed from, since a crowd of one is another noise."""
        out = []
        for name, noise in self.noises.items():
            about: dict[str, Any] = {"name": name}
            if isinstance(noise, Recordings):
                about |= {"files": len(noise.files), "sha256": noise.digest}
            elif name == "babble":
                speakers = {row.speaker for row, _ in self.rows}
                about |= {"utterances": len(self.rows), "speakers": len(speakers)}
            out.append(about)
        return out

    # ---- the journal ---------------------------------------------------------------------------

    def _fingerprint(self, of: str) -> str:
        """Of all that an answer depends on but its row: weights, configuration, options, recordings, and the rows
        that babble draws on."""
        options = {name: value for name, value in vars(self.options).items() if name != "batch_size"}
        rows = [row for row, _ in self.rows] if "babble" in self.noises else []
        said = repr((of, self.model.config, options, self.systems, self.recorded(), rows))
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def _said(self, row: Row, answers: Answers) -> list[tuple[str, float] | None]:
        """What was made of `row`: hypothesis and log-probability of every system in every condition."""
        cells = [answers[cell].get(row.id) for cell in itertools.product(self.systems, self.conditions)]
        return [None if heard is None else (heard.hypothesis, heard.avg_logprob) for heard in cells]

    def _recall(self, row: Row, text: str, said: Sequence[Sequence[Any] | None], answers: Answers) -> None:
        for cell, heard in zip(itertools.product(self.systems, self.conditions), said, strict=True):
            if heard is not None:
                answers[cell][row.id] = Heard(row, text, heard[0], heard[1])

    # ---- one batch -----------------------------------------------------------------------------

    def _measure_batch(self, group: Sequence[tuple[Sample, Row, str]], answers: Answers) -> None:
        """`group`: utterances with the same streams."""
        present = {"audio": group[0][0].audio is not None, "video": group[0][0].mouths is not None}
        able = [s for s in self.systems if all(present[m] for m in TASKS[s.task].modalities)]
        contract, options = self.model.config.preprocess, DecodeOptions(self.options.beam_size)
        encoded: dict[str, Encoded] = {}
        for number, condition in enumerate(self.conditions):
            asked = [s for s in able if number == 0 or "audio" in s.rates]
            if not asked:
                continue
            samples = [self.mixed(sample, condition) for sample, _, _ in group]
            features = [extract(s.audio, s.mouths, contract, id=s.id) for s in samples]
            batch = collate(features).to(self.model.device)
            used = {m for system in asked for m in system.rates}
            encoded |= self.model.encode(batch, [m for m in used if m == "audio" or m not in encoded])
            for system in asked:
                found = decode(self.model, batch, system.task, system.rates, options, encoded)
                said = dict(self._answers(group, found))
                same = self.conditions if "audio" not in system.rates else [condition]
                for each in same:
                    answers[system, each] |= said

    def _answers(
        self, group: Sequence[tuple[Sample, Row, str]], found: Sequence[Hypothesis]
    ) -> Iterator[tuple[str, Heard]]:
        name = self.options.normalizer or self.model.config.preprocess.normalizer
        for (_, row, text), hypothesis in zip(group, found, strict=True):
            yield row.id, Heard(row, text, normalize(hypothesis.text, name), hypothesis.avg_logprob)

    def mixed(self, sample: Sample, condition: Condition) -> Sample:
        """`sample` under `condition`.

        Raises:
            DataError: the noise is silent, so that no level can be had.
        """
        if condition.noise is None or condition.snr_db is None or sample.audio is None:
            return sample
        noise = self.noises[condition.noise]
        # recordings are the same noise wherever they lie; not the level: from one to the next only the loudness differs
        which = noise.digest if isinstance(noise, Recordings) else condition.noise
        rng = np.random.default_rng((self.options.seed, _number(which), _number(sample.id)))
        voices = self.voices.besides(sample.id, sample.speaker)
        for _ in range(TRIES):
            heard = noise(len(sample.audio), rng, voices)
            if heard.any():
                return Sample(sample.id, mix_noise(sample.audio, heard, condition.snr_db), sample.mouths)
        raise DataError(f"noise '{condition.noise}' is silent wherever '{sample.id}' was to be mixed with it")


def _alike(group: Iterable[tuple[Sample, Row, str]]) -> Iterator[list[tuple[Sample, Row, str]]]:
    """The utterances by the streams they have."""
    kinds: dict[tuple[bool, bool], list[tuple[Sample, Row, str]]] = {}
    for item in group:
        kinds.setdefault((item[0].audio is None, item[0].mouths is None), []).append(item)
    yield from kinds.values()


def _key(mark: str, row: Row, text: str) -> str:
    """Of one row in the journal: other signals or another transcript need another answer."""
    stamp = row.source.stat().st_mtime_ns if row.source.is_file() else 0
    return hashlib.sha256(repr((mark, row, text, stamp)).encode()).hexdigest()[:16]


def _number(text: str) -> int:
    return zlib.crc32(text.encode())


@contextmanager
def _at_rest(model: OmniAVSR) -> Iterator[None]:
    """In eval mode and without gradients, for as long as it lasts."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


@contextmanager
def _bar(total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as bar:
        number = bar.add_task("utterances", total=total)
        yield lambda count: bar.advance(number, count)
