"""Which compression rates a step trains (Omni-AVSR, section 3.1; Llama-MTSK)."""

from __future__ import annotations

import itertools
import random

from omni_avsr.config import ModelConfig, TrainConfig

Rates = dict[str, int]  # modality -> compression rate


def all_rates(config: ModelConfig) -> list[Rates]:
    """Every combination of one trained rate per modality, the finest first."""
    ordered = [sorted(config.rates(m)) for m in config.modalities]
    return [dict(zip(config.modalities, rates, strict=True)) for rates in itertools.product(*ordered)]


def step_rates(config: ModelConfig, train: TrainConfig, step: int) -> list[Rates]:
    """The combinations of rates that optimiser step `step` trains.

    `sample` draws one rate per modality (Omni-AVSR); the draw is a function of seed and step alone, so every
    process and every resumed run draws the same. `all` gives every combination (Llama-MTSK).
    """
    if train.rates == "all":
        return all_rates(config)
    draw = random.Random(f"rates {train.seed} {step}")
    return [{m: draw.choice(config.rates(m)) for m in config.modalities}]


def may_skip_parameters(config: ModelConfig, train: TrainConfig) -> bool:
    """Whether a step can leave a trained parameter without gradient, which DDP must be told.

    A rate that was not drawn leaves its projector alone, layer drop a layer's LoRA, a sparse mixture the experts
    that no token visits, a batch in which no row has a task's streams that task's adapter, and a CTC epoch the LLM.
    """
    sampled = train.rates == "sample" and len(all_rates(config)) > 1
    dropped = "video" in config.modalities and config.video_encoder.layer_drop > 0
    return (
        sampled or dropped or train.ctc_epochs > 0 or config.projector.kind.startswith("smop") or len(config.tasks) > 1
    )
