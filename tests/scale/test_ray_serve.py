"""The HTTP application as replicas: one is killed under load, one comes because of it; what they are told."""

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
from omni_avsr.serve.settings import Limits, Settings
from tests.scale.conftest import kill, workers

pytestmark = pytest.mark.scale
NAME = "ServeReplica:default:"


@pytest.fixture(scope="module")
def url(cluster: None) -> Iterator[str]:
    from omni_avsr.scale.ray_serve import app

    serve.start(http_options={"host": "127.0.0.1", "port": 18123})
    serve.run(app({}))
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


def test_load_brings_a_second_replica_that_is_told_the_same(url: str, corpus: Path) -> None:
    """What stands in no node's environment, since the cluster was there before, and under a path of its own."""
    from omni_avsr.scale.ray_serve import app

    few = "ServeReplica:few:"
    told = {"replicas": "1 2", "names": "few", "api_keys": "secret", "queue": 64}
    serve.run(app(told), name="few", route_prefix="/few")
    try:
        client = openai.OpenAI(base_url=f"{url}/few/v1", api_key="secret", max_retries=8)
        assert [m.id for m in client.models.list()] == ["few"]
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="wrong").models.list()
        assert len(workers(few)) == 1
        sound, enough = (corpus / "clip00.wav").read_bytes(), threading.Event()
        end = time.monotonic() + 300

        def ask() -> set[str]:
            """All that one client hears until there are two."""
            heard = set[str]()
            while not enough.is_set() and time.monotonic() < end:
                heard.add(client.audio.transcriptions.create(model="few", file=("a.wav", sound)).text)
            return heard

        with ThreadPoolExecutor(16) as clients:  # twice as many as a replica is to have at once
            asked = [clients.submit(ask) for _ in range(16)]
            while len(workers(few)) < 2 and time.monotonic() < end:
                time.sleep(1)
            enough.set()
            assert len(set.union(*(each.result(300) for each in asked))) == 1  # whoever answered
        assert len(workers(few)) == 2
    finally:
        serve.delete("few")


# ---- what replicas are told --------------------------------------------------------------------


def test_every_field_can_be_told() -> None:
    from omni_avsr.scale.ray_serve import settings, variables

    told = {
        "MODEL": "/m", "NAMES": "a b", "DEVICE": "cpu", "COMPUTE_TYPE": "bfloat16", "FAST": "1", "OFFLINE": "true",
        "BUDGET": "fast", "BEAM_SIZE": "7", "BATCH_SIZE": "3", "WORKERS": "2", "QUEUE": "5", "TIMEOUT": "2.5",
        "LOG_TRANSCRIPTS": "yes", "API_KEYS": "k1,k2", "MAX_BYTES": "10", "MAX_SECONDS": "1.5", "MAX_PIXELS": "99",
    }  # fmt: skip
    got = settings({f"OMNI_AVSR_{name}": text for name, text in told.items()})
    want = Settings(
        "/m", ("a", "b"), "cpu", "bfloat16", True, True, "fast", None, 7, 3, 2, 5, 2.5, Limits(10, 1.5, 99),
        ("k1", "k2"), True,
    )  # fmt: skip
    assert got == want
    assert settings({"OMNI_AVSR_TARGET_RTF": "0.5"}).target_rtf == 0.5
    assert settings({}) == Settings()
    names = {name.removeprefix("OMNI_AVSR_") for name in variables()}
    assert names == {*told, "TARGET_RTF", "REPLICAS", "GPUS"}


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"queue": "many"}, r"OMNI_AVSR_QUEUE = 'many': Input should be a valid integer"),
        ({"fast": "perhaps"}, r"OMNI_AVSR_FAST = 'perhaps'"),
        ({"max_seconds": "long"}, r"OMNI_AVSR_MAX_SECONDS = 'long'"),
        ({"replicas": "3 2"}, r"OMNI_AVSR_REPLICAS = '3 2': give the fewest and the most"),
        ({"gpus": "1.5"}, r"OMNI_AVSR_GPUS = 1.5: give a share of one"),
        ({"gpu": "1"}, r"unknown argument 'gpu'; did you mean 'gpus'"),
    ],
)
def test_what_cannot_be_told_is_refused_before_a_replica_starts(told: dict[str, str], message: str) -> None:
    from omni_avsr.scale.ray_serve import app

    with pytest.raises(ConfigError, match=message):
        app(told)


@pytest.mark.parametrize(
    ("told", "gpus", "least", "most"),
    [
        ({}, 0, 1, 8),
        ({"GPUS": "0.5"}, 0.5, 1, 8),
        ({"GPUS": "2", "REPLICAS": "1 2"}, 2, 1, 2),
        ({"REPLICAS": "3"}, 0, 3, 3),
    ],
)
def test_what_a_replica_takes_and_how_many_there_are(told: dict[str, str], gpus: float, least: int, most: int) -> None:
    from omni_avsr.scale.ray_serve import deployment

    made = deployment({f"OMNI_AVSR_{name}": text for name, text in told.items()})
    assert made.ray_actor_options == {"num_cpus": 1, "num_gpus": gpus}
    scaling = made._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (least, most)
