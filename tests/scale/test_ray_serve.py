"""The HTTP application as two replicas, of which one is killed under load."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

pytest.importorskip("ray")

from ray import serve

from omni_avsr.errors import ConfigError
from tests.scale.conftest import kill, workers

pytestmark = pytest.mark.scale
NAME = "ServeReplica"


@pytest.fixture(scope="module")
def url(cluster: None) -> Iterator[str]:
    from omni_avsr.scale.ray_serve import app

    serve.start(http_options={"host": "127.0.0.1", "port": 18123})
    serve.run(app)
    yield "http://127.0.0.1:18123"
    serve.shutdown()


def test_every_request_is_answered_though_a_replica_is_killed(url: str, corpus: Path) -> None:
    sound = (corpus / "clip00.wav").read_bytes()
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=8)  # the SDK comes back by itself
    assert [m.id for m in client.models.list()] == ["tiny"]
    first = client.audio.transcriptions.create(model="tiny", file=("a.wav", sound)).text
    assert len(workers(NAME)) == 2
    done: list[str] = []
    some = threading.Event()

    def ask(_: int) -> None:
        done.append(client.audio.transcriptions.create(model="tiny", file=("a.wav", sound)).text)
        if len(done) == 6:
            some.set()

    with ThreadPoolExecutor(4) as clients:
        asked = [clients.submit(ask, number) for number in range(24)]
        assert some.wait(300)
        kill(workers(NAME)[0])
        for request in asked:
            request.result(300)
    assert done == [first] * 24
    end = time.monotonic() + 300
    while len(workers(NAME)) < 2:
        assert time.monotonic() < end, "the second replica did not come back"
        time.sleep(1)


def test_streams_and_refusals_pass_the_proxy(url: str, corpus: Path) -> None:
    sound = (corpus / "clip00.wav").read_bytes()
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=8)
    *deltas, done = client.audio.transcriptions.create(model="tiny", file=("a.wav", sound), stream=True)
    assert "".join(event.delta for event in deltas) == done.text
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(model="tiny", file=("a.wav", b"garbage" * 1000))
    assert caught.value.code == "unreadable_media"
    assert httpx.get(f"{url}/ready").status_code == 200


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from omni_avsr.scale.ray_serve import settings_from_environment

    for name, text in (("BEAM_SIZE", "7"), ("TIMEOUT", "2.5"), ("OFFLINE", "true"), ("MODEL", "/m"), ("NAMES", "a b")):
        monkeypatch.setenv(f"OMNI_AVSR_{name}", text)
    got = settings_from_environment()
    assert (got.beam_size, got.timeout, got.offline, got.model, got.names) == (7, 2.5, True, "/m", ("a", "b"))
    monkeypatch.setenv("OMNI_AVSR_QUEUE", "many")
    with pytest.raises(ConfigError, match=r"OMNI_AVSR_QUEUE = 'many'"):
        settings_from_environment()
