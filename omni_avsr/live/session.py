"""A capture and captions put together: one thread per stream, and one that finds the mouths in the pictures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from omni_avsr.errors import InputError
from omni_avsr.live.captions import Captions, Update
from omni_avsr.live.relay import Relay
from omni_avsr.live.sources import LiveSource
from omni_avsr.media.mouth import Mouth, mouth_stream
from omni_avsr.tasks import TASKS
from omni_avsr.transcribe.perception import wanted_tasks
from omni_avsr.transcribe.transcriber import Request, Transcriber
from omni_avsr.types import FPS, SAMPLE_RATE

SOUND = 64 * 2**20  # bytes of sound that may wait: a quarter of an hour
PICTURES = 512 * 2**20  # of pictures that nobody has looked at: twenty seconds at 640 x 480
MOUTHS = 64 * 2**20  # of mouths: five minutes
NAP = 0.05  # seconds between two looks at what came
PENDING = 30.0  # seconds of capture that captions may hold and not have considered; the rest waits before them


def modalities(task: str, transcriber: Transcriber) -> set[str]:
    """The streams that the task may perceive."""
    return {m for name in wanted_tasks(task, transcriber.model.config.tasks) for m in TASKS[name].modalities}


@dataclass(frozen=True)
class State:
    """Where a session stands."""

    update: Update
    captured: float  # seconds
    level: float  # of the newest sound, root mean square of full scale
    face: bool | None  # whether the newest frame shows one; None without a camera

    @property
    def behind(self) -> float:
        """Seconds of capture that wait to be recognised."""
        return max(0.0, self.captured - self.update.until)


class Session:
    """Runs until the source ends or is stopped; then finishes what was captured.

    Args:
        source: of sound and pictures.
        transcriber: whose model recognises.
        request: how.

    Raises:
        InputError: the source gives nothing that the task perceives.
    """

    def __init__(self, source: LiveSource, transcriber: Transcriber, request: Request) -> None:
        used = modalities(request.task, transcriber)
        listens, looks = source.has_sound and "audio" in used, source.has_picture and "video" in used
        if not (listens or looks):
            raise InputError(f"{source.name} gives nothing that the task '{request.task}' perceives")
        self._captions = Captions(transcriber, request, listens, looks)
        self._source = source
        self._sound: Relay[np.ndarray] | None = None
        self._eyes: Relay[Mouth] | None = None
        self._relays: list[Relay] = []
        if listens:
            self._sound = Relay(source.sound(), lambda block: block.nbytes, SOUND)
            self._relays.append(self._sound)
        if looks:
            pictures = Relay(source.pictures(), lambda picture: picture.nbytes, PICTURES)
            mouths = mouth_stream(pictures, face=request.face, offline=transcriber.offline)
            self._eyes = Relay(mouths, lambda mouth: mouth.crop.nbytes, MOUTHS)
            self._relays += [pictures, self._eyes]
        self._heard = self._seen = 0  # samples, frames
        self._level, self._face = 0.0, (False if looks else None)

    def stop(self) -> None:
        """No more is captured; `states` finishes what is there, and ends."""
        self._source.close()

    def states(self) -> Iterator[State]:
        """A state whenever there is news; the last one holds all that was unfinished."""
        try:
            while True:
                self._take()
                deaf = self._sound is None or self._sound.over
                blind = self._eyes is None or self._eyes.over
                update = self._captions.advance(deaf, blind, over=deaf and blind)
                if update is not None:
                    self._take()
                    yield State(update, self._captured, self._level, self._face)
                if deaf and blind:
                    return
                time.sleep(NAP)
        finally:
            self._source.close()
            for relay in self._relays:
                relay.close()

    @property
    def _captured(self) -> float:
        return max(self._heard / SAMPLE_RATE, self._seen / FPS, self._source.seconds)

    def _take(self) -> None:
        """Hands on what came, unless there is enough to do."""
        if self._captions.pending > PENDING:
            return
        for block in self._sound.drain() if self._sound else ():
            self._captions.hear(block)
            self._heard += len(block)
            self._level = float(np.sqrt(np.square(block).mean())) if len(block) else 0.0
        mouths = self._eyes.drain() if self._eyes else []
        if mouths:
            self._captions.see(mouths)
            self._seen += len(mouths)
            self._face = mouths[-1].found
