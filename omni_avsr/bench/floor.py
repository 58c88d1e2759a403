"""What a stage costs at least: multiply-adds over the measured matrix rate, weights over the measured bandwidth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from omni_avsr.model.compute import COMPUTE, Int8Linear, PackedLinear

WIDTH, POSITIONS = 4096, 512  # of the product whose rate is the machine's
REPEATS = 3


@dataclass(frozen=True)
class Machine:
    """What this machine does at most in one type of numbers, with the threads that PyTorch has."""

    flops: float  # per second; a multiply-add is two
    bandwidth: float  # bytes of weights per second

    def floor(self, flops: float, weights: float) -> float:
        """Seconds that `flops` operations on `weights` bytes take at least."""
        return max(flops / self.flops, weights / self.bandwidth)


@torch.inference_mode()
def measure_machine(compute_type: str, device: torch.device, now: Callable[[], float]) -> Machine:
    """Runs a large product for the rate, and one of a single position, which is bound by reading weights.

    Args:
        compute_type: a row of `model.compute.COMPUTE`.
        device: where.
        now: the clock, in seconds.
    """
    row = COMPUTE[compute_type]
    plain = nn.Linear(WIDTH, WIDTH, bias=False, device=device, dtype=row.dtype)
    layer: nn.Module = row.linear(plain.weight, None) if row.linear and device.type == "cpu" else plain
    weights = weight_bytes(layer)
    x = torch.randn(POSITIONS, WIDTH, device=device, dtype=row.dtype)
    rate = 2 * WIDTH * WIDTH * POSITIONS / _best(lambda: layer(x), device, now)
    return Machine(rate, weights / _best(lambda: layer(x[:1]), device, now))


def _best(run: Callable[[], Any], device: torch.device, now: Callable[[], float]) -> float:
    times = []
    for _ in range(REPEATS + 1):
        begun = now()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(now() - begun)
    return min(times[1:])


def weight_bytes(module: nn.Module) -> float:
    """Bytes of weights that one call of `module` reads, tied ones once."""
    packed = sum(m.bytes for m in module.modules() if isinstance(m, (PackedLinear, Int8Linear)))
    return float(packed + sum(p.nbytes for p in module.parameters()))


def _linear_flops(x: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * int(torch.Size(x).numel()) * int(out_shape[-1])


def _attention_flops(query: Any, key: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    rows, heads, queries, width = query
    return 4 * rows * heads * queries * key[2] * width


def flop_counter() -> FlopCounterMode:
    """PyTorch's counter, which also knows the kernels that inference runs on."""
    mapping: dict[Any, Any] = {
        torch.ops.mkldnn._linear_pointwise: _linear_flops,
        torch.ops.onednn.qlinear_pointwise: _linear_flops,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    }
    return FlopCounterMode(display=False, custom_mapping=mapping)
