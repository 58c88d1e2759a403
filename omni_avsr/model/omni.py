"""Omni-AVSR: one language model that hears, reads lips, or does both, at the token budget you choose.

    sound  ─ audio encoder ─ compress by audio_rate ─┐
                                                     ├─ projector ─┐
    mouths ─ video encoder ─ compress by video_rate ─┘             ▼
    per task:   [bos] <audio> A </audio> <video> V </video> prompt | text eos
                └──────────────── LLM + Omni-LoRA of the task ──────────────┘

A task (ASR, VSR, AVSR) is which streams enter, which prompt follows, and which adapters act. One training step runs
the encoders once and the LLM once per task (arXiv 2511.07253). Rates are arguments, never state.

Letters: B rows, N tokens of a modality, D encoder width, H LLM width, L positions in the LLM.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from omni_avsr.config import ModelConfig, Part
from omni_avsr.errors import ConfigError, InputError, RateError, nearest
from omni_avsr.model.compress import COMPRESSORS
from omni_avsr.model.ctc import CtcHeads
from omni_avsr.model.encoder import Encoder
from omni_avsr.model.encoders import build_encoder
from omni_avsr.model.llm import LLM_FAMILIES, Tokenizer, build_llm, build_tokenizer, round_rotary
from omni_avsr.model.lora import SHARED, attach
from omni_avsr.model.packing import Piece, pack
from omni_avsr.model.projectors import build_projector
from omni_avsr.tasks import TASKS
from omni_avsr.types import Batch, Encoded, Losses, Projected

IGNORE = -100  # a position without a label

Rates = Mapping[str, int]  # modality -> compression rate


def _is_lora(name: str) -> bool:
    return ".lora_" in name


PARTS: dict[Part, Callable[[str], bool]] = {
    "projectors": lambda name: name.startswith("projector."),
    "llm_lora": lambda name: name.startswith("llm.") and _is_lora(name),
    "video_lora": lambda name: name.startswith("video_encoder.") and _is_lora(name),
    "llm": lambda name: name.startswith("llm.") and not _is_lora(name),
    "audio_encoder": lambda name: name.startswith("audio_encoder."),
    "video_encoder": lambda name: name.startswith("video_encoder.") and not _is_lora(name),
    "ctc": lambda name: name.startswith("ctc."),
    "task_lora": lambda name: name.startswith("llm.") and _is_lora(name) and not name.endswith(f".{SHARED}"),
}
"""Part of the model -> which parameters, by name, belong to it. Every parameter belongs to exactly one part, but for
`task_lora`, which is what of `llm_lora` is not shared by the tasks."""


@dataclass(frozen=True)
class Sequences:
    """What the LLM reads and what it must say, right-padded."""

    inputs: Tensor  # (B, L, H) embeddings
    labels: Tensor  # (B, L) int64: the token that follows each position; IGNORE outside text and eos
    prefixes: Tensor  # (B,) int64: positions before the text


@dataclass(frozen=True)
class Pass:
    """What the LLM learns from: one task at one choice of rates."""

    task: str
    tokens: Mapping[str, Encoded]
    rows: Sequence[int]


class OmniAVSR(nn.Module):
    """Speech recognition by ear, by lips, or by both, with one language model.

    Parameter names are a contract: audio_encoder.* video_encoder.* projector.* llm.* ctc.*

    Args:
        config: the model.
        tokenizer: the LLM's words.
        ctc_alphabet: the characters that the CTC heads spell, where they spell 'char' units.
    """

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer, ctc_alphabet: str = "") -> None:
        super().__init__()
        self.config, self.tokenizer, self.ctc_alphabet = config, tokenizer, ctc_alphabet
        self.references: dict[str, str] = {}  # part -> digest of what its source gave; kept by checkpoints
        self.heritage: dict[str, Any] = {}  # official file, licences, label smoothing; kept by checkpoints
        self.llm = build_llm(config.llm, tokenizer)
        if config.compat.bf16_rotary:
            round_rotary(self.llm)
        self.adapters = attach(self.llm, config.lora, config.tasks, LLM_FAMILIES[config.llm.family].lora_targets)
        for modality in config.modalities:
            self.add_module(f"{modality}_encoder", build_encoder(modality, config))
        dims: dict[str, int] = {modality: self.encoder(modality).dim for modality in config.modalities}
        self.projector = build_projector(config, dims, self.llm.config.hidden_size)
        self.ctc = CtcHeads(config.ctc, dims, tokenizer, ctc_alphabet)

    def encoder(self, modality: str) -> Encoder:
        """The encoder of `modality`."""
        return cast(Encoder, self.get_submodule(f"{modality}_encoder"))

    @property
    def label_smoothing(self) -> float:
        """Of the training that made the LLM's weights; 0 where none is known of."""
        return float(self.heritage.get("label_smoothing", 0.0))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.parameters()).device

    # ---- perceive ----------------------------------------------------------------------------

    def encode(
        self, batch: Batch, modalities: Sequence[str] = ("audio", "video"), learning: bool = False
    ) -> dict[str, Encoded]:
        """Runs the encoders, once, whatever tasks and rates follow.

        Args:
            batch: B rows.
            modalities: the streams that are needed.
            learning: obey the compat quirks of official batches. Official decoding knows no batches, so there a row
                must not depend on its neighbours.

        Returns:
            Modality -> states (B, N, D) at 50 (audio) or 25 (video) frames/s, for the `modalities` that both the
            model and the batch have.
        """
        if self.config.compat.trim_to_rate and batch.video is not None:
            batch = trimmed(batch, max(self.config.video_rates))
        encoded: dict[str, Encoded] = {}
        for modality, states in batch.states.items():
            if modality in modalities:
                encoded[modality] = Encoded(states, batch.lengths(modality))
        for modality, x in (("audio", batch.mel), ("video", batch.video)):
            if x is not None and modality in modalities and modality in self.config.modalities:
                encoder = self.encoder(modality)
                encoded[modality] = encoder(
                    x.to(next(encoder.parameters()).dtype), self._lengths(batch, modality, learning)
                )
        return encoded

    def project(self, encoded: Mapping[str, Encoded], rates: Rates) -> Projected:
        """Compresses by `rates`, then projects into the LLM's width: (B, N, D) -> (B, N // rate, H).

        Raises:
            RateError: a rate the model was not trained for.
        """
        compress = COMPRESSORS[self.config.compression]
        checked = {m: self._checked(m, rates.get(m)) for m in encoded}
        return self.projector({m: compress(encoded[m], rate) for m, rate in checked.items()}, checked)

    # ---- read --------------------------------------------------------------------------------

    def prefixes(self, task: str, tokens: Mapping[str, Encoded], rows: Sequence[int]) -> list[Tensor]:
        """What the LLM reads before it answers: per row (L, H), [bos] <tag> tokens </tag> ... prompt.

        Only valid tokens enter, so a row never depends on its neighbours.
        """
        streams = {m: (tokens[m].states, tokens[m].lengths.tolist()) for m in TASKS[task].modalities}
        opening = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        prompt = self._embed(self.tokenizer.encode(self.config.prompt(task)))
        tags = {m: [self._embed([tag]) for tag in self.tokenizer.tags[m]] for m in streams}
        out = []
        for row in rows:
            pieces = [self._embed(opening)]
            for modality, (states, lengths) in streams.items():
                start, end = tags[modality]
                pieces += [start, states[row, : lengths[row]], end]
            out.append(torch.cat([*pieces, prompt]))
        return out

    def sequences(self, prefixes: Sequence[Tensor], answers: Sequence[list[int]]) -> Sequences:
        """Appends the answers. Labels cover exactly the answers, each at the position that predicts it.

        The last answer token is only predicted, so it is not read.
        """
        device = prefixes[0].device
        inputs = [torch.cat([p, self._embed(a[:-1])]) for p, a in zip(prefixes, answers, strict=True)]
        labels = [torch.tensor([IGNORE] * (len(p) - 1) + a) for p, a in zip(prefixes, answers, strict=True)]
        return Sequences(
            inputs=pad_sequence(inputs, batch_first=True),
            labels=pad_sequence(labels, batch_first=True, padding_value=IGNORE).to(device),
            prefixes=torch.tensor([len(p) for p in prefixes], device=device),
        )

    # ---- learn -------------------------------------------------------------------------------

    def forward(
        self,
        batch: Batch,
        rates: Rates | Sequence[Rates],
        task_weights: Mapping[str, float] | None = None,
        sink_weight: float = 0.0,
        label_smoothing: float = 0.0,
        packed: bool = False,
    ) -> Losses:
        """The loss of one step: sum over tasks of lambda * cross entropy / number of tasks, + auxiliary losses.

        A row takes part in the tasks whose streams it has. All tasks are inside one forward, as DDP needs it; each is
        an LLM pass of its own, because one pass over all rows pads ASR and VSR to AVSR's length (1.3 to 1.5 times
        slower on a CPU).

        Args:
            batch: rows with texts.
            rates: modality -> rate, drawn anew for each step (Omni-AVSR); or several of these, whose losses are
                averaged (Llama-MTSK).
            task_weights: task -> lambda; a task not named uses that of tasks.TASKS, and one of weight 0 costs no pass.
            sink_weight: factor of the decorrelation loss (arXiv 2510.22603).
            label_smoothing: of the cross entropy.
            packed: run the LLM once for all tasks, without padding to speak of; not with the decorrelation loss.

        Raises:
            InputError: no texts, or no row has the streams of any task.
            RateError: a rate the model was not trained for.
        """
        if not batch.texts:
            raise InputError("the batch has no texts to learn from; collate it with its transcripts")
        settings = [rates] if isinstance(rates, Mapping) else list(rates)
        weights = {t: TASKS[t].loss_weight for t in self.config.tasks} | dict(task_weights or {})
        tasks = [task for task in self.config.tasks if weights[task]]
        encoded = self.encode(batch, learning=True)  # once, for all tasks and rates
        projections = [self.project(encoded, setting) for setting in settings if tasks]
        answers = self._answers(batch.texts)

        passes = [
            Pass(task, tokens, rows)
            for task in tasks
            if (rows := batch.taught(TASKS[task].modalities))
            for tokens in _distinct(TASKS[task].modalities, settings, projections)
        ]
        if tasks and not passes:
            raise InputError(f"no row of the batch has the streams of any of {', '.join(tasks)}")
        if packed and passes and not sink_weight:
            pairs: list[tuple[Tensor, Tensor | None]] = self._learn_packed(passes, answers, label_smoothing)
        else:
            pairs = [self._learn(p.task, p.tokens, p.rows, answers, sink_weight, label_smoothing) for p in passes]
        losses: dict[str, Tensor] = {}
        sinks: list[Tensor] = []
        for task in dict.fromkeys(p.task for p in passes):
            own = [pair for p, pair in zip(passes, pairs, strict=True) if p.task == task]
            losses[task] = torch.stack([loss for loss, _ in own]).mean()
            sinks += [sink / len(own) for _, sink in own if sink is not None]

        names = projections[0].losses if projections else ()
        auxiliary = {n: torch.stack([p.losses[n] for p in projections]).mean() for n in names}
        ctc = self.ctc.loss({m: encoded[m].only(batch.taught([m])) for m in encoded}, batch.texts)
        if ctc is not None:
            auxiliary["ctc"] = ctc
        if sinks:
            auxiliary["sink"] = sink_weight * torch.stack(sinks).sum() / len(self.config.tasks)
        total = sum((weights[t] * loss for t, loss in losses.items()), torch.zeros(())) / len(self.config.tasks)
        return Losses(sum(auxiliary.values(), total), losses, auxiliary)

    def _learn(
        self,
        task: str,
        tokens: Mapping[str, Encoded],
        rows: Sequence[int],
        answers: Sequence[list[int]],
        sink_weight: float,
        label_smoothing: float,
    ) -> tuple[Tensor, Tensor | None]:
        """One LLM pass: the token-mean cross entropy of `task`, and its decorrelation loss where asked for."""
        read = self.sequences(self.prefixes(task, tokens, rows), [answers[row] for row in rows])
        with self.adapters.use(task):
            # no mask: padding is on the right, and attention is causal
            out = self.llm.base_model(
                inputs_embeds=read.inputs, use_cache=False, output_hidden_states=sink_weight > 0
            )  # (B, L, H)
        labelled = read.labels != IGNORE
        logits = self.llm.get_output_embeddings()(out.last_hidden_state[labelled])  # (B, L, H) -> (labels, V)
        loss = F.cross_entropy(logits.float(), read.labels[labelled], label_smoothing=label_smoothing)
        return loss, sink_loss(out.hidden_states[1:-1], read.prefixes) if sink_weight > 0 else None

    def _learn_packed(
        self, passes: Sequence[Pass], answers: Sequence[list[int]], label_smoothing: float
    ) -> list[tuple[Tensor, Tensor | None]]:
        """All passes as one: their sequences laid end to end in rows. The losses are those of `_learn`."""
        pieces, owners = [], []
        for number, p in enumerate(passes):
            group = p.task if self.adapters.strategy.per_task else passes[0].task
            for prefix, row in zip(self.prefixes(p.task, p.tokens, p.rows), p.rows, strict=True):
                read = self.sequences([prefix], [answers[row]])
                pieces.append(Piece(group, read.inputs[0], read.labels[0]))
                owners.append(number)
        packed = pack(pieces, IGNORE)
        with self.adapters.use(packed.groups):
            out = self.llm.base_model(
                inputs_embeds=packed.inputs,
                attention_mask=packed.mask,
                position_ids=packed.positions,
                use_cache=False,
            )  # (R, L, H)
        labelled = packed.labels != IGNORE
        logits = self.llm.get_output_embeddings()(out.last_hidden_state[labelled])  # (R, L, H) -> (labels, V)
        each = F.cross_entropy(
            logits.float(), packed.labels[labelled], label_smoothing=label_smoothing, reduction="none"
        )
        owner = torch.tensor(owners, device=self.device)[packed.owner[labelled]]
        return [(each[owner == number].mean(), None) for number in range(len(passes))]

    def _answers(self, texts: Sequence[str]) -> list[list[int]]:
        answers = [[*self.tokenizer.encode(text), self.tokenizer.eos_id] for text in texts]
        if self.config.compat.train_on_padding:
            longest = max(map(len, answers))
            answers = [a + [self.tokenizer.pad_id] * (longest - len(a)) for a in answers]
        return answers

    # ---- rates, parts, modes -----------------------------------------------------------------

    def check_rates(self, task: str, audio_rate: int | None = None, video_rate: int | None = None) -> dict[str, int]:
        """The rates of the streams that `task` perceives; None = the finest that was trained.

        Raises:
            ConfigError: a task the model does not perform.
            RateError: a rate the model was not trained for; the message lists the trained ones.
        """
        if task not in self.config.tasks:
            raise ConfigError(f"this model does not perform '{task}'; {nearest(task, self.config.tasks)}")
        wanted = {"audio": audio_rate, "video": video_rate}
        finest = {m: min(self.config.rates(m)) for m in TASKS[task].modalities}
        return {m: self._checked(m, rate if wanted[m] is None else wanted[m]) for m, rate in finest.items()}

    def _checked(self, modality: str, rate: int | None) -> int:
        trained = self.config.rates(modality)
        if rate not in trained:
            raise RateError(f"{modality}_rate = {rate}: this model was trained for {', '.join(map(str, trained))}")
        return rate

    def set_trainable(self, parts: Sequence[Part]) -> None:
        """Trains the parameters of `parts` (keys of PARTS) and freezes all others; frozen modules stay in eval mode.

        Raises:
            ConfigError: an unknown part, or none of the parts has parameters in this model.
        """
        for part in parts:
            if part not in PARTS:
                raise ConfigError(f"train.parts: unknown part '{part}'; {nearest(part, PARTS)}")
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(any(PARTS[part](name) for part in parts))
        if not any(p.requires_grad for p in self.parameters()):
            raise ConfigError(f"train.parts = {list(parts)}: this model has none of them; nothing would be trained")
        self.train(self.training)

    def train(self, mode: bool = True) -> OmniAVSR:
        """As usual, but a frozen module stays in eval mode: its dropout is off, its BatchNorm statistics rest."""
        super().train(mode)
        for module in self.modules():
            parameters = list(module.parameters())
            if module is not self and parameters and not any(p.requires_grad for p in parameters):
                module.train(False)
        return self

    def _embed(self, ids: Sequence[int]) -> Tensor:
        """(L,) ids -> (L, H)."""
        return self.llm.get_input_embeddings()(torch.tensor(ids, dtype=torch.long, device=self.device))

    def _lengths(self, batch: Batch, modality: str, learning: bool) -> Tensor:
        compat, lengths = self.config.compat, batch.lengths(modality)
        as_longest = {"audio": compat.trim_to_longest, "video": compat.unmasked_padding}[modality]
        return lengths.max().expand_as(lengths) if learning and as_longest else lengths


def _distinct(
    modalities: Sequence[str], settings: Sequence[Rates], projections: Sequence[Projected]
) -> list[dict[str, Encoded]]:
    """Settings that differ only in a stream that is not in `modalities` are one pass."""
    return list(
        {tuple(s[m] for m in modalities): p.tokens for s, p in zip(settings, projections, strict=True)}.values()
    )


def trimmed(batch: Batch, rate: int) -> Batch:
    """`batch` without the video frames beyond the last whole group of `rate`; zeros take their place."""
    assert batch.video is not None
    lengths = batch.video_lengths - batch.video_lengths % rate
    kept = Encoded(batch.video, lengths).mask
    return replace(batch, video=batch.video * kept[:, :, None, None], video_lengths=lengths)


def sink_loss(layers: Sequence[Tensor], prefixes: Tensor) -> Tensor:
    """Decorrelates what the LLM reads from its first token, the attention sink (arXiv 2510.22603).

    Args:
        layers: hidden states (B, L, H) after each layer but the last.
        prefixes: (B,) positions before the text.

    Returns:
        Mean over layers, rows and positions 1 .. prefix - 1 of the squared cosine with position 0.
    """
    position = torch.arange(layers[0].shape[1], device=prefixes.device)
    read = (position > 0) & (position < prefixes[:, None])  # (B, L)
    cosines = [F.cosine_similarity(h[:, :1].float(), h.float(), dim=-1)[read] for h in layers]
    return torch.stack(cosines).square().mean()


def build_model(config: ModelConfig, texts: Sequence[str] = ()) -> OmniAVSR:
    """A model as `config` says: pretrained where it names a source, random elsewhere.

    Args:
        config: the model.
        texts: transcripts, from which a tokenizer and a CTC alphabet are made where `config` names none.
    """
    # the LLM reads a prompt as often as a text, so the prompts count as much in a trained vocabulary
    prompts = [config.prompt(task) for task in config.tasks]
    tokenizer = build_tokenizer(config.llm, [*texts, *prompts * max(1, len(texts))])
    alphabet = "".join(sorted(set("".join(texts)))) if "char" in map(config.ctc.units_of, config.modalities) else ""
    return OmniAVSR(config, tokenizer, alphabet)
