"""What the model makes of a batch of utterances, which need not come from one input: features in, words out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from omni_avsr.model.batch import collate
from omni_avsr.model.decode import DecodeOptions, decode
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.transcribe.agreement import judged, witnesses
from omni_avsr.transcribe.words import Said, said_words, unsmoothed
from omni_avsr.types import Batch, Encoded, Features, Hypothesis


@dataclass(frozen=True)
class Utterance:
    """A window as the model takes it, and how it is to be recognised."""

    features: Features
    task: str
    rates: Mapping[str, int]  # modality -> trained rate, for the streams of `task`
    agreement: bool = False  # also read it by ear, by lips and by both at the coarsest rates, as far as it can be


@dataclass(frozen=True)
class Recognised:
    """What was said in one utterance, and what that cost."""

    hypothesis: Hypothesis
    words: tuple[Said, ...]
    tokens: Mapping[str, int]  # modality -> tokens that the LLM read


@torch.inference_mode()
def recognise(model: OmniAVSR, utterances: Sequence[Utterance], options: DecodeOptions) -> list[Recognised]:
    """One batch: encoders, search, and the second opinions on those that ask for them.

    Args:
        model: in eval mode.
        utterances: of any tasks, rates and lengths.
        options: of the search; one for all.

    Raises:
        NoAudioError, NoVideoError, ConfigError, RateError: as `model.decode.decode`.
    """
    batch = collate([u.features for u in utterances]).to(model.device)
    encoded = model.encode(batch)
    found = decode(model, batch, [u.task for u in utterances], [u.rates for u in utterances], options, encoded)
    others = _second_opinions(model, utterances, batch, encoded)
    out = []
    for row, (utterance, hypothesis) in enumerate(zip(utterances, found, strict=True)):
        sure = unsmoothed(hypothesis.token_logprobs, model.label_smoothing, model.llm.config.vocab_size)
        said = said_words(hypothesis.text, hypothesis.tokens, sure, model.tokenizer.decode)
        tokens = {m: int(batch.lengths(m)[row]) // rate for m, rate in utterance.rates.items()}
        out.append(Recognised(hypothesis, judged(said, others[row]), tokens))
    return out


def _second_opinions(
    model: OmniAVSR, utterances: Sequence[Utterance], batch: Batch, encoded: Mapping[str, Encoded]
) -> list[list[str]]:
    """For each utterance that asks for agreement, its text as the witnesses have it: one greedy search for all."""
    asked = [
        (row, task, rates)
        for row, u in enumerate(utterances)
        if u.agreement
        for task, rates in witnesses(model.config, _streams(u.features), u.task, u.rates)
    ]
    out: list[list[str]] = [[] for _ in utterances]
    if asked:
        rows = [row for row, _, _ in asked]
        shared = {m: Encoded(e.states[rows], e.lengths[rows]) for m, e in encoded.items()}
        copies = Batch(None, batch.audio_lengths[rows], None, batch.video_lengths[rows])
        heard = decode(model, copies, [t for _, t, _ in asked], [r for _, _, r in asked], DecodeOptions(1), shared)
        for row, hypothesis in zip(rows, heard, strict=True):
            out[row].append(hypothesis.text)
    return out


def _streams(features: Features) -> list[str]:
    there = {"audio": features.mel is not None, "video": features.video is not None}
    return [modality for modality, has in there.items() if has]
