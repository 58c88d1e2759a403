"""The tasks one model performs: what each perceives, what it is asked, how much it weighs in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Modality = Literal["audio", "video"]


@dataclass(frozen=True)
class Task:
    """One way of recognising speech (Omni-AVSR, section 3).

    Attributes:
        name: as typed on the command line and stored in results.
        modalities: the streams it perceives, in the order in which they enter the LLM.
        prompt: the instruction that follows the modality tokens.
        loss_weight: lambda of the multi-task loss; the default of `train.task_weights`.
    """

    name: str
    modalities: tuple[Modality, ...]
    prompt: str
    loss_weight: float


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("asr", ("audio",), "Transcribe speech to text.", 1.0),
        Task("vsr", ("video",), "Transcribe video to text.", 1.5),
        Task("avsr", ("audio", "video"), "Transcribe speech and video to text.", 1.0),
    )
}
