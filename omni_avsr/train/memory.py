"""Memory for time: transformer layers whose insides are computed again when the gradient comes by."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from omni_avsr.model.lora import keep_route
from omni_avsr.model.omni import OmniAVSR


def checkpoint_layers(model: OmniAVSR) -> int:
    """From now on, in training, only the inputs of the transformer layers are kept for the backward pass.

    Dropout draws the same and the same adapters act when a layer is computed again, so nothing else changes.

    Returns:
        How many layers.
    """
    layers = transformer_layers(model)
    for layer in layers:
        layer.forward = _recomputed(layer, layer.forward)
    return len(layers)


def transformer_layers(model: nn.Module) -> list[nn.Module]:
    """The layers of all stacks of transformers' layers in `model`; other lists, such as convolutions, have none."""
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return [
        layer for stack in stacks for layer in stack if any(n.endswith("self_attn") for n, _ in layer.named_children())
    ]


def _recomputed(layer: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not layer.training:
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, context_fn=_contexts, **kwargs)

    return run


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the first computation, and the second."""
    return nullcontext(), keep_route()
