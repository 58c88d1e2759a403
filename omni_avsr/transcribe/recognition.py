"""What the model makes of a batch of utterances, which need not come from one input: features in, words out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from omni_avsr.model.batch import collate
from omni_avsr.model.decode import DecodeOptions, decode
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.transcribe.words import word_times
from omni_avsr.types import Features, Hypothesis, Word


@dataclass(frozen=True)
class Utterance:
    """A window as the model takes it, and how it is to be recognised."""

    features: Features
    task: str
    rates: Mapping[str, int]  # modality -> trained rate, for the streams of `task`
    start: float  # seconds of the file
    word_timestamps: bool = False


@dataclass(frozen=True)
class Recognised:
    """What was said in one utterance, and what that cost."""

    hypothesis: Hypothesis
    text: str  # single spaces
    words: tuple[Word, ...] | None  # None where no times were asked for, or none were found
    tokens: Mapping[str, int]  # modality -> tokens that the LLM read


@torch.inference_mode()
def recognise(model: OmniAVSR, utterances: Sequence[Utterance], options: DecodeOptions) -> list[Recognised]:
    """One batch: encoders, search, and the times of the words of those that ask for them.

    Args:
        model: in eval mode.
        utterances: of any tasks, rates and lengths.
        options: of the search; one for all.

    Raises:
        NoAudioError, NoVideoError, ConfigError, RateError: as `model.decode.decode`.
    """
    batch = collate([u.features for u in utterances]).to(model.device)
    tasks = [u.task for u in utterances]
    encoded = model.encode(batch)
    found = decode(model, batch, tasks, [u.rates for u in utterances], options, encoded)
    texts = [" ".join(hypothesis.text.split()) for hypothesis in found]
    words: list[tuple[Word, ...] | None] = [None] * len(utterances)
    if any(u.word_timestamps for u in utterances):
        words = word_times(model, encoded, texts, tasks, [u.start for u in utterances])
    return [
        Recognised(
            hypothesis=found[row],
            text=texts[row],
            words=words[row] if utterance.word_timestamps else None,
            tokens={m: int(batch.lengths(m)[row]) // rate for m, rate in utterance.rates.items()},
        )
        for row, utterance in enumerate(utterances)
    ]
