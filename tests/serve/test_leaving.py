"""Clients that leave, and a server that leaves: nothing goes on for nobody, nothing stays, nothing is lost."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from omni_avsr.checkpoints import save_model
from omni_avsr.model.omni import OmniAVSR
from tests.serve.conftest import Brake, Serve, Server, wait_until


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files would be."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def send(server: Server, body: bytes, announced: int | None = None) -> socket.socket:
    """A client that has sent (part of) an upload and waits."""
    host, port = server.url.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)), 10)
    head = f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Length: {announced or len(body)}\r\n"
    client.sendall(head.encode() + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + body)
    return client


def form(file: bytes, **fields: str) -> bytes:
    parts = [f'name="{name}"\r\n\r\n{value}'.encode() for name, value in {"model": "default", **fields}.items()]
    parts.append(b'name="file"; filename="a.wav"\r\n\r\n' + file)
    return b"".join(b"--b\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--b--\r\n"


def padded(sound: bytes) -> bytes:
    """The same sound in a file of more than a megabyte, which is spooled to the disk."""
    return sound[:36] + b"JUNK" + (2_000_000).to_bytes(4, "little") + b"\0" * 2_000_000 + sound[36:]


def open_files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("stream", ["false", "true"])
def test_work_for_a_client_that_left_ends(
    serve: Serve, brake: Brake, spoken: list[list[str]], talk: bytes, spool: Path, stream: str
) -> None:
    server = serve(batch_size=1)
    client = send(server, form(padded(talk), stream=stream))
    assert brake.held.wait(30)
    assert len(server.desk._present) == 1
    client.close()
    time.sleep(0.1)
    brake.go.set()
    wait_until(lambda: not server.desk._present)
    assert len(spoken) < 5  # of five segments
    assert "omni_avsr_requests_abandoned_total 1.0" in httpx.get(f"{server.url}/metrics").text
    assert list(spool.iterdir()) == []


def test_nothing_stays_open(server: Server, sound: bytes, spool: Path) -> None:
    large = padded(sound)
    server.post(large)
    before = open_files()
    for _ in range(3):
        assert server.post(large).status_code == 200
        assert server.post(b"garbage" * 300_000).status_code == 400
        send(server, form(large)[:1_500_000], announced=len(form(large))).close()
    wait_until(lambda: open_files() <= before)
    wait_until(lambda: "omni_avsr_uploads_present 0.0" in httpx.get(f"{server.url}/metrics").text)
    assert list(spool.iterdir()) == []


def test_a_file_that_ffmpeg_would_search_for_hours(serve: Serve, sound: bytes) -> None:
    """Zeros after the sound are two million empty chunks to the demuxer, each read for itself."""
    server = serve(timeout=5)  # the upload has as long, on a busy machine too
    began = time.monotonic()
    assert server.post(sound + b"\0" * 16_000_000).status_code == 504
    wait_until(lambda: not server.desk._present)
    assert time.monotonic() - began < 30


# ---- the server leaves -------------------------------------------------------------------------


Process = tuple[subprocess.Popen[str], str]


@pytest.fixture
def start(model: OmniAVSR, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """`start("--drain", "5")`: `omni-avsr serve` as users start it."""
    folder = save_model(model, tmp_path / "tiny", origin={"made_by": "a test"})
    servers: list[subprocess.Popen[str]] = []

    def run(*options: str) -> Process:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        command = [sys.executable, "-m", "omni_avsr", "serve", "--model", str(folder), "--port", port, *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
        server = subprocess.Popen([*command, "--offline"], env=environment, stderr=subprocess.PIPE, text=True)
        servers.append(server)
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: ready(url), 300)
        return server, url

    yield run
    for server in servers:
        server.kill()
        server.communicate()


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready").status_code == 200
    except httpx.TransportError:
        return False


def clients(url: str, file: bytes, count: int) -> tuple[list[threading.Thread], list[httpx.Response]]:
    """So many that are inside, and where their answers will be."""
    answers: list[httpx.Response] = []

    def ask() -> None:
        files, data = {"file": ("a.wav", file)}, {"model": "tiny"}
        answers.append(httpx.post(f"{url}/v1/audio/transcriptions", files=files, data=data, timeout=120))

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    wait_until(lambda: f"requests_present {count}.0" in httpx.get(f"{url}/metrics").text, 60)
    return threads, answers


@pytest.mark.slow
def test_on_sigterm_those_inside_are_answered(start: Callable[..., Process], talk: bytes, tmp_path: Path) -> None:
    server, url = start("--beam_size", "1", "--drain", "100")
    threads, answers = clients(url, talk, 3)
    server.send_signal(signal.SIGTERM)
    wait_until(lambda: not ready(url), 20)  # nobody else is let in
    for thread in threads:
        thread.join(120)
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len({answer.text for answer in answers}) == 1
    assert server.wait(60) in (0, -signal.SIGTERM)
    assert server.stderr is not None
    log = server.stderr.read()
    assert log.count('"status": 200') >= 3
    assert all(json.loads(line)["level"] == "info" for line in log.splitlines())
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["tiny"]


@pytest.mark.slow
def test_those_for_whom_there_is_no_time_are_told(start: Callable[..., Process], talk: bytes) -> None:
    server, url = start("--beam_size", "20", "--drain", "0")
    threads, answers = clients(url, talk, 2)
    server.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(120)
    assert [answer.status_code for answer in answers] == [503] * 2
    assert answers[0].json()["error"]["message"] == "the server is leaving"
    assert answers[0].headers["retry-after"]
    assert server.wait(60) in (0, -signal.SIGTERM)
