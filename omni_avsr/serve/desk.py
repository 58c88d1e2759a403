"""Where requests are admitted, and from where their segments come back; the border of threads and coroutines."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, cast

from omni_avsr.media.assets import ensure_face_models
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.serve.metrics import Metrics
from omni_avsr.serve.refusals import busy, not_ready, too_late
from omni_avsr.serve.settings import Settings
from omni_avsr.serve.worker import Gone, Ticket, Visitor, Worker
from omni_avsr.transcribe.budget import Costs
from omni_avsr.transcribe.transcriber import Request, Transcriber
from omni_avsr.types import Segment, TranscriptionInfo

log = logging.getLogger(__name__)

Say = Callable[[Any], None]


@dataclass(frozen=True)
class _End:
    """The last thing a request's thread says."""

    error: BaseException | None


class Upload:
    """A request's file, under a name that says nothing of its owner; reading it ends when nobody waits."""

    name = "upload"

    def __init__(self, file: BinaryIO, ticket: Ticket) -> None:
        self._file, self._ticket = file, ticket
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """As the file's. Raises Gone where nobody waits: ffmpeg can search a hostile file for hours."""
        self._ticket.check()
        return self._file.read(size)

    def seekable(self) -> bool:
        """Uploads are on the disk, or small and in memory."""
        return True


class Desk:
    """Admits requests, gives each a thread, and knows how long they take.

    Args:
        settings: how many, how long, how large.
        metrics: where it counts.
        model: one that is loaded, instead of the one that `settings` name.
    """

    def __init__(self, settings: Settings, metrics: Metrics, model: OmniAVSR | None = None) -> None:
        self.settings, self.metrics = settings, metrics
        self.worker = Worker(partial(self._load, model), settings.batch_size, metrics)
        self._costs: Costs = {}  # where a budget chooses by them
        self._places = threading.Semaphore(settings.places)
        self._threads = ThreadPoolExecutor(settings.queue, thread_name_prefix="request")
        self._present: set[Ticket] = set()
        self._usual = 1.0  # seconds that a request takes, averaged over the last ones

    def start(self) -> None:
        """Begins to load the model; `check_ready` says when it is there."""
        self.worker.start()

    def send_away(self) -> None:
        """Ends all work; those who wait are told to come back."""
        for ticket in list(self._present):
            ticket.leave()

    def stop(self) -> None:
        """Sends away whoever is left, and ends all threads."""
        self.send_away()
        self._threads.shutdown()
        self.worker.stop()

    def _load(self, given: OmniAVSR | None) -> OmniAVSR:
        own = self.settings
        named = own.model if given is None else given
        transcriber = Transcriber(named, own.device, own.offline, own.compute_type, own.fast)
        # what takes long is done now, and not in somebody's request
        if given is None and "video" in transcriber.model.config.modalities:
            ensure_face_models(offline=own.offline)
        if own.budget or own.target_rtf:
            self._costs = transcriber.costs(own.beam_size)
        return transcriber.model

    # ---- at the door ---------------------------------------------------------------------------

    def check_ready(self) -> OmniAVSR:
        """The model. Raises Refusal where it is not there (yet)."""
        if self.worker.failure is not None:
            raise not_ready(f"the model could not be loaded: {self.worker.failure}", 60)
        if self.worker.model is None:
            raise not_ready("the model is being loaded")
        if not self.worker.alive:
            raise not_ready("the server is leaving")
        return self.worker.model

    def wait_ready(self) -> None:
        """Returns when the model is loaded. Raises what kept it from being loaded."""
        self.worker.loaded.wait()
        if self.worker.failure is not None:
            raise self.worker.failure

    def check_room(self) -> None:
        """Raises Refusal where all places are taken."""
        if len(self._present) >= self.settings.queue:
            raise busy(min(60, max(1, math.ceil(self._usual))))

    def check_request(self, request: Request) -> None:
        """Raises ConfigError, RateError for what no input could make right."""
        self._visitor(Ticket()).check(request)

    def _visitor(self, ticket: Ticket) -> Visitor:
        own = self.settings
        return Visitor(self.worker, self._places, own.limits, ticket, own.offline, self._costs)

    # ---- inside --------------------------------------------------------------------------------

    async def visit(self, file: BinaryIO, request: Request) -> AsyncGenerator[TranscriptionInfo | Segment, None]:
        """What is known first, then the segments, each as soon as it is ready.

        Closing the generator early says that nobody waits; the place is free again when the thread has noticed.

        Args:
            file: is closed when the request's thread has ended.
            request: checked.

        Raises:
            Refusal: all places are taken; too late; more seconds or pixels than allowed.
            OmniAVSRError: the input cannot be used.
        """
        try:
            self.check_room()
        except BaseException:
            file.close()
            raise
        ticket, arrived = Ticket(), asyncio.Queue[Any]()
        deadline = time.monotonic() + self.settings.timeout
        loop = asyncio.get_running_loop()
        self._present.add(ticket)
        self.metrics.present.set(len(self._present))
        say = partial(_say, loop, arrived)
        loop.run_in_executor(self._threads, self._work, file, request, ticket, say).add_done_callback(
            lambda _: self._leave(ticket)
        )
        try:
            while not isinstance(item := await asyncio.wait_for(arrived.get(), deadline - time.monotonic()), _End):
                yield item
        except TimeoutError:
            raise too_late(self.settings.timeout) from None
        finally:
            ticket.leave()
        if item.error is not None:
            raise item.error

    def _leave(self, ticket: Ticket) -> None:
        self._present.discard(ticket)
        self.metrics.present.set(len(self._present))

    def _work(self, file: BinaryIO, request: Request, ticket: Ticket, say: Say) -> None:
        began = time.perf_counter()
        error: BaseException | None = None
        try:
            upload = cast(BinaryIO, Upload(file, ticket))
            self.settings.limits.check(upload)
            segments, info = self._visitor(ticket).transcribe(upload, **vars(request))
            say(info)
            for segment in segments:
                say(segment)
        except Gone:
            self.metrics.abandoned.inc()
            error = not_ready("the server is leaving")  # heard only where it was the server that left
        except BaseException as caught:
            error = caught
        else:
            self.metrics.media_seconds.inc(info.duration)
            self._usual += 0.1 * (time.perf_counter() - began - self._usual)
        finally:
            file.close()
            say(_End(error))


def _say(loop: asyncio.AbstractEventLoop, arrived: asyncio.Queue[Any], item: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended: nobody listens
        loop.call_soon_threadsafe(arrived.put_nowait, item)
