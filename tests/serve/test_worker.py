"""The thread that owns the model: who shares a batch with whom, and what one caller's trouble does to the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

import pytest
import torch

from omni_avsr.model.decode import DecodeOptions
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.serve import worker as module
from omni_avsr.serve.metrics import Metrics
from omni_avsr.serve.worker import Gone, Ticket, Worker
from omni_avsr.transcribe.recognition import Recognised, Utterance, recognise
from omni_avsr.types import Features, Hypothesis
from tests.serve.conftest import Brake, wait_until

GREEDY = DecodeOptions(1)
Make = Callable[..., Features]


@pytest.fixture
def worker(model: OmniAVSR) -> Iterator[Worker]:
    worker = Worker(lambda: model, 4, Metrics())
    worker.start()
    yield worker
    worker.stop()


def utterances(make: Make) -> list[Utterance]:
    """Nine that differ in length, task and rates."""
    rates = {"asr": {"audio": 16}, "vsr": {"video": 2}, "avsr": {"audio": 4, "video": 5}}
    return [
        Utterance(make(12 + 3 * n, seed=n, audio=task != "vsr", video=task != "asr"), task, rates[task])
        for n, task in enumerate(3 * ["asr", "vsr", "avsr"])
    ]


def test_shared_batches_give_what_each_alone_gives(worker: Worker, model: OmniAVSR, make_features: Make) -> None:
    rows = utterances(make_features)
    alone = [recognise(model, [row], GREEDY)[0] for row in rows]
    shared = [future.result(30) for future in worker.submit(rows, GREEDY)]
    assert [r.hypothesis.tokens for r in shared] == [r.hypothesis.tokens for r in alone]
    assert [r.tokens for r in shared] == [r.tokens for r in alone]
    scores = [r.hypothesis.score for r in shared]
    torch.testing.assert_close(torch.tensor(scores), torch.tensor([r.hypothesis.score for r in alone]))


def test_callers_share_batches_of_all_tasks(
    worker: Worker, brake: Brake, spoken: list[list[str]], make_features: Make
) -> None:
    rows = utterances(make_features)
    wait_until(lambda: worker.model)
    first = worker.submit(rows[:1], GREEDY)
    assert brake.held.wait(30)
    rest = [future for row in rows[1:] for future in worker.submit([row], GREEDY)]
    brake.go.set()
    for future in [*first, *rest]:
        future.result(30)
    assert spoken == [["asr"], ["vsr", "avsr", "asr", "vsr"], ["avsr", "asr", "vsr", "avsr"]]


def test_different_searches_do_not_share(
    worker: Worker, brake: Brake, spoken: list[list[str]], make_features: Make
) -> None:
    rows = utterances(make_features)
    futures = worker.submit(rows[:1], GREEDY)
    assert brake.held.wait(30)
    for row, beams in zip(rows[1:5], (1, 2, 1, 2), strict=True):
        futures += worker.submit([row], DecodeOptions(beams))
    brake.go.set()
    for future in futures:
        future.result(30)
    assert spoken == [["asr"], ["vsr", "asr"], ["avsr", "vsr"]]


def test_a_row_that_fails_does_so_alone(
    worker: Worker, brake: Brake, make_features: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fragile(_: OmniAVSR, rows: Sequence[Utterance], options: DecodeOptions) -> list[Recognised]:
        brake()
        if any(row.features.id == "13" for row in rows):
            raise MemoryError("thirteen")
        return [Recognised(Hypothesis(row.features.id, (), (), 0.0), (), {}) for row in rows]

    monkeypatch.setattr(module, "recognise", fragile)
    futures: list[Future[Recognised]] = []
    for name in ("0", "11", "12", "13", "14"):
        futures += worker.submit([Utterance(make_features(name=name), "asr", {"audio": 4})], GREEDY)
    brake.go.set()
    for future, text in zip(futures, ("0", "11", "12", None, "14"), strict=True):
        if text is None:
            with pytest.raises(MemoryError):
                future.result(30)
        else:
            assert future.result(30).hypothesis.text == text


def test_who_leaves_is_taken_out_of_the_line(
    worker: Worker, brake: Brake, spoken: list[list[str]], make_features: Make
) -> None:
    rows = utterances(make_features)
    worker.submit(rows[:1], GREEDY)
    assert brake.held.wait(30)
    ticket, outcome = Ticket(), list[BaseException]()

    def wait() -> None:
        try:
            ticket.results(worker.submit(rows[1:3], GREEDY))
        except BaseException as error:
            outcome.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_until(lambda: ticket._pending)
    (stays,) = worker.submit(rows[3:4], GREEDY)
    ticket.leave()
    waiting.join(30)
    assert isinstance(outcome[0], Gone)
    brake.go.set()
    stays.result(30)
    assert spoken == [["asr"], ["asr"]]
    with pytest.raises(Gone):
        ticket.check()


def test_what_is_in_the_line_is_done_before_the_end(model: OmniAVSR, make_features: Make) -> None:
    worker = Worker(lambda: model, 2, Metrics())
    futures = worker.submit(utterances(make_features), GREEDY)
    worker.start()
    worker.stop()
    assert all(future.done() for future in futures)
    assert not worker.alive


def test_a_model_that_cannot_be_loaded_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> OmniAVSR:
        raise OSError("no such model")

    worker = Worker(broken, 1, Metrics())
    worker.start()
    wait_until(lambda: not worker.alive)
    assert "no such model" in str(worker.failure)
