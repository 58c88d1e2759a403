"""The load test's own judgement: who is owed an answer, what makes it fail, and what is measured again."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

import httpx
import pytest

from benchmarks import load
from benchmarks.load import Call, Tally

CALL = Call("a.wav", b"sound" * 100, {"task": "asr"}, expected="right")


def ask(kind: str, answer: httpx.Response | Exception) -> Tally:
    """What is counted of one misbehaving client, to whom the server says `answer`."""

    def serve(_: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def one() -> Tally:
        tally = Tally()
        async with httpx.AsyncClient(transport=httpx.MockTransport(serve), base_url="http://server") as client:
            await load.misbehave(client, kind, CALL, tally)
        return tally

    return asyncio.run(one())


@pytest.mark.parametrize(
    ("answer", "failures"),
    [
        (httpx.Response(200, json={"text": "right"}), 0),
        (httpx.Response(200, json={"text": "wrong"}), 1),
        (httpx.Response(503, text="busy"), 1),
        (httpx.ReadError("gone"), 1),
    ],
)
def test_a_slow_client_is_owed_its_answer(
    monkeypatch: pytest.MonkeyPatch, answer: httpx.Response | Exception, failures: int
) -> None:
    monkeypatch.setattr(load, "PAUSE", 0.0)
    tally = ask("slow", answer)
    assert len(tally.failures) == failures
    assert tally.misbehaved == {"slow: WRONG" if failures else "slow: right": 1}


def test_garbage_is_owed_nothing() -> None:
    tally = ask("garbage", httpx.Response(400))
    assert (tally.failures, tally.misbehaved) == ([], {"garbage: 400": 1})


def stored(path: Path, **changes: object) -> argparse.Namespace:
    """A result of one level on the disk, and the arguments that it is of."""
    arguments = argparse.Namespace(requests=9, concurrency=[4], page=True, output=path)
    row = {
        "concurrency": 4, "requests": 9, "wrong_or_lost": 0, "failures": [], "seconds": 1.0, "requests_per_second": 9.0,
        "p50_seconds": 1.0, "p95_seconds": 1.0, "utterances_per_batch": 1.0, "server_cpu_seconds": 1.0,
        "memory_mb": [5, 6], "misbehaved": {}, "left_inside": {"requests_present": 0.0}, "load_average": 1.0,
    }  # fmt: skip
    path.write_text(json.dumps(load.begun(arguments) | {"rows": [row | changes]}))
    return arguments


def test_words_about_it_are_no_reason_to_measure_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = stored(tmp_path / "load.json")
    assert len(load.begun(arguments)["rows"]) == 1
    monkeypatch.setattr(load, "digest", lambda: "of other code")
    assert load.begun(arguments)["rows"] == []


def test_the_digest_is_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "PACKAGE", tmp_path)
    before = load.digest()
    (tmp_path / "cache.pyc").write_bytes(b"1")
    assert load.digest() == before
    (tmp_path / "new.py").write_text("x = 1\n")
    assert load.digest() != before


@pytest.mark.parametrize("wrong", [{"wrong_or_lost": 1}, {"left_inside": {"requests_present": 1.0}}])
def test_a_failure_is_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, object]
) -> None:
    path = tmp_path / "load.json"
    monkeypatch.setattr("sys.argv", ["load", "--page", "-o", str(path)])
    stored(path)
    load.main()
    stored(path, **wrong)
    with pytest.raises(SystemExit) as ended:
        load.main()
    assert ended.value.code not in (0, None)
