"""Whose run a folder holds: `recipe.json` is written when it begins and compared when it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omni_avsr.config import Recipe
from omni_avsr.errors import ConfigError
from omni_avsr.train import state

FREE_KNOBS = ("description", "data.workers", "train.keep", "train.log_every", "train.checkpointing")
"""What may differ between a run and its resumption; everything else would make it another run."""


def claim(folder: Path, recipe: Recipe, resume: bool) -> None:
    """Makes the run's folder, or checks that the run in it is this one.

    Raises:
        ConfigError: there is a run and `resume` is not asked for, or it is a run of another recipe.
    """
    path = folder / "recipe.json"
    if not state.checkpoints(folder):  # nothing that could be lost
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / ".recipe.json.partial"
        partial.write_text(json.dumps(recipe.model_dump(mode="json"), indent=1), "utf-8")
        partial.replace(path)
        return
    if not resume:
        raise ConfigError(f"'{folder}' holds a run already; give --resume to go on with it, or another folder")
    stored = json.loads(path.read_text("utf-8"))
    other = _differences(stored, recipe.model_dump(mode="json"), Recipe(name="").model_dump(mode="json"))
    if other := [name for name in other if name not in FREE_KNOBS]:
        raise ConfigError(f"'{folder}' is a run of another recipe: {', '.join(other)} differ; undo that to resume")


def _differences(stored: Any, now: Any, default: Any, name: str = "") -> list[str]:
    """Dotted names of the knobs whose value is not the stored one.

    A knob younger than the run had its default; one that is gone since is passed over.
    """
    if not isinstance(default, dict) or not default:  # a value, or free keys such as `dims`
        return [] if stored == now else [name]
    parts = [_differences(stored.get(k, default[k]), now[k], default[k], f"{name}.{k}".strip(".")) for k in default]
    return [difference for part in parts for difference in part]
