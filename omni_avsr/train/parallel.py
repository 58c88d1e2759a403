"""How many processes train one model: each with all of it (DDP), or each with its share of every weight (FSDP2).

DDP is Accelerate's. FSDP2 is PyTorch's `fully_shard`, which Accelerate offers on GPUs only: the LLM's layers are
gathered one at a time, all else (encoders, projectors, embeddings) at once. Checkpoints hold whole tensors either way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from omni_avsr.config import TrainConfig
from omni_avsr.errors import ConfigError, DataError
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.tasks import TASKS
from omni_avsr.train.memory import transformer_layers
from omni_avsr.types import Batch

if TYPE_CHECKING:
    from accelerate import Accelerator


def replicate(model: OmniAVSR, accelerator: Accelerator) -> nn.Module:
    """Every process has the whole model; what is called in training."""
    return cast(nn.Module, accelerator.prepare_model(model))


def shard(model: OmniAVSR, accelerator: Accelerator) -> nn.Module:
    """Every process keeps its share of each weight, of its gradient and of its moments; what is called in training."""
    for p in model.parameters():
        p.data = p.data.contiguous()  # kernels may lie with their channels last, which cannot be divided
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for layer in transformer_layers(model.llm):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return cast(nn.Module, accelerator.prepare_model(model, evaluation_mode=True))  # mixed precision only


PARALLEL: dict[str, Callable[[OmniAVSR, Accelerator], nn.Module]] = {"ddp": replicate, "fsdp2": shard}


def spread(model: OmniAVSR, knobs: TrainConfig, accelerator: Accelerator) -> nn.Module:
    """`model` over the processes by the row `train.parallel` of `PARALLEL`; one process has it all.

    Raises:
        ConfigError: fp16, whose scaler knows no shards.
    """
    if accelerator.num_processes == 1:
        return replicate(model, accelerator)
    if knobs.parallel == "fsdp2" and knobs.precision == "fp16":
        raise ConfigError("train.precision = 'fp16' does not go with train.parallel = 'fsdp2'; use 'bf16'")
    return PARALLEL[knobs.parallel](model, accelerator)


# ---- a step --------------------------------------------------------------------------------------


def check_same_passes(model: nn.Module, batch: Batch, weights: Mapping[str, float]) -> None:
    """Sharded layers are gathered by all processes together, so each must run the LLM for each task.

    Raises:
        DataError: no row of the batch has the streams of one of the tasks in `weights`.
    """
    if isinstance(model, FSDPModule):
        for task in (t for t, weight in weights.items() if weight):
            if not batch.taught(TASKS[task].modalities):
                raise DataError(
                    f"train.parallel = 'fsdp2': a batch has no row for the task '{task}', and every process must run "
                    f"every task; leave the task or such rows out, or use train.parallel = 'ddp'"
                )


def agree_on_gradients(model: nn.Module, loss: Tensor) -> Tensor:
    """`loss`, after whose backward pass a weight that any process used has a gradient on all of them, as under DDP.

    A process may have used no row of an expert, or have dropped a layer. FSDP2 adds up what each has, and would wait
    for ever for what one lacks.
    """
    if not isinstance(model, FSDPModule):
        return loss

    def agree() -> None:
        # the weights that are gathered at once; tasks are the same everywhere, so the LLM's layers need no word
        gathered = [p for p in model.parameters() if p.requires_grad and not isinstance(p, DTensor)]
        used = torch.tensor([p.grad is not None for p in gathered], dtype=torch.uint8, device=loss.device)
        dist.all_reduce(used, dist.ReduceOp.MAX)
        for p, by_any in zip(gathered, used.tolist(), strict=True):
            if by_any and p.grad is None:
                p.grad = torch.zeros_like(p)

    loss = loss.view_as(loss)  # the hook is run before any of FSDP's, and so is the callback
    loss.register_hook(lambda grad: torch.autograd.Variable._execution_engine.queue_callback(agree))
    return loss


# ---- whole tensors -------------------------------------------------------------------------------


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, gathered where it is divided; every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, target: Tensor) -> Tensor:
    """All of a tensor, divided as `target` is; every process has all of it."""
    if not isinstance(target, DTensor):
        return tensor.to(target.device)
    return distribute_tensor(tensor.to(target.device), target.device_mesh, target.placements, src_data_rank=None)


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Inside the block every process has the whole model, so each may run it as it likes."""
    shards = [m for m in model.modules() if isinstance(m, FSDPModule)]
    for module in shards:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in shards:
            module.reshard()
            module.set_reshard_after_forward(module is not model, recurse=False)


def collect(model: nn.Module, keep: bool) -> None:
    """Ends the division: every process gives its shares, and one that keeps them has a whole model on its CPU."""
    collected: dict[int, nn.Parameter] = {}  # by the shard: tied weights stay tied
    for module in model.modules():
        for name, p in list(module._parameters.items()):
            if isinstance(p, DTensor):
                if id(p) not in collected:
                    tensor = whole(p.detach())
                    collected[id(p)] = nn.Parameter(tensor.cpu(), p.requires_grad) if keep else p
                module._parameters[name] = collected[id(p)]
