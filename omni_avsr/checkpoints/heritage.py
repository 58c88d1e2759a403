"""What stays true of weights whatever is trained on top of them: the official file they came from, their licences.
And with which label smoothing they were trained last, without which their probabilities cannot be read.

A model carries it from loading to saving (`OmniAVSR.heritage`), so that no `origin` has to repeat it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from omni_avsr.config import ModelConfig

LICENCES: dict[str, str] = {
    "video": "AV-HuBERT's weights are for non-commercial research only (its own licence, Meta).",
    "llama": "Llama's weights come under Meta's community licence.",
}
"""Modality that AV-HuBERT sees, or family of the LLM -> the sentence that goes with its weights."""

_OFFICIAL, _LICENCES, _SMOOTHING = "official", "licences", "label_smoothing"  # fields of origin.json


def licences(parts: Iterable[str]) -> list[str]:
    """The sentences of the rows of LICENCES among `parts`."""
    present = set(parts)
    return [sentence for part, sentence in LICENCES.items() if part in present]


def of_sources(config: ModelConfig) -> dict[str, Any]:
    """The heritage of pretrained parts that are read from their own files."""
    seen = ("video",) if "video" in config.modalities and config.video_encoder.source else ()
    read = (config.llm.family,) if config.llm.source else ()
    return joined({}, {_LICENCES: licences((*seen, *read))})


def joined(heritage: Mapping[str, Any], origin: Mapping[str, Any]) -> dict[str, Any]:
    """What is inherited from both: the official file of `origin` where it names one, every licence once, and the label
    smoothing of the later training."""
    known = dict.fromkeys((*heritage.get(_LICENCES, ()), *origin.get(_LICENCES, ())))
    official = origin.get(_OFFICIAL) or heritage.get(_OFFICIAL)
    told = {_OFFICIAL: official, _LICENCES: list(known), _SMOOTHING: _smoothing(heritage, origin)}
    return {name: value for name, value in told.items() if value}


def _smoothing(heritage: Mapping[str, Any], origin: Mapping[str, Any]) -> float:
    """That of the recipe in `origin`, if it was trained by one; else what is known from before."""
    recipe = origin.get("recipe")
    trained = recipe.get("train", {}) if isinstance(recipe, Mapping) else {}
    return float(trained.get(_SMOOTHING, origin.get(_SMOOTHING, heritage.get(_SMOOTHING, 0.0))))
