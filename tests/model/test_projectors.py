"""The contract of every row of PROJECTORS, and SMoP against a loop over tokens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omni_avsr.config import ModelConfig, ProjectorConfig
from omni_avsr.errors import RateError
from omni_avsr.model.compress import COMPRESSORS, compressed_dim
from omni_avsr.model.projectors import PROJECTORS, Experts, Projector, SMoPProjector, build_projector, route
from omni_avsr.types import Encoded, Projected

OUT = 10
EQUAL, UNEQUAL = {"audio": 12, "video": 12}, {"audio": 12, "video": 8}
SMOP = [name for name, row in PROJECTORS.items() if row.router]
LENGTHS = {"audio": (9, 0, 4), "video": (3, 5, 5)}  # after compression


def config(kind: str, compression: str = "average", **changes: object) -> ModelConfig:
    projector = {"kind": kind, "hidden": 16, **changes.pop("projector", {})}  # type: ignore[dict-item]
    return ModelConfig.model_validate({"compression": compression, "projector": projector, **changes})


def inputs(
    knobs: ModelConfig, dims: dict[str, int], rates: dict[str, int], lengths: dict[str, tuple[int, ...]] = LENGTHS
) -> dict[str, Encoded]:
    """Compressed states; the padding is noise."""
    return {
        m: Encoded(
            torch.randn(len(lengths[m]), max(lengths[m]) + 1, compressed_dim(knobs.compression, dims[m], rate)),
            torch.tensor(lengths[m]),
        )
        for m, rate in rates.items()
    }


def rate_pairs(knobs: ModelConfig) -> Iterator[dict[str, int]]:
    for audio in knobs.audio_rates:
        for video in knobs.video_rates:
            yield {"audio": audio, "video": video}


def both(result: Projected) -> Tensor:
    return torch.cat([result.tokens[m].states[result.tokens[m].mask] for m in sorted(result.tokens)])


every_row = pytest.mark.parametrize("kind", PROJECTORS)
every_compression = pytest.mark.parametrize("compression", COMPRESSORS)
every_width = pytest.mark.parametrize("dims", [EQUAL, UNEQUAL], ids=["equal", "unequal"])


def test_the_knob_knows_every_row() -> None:
    knob = ProjectorConfig.model_fields["kind"].annotation
    assert set(knob.__args__) == set(PROJECTORS)  # type: ignore[union-attr]


# ---- the contract ----------------------------------------------------------------------------


@every_row
@every_compression
@every_width
def test_lengths_and_shapes_at_every_rate(kind: str, compression: str, dims: dict[str, int]) -> None:
    knobs = config(kind, compression)
    projector = build_projector(knobs, dims, OUT)
    for rates in rate_pairs(knobs):
        encoded = inputs(knobs, dims, rates)
        out = projector(encoded, rates)
        for modality, tokens in out.tokens.items():
            assert tokens.states.shape == (*encoded[modality].states.shape[:2], OUT)
            assert tokens.lengths is encoded[modality].lengths
            assert tokens.states[~tokens.mask].eq(0).all()
            assert tokens.states[tokens.mask].abs().sum(-1).gt(0).all()
        assert set(out.losses) == set(out.router and {"balance", "router_z"})
        for modality, probabilities in out.router.items():
            assert probabilities.shape == (sum(LENGTHS[modality]), knobs.projector.experts)
            torch.testing.assert_close(probabilities.sum(-1), torch.ones(len(probabilities)))


@every_row
@every_width
@torch.no_grad()
def test_a_row_does_not_see_its_neighbours_the_other_modality_or_padding(kind: str, dims: dict[str, int]) -> None:
    knobs = config(kind)
    projector, rates = build_projector(knobs, dims, OUT), {"audio": 16, "video": 2}
    encoded = inputs(knobs, dims, rates)
    together = projector(encoded, rates).tokens
    for modality, rate in rates.items():
        for row, length in enumerate(LENGTHS[modality]):
            states = encoded[modality].states[row : row + 1, :length]
            alone = projector({modality: Encoded(states, torch.tensor([length]))}, {modality: rate})
            torch.testing.assert_close(together[modality].states[row, :length], alone.tokens[modality].states[0])


@every_row
@every_compression
def test_gradient_reaches_every_weight(kind: str, compression: str) -> None:
    knobs = config(kind, compression)
    projector = build_projector(knobs, UNEQUAL, OUT)
    lengths = {"audio": (30, 10), "video": (20, 25)}  # enough tokens for every expert to be visited
    for rates in rate_pairs(knobs):
        out = projector(inputs(knobs, UNEQUAL, rates, lengths), rates)
        (F.mse_loss(both(out), torch.randn(85, OUT)) + sum(out.losses.values())).backward()
    for name, parameter in projector.named_parameters():
        assert parameter.grad is not None, name
        stacked = parameter.grad.flatten(1) if name.startswith("pools.") else parameter.grad.view(1, -1)
        assert stacked.abs().amax(1).gt(0).all(), name  # of every expert


@every_row
@torch.no_grad()
def test_state_dict_round_trip(kind: str) -> None:
    knobs, rates = config(kind), {"audio": 4, "video": 5}
    first, second = (build_projector(knobs, EQUAL, OUT) for _ in range(2))
    encoded = inputs(knobs, EQUAL, rates)
    second.load_state_dict(first.state_dict())
    assert torch.equal(both(first(encoded, rates)), both(second(encoded, rates)))


@every_row
def test_a_rate_that_was_not_trained_lists_those_that_were(kind: str) -> None:
    knobs = config(kind)
    with pytest.raises(RateError, match=r"audio rate 3 .* 4, 16"):
        build_projector(knobs, EQUAL, OUT)(inputs(knobs, EQUAL, {"audio": 4}), {"audio": 3})


@every_row
@pytest.mark.parametrize("tasks", [("asr",), ("vsr",)])
def test_a_model_of_one_modality(kind: str, tasks: tuple[str, ...]) -> None:
    knobs = config(kind, tasks=tasks)
    (modality,) = knobs.modalities
    rates = {modality: knobs.rates(modality)[0]}
    out = build_projector(knobs, {modality: 7}, OUT)(inputs(knobs, {modality: 7}, rates), rates)
    assert set(out.tokens) == {modality}


@every_row
def test_no_tokens_at_all(kind: str) -> None:
    knobs, rates = config(kind), {"audio": 4, "video": 2}
    projector = build_projector(knobs, EQUAL, OUT)
    out = projector(inputs(knobs, EQUAL, rates, {"audio": (0, 0), "video": (0, 0)}), rates)
    assert all(tokens.states.eq(0).all() for tokens in out.tokens.values())
    assert all(loss == 0 for loss in out.losses.values())


@every_row
@torch.no_grad()
def test_runs_in_bfloat16(kind: str) -> None:
    knobs, rates = config(kind), {"audio": 4, "video": 2}
    projector = build_projector(knobs, EQUAL, OUT)
    encoded = inputs(knobs, EQUAL, rates)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = projector(encoded, rates)
    assert all(p.dtype == torch.float32 for p in mixed.router.values())
    half = projector.bfloat16()({m: Encoded(e.states.bfloat16(), e.lengths) for m, e in encoded.items()}, rates)
    assert both(mixed).isfinite().all()
    assert both(half).isfinite().all()
    assert both(half).dtype == torch.bfloat16


# ---- what is shared --------------------------------------------------------------------------


def names(projector: Projector, part: str) -> set[str]:
    return set(dict(getattr(projector, part).named_children()))


@pytest.mark.parametrize(
    ("kind", "pools", "routers"),
    [
        ("smop_dedr", {"audio_0", "audio_1", "video_0", "video_1"}, {"audio_0", "audio_1", "video_0", "video_1"}),
        ("smop_jedr", {"joint_0", "joint_1"}, {"audio_0", "audio_1", "video_0", "video_1"}),
        ("smop_jejr", {"joint_0", "joint_1"}, {"joint_0", "joint_1"}),
        ("smop_pool", {"joint"}, {"joint"}),
    ],
)
def test_sharing(kind: str, pools: set[str], routers: set[str]) -> None:
    projector = build_projector(config(kind), EQUAL, OUT)
    assert (names(projector, "pools"), names(projector, "routers")) == (pools, routers)


def test_mlp_names_map_simply_from_the_official_ones() -> None:
    per_rate = build_projector(config("mlp_per_rate", projector={"layer_norm": False}), EQUAL, OUT)
    assert {n.removesuffix(".weight") for n in per_rate.state_dict() if n.endswith("weight")} == {
        f"mlps.{m}_{k}.{layer}" for m in EQUAL for k in (0, 1) for layer in (0, 2)
    }
    shared = build_projector(config("mlp_shared"), EQUAL, OUT)
    assert {n.split(".", 1)[1] for n in shared.state_dict() if ".3." in n} == {
        f"{m}.3.{part}" for m in EQUAL for part in ("weight", "bias")
    }


def test_adapters_stand_only_where_widths_differ() -> None:
    assert not names(build_projector(config("smop_pool"), EQUAL, OUT), "adapters")
    assert names(build_projector(config("smop_pool"), UNEQUAL, OUT), "adapters") == {"video_8"}
    assert not names(build_projector(config("smop_dedr"), UNEQUAL, OUT), "adapters")
    stacked = build_projector(config("smop_jejr", "stack"), EQUAL, OUT)
    assert names(stacked, "adapters") == {"audio_48", "audio_192", "video_24", "video_60"}
    assert {p.weight1.shape[-1] for p in stacked.pools.values()} == {12}


@pytest.mark.parametrize("kind", ["smop_jedr", "smop_jejr", "smop_pool"])
def test_with_one_rate_both_modalities_share_the_experts(kind: str) -> None:
    knobs = config(kind, audio_rates=[4], video_rates=[2])
    projector, rates = build_projector(knobs, EQUAL, OUT), {"audio": 4, "video": 2}
    assert len(projector.pools) == 1
    for modality, rate in rates.items():
        projector.zero_grad()
        out = projector(inputs(knobs, EQUAL, {modality: rate}), {modality: rate})
        both(out).square().sum().backward()
        (pool,) = projector.pools.values()
        assert pool.weight2.grad.abs().sum() > 0


# ---- the mixture -----------------------------------------------------------------------------


def naive(experts: Experts, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """Token by token, expert by expert."""
    rows = []
    for token in range(len(x)):
        total = torch.zeros(OUT)
        for expert, weight in zip(chosen[token].tolist(), weights[token], strict=True):
            y = F.relu(experts.weight1[expert] @ x[token] + experts.bias1[expert])
            y = experts.weight2[expert] @ y + experts.bias2[expert]
            if experts.norm_weight is not None:
                y = F.layer_norm(y, (OUT,), experts.norm_weight[expert], experts.norm_bias[expert])
            total = total + weight * y
        rows.append(total)
    return torch.stack(rows)


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize(("count", "top_k"), [(4, 2), (5, 1), (3, 3)])
def test_experts_answer_as_one_by_one(layer_norm: bool, count: int, top_k: int) -> None:
    knobs = ProjectorConfig(hidden=16, experts=count, top_k=top_k, layer_norm=layer_norm)
    experts = Experts(12, OUT, knobs)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(23, 12, requires_grad=True)
    routing = route(3 * torch.randn(23, count), top_k)
    results = []
    for answer in (experts, lambda *args: naive(experts, *args)):
        y = answer(x, routing.chosen, routing.weights)
        results.append((y, *torch.autograd.grad(y.square().sum(), [x, *experts.parameters()])))
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, atol=1e-3, rtol=1e-4)


def test_all_tokens_to_one_expert() -> None:
    experts = Experts(12, OUT, ProjectorConfig(hidden=16, top_k=1))
    x, chosen, weights = torch.randn(9, 12), torch.full((9, 1), 2), torch.ones(9, 1)
    torch.testing.assert_close(experts(x, chosen, weights), naive(experts, x, chosen, weights))


def test_routing_is_softmax_over_all_then_top_k_renormalised() -> None:
    routing = route(torch.tensor([[2.0, 0.0, 1.0, -1.0]]), 2)
    assert routing.chosen.tolist() == [[0, 2]]
    share = torch.tensor([2.0, 1.0]).softmax(0)  # the renormalised pair equals a softmax over the pair
    torch.testing.assert_close(routing.weights[0], share)
    assert routing.probabilities.dtype == torch.float32


def test_balance_is_least_when_even_and_router_z_grows_with_the_logits() -> None:
    even = route(10 * torch.eye(4).repeat(5, 1) + 5 * torch.eye(4).roll(1, 1).repeat(5, 1), 2)
    torch.testing.assert_close(even.balance, torch.tensor(2.0))
    crowded = route(torch.tensor([[9.0, 6.0, 0.0, 0.0]]).repeat(20, 1), 2)
    assert crowded.balance > 3.5
    logits = torch.randn(6, 4)
    torch.testing.assert_close(route(logits, 2).router_z, logits.exp().sum(1).log().square().mean())
    assert route(logits + 5, 2).router_z > route(logits, 2).router_z


@pytest.mark.parametrize("kind", SMOP)
def test_losses_are_those_of_each_router_over_its_valid_tokens(kind: str) -> None:
    knobs = config(kind, projector={"balance_weight": 0.3, "router_z_weight": 0.7})
    projector, rates = build_projector(knobs, EQUAL, OUT), {"audio": 4, "video": 2}
    assert isinstance(projector, SMoPProjector)
    encoded = inputs(knobs, EQUAL, rates)
    out = projector(encoded, rates)
    valid = {m: e.states[e.mask] for m, e in encoded.items()}
    joint = not any(name.startswith("audio") for name in projector.routers)
    groups = [torch.cat(list(valid.values()))] if joint else list(valid.values())
    names_used = [next(n for n in projector.routers if n in ("joint", "joint_0"))] if joint else ["audio_0", "video_0"]
    balance, z = [], []
    for name, x in zip(names_used, groups, strict=True):
        logits = x @ projector.routers[name].weight.T
        p = logits.softmax(-1)
        hits = F.one_hot(p.topk(2).indices, 4).float()
        balance.append(4 * (hits.mean(0) * p.mean(0)).sum())
        z.append(logits.logsumexp(-1).square().mean())
    torch.testing.assert_close(out.losses["balance"], 0.3 * torch.stack(balance).mean())
    torch.testing.assert_close(out.losses["router_z"], 0.7 * torch.stack(z).mean())


def test_the_balance_loss_spreads_the_tokens() -> None:
    knobs = config("smop_pool", audio_rates=[4], video_rates=[2])
    projector, rates = build_projector(knobs, EQUAL, OUT), {"audio": 4, "video": 2}
    encoded = inputs(knobs, EQUAL, rates, {"audio": (40, 40), "video": (40, 40)})
    encoded = {m: Encoded(e.states + 3, e.lengths) for m, e in encoded.items()}  # a common direction: experts starve
    optimiser = torch.optim.Adam(projector.routers.parameters(), lr=0.03)
    history = []
    for _ in range(60):
        loss = projector(encoded, rates).losses["balance"]
        history.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert min(history) < history[0]
    assert history[-1] < 1.1 * 0.01 * 2
