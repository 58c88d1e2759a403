"""From any input to segments, as they are ready: open, cut into windows, choose what to perceive, decode in batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omni_avsr.checkpoints.native import load_for_inference
from omni_avsr.data.mouth_store import SUFFIX, write_store
from omni_avsr.data.normalize import normalize
from omni_avsr.errors import ConfigError
from omni_avsr.media.face import face_policy
from omni_avsr.media.features import extract
from omni_avsr.media.mouth import all_mouths, mouth_stream
from omni_avsr.model.decode import DecodeOptions
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.tasks import TASKS
from omni_avsr.transcribe import budget as costing
from omni_avsr.transcribe.ahead import ahead
from omni_avsr.transcribe.budget import Costs, Setting
from omni_avsr.transcribe.inputs import ClipMedia, Media, Source, open_input
from omni_avsr.transcribe.perception import AUTO, Planned, allowed, plan, wanted_tasks
from omni_avsr.transcribe.recognition import Recognised, Utterance, recognise
from omni_avsr.transcribe.segments import Piece, joined, piece, segment
from omni_avsr.transcribe.speakers import CROWDS, Crowd
from omni_avsr.transcribe.windows import LONGEST, Eyes, Gaze, Window, windows
from omni_avsr.types import Segment, TranscriptionInfo

log = logging.getLogger(__name__)

Progress = Callable[[float], None]  # is told how many seconds of the input are done


@dataclass(frozen=True)
class Request:
    """What is wanted of one transcription; the keywords of `Transcriber.transcribe`."""

    task: str = AUTO
    audio_rate: int | None = None
    video_rate: int | None = None
    beam_size: int = 5
    face: str = "largest"
    batch_size: int = 8
    word_timestamps: bool = False
    save_crops: Path | None = None
    hotwords: str = ""
    agreement: bool | None = None
    budget: str | None = None
    target_rtf: float | None = None

    def of_file(self, stem: str) -> Request:
        """The same for one of many files: what is kept of it has a folder of its own."""
        return self if self.save_crops is None else replace(self, save_crops=self.save_crops / stem)

    def search(self, normalizer: str) -> DecodeOptions:
        """How hypotheses are found; hot words are written as the model's transcripts are."""
        words = (normalize(phrase, normalizer) for phrase in self.hotwords.split(","))
        return DecodeOptions(self.beam_size, hotwords=tuple(word for word in words if word))

    @property
    def asks_others(self) -> bool:
        """Whether second opinions are wanted; as a rule with the words, whose probability they lower."""
        return self.word_timestamps if self.agreement is None else self.agreement


class Transcriber:
    """A loaded model that turns files, file objects and arrays into text.

    Args:
        model: "default", a model folder, a hub id, or a loaded model, which stays on its device and goes to eval mode.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1".
        offline: fetch nothing.
        compute_type: a row of `model.compute.COMPUTE`: "default", "float32", "bfloat16", "float16", "int8". A loaded
            model stays as it is.
        fast: Whisper hears the real length of a stretch and not 30 s, which is another model to it. A loaded model
            stays as it is.

    Raises:
        CheckpointError, AssetError: the model is missing or does not fit together.
        ConfigError: no such device, or a compute type that does not pay on it.
    """

    def __init__(
        self,
        model: str | Path | OmniAVSR = "default",
        device: str = "auto",
        offline: bool = False,
        compute_type: str = "default",
        fast: bool = False,
    ) -> None:
        self.offline = offline
        if not isinstance(model, OmniAVSR):
            model = load_for_inference(model, device, compute_type, fast, offline)
        self.model = model.eval()
        self.compute_type = compute_type
        self.device = next(self.model.parameters()).device

    def transcribe(
        self,
        source: Source | None = None,
        task: str = AUTO,
        audio_rate: int | None = None,
        video_rate: int | None = None,
        beam_size: int = 5,
        face: str = "largest",
        batch_size: int = 8,
        word_timestamps: bool = False,
        hotwords: str = "",
        agreement: bool | None = None,
        *,
        audio: np.ndarray | None = None,
        video: np.ndarray | None = None,
        fps: float | None = None,
        save_crops: str | Path | None = None,
        progress: Progress | None = None,
        budget: str | None = None,
        target_rtf: float | None = None,
    ) -> tuple[Iterator[Segment], TranscriptionInfo]:
        """Recognises the speech of one input. Work is done as the segments are asked for.

        Args:
            source: a path, a binary file object, a `Clip`, or audio as an array.
            task: 'asr', 'vsr', 'avsr', or 'auto': what is there to be heard and seen, window by window.
            audio_rate: encoder frames (50/s) per audio token; None = the finest that was trained.
            video_rate: frames (25/s) per video token; None = the finest that was trained.
            beam_size: hypotheses kept in search; 1 = greedy.
            face: which of several faces: 'largest', the one in the box 'x,y,w,h' (pixels), 'active' (whoever speaks),
                or 'all': whoever speaks, in segments of their own, each with its `speaker`.
            batch_size: windows decoded together.
            word_timestamps: give every word its time and probability.
            hotwords: words or phrases between commas that are preferred where the model is in doubt; any model can.
            agreement: also recognise by ear, by lips and by both at the cheapest rates: a word that only one of them
                has is less probable, and a text that hardly any has is flagged. None = where words are asked for.
            audio: (S,) float32, 16 kHz, instead of `source`.
            video: (T, height, width, 3) uint8 RGB, instead of `source`, with or without `audio`.
            fps: frames per second of `video`; required with it.
            save_crops: folder for what the model saw and heard, one small video per window.
            progress: is called with the seconds of the input that are done, in silence too.
            budget: 'fast', 'balanced' or 'accurate': chooses rates, and the task where it is 'auto', by their costs on
                this machine, which are measured once and remembered.
            target_rtf: likewise, by the seconds of work per second of speech.

        Returns:
            Segments in order, lazily; and what is known before: duration, task (of the first segment, where `task` is
            'auto'), rates.

        Raises:
            MediaError: the input cannot be read.
            NoAudioError, NoVideoError, NoFaceError: the task needs a stream that is not there.
            RateError: a rate the model was not trained for.
            ConfigError: an unknown task or face.
        """
        crops = None if save_crops is None else Path(save_crops)
        request = Request(
            task, audio_rate, video_rate, beam_size, face, batch_size, word_timestamps, crops, hotwords, agreement
        )
        request = replace(request, budget=budget, target_rtf=target_rtf)
        self.check(request)
        media = open_input(source, audio, video, fps)
        try:
            tasks = allowed(task, self.model.config.tasks, media.info)
            if budget is not None or target_rtf is not None:
                tasks, request = self._within_budget(tasks, request)
            planned = plan(self.perceive(media, tasks, face), task, tasks, media.info.name)
            first = list(islice(planned, 1))  # what a short file lacks is said here and not while iterating
        except BaseException:
            media.close()
            raise
        chosen = first[0].task if first else next((t for t in tasks if t != "avsr"), tasks[0])
        rates = self.model.check_rates(chosen, request.audio_rate, request.video_rate)
        info = TranscriptionInfo(media.info.duration, chosen, rates.get("audio"), rates.get("video"), media=media.info)
        return self._segments(media, chain(first, planned), request, progress), info

    def check(self, request: Request) -> None:
        """Refuses what no input could make right.

        Raises:
            ConfigError, RateError: as `transcribe`.
        """
        for task in wanted_tasks(request.task, self.model.config.tasks):
            self.model.check_rates(task, request.audio_rate, request.video_rate)
        if request.face not in CROWDS:
            face_policy(request.face, CROWDS)
        request.search(self.model.config.preprocess.normalizer)
        costing.check_budget(request.budget, request.target_rtf)
        if request.batch_size < 1:
            raise ConfigError(f"batch_size = {request.batch_size}: it must be at least 1")

    def costs(self, beam_size: int = 5, anew: bool = False) -> Costs:
        """What each task and rate of the model costs on this machine, measured on the bundled clip and remembered.

        Args:
            beam_size: as in `transcribe`.
            anew: measure again.
        """
        conditions = (self.compute_type, str(self.device), str(torch.get_num_threads()), str(beam_size))
        path = costing.costs_file(self.model.config, conditions)
        known = None if anew else costing.recall(path)
        if known is None:
            log.info("measuring what each task and rate costs on this machine, once")
            known = costing.measure(partial(self._cost, beam_size), costing.settings(self.model.config))
            costing.remember(known, path)
        return known

    def setting(self, request: Request, tasks: Sequence[str] = ()) -> Setting:
        """The task and rates that the budget of `request` allows; what it names stays as it is.

        Args:
            request: with `budget` or `target_rtf`.
            tasks: to choose from where the request leaves it open; none = those of the model.
        """
        able = (tasks or self.model.config.tasks) if request.task == AUTO else (request.task,)
        costs = costing.fitting(self.costs(request.beam_size), able, request.audio_rate, request.video_rate)
        chosen = costing.choose(costs, request.budget, request.target_rtf)
        log.info("%s, which costs %.2g s per second here", chosen, costs[chosen])
        return chosen

    # ---- the parts -----------------------------------------------------------------------------

    def _cost(self, beam_size: int, setting: Setting) -> float:
        rates = setting.audio_rate, setting.video_rate
        segments, info = self.transcribe(costing.sample(), setting.task, *rates, beam_size)
        list(segments)
        return info.duration

    def _within_budget(self, tasks: tuple[str, ...], request: Request) -> tuple[tuple[str, ...], Request]:
        """The tasks and rates that the budget allows."""
        chosen = self.setting(request, tasks)
        rates = replace(request, audio_rate=chosen.audio_rate, video_rate=chosen.video_rate)
        return (tasks if chosen.task == tasks[0] else (chosen.task,)), rates

    def _segments(
        self, media: Media, planned: Iterable[Planned], request: Request, progress: Progress | None
    ) -> Iterator[Segment]:
        numbers = count()
        asked = request.budget or request.target_rtf
        read = ahead(iter(planned), request.batch_size)  # the next windows are read and looked at beside the model
        try:
            for found in joined(self._pieces(read, request, progress)):
                if found.words:
                    made = segment(found, next(numbers), request.word_timestamps)
                    yield replace(made, av={**made.av, "budget": asked}) if asked else made
            if progress:
                progress(media.info.duration)
        finally:
            read.close()
            media.close()

    def _pieces(self, planned: Iterable[Planned], request: Request, progress: Progress | None) -> Iterator[Piece]:
        """Windows recognised in batches."""
        for group in _grouped(planned, request.batch_size):
            if request.save_crops:
                _save_crops(group, request.save_crops)
            utterances = [self._utterance(p, request) for p in group]
            found = self.recognise(utterances, request.search(self.model.config.preprocess.normalizer))
            for each, utterance, recognised in zip(group, utterances, found, strict=True):
                if progress:
                    progress(each.window.end)
                yield piece(each, utterance.rates, recognised)

    def _utterance(self, planned: Planned, request: Request) -> Utterance:
        """The streams of the window that its task perceives."""
        window, modalities = planned.window, TASKS[planned.task].modalities
        features = extract(
            window.audio if "audio" in modalities else None,
            window.crops if "video" in modalities else None,
            self.model.config.preprocess,
            id=f"{window.start:.2f} s",
        )
        rates = self.model.check_rates(planned.task, request.audio_rate, request.video_rate)
        return Utterance(features, planned.task, rates, request.asks_others)

    # ---- what a server does in its own way -----------------------------------------------------

    def perceive(self, media: Media, tasks: tuple[str, ...], face: str) -> Iterator[Window]:
        """Reads the input, listens and looks for faces: windows in order, lazily. A server bounds and shares it.

        Args:
            media: the open input.
            tasks: those that may be chosen; only their streams are read.
            face: which of several faces.
        """
        used = {modality for task in tasks for modality in TASKS[task].modalities}
        looks = "video" in used and media.info.has_video
        eyes = self._eyes(media, face) if looks else None
        longest = min(LONGEST, self.model.config.preprocess.audio_window or LONGEST)
        return windows(media, eyes, "audio" in used and media.info.has_audio, longest)

    def recognise(self, utterances: Sequence[Utterance], options: DecodeOptions) -> list[Recognised]:
        """One batch on the model. A server overrides it, so that the inputs of many callers share batches."""
        return recognise(self.model, utterances, options)

    def _eyes(self, media: Media, face: str) -> Gaze[Any]:
        if isinstance(media, ClipMedia) and media.mouths is not None:
            return Eyes(iter(media.mouths))
        if face in CROWDS:
            return Crowd(all_mouths(media.frames(), offline=self.offline), face)
        return Eyes(mouth_stream(media.frames(), face=face, offline=self.offline))


def _grouped(planned: Iterable[Planned], size: int) -> Iterator[list[Planned]]:
    left = iter(planned)
    while group := list(islice(left, size)):
        yield group


def _save_crops(group: Sequence[Planned], folder: Path) -> None:
    """One small video per window, named by its start in milliseconds."""
    for window in (planned.window for planned in group):
        crops = window.crops if window.crops is not None and len(window.crops) else None
        audio = window.audio if window.audio is not None and len(window.audio) else None
        write_store(folder / f"{round(window.start * 1000):08d}{SUFFIX}", crops, audio)
