"""Layers computed twice: the same losses and gradients to the last bit, and less that waits for the backward pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from omni_avsr.model.omni import OmniAVSR
from omni_avsr.train.memory import checkpoint_layers
from omni_avsr.types import Batch


def run(model: OmniAVSR, batch: Batch) -> tuple[float, dict[str, torch.Tensor], int]:
    """Loss, gradients, and bytes kept for the backward pass beside the weights."""
    model.zero_grad()
    torch.manual_seed(3)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        losses = model(batch, {"audio": 4, "video": 2})
    losses.total.backward()
    return (
        losses.total.item(),
        {n: p.grad for n, p in model.named_parameters() if p.grad is not None},
        sum(kept.values()),
    )


@pytest.mark.parametrize("strategy", ["S", "ST"])
def test_the_same_step_with_less_memory(strategy: str, tiny_model: Callable[..., OmniAVSR], batch: Batch) -> None:
    model = tiny_model(lora={"strategy": strategy}, video_encoder={"dropout": 0.2, "layers": 2}).train()
    model.set_trainable(["llm_lora", "llm", "projectors", "video_lora", "audio_encoder"])
    loss, gradients, kept = run(model, batch)
    assert checkpoint_layers(model) == 3 + 2 + 1  # LLM, lips, ears
    again, same, less = run(model, batch)
    assert again == loss
    assert gradients.keys() == same.keys()
    assert any(".lora_A." in name for name in same)
    for name, gradient in gradients.items():
        assert torch.equal(gradient, same[name]), name
    assert less < 0.75 * kept
