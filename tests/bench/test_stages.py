"""What the report counts, on a tiny model and the bundled clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from omni_avsr.bench.floor import Machine, flop_counter, measure_machine, weight_bytes
from omni_avsr.bench.stages import CLOCKS, STAGES, Bench, peak_memory, threads
from omni_avsr.media.mouth import Mouth
from omni_avsr.model.compute import COMPUTE
from omni_avsr.transcribe.budget import sample
from omni_avsr.transcribe.transcriber import Request

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", [row.name for row in COMPUTE.values() if row.linear and "cpu" in row.devices])
@torch.inference_mode()
def test_operations_of_every_kernel_are_counted(name, monkeypatch):
    monkeypatch.setattr("omni_avsr.model.compute.PAYS", 0)
    row = COMPUTE[name]
    plain = nn.Linear(96, 64, bias=False).to(row.dtype)
    layer = row.linear(plain.weight, None)
    with flop_counter() as counter:
        layer(torch.randn(2, 5, 96, dtype=row.dtype))
    assert counter.get_total_flops() == 2 * 2 * 5 * 96 * 64
    sizes = {torch.int8: 96 * 64 + 4 * 64, torch.float32: 4 * 96 * 64, torch.bfloat16: 2 * 96 * 64}
    assert weight_bytes(layer) == sizes[torch.int8 if name == "int8" else row.dtype]


@torch.inference_mode()
def test_attention_is_counted():
    query, key = torch.randn(2, 3, 5, 16), torch.randn(2, 3, 7, 16)
    with flop_counter() as counter:
        nn.functional.scaled_dot_product_attention(query, key, key)
    assert counter.get_total_flops() == 2 * 2 * (2 * 3 * 5 * 7 * 16)


def test_the_floor_is_the_slower_of_sums_and_weights():
    machine = Machine(flops=100.0, bandwidth=10.0)
    assert machine.floor(200, 10) == 2.0
    assert machine.floor(200, 50) == 5.0


def test_a_machine_has_rates():
    machine = measure_machine("default", CPU, CLOCKS["cpu"])
    assert machine.flops > 0
    assert machine.bandwidth > 0


@pytest.mark.slow
def test_the_stages_add_up(tiny_model, monkeypatch):
    def mouths(frames, **_):
        return (
            Mouth(np.full((96, 96), i % 251, np.uint8), True, np.zeros(4, np.float32)) for i, _ in enumerate(frames)
        )

    monkeypatch.setattr("omni_avsr.transcribe.transcriber.mouth_stream", mouths)
    bench = Bench(tiny_model())
    request = Request("avsr", beam_size=2)
    report = bench.run([sample()], request)
    assert tuple(report.stages) == STAGES
    assert report.audio_seconds == pytest.approx(3.0, abs=0.1)
    assert report.passes == report.stages["prompts"].calls / 2 + report.stages["answers"].calls / 2 > 0
    assert report.tokens > 0
    counted = {name for name, cost in report.stages.items() if cost.flops}
    assert counted == {"audio encoder", "video encoder", "projector", "prompts", "answers"}
    rows = list(report.rows(Machine(1e12, 1e11)))
    assert sum(row["share"] for row in rows) == pytest.approx(1, abs=0.01)
    assert all(row["seconds"] >= 0 for row in rows)
    assert not bench.model.projector._forward_hooks  # nothing stays behind
    assert peak_memory(CPU) > 0


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
