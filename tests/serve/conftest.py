"""A real server on a real socket, around a tiny model whose answers are known."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
import uvicorn

from omni_avsr.media.mouth import Mouth
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.serve.app import create_app
from omni_avsr.serve.desk import Desk
from omni_avsr.serve.settings import Settings
from omni_avsr.types import Batch, Hypothesis
from tests.clips import SAMPLE, grey, video, voice, wav


@dataclass(frozen=True)
class Server:
    """One that runs."""

    url: str
    desk: Desk

    def sdk(self, key: str = "any") -> openai.OpenAI:
        """OpenAI's own client."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def post(self, file: bytes, **fields: object) -> httpx.Response:
        """A plain upload."""
        form = {"model": "default"} | {name.replace("_b", "[]"): str(value) for name, value in fields.items()}
        return httpx.post(f"{self.url}/v1/audio/transcriptions", files={"file": ("c", file)}, data=form, timeout=60)


Serve = Callable[..., Server]


@pytest.fixture(scope="session")
def model(tiny_model: Callable[..., OmniAVSR]) -> OmniAVSR:
    """All three tasks, with a CTC head."""
    return tiny_model(ctc={"units": "char"})


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The batches that are decoded, each the tasks of its rows; each row's text says its task and rates."""
    batches: list[list[str]] = []

    def fake(
        model: OmniAVSR, batch: Batch, tasks: Sequence[str], rates: Sequence[dict[str, int]], *_: object
    ) -> list[Hypothesis]:
        batches.append(list(tasks))
        texts = (f" {t} {' '.join(map(str, r.values()))} " for t, r in zip(tasks, rates, strict=True))
        return [Hypothesis(text, (1, 2), (-0.1, -0.2), -0.15) for text in texts]

    monkeypatch.setattr("omni_avsr.transcribe.recognition.decode", fake)
    return batches


@pytest.fixture
def faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A face in every picture; no network is needed."""

    def stream(frames: Iterable[np.ndarray], **_: object) -> Iterator[Mouth]:
        return (
            Mouth(np.full((96, 96), i % 251, np.uint8), True, np.zeros(4, np.float32)) for i, _ in enumerate(frames)
        )

    monkeypatch.setattr("omni_avsr.transcribe.transcriber.mouth_stream", stream)


@pytest.fixture
def serve(model: OmniAVSR) -> Iterator[Serve]:
    """`serve(queue=2)`: a server with these settings, until the test ends."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(**settings: object) -> Server:
        app = create_app(replace(Settings(offline=True, beam_size=1), **settings), model)
        config = uvicorn.Config(app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread))
        wait_until(lambda: server.started and app.state.desk.worker.model is not None)
        return Server(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", app.state.desk)

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def server(serve: Serve, spoken: list[list[str]], faces: None) -> Server:
    """One with the usual settings."""
    return serve()


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Three seconds of a voice, as a wav file."""
    return wav(tmp_path_factory.mktemp("media") / "voice.wav", voice()).read_bytes()


@pytest.fixture(scope="session")
def talk(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Twenty-five seconds: five times a voice for three seconds, and silence."""
    silence = np.zeros(32_000, np.float32)
    audio = np.concatenate([part for _ in range(5) for part in (voice(), silence)])
    return wav(tmp_path_factory.mktemp("media") / "talk.wav", audio).read_bytes()


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The same voice with a small picture."""
    return video(tmp_path_factory.mktemp("media") / "clip.mkv", grey(3), voice()).read_bytes()


@pytest.fixture
def sample() -> Path:
    """The packaged clip."""
    return SAMPLE


def wait_until(true: Callable[[], object], seconds: float = 30) -> None:
    """Returns when it is; fails when it never is."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


class Brake:
    """Holds the model's thread until it is let go."""

    def __init__(self) -> None:
        self.held = threading.Event()
        self.go = threading.Event()

    def __call__(self, *_: object) -> None:
        self.held.set()
        assert self.go.wait(30)


@pytest.fixture
def brake(monkeypatch: pytest.MonkeyPatch, spoken: list[list[str]]) -> Iterator[Brake]:
    """Each call of the model waits for `brake.go`."""
    from omni_avsr.serve import worker

    brake, recognise = Brake(), worker.recognise

    def slow(*arguments: object) -> object:
        brake()
        return recognise(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(worker, "recognise", slow)
    yield brake
    brake.go.set()


@contextmanager
def heard(logger: str) -> Iterator[list[logging.LogRecord]]:
    """The records of a logger, whatever else listens to it."""
    lines: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = lines.append  # type: ignore[method-assign]
    log = logging.getLogger(logger)
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
