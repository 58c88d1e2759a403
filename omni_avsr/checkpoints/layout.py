"""What the keys and shapes of an official checkpoint say about the model in it.

Shapes do not show everything: average pooling leaves no trace of its rates, nor does LoRA of its scaling. What is
invisible comes from `Flags`, from the training arguments inside a Lightning checkpoint, or is what all published
files of the system have; in the last case `Layout.assumed` names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from omni_avsr.checkpoints.systems import (
    Compression,
    Flags,
    Layout,
    Lora,
    Pool,
    Projectors,
    Strategy,
    System,
    typed,
)
from omni_avsr.errors import CheckpointError
from omni_avsr.tasks import TASKS, Modality

Shapes = Mapping[str, tuple[int, ...]]


def infer(state: Mapping[str, Tensor], system: System, flags: Flags, where: str) -> Layout:
    """The layout of a checkpoint.

    Args:
        state: official key -> tensor.
        system: whose it is.
        flags: what the training command said.
        where: what the file is called in an error.

    Raises:
        CheckpointError: a key is missing, the file is of another system, or a flag contradicts the shapes.
    """
    reader = _Reader({key: tuple(value.shape) for key, value in state.items()}, system, flags, where)
    reader.check_system()
    tasks = tuple(t for t in TASKS if system.unified or TASKS[t].modalities == reader.modalities)
    projectors = reader.mixture() if system.mixture else reader.mlps()
    return Layout(system, tasks, reader.lora(), projectors, reader.assumed)


def check_used(given: Flags, layout: Layout, where: str) -> None:
    """Refuses options about what a file does not have; training arguments inside it may name such things.

    Raises:
        CheckpointError: an option would have no effect.
    """
    rates = layout.projectors.rates
    absent: dict[str, str] = {}
    if not layout.projectors.pools:
        absent["top_k"] = "mixture of experts (no key '*_proj.gate.weight')"
    if layout.lora.strategy == "none":
        absent |= dict.fromkeys(("rank", "alpha"), "LoRA in its LLM (no key '*.lora_down_Q*')")
    for modality in ("audio", "video"):
        if modality not in rates:
            absent[f"{modality}_rates"] = f"{modality} encoder (no key '{modality}_encoder.*')"
    if "video" not in rates:
        absent["video_heads"] = absent["video_rates"]
    for option, what in absent.items():
        value = getattr(given, option)
        if value not in ((), None):
            raise CheckpointError(
                f"--{option} {typed(value)} was given, but {where} has no {what}; leave the option out"
            )


def need(shapes: Shapes, key: str, where: str) -> tuple[int, ...]:
    """The shape of `key`, without which nothing can be said about the file."""
    if key not in shapes:
        raise CheckpointError(
            f"{where} has no key '{key}', which every such checkpoint has; it is truncated, edited or "
            "of another program: copy or download it again"
        )
    return shapes[key]


_OTHER_ENCODERS = {
    "audiovisual_encoder.": "AV-HuBERT as one audio-visual encoder",
    "audio_encoder.feature_projection.": "WavLM as audio encoder",
    "audio_encoder.feature_extractor_audio.": "AV-HuBERT as audio encoder",
}
_STATE_WIDTH = {"audio": "audio_encoder.conv1.weight", "video": "video_encoder.post_extract_proj.weight"}
_POOLS = {  # official prefix -> our pool, our kind of projector
    "audiovisual_proj": ("joint_0", "smop_jejr"),
    "audio_proj": ("audio_0", "smop_dedr"),
    "video_proj": ("video_0", "smop_dedr"),
}


class _Reader:
    """Reads a layout off the shapes of one file."""

    def __init__(self, shapes: Shapes, system: System, flags: Flags, where: str) -> None:
        self.shapes, self.system, self.flags, self.where = shapes, system, flags, where
        self.assumed: dict[str, Any] = {}
        self.modalities: tuple[Modality, ...] = tuple(m for m in ("audio", "video") if self.has(f"{m}_encoder."))

    def has(self, prefix: str) -> bool:
        """Whether any key starts so."""
        return any(key.startswith(prefix) for key in self.shapes)

    def need(self, key: str) -> tuple[int, ...]:
        """The shape of a key that must be there."""
        return need(self.shapes, key, self.where)

    # ---- which program -----------------------------------------------------------------------

    def check_system(self) -> None:
        """Refuses files of another program, and encoders that are not supported."""
        for prefix, what in _OTHER_ENCODERS.items():
            if self.has(prefix):
                raise CheckpointError(
                    f"{self.where} uses {what} (keys '{prefix}*'), which is not supported; only models that hear with "
                    "Whisper and read lips with AV-HuBERT can be imported"
                )
        if not self.modalities or not self.has("llm."):
            first = next(iter(self.shapes), "nothing")
            raise CheckpointError(
                f"{self.where} has no encoder and LLM in it (its first key is '{first}'); give a checkpoint that holds "
                "the whole model, such as model_avg_1.pth"
            )
        unified = self.has("prompt_audio") or self.has("llm.model.layers.0.self_attn.lora_down_Q.audio")
        mixture = any(re.search(r"_proj\.(gate|experts)\.", key) for key in self.shapes)
        actual = "omni-avsr" if unified else "llama-smop" if mixture else "llama-avsr"
        if (self.system.unified, self.system.mixture) != (unified, mixture):
            raise CheckpointError(
                f"{self.where} is a checkpoint of {actual}, not of {self.system.name}; import it as {actual}"
            )
        if self.system.unified and len(self.modalities) < 2:
            lost = "video" if "audio" in self.modalities else "audio"
            raise CheckpointError(f"{self.where} has no '{lost}_encoder.*' keys; it is truncated, download it again")

    # ---- LoRA --------------------------------------------------------------------------------

    def lora(self) -> Lora:
        """Strategy and true rank from the keys; the scaling from flags or from what is published."""
        flags, width = self.flags, self.need("llm.model.embed_tokens.weight")[1]
        down = "llm.model.layers.0.self_attn.lora_down_Q"
        keys: dict[str, Strategy] = {
            f"{down}_shared.weight": "ST",
            f"{down}.audio.weight": "T",
            f"{down}.weight": "S",
        }
        key = next((k for k in keys if k in self.shapes), None)
        strategy = keys[key] if key else "none"
        if flags.strategy and flags.strategy != strategy:
            raise CheckpointError(
                f"--strategy {flags.strategy} was given, but the keys of {self.where} are those of {strategy}"
            )
        if key is None:
            return Lora("none")
        rank = self.shapes[key][0]
        if flags.rank is not None and round(width / flags.rank) != rank:
            raise CheckpointError(
                f"--rank {flags.rank:g} divides the LLM's width {width} into r = {round(width / flags.rank)}, but "
                f"{self.where} has r = {rank}; give the --rank of the training command"
            )
        published = [(r, a) for r, a in self.system.ranks if round(width / r) == rank and flags.rank in (None, r)]
        if (flags.rank is None or flags.alpha is None) and not published:
            raise CheckpointError(
                f"{self.where}: the scaling of LoRA (alpha / rank) shows in no shape, and r = {rank} of a width of "
                f"{width} is none of the published settings; give --rank and --alpha of the training command"
            )
        divisor = published[0][0] if flags.rank is None else flags.rank
        alpha = published[0][1] if flags.alpha is None else flags.alpha
        taken = (("rank", divisor, flags.rank), ("alpha", alpha, flags.alpha))
        self.assumed |= {name: value for name, value, given in taken if given is None}
        return Lora(strategy, rank, alpha / divisor)

    # ---- projectors --------------------------------------------------------------------------

    def mlps(self) -> Projectors:
        """Linear-ReLU-Linear(-LayerNorm), one per modality or per modality and rate."""
        ratios: dict[str, tuple[int, ...]] = {}
        kinds: set[tuple[bool, int]] = set()  # listed, hidden
        norms: dict[Modality, set[bool]] = {}
        for modality in self.modalities:
            prefix = f"{modality}_proj"
            listed = self.has(f"{prefix}.0.0.")
            matches = (re.match(rf"{prefix}\.(\d+)\.\d+\.", key) for key in self.shapes)
            count = 1 + max((int(m[1]) for m in matches if m), default=0)
            stems = [f"{prefix}.{i}" for i in range(count)] if listed else [prefix]
            inputs = [self.need(f"{stem}.0.weight") for stem in stems]
            ratios[modality] = tuple(self._ratio(modality, width) for _, width in inputs)
            kinds |= {(listed, hidden) for hidden, _ in inputs}
            norms[modality] = {f"{stem}.3.weight" in self.shapes for stem in stems}
        if len(kinds) > 1 or any(len(found) > 1 for found in norms.values()):
            raise CheckpointError(
                f"{self.where}: its projectors differ (per rate, hidden width: {sorted(kinds)}; LayerNorm: {norms}); "
                "only models whose projectors are of one kind can be imported"
            )
        listed, hidden = kinds.pop()
        lacking = tuple(m for m, found in norms.items() if found == {False})
        norm = self.system.unified or len(lacking) < len(norms)  # Llama-AVSR goes without it on purpose
        compression = self._compression(ratios)
        rates = {m: self._rates(m, ratios[m], listed, compression) for m in ratios}
        single = listed or all(len(r) == 1 for r in rates.values())
        kind = "mlp_per_rate" if single else "mlp_shared"
        return Projectors(kind, compression, rates, listed, hidden, norm, lacking if norm else ())

    def _ratio(self, modality: str, width: int) -> int:
        """How many encoder states a projector reads at once."""
        dim = self.need(_STATE_WIDTH[modality])[0]
        if width % dim:
            raise CheckpointError(
                f"{self.where}: the {modality} projector reads {width} values, no multiple of the encoder's {dim}; "
                "encoder and projector belong to different models"
            )
        return width // dim

    def _compression(self, ratios: Mapping[str, tuple[int, ...]]) -> Compression:
        stacked = any(ratio > 1 for values in ratios.values() for ratio in values)
        given = self.flags.compression
        if stacked and given not in ("", "stack"):
            read = ", ".join(f"{modality} {typed(values)}" for modality, values in ratios.items())
            raise CheckpointError(
                f"--compression {given} was given, but the projectors of {self.where} read stacked frames ({read}); "
                "leave the option out"
            )
        if given == "stack" and not stacked and any(set(self.flags.rates(m)) != {1} for m in ratios):
            raise CheckpointError(
                f"--compression stack was given, but the projectors of {self.where} read one frame at a time; leave "
                "the option out"
            )
        return "stack" if stacked or given == "stack" else "average"

    def _rates(self, modality: str, ratios: tuple[int, ...], listed: bool, compression: str) -> tuple[int, ...]:
        """The rates of a modality, in the order of its projectors."""
        given, option = self.flags.rates(modality), f"--{modality}_rates"
        if compression == "stack":
            if given not in ((), ratios):
                raise CheckpointError(
                    f"{option} {typed(given)} was given, but the projectors of {self.where} stack {typed(ratios)} "
                    "frames; leave the option out"
                )
            return ratios
        if given and listed and len(given) != len(ratios):
            raise CheckpointError(
                f"{option} {typed(given)}: {len(given)} rates, but {self.where} has {len(ratios)} {modality} "
                "projectors, one per rate; give the rates of the training command, in its order"
            )
        published = {"audio": self.system.audio_rates, "video": self.system.video_rates}[modality]
        if not given and (not published or (listed and len(published) != len(ratios))):
            raise CheckpointError(
                f"{self.where} averages {modality} frames, which leaves no trace of the rate; give {option} as in the "
                f"training command ({len(ratios) if listed else 'at least one'})"
            )
        if not given:
            self.assumed[f"{modality}_rates"] = list(published)
        return given or published

    # ---- mixtures ----------------------------------------------------------------------------

    def mixture(self) -> Projectors:
        """Llama-SMoP: a `gate` and `experts` under audiovisual_proj, audio_proj or video_proj.

        Only the joint form is published; the inside of an expert is read from its shapes, not from its names.
        """
        homes = {key.partition(".experts.")[0] for key in self.shapes if ".experts." in key}
        gates = [key for key in self.shapes if "gate" in key.partition("_proj.")[2] and ".experts." not in key]
        if len(homes) == 1 and len(gates) > 1:
            raise CheckpointError(
                f"{self.where} has one pool of experts and {len(gates)} routers ({', '.join(gates[:2])}), which is "
                "JEDR; its code was never published and its keys are not known, so only DEDR and JEJR can be imported: "
                "please report these names, or train one by the recipe smop_jedr"
            )
        found = {prefix: row for prefix, row in _POOLS.items() if self.has(f"{prefix}.")}
        if len({kind for _, kind in found.values()}) != 1:
            raise CheckpointError(f"{self.where} mixes {' and '.join(found)}; that is no layout of Llama-SMoP")
        pools = {name: self._pool(prefix) for prefix, (name, _) in found.items()}
        for prefix in found:
            reads = self.need(f"{prefix}.gate.weight")[1]
            for modality in self.modalities if prefix == "audiovisual_proj" else (prefix.removesuffix("_proj"),):
                width = self.need(_STATE_WIDTH[modality])[0]
                if width != reads:
                    raise CheckpointError(
                        f"{self.where}: the router '{prefix}.gate' reads {reads} values, the {modality} encoder gives "
                        f"{width}; encoder and projector belong to different models"
                    )
        sizes = {(p.experts, bool(p.norm), self.shapes[p.key(0, p.first)][0]) for p in pools.values()}
        if len(sizes) > 1:
            raise CheckpointError(
                f"{self.where}: its expert pools differ (experts, LayerNorm, hidden width: {sorted(sizes)}); only "
                "pools of one size can be imported"
            )
        experts, norm, hidden = sizes.pop()
        top_k = self.flags.top_k or 2
        if top_k > experts:
            raise CheckpointError(
                f"--top_k {top_k} was given, but the pools of {self.where} have {experts} experts; give 1 to {experts}"
            )
        if self.flags.top_k is None:
            self.assumed["top_k"] = top_k
        return Projectors(
            kind=next(kind for _, kind in found.values()),
            compression="average",
            rates={m: self._rates(m, (1,), False, "average") for m in self.modalities},
            listed=False,
            hidden=hidden,
            layer_norm=norm,
            pools=pools,
            top_k=top_k,
        )

    def _pool(self, prefix: str) -> Pool:
        experts, width = self.need(f"{prefix}.gate.weight")
        inside = f"{prefix}.experts.0."
        weights = {
            key.removeprefix(inside).removesuffix(".weight"): shape
            for key, shape in self.shapes.items()
            if key.startswith(inside) and key.endswith(".weight")
        }
        linears = [name for name, shape in weights.items() if len(shape) == 2]
        linears.sort(key=lambda name: (weights[name][1] != width, name))  # the first layer reads what the gate reads
        norms = [name for name, shape in weights.items() if len(shape) == 1]
        if len(linears) != 2 or weights[linears[0]][0] != weights[linears[1]][1] or len(norms) > 1:
            listed = ", ".join(f"{name} {shape}" for name, shape in weights.items()) or "nothing"
            raise CheckpointError(
                f"{self.where}: an expert of '{prefix}' holds {listed}; expected two linear layers and at most one "
                "LayerNorm. The keys of Llama-SMoP are known from its description only: please report these names"
            )
        return Pool(prefix, experts, linears[0], linears[1], norms[0] if norms else "")
