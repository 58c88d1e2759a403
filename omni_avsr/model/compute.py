"""In which numbers a loaded model computes, and by which kernels. A row of COMPUTE is a value of --compute_type.

On a CPU the weights of linear layers are laid out once for oneDNN's kernels, which PyTorch brings along: 2 to 4 times
faster in float32 than its plain path on a processor without MKL's favour, 5 to 10 times in bfloat16 and int8 (numbers:
benchmarks/README.md). int8 rounds each position's activations by their own largest value, so that a row's result does
not depend on its neighbours; PyTorch's dynamic quantisation shares one scale among all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from omni_avsr.errors import ConfigError, nearest
from omni_avsr.model.lora import LoraLinear
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.model.paging import Mapped

ComputeTypeName = Literal["default", "float32", "bfloat16", "float16", "int8"]
SMALL = 1 << 15  # weights up to which a layer is left alone: routers, CTC heads
PAYS = 1 << 20  # weights from which int8 is faster than float32; below, rounding the activations costs what it gains

_onednn = torch.ops.onednn
_mkldnn = torch.ops.mkldnn


class PackedLinear(nn.Module):
    """A linear layer whose weight lies as oneDNN reads it; same numbers as before, rounding order aside."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.packed = _mkldnn._reorder_linear_weight(weight.detach(), None)
        self.bytes = weight.nbytes
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        return _mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


class Int8Linear(nn.Module):
    """A linear layer of int8 weights, one scale per output, and activations of 8 bits, one scale per position."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        weight = weight.detach().float()
        self.scales = weight.abs().amax(1).clamp(min=1e-12) / 127  # (out,)
        whole = (weight / self.scales[:, None]).round().to(torch.int8)
        self.packed = _onednn.qlinear_prepack(whole.contiguous(), None)
        self.bytes = whole.nbytes + self.scales.nbytes
        self.zeros = torch.zeros(len(weight), dtype=torch.int64)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out), in the type of x."""
        flat = x.reshape(-1, x.shape[-1])
        scale = flat.abs().amax(1, keepdim=True).clamp_(min=1e-12) / 127  # (positions, 1)
        whole = torch.add(128.5, flat / scale).to(torch.uint8)  # 128 is zero; the kernel is fast for unsigned only
        out = _onednn.qlinear_pointwise(
            whole, 1.0, 128, self.packed, self.scales, self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        out = out.mul_(scale) if self.bias is None else torch.addcmul(self.bias, out, scale)
        return out.to(x.dtype).unflatten(0, x.shape[:-1])


def int8_linear(weight: Tensor, bias: Tensor | None) -> nn.Module:
    """An `Int8Linear` where that pays, a `PackedLinear` elsewhere."""
    return (Int8Linear if weight.numel() >= PAYS else PackedLinear)(weight, bias)


@dataclass(frozen=True)
class ComputeType:
    """One way of computing.

    Attributes:
        name: as typed.
        dtype: of weights and activations outside `linear`.
        linear: what replaces linear layers on a CPU; None = nothing.
        devices: kinds of device on which it pays.
    """

    name: str
    dtype: torch.dtype
    linear: Callable[[Tensor, Tensor | None], nn.Module] | None
    devices: tuple[str, ...]


COMPUTE: dict[str, ComputeType] = {
    row.name: row
    for row in (
        ComputeType("default", torch.float32, PackedLinear, ("cpu", "cuda")),  # exact
        ComputeType("float32", torch.float32, PackedLinear, ("cpu", "cuda")),
        ComputeType("bfloat16", torch.bfloat16, PackedLinear, ("cpu", "cuda")),
        ComputeType("float16", torch.float16, None, ("cuda",)),
        ComputeType("int8", torch.float32, int8_linear, ("cpu",)),
    )
}


def device_named(name: str) -> torch.device:
    """The device; "auto" = a GPU where there is one.

    Raises:
        ConfigError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"device '{name}' cannot be used ({reason}); use auto, cpu, cuda or cuda:N") from None


def compute_type(name: str, device: torch.device) -> ComputeType:
    """The row of COMPUTE.

    Raises:
        ConfigError: no such row, or one that does not pay on `device`.
    """
    if name not in COMPUTE:
        raise ConfigError(f"compute_type = '{name}' is unknown; {nearest(name, COMPUTE)}")
    row = COMPUTE[name]
    if device.type not in row.devices or (row.linear is int8_linear and not torch.backends.mkldnn.is_available()):
        able = [r.name for r in COMPUTE.values() if device.type in r.devices and r is not row]
        raise ConfigError(f"compute_type = '{name}' is slow or impossible on '{device}'; use {', '.join(able)}")
    return row


def without_window(model: OmniAVSR) -> OmniAVSR:
    """Lets the audio encoder hear the real length only, in place: fast mode. Nothing changes where it does already.

    A pretrained Whisper has learned with silence up to 30 s; without it the states differ a little (LOG.md,
    2026-11-25), and a clip of 4 s costs an eighth.
    """
    preprocess = model.config.preprocess.model_copy(update={"audio_window": 0.0})
    model.config = model.config.model_copy(update={"preprocess": preprocess})
    if "audio" in model.config.modalities:
        setattr(model.encoder("audio"), "window", 0)  # noqa: B010, an encoder need not have a window
    return model


@torch.no_grad()
def prepare(model: OmniAVSR, compute: ComputeType) -> OmniAVSR:
    """Lays `model` out for inference, in place, and gives it back; it can no longer be trained, merged or saved.

    Args:
        model: in eval mode, on a CPU. Layers that are replaced have their weights in any type, all others keep theirs.
        compute: a row that pays on the model's device.
    """
    if compute.linear is None or model.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return model
    mapped, modules = Mapped(), list(model.named_modules())
    users = Counter(p.data_ptr() for _, module in modules for p in module.parameters(recurse=False))
    for path, module in modules:
        if type(module) not in (nn.Linear, LoraLinear) or module.weight.numel() <= SMALL:
            continue
        assert isinstance(module, nn.Linear)
        weight, bias = module.weight, module.bias
        fast = compute.linear(weight.to(compute.dtype), None if bias is None else bias.to(compute.dtype))
        mapped.release(weight, kept=users[weight.data_ptr()] > 1)  # embeddings that are tied to the last layer
        if isinstance(module, LoraLinear):
            module.replace(fast)
        else:
            model.set_submodule(path, fast)
    return model
