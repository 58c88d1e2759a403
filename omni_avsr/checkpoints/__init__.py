"""Model folders and the one door through which foreign weights enter."""

from __future__ import annotations

from omni_avsr.checkpoints.info import model_info
from omni_avsr.checkpoints.native import build, load_model, read_config, save_model
from omni_avsr.checkpoints.weights import digest

__all__ = ["build", "digest", "load_model", "model_info", "read_config", "save_model"]
