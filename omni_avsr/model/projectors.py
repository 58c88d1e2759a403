"""From encoder width to LLM width: MLPs, or a sparse mixture of projectors (Llama-SMoP, arXiv 2505.14336).

What differs between the rows of PROJECTORS is only what is shared between modalities and compression rates:

    name           experts (or MLP)                router
    mlp_per_rate   one per modality and rate       -
    mlp_shared     one per modality                -
    smop_dedr      a pool per modality and rate    one per modality and rate
    smop_jedr      a pool per rate                 one per modality and rate
    smop_jejr      a pool per rate                 one per rate
    smop_pool      one pool                        one

DEDR, JEDR and JEJR are published for one rate per modality. With more rates the published module stands once per
rate, as Omni-AVSR's MLPs do; "per rate" counts by position, so that the first audio rate and the first video rate
meet in the first pool. With one rate per modality exactly the published modules result. `smop_pool` is ours: one
pool and one router for both modalities and all rates.

Inputs that share experts must be equally wide. Where they are not (encoders of different width, or stacking at
different rates), a bias-free linear adapter per modality and width brings them to the width of the widest encoder.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni_avsr.config import ModelConfig, ProjectorConfig
from omni_avsr.errors import RateError
from omni_avsr.model.compress import compressed_dim
from omni_avsr.types import Encoded, Projected

Slot = tuple[str, int]  # modality and position of the rate among those trained
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Sharing:
    """What one set of weights serves.

    Attributes:
        modalities: both, instead of one each.
        rates: all, instead of one each.
    """

    modalities: bool
    rates: bool

    def key(self, slot: Slot) -> str:
        """The name of the weights that serve `slot`: 'audio_0', 'audio', 'joint_0' or 'joint'."""
        modality, position = slot
        return ("joint" if self.modalities else modality) + ("" if self.rates else f"_{position}")


# ---- weights ---------------------------------------------------------------------------------


class MLP(nn.Sequential):
    """Linear-ReLU-Linear(-LayerNorm); (..., width) -> (..., out_dim)."""

    def __init__(self, width: int, hidden: int, out_dim: int, layer_norm: bool) -> None:
        norm = [nn.LayerNorm(out_dim)] if layer_norm else []
        super().__init__(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out_dim), *norm)


class Experts(nn.Module):
    """MLPs of one shape, stacked along the first axis of each parameter."""

    def __init__(self, width: int, out_dim: int, config: ProjectorConfig) -> None:
        super().__init__()
        count, hidden = config.experts, config.hidden
        self.weight1, self.bias1 = _linears(count, width, hidden)
        self.weight2, self.bias2 = _linears(count, hidden, out_dim)
        self.norm_weight = nn.Parameter(torch.ones(count, out_dim)) if config.layer_norm else None
        self.norm_bias = nn.Parameter(torch.zeros(count, out_dim)) if config.layer_norm else None

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Sends every token to its experts and sums their answers.

        Args:
            x: (n, width) tokens.
            chosen: (n, k) int64, experts of each token.
            weights: (n, k), factors of their answers.

        Returns: (n, out_dim).
        """
        count, k = len(self.weight1), chosen.shape[1]
        visits = F.one_hot(chosen.flatten(), count)  # (n k, experts)
        turn = visits.cumsum(0).gather(1, chosen.reshape(-1, 1)).squeeze(1) - 1  # the how-manieth visitor of its expert
        seats = max(1, int(visits.sum(0).max())) if len(x) else 1
        seat = chosen.flatten() * seats + turn  # (n k), all different
        grouped = x.new_zeros(count * seats, x.shape[1]).index_copy(0, seat, x.repeat_interleave(k, 0))
        answers = self._answers(grouped.unflatten(0, (count, seats))).flatten(0, 1)[seat]
        answers = answers.view(len(x), k, answers.shape[-1])
        return (answers * weights[..., None]).sum(1).to(x.dtype)

    def _answers(self, x: Tensor) -> Tensor:
        """(experts, seats, width) -> (experts, seats, out_dim)."""
        x = torch.baddbmm(self.bias1[:, None], x, self.weight1.transpose(1, 2)).relu()
        x = torch.baddbmm(self.bias2[:, None], x, self.weight2.transpose(1, 2))
        if self.norm_weight is None or self.norm_bias is None:
            return x
        return F.layer_norm(x, x.shape[-1:]) * self.norm_weight[:, None] + self.norm_bias[:, None]


def _linears(count: int, width_in: int, width: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Weights (count, width, width_in) and biases (count, width), each drawn as nn.Linear draws its own."""
    bound = 1 / math.sqrt(width_in)
    weight, bias = torch.empty(count, width, width_in), torch.empty(count, width)
    return nn.Parameter(weight.uniform_(-bound, bound)), nn.Parameter(bias.uniform_(-bound, bound))


@dataclass(frozen=True)
class Routing:
    """Where tokens go.

    Attributes:
        logits: (n, experts) float32.
        chosen: (n, k) int64.
        weights: (n, k) float32, summing to one.
    """

    logits: Tensor
    chosen: Tensor
    weights: Tensor

    @property
    def probabilities(self) -> Tensor:
        """(n, experts) float32."""
        return self.logits.softmax(-1)

    @property
    def balance(self) -> Tensor:
        """E * sum over k, e of (share of tokens whose k-th choice is e) * (mean probability of e); top_k when even."""
        experts = self.logits.shape[1]
        share = F.one_hot(self.chosen, experts).float().mean(0)  # (k, experts)
        return experts * (share * self.probabilities.mean(0)).sum()

    @property
    def router_z(self) -> Tensor:
        """Mean squared log-sum-exp of the logits (ST-MoE)."""
        return self.logits.logsumexp(-1).square().mean()


def route(logits: Tensor, top_k: int) -> Routing:
    """Softmax over all experts in float32, the best `top_k`, renormalised; (n, experts) -> Routing."""
    logits = logits.float()
    best, chosen = logits.softmax(-1).topk(top_k)
    return Routing(logits, chosen, best / best.sum(-1, keepdim=True))


# ---- projectors ------------------------------------------------------------------------------


class Projector(nn.Module):
    """Turns compressed states of any of its modalities into tokens of the LLM's width.

    Attributes:
        rates: modality -> trained rates.
    """

    def __init__(self, config: ModelConfig, dims: Mapping[str, int], experts: Sharing) -> None:
        super().__init__()
        self.rates = {modality: config.rates(modality) for modality in dims}
        self._widths = {
            (m, i): compressed_dim(config.compression, dims[m], rate)
            for m, rates in self.rates.items()
            for i, rate in enumerate(rates)
        }
        self.adapters = nn.ModuleDict()
        self._adapter: dict[Slot, str] = {}
        for members in _groups(self._widths, experts).values():
            if len({self._widths[slot] for slot in members}) > 1:
                self._adapt(members, max(dims.values()))

    def _adapt(self, members: Iterable[Slot], common: int) -> None:
        """Makes every one of `members` `common` wide; slots of one modality and width share the adapter."""
        for slot in members:
            width = self._widths[slot]
            if width != common:
                name = self._adapter[slot] = f"{slot[0]}_{width}"
                if name not in self.adapters:
                    self.adapters[name] = nn.Linear(width, common, bias=False)
                self._widths[slot] = common

    def forward(self, encoded: Mapping[str, Encoded], rates: Mapping[str, int]) -> Projected:
        """Compressed states (B, N, D) of each modality -> tokens (B, N, H), zero on padding.

        Args:
            encoded: modality -> states, compressed by the rate that `rates` names.
            rates: modality -> compression rate.

        Raises:
            RateError: a rate the model was not trained for.
        """
        slots = {modality: self._slot(modality, rates[modality]) for modality in encoded}
        # Packed: only valid tokens are projected, routed and counted.
        packed = {m: self._adapted(encoded[m].states[encoded[m].mask], slots[m]) for m in encoded}
        outputs, losses, router = self._project(packed, slots)
        tokens = {m: Encoded(_unpacked(outputs[m], e.mask), e.lengths) for m, e in encoded.items()}
        return Projected(tokens, losses, router)

    def _project(self, packed: Tensors, slots: dict[str, Slot]) -> tuple[Tensors, Tensors, Tensors]:
        """Modality -> (n, width) tokens and their slots; returns outputs (n, H), losses, router probabilities."""
        raise NotImplementedError

    def _slot(self, modality: str, rate: int) -> Slot:
        trained = self.rates[modality]
        if rate not in trained:
            known = ", ".join(map(str, trained))
            raise RateError(f"{modality} rate {rate} was not trained; this model knows {known}")
        return modality, trained.index(rate)

    def _adapted(self, x: Tensor, slot: Slot) -> Tensor:
        return self.adapters[self._adapter[slot]](x) if slot in self._adapter else x


class MLPProjector(Projector):
    """An MLP per modality, or per modality and rate (Omni-AVSR): `mlps.audio_0` serves the first audio rate."""

    def __init__(self, config: ModelConfig, dims: Mapping[str, int], out_dim: int, sharing: Sharing) -> None:
        super().__init__(config, dims, sharing)
        self.sharing, self.mlps = sharing, nn.ModuleDict()
        for key, ((modality, position), *_) in _groups(self._widths, sharing).items():
            norm = config.projector.layer_norm and modality not in config.compat.no_layer_norm
            self.mlps[key] = MLP(self._widths[modality, position], config.projector.hidden, out_dim, norm)

    def _project(self, packed: Tensors, slots: dict[str, Slot]) -> tuple[Tensors, Tensors, Tensors]:
        return {m: self.mlps[self.sharing.key(slots[m])](x) for m, x in packed.items()}, {}, {}


class SMoPProjector(Projector):
    """A sparse mixture of projectors: each token visits `top_k` experts (Llama-SMoP, section 2).

    Losses are those of each router over the tokens it routed, averaged over the routers in use, so that a coefficient
    means the same in every configuration.
    """

    def __init__(
        self, config: ModelConfig, dims: Mapping[str, int], out_dim: int, experts: Sharing, router: Sharing
    ) -> None:
        super().__init__(config, dims, experts)
        self.config, self.expert_sharing, self.router_sharing = config.projector, experts, router
        self.pools, self.routers = nn.ModuleDict(), nn.ModuleDict()
        for key, members in _groups(self._widths, experts).items():
            self.pools[key] = Experts(self._widths[members[0]], out_dim, self.config)
        for key, members in _groups(self._widths, router).items():
            self.routers[key] = nn.Linear(self._widths[members[0]], self.config.experts, bias=False)

    def _project(self, packed: Tensors, slots: dict[str, Slot]) -> tuple[Tensors, Tensors, Tensors]:
        routed: dict[str, Routing] = {}
        used: list[Routing] = []
        for key, members in _groups(slots.values(), self.router_sharing).items():
            modalities = [modality for modality, _ in members]
            sizes = [len(packed[m]) for m in modalities]
            routing = route(self.routers[key](torch.cat([packed[m] for m in modalities])), self.config.top_k)
            used += [routing] if sum(sizes) else []  # a mean over no tokens is not a number
            parts = zip(*(t.split(sizes) for t in vars(routing).values()), strict=True)
            routed |= {m: Routing(*part) for m, part in zip(modalities, parts, strict=True)}
        outputs: Tensors = {}
        for key, members in _groups(slots.values(), self.expert_sharing).items():
            modalities = [modality for modality, _ in members]
            answers = self.pools[key](
                torch.cat([packed[m] for m in modalities]),
                torch.cat([routed[m].chosen for m in modalities]),
                torch.cat([routed[m].weights for m in modalities]),
            )
            outputs |= zip(modalities, answers.split([len(packed[m]) for m in modalities]), strict=True)
        return outputs, self._losses(used), {m: r.probabilities for m, r in routed.items()}

    def _losses(self, used: list[Routing]) -> Tensors:
        zero = next(self.routers.parameters()).new_zeros((), dtype=torch.float32)
        return {
            "balance": self.config.balance_weight * sum((r.balance for r in used), zero) / max(1, len(used)),
            "router_z": self.config.router_z_weight * sum((r.router_z for r in used), zero) / max(1, len(used)),
        }


def _groups(slots: Iterable[Slot], sharing: Sharing) -> dict[str, list[Slot]]:
    """Key of the shared weights -> the slots they serve."""
    out: dict[str, list[Slot]] = {}
    for slot in slots:
        out.setdefault(sharing.key(slot), []).append(slot)
    return out


def _unpacked(x: Tensor, mask: Tensor) -> Tensor:
    """(n, H) valid tokens -> (B, N, H), zero elsewhere."""
    return x.new_zeros(*mask.shape, x.shape[-1]).masked_scatter(mask[..., None], x)


# ---- the table -------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProjectorRow:
    """A projector to choose; without a router it is an MLP."""

    experts: Sharing
    router: Sharing | None = None


PROJECTORS: dict[str, ProjectorRow] = {
    "mlp_per_rate": ProjectorRow(Sharing(modalities=False, rates=False)),
    "mlp_shared": ProjectorRow(Sharing(modalities=False, rates=True)),
    "smop_dedr": ProjectorRow(Sharing(modalities=False, rates=False), Sharing(modalities=False, rates=False)),
    "smop_jedr": ProjectorRow(Sharing(modalities=True, rates=False), Sharing(modalities=False, rates=False)),
    "smop_jejr": ProjectorRow(Sharing(modalities=True, rates=False), Sharing(modalities=True, rates=False)),
    "smop_pool": ProjectorRow(Sharing(modalities=True, rates=True), Sharing(modalities=True, rates=True)),
}


def build_projector(config: ModelConfig, dims: Mapping[str, int], out_dim: int) -> Projector:
    """The projector that `config.projector.kind` names.

    Args:
        config: rates, compression and the projector's sizes.
        dims: modality -> width of its encoder, before compression.
        out_dim: width of the LLM.
    """
    row = PROJECTORS[config.projector.kind]
    if row.router is None:
        return MLPProjector(config, dims, out_dim, row.experts)
    return SMoPProjector(config, dims, out_dim, row.experts, row.router)
