"""One thread owns the model. Utterances of all requests wait for it in one line and are decoded in shared batches.

A request is a thread that reads its own input and looks for speech and faces; few of them do so at once (`places`).
While it waits for the model it holds no place, so the model always has a batch's worth of utterances to choose from.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass

import numpy as np

from omni_avsr.model.decode import DecodeOptions
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.serve.metrics import Metrics
from omni_avsr.serve.settings import Limits
from omni_avsr.transcribe.budget import Costs
from omni_avsr.transcribe.inputs import Media
from omni_avsr.transcribe.recognition import Recognised, Utterance, recognise
from omni_avsr.transcribe.transcriber import Transcriber
from omni_avsr.transcribe.windows import Window
from omni_avsr.types import FPS, SAMPLE_RATE

log = logging.getLogger(__name__)


class Gone(Exception):
    """Nobody waits for the answer any more."""


class Ticket:
    """Whether somebody still waits for an answer; shared by a request's thread and its connection."""

    def __init__(self) -> None:
        self._gone = threading.Event()
        self._pending: list[Future[Recognised]] = []

    def leave(self) -> None:
        """Nobody waits any more: what is waiting for the model is taken out of the line."""
        self._gone.set()
        for future in list(self._pending):
            future.cancel()

    def check(self) -> None:
        """Raises Gone where nobody waits."""
        if self._gone.is_set():
            raise Gone

    def results(self, futures: Sequence[Future[Recognised]]) -> list[Recognised]:
        """Waits for all. Raises Gone where nobody waits."""
        self._pending = list(futures)
        self.check()
        try:
            return [future.result() for future in futures]
        except CancelledError:
            raise Gone from None
        finally:
            self._pending = []


@dataclass(frozen=True, eq=False)
class Job:
    """An utterance in the line."""

    utterance: Utterance
    options: DecodeOptions
    future: Future[Recognised]


class Worker:
    """The thread that owns the model.

    Args:
        load: makes the model, in this thread.
        batch_size: most utterances in one call of the model.
        metrics: where it counts.
    """

    def __init__(self, load: Callable[[], OmniAVSR], batch_size: int, metrics: Metrics) -> None:
        self.model: OmniAVSR | None = None
        self.failure: BaseException | None = None  # why there is no model
        self.loaded = threading.Event()  # or known to fail
        self._load, self._batch_size, self._metrics = load, batch_size, metrics
        self._line: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Begins to load the model."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread once what is in the line has been done."""
        self._line.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def submit(self, utterances: Sequence[Utterance], options: DecodeOptions) -> list[Future[Recognised]]:
        """Puts utterances into the line. As many may wait as all admitted requests can have in hand."""
        jobs = [Job(utterance, options, Future()) for utterance in utterances]
        for job in jobs:
            self._line.put(job)
        return [job.future for job in jobs]

    # ---- in the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self.model = self._load()
        except BaseException as error:
            self.failure = error
            log.exception("the model could not be loaded")
            return
        finally:
            self.loaded.set()
        waiting: list[Job] = []
        while (jobs := self._batch(waiting)) is not None:
            started = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if started:
                self._recognise(started)

    def _batch(self, waiting: list[Job]) -> list[Job] | None:
        """The next jobs that go together, first come first served; None = the line has ended.

        Args:
            waiting: taken out of the line, and not yet done; what is left stays in it.
        """
        if not waiting:
            first = self._line.get()
            if first is None:
                return None
            waiting.append(first)
        while not self._line.empty():
            job = self._line.get()
            if job is None:
                self._line.put(None)  # after these
                break
            waiting.append(job)
        chosen = [job for job in waiting if job.options == waiting[0].options][: self._batch_size]
        waiting[:] = [job for job in waiting if job not in chosen]
        self._metrics.waiting.set(len(waiting) + self._line.qsize())
        return chosen

    def _recognise(self, jobs: Sequence[Job]) -> None:
        """One call of the model. Where it fails, the halves are tried, so that no row fails for its neighbours."""
        assert self.model is not None
        began = time.perf_counter()
        try:
            found = recognise(self.model, [job.utterance for job in jobs], jobs[0].options)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
                return
            log.warning("a batch of %d failed (%s: %s); trying its halves", len(jobs), type(error).__name__, error)
            self._recognise(jobs[: len(jobs) // 2])
            self._recognise(jobs[len(jobs) // 2 :])
            return
        self._metrics.batch.observe(len(jobs))
        self._metrics.model_seconds.inc(time.perf_counter() - began)
        for job, recognised in zip(jobs, found, strict=True):
            job.future.set_result(recognised)


# ---- in the thread of a request ----------------------------------------------------------------


class Visitor(Transcriber):
    """A transcriber for one request: the model is the worker's, and it stops when nobody waits.

    Args:
        worker: with a model.
        places: taken while the input is read and looked at.
        limits: of the input, for what its header does not tell.
        ticket: of the request.
        offline: fetch nothing.
        costs: of the model's settings, for requests with a budget.
    """

    def __init__(
        self,
        worker: Worker,
        places: threading.Semaphore,
        limits: Limits,
        ticket: Ticket,
        offline: bool,
        costs: Costs,
    ) -> None:
        assert worker.model is not None
        self.model, self.device, self.offline = worker.model, worker.model.device, offline
        self._worker, self._places, self._limits, self._ticket = worker, places, limits, ticket
        self._costs = costs

    def costs(self, beam_size: int = 5, anew: bool = False) -> Costs:
        """Those of the server, measured when nobody was waiting."""
        return self._costs

    def recognise(self, utterances: Sequence[Utterance], options: DecodeOptions) -> list[Recognised]:
        """In batches with others' utterances. Raises Gone where nobody waits for it."""
        return self._ticket.results(self._worker.submit(utterances, options))

    def perceive(self, media: Media, tasks: tuple[str, ...], face: str) -> Iterator[Window]:
        """A window at a time, each in its turn at the decoder. Raises Gone where nobody waits for it."""
        windows = super().perceive(Watched(media, self._limits, self._ticket), tasks, face)
        while True:
            with self._places:
                window = next(windows, None)
            if window is None:
                return
            yield window


class Watched:
    """Media that stops where it exceeds the limits, whatever its header said, or where nobody waits for it."""

    def __init__(self, media: Media, limits: Limits, ticket: Ticket) -> None:
        self.info = media.info
        self._media, self._limits, self._ticket = media, limits, ticket

    def audio_blocks(self, start: float = 0.0, end: float | None = None) -> Iterator[np.ndarray]:
        """As the media's."""
        return self._watch(self._media.audio_blocks(start, end), start, lambda block: len(block) / SAMPLE_RATE)

    def frames(self, start: float = 0.0, end: float | None = None) -> Iterator[np.ndarray]:
        """As the media's."""
        for picture in self._watch(self._media.frames(start, end), start, lambda picture: 1 / FPS):
            self._limits.check_picture(picture.shape[0] * picture.shape[1])
            yield picture

    def close(self) -> None:
        """As the media's."""
        self._media.close()

    def _watch(
        self, parts: Iterable[np.ndarray], seconds: float, lasts: Callable[[np.ndarray], float]
    ) -> Iterator[np.ndarray]:
        for part in parts:
            self._ticket.check()
            seconds += lasts(part)
            self._limits.check_seconds(seconds - 1)  # a second's grace: headers round
            yield part
