"""Where a model comes from: recipe, data, commit, machine and versions, for `origin.json` beside the weights."""

from __future__ import annotations

from typing import Any

import torch

import omni_avsr
from omni_avsr.config import Recipe
from omni_avsr.evaluate.provenance import provenance


def describe(recipe: Recipe, manifests: dict[str, str], device: torch.device) -> dict[str, Any]:
    """All that is needed to train the same model again.

    Args:
        recipe: the whole recipe, bases and overrides resolved.
        manifests: path -> SHA-256 of the data's manifests.
        device: where it was trained.
    """
    return {
        "made_by": f"omni-avsr {omni_avsr.__version__}, train",
        "seed": recipe.train.seed,
        "recipe": recipe.model_dump(mode="json"),
        "manifests": manifests,
        **provenance(device),
    }
