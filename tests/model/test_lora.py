from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from omni_avsr.config import LLMConfig, LoraConfig
from omni_avsr.errors import CheckpointError, ConfigError
from omni_avsr.model.llm import Tokenizer, build_llm
from omni_avsr.model.lora import LORA, Adapters, PeftAdapter, attach, export_peft, import_peft

DIMS = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
TASKS = ("asr", "vsr", "avsr")
TARGETS = ("q_proj", "v_proj")
NAMES = {"none": set(), "S": {"shared"}, "T": set(TASKS), "ST": {"shared", *TASKS}}

strategies = pytest.mark.parametrize("strategy", LORA)
adapting = pytest.mark.parametrize("strategy", [name for name in LORA if name != "none"])


def make_llm(tokenizer: Tokenizer) -> nn.Module:
    return build_llm(LLMConfig(dims=DIMS), tokenizer).eval()


def adapted(tokenizer: Tokenizer, strategy: str, fresh: bool = False, scale: float = 0.5) -> tuple[nn.Module, Adapters]:
    llm = make_llm(tokenizer)
    adapters = attach(llm, LoraConfig(strategy=strategy, rank=3, scale=scale), TASKS, TARGETS)
    for layer in adapters.layers.values():
        for factor in layer.lora_B.values():
            if not fresh:
                nn.init.normal_(factor)
    return llm, adapters


def run(llm: nn.Module, adapters: Adapters, x: Tensor, tasks: str | Sequence[str]) -> Tensor:
    with adapters.use(tasks):
        return llm(inputs_embeds=x).logits


@strategies
def test_each_strategy_has_its_adapters_on_q_and_v(tokenizer, strategy):
    llm, _ = adapted(tokenizer, strategy)
    assert LORA[strategy].adapters(TASKS) == tuple(sorted(NAMES[strategy], key=("shared", *TASKS).index))
    carriers = {n.partition(".lora_")[0].rpartition(".")[2] for n, _ in llm.named_parameters() if ".lora_" in n}
    found = {n.rpartition(".")[2] for n, _ in llm.named_parameters() if ".lora_" in n}
    assert found == NAMES[strategy]
    assert carriers == (set(TARGETS) if NAMES[strategy] else set())


@strategies
def test_base_names_are_those_of_the_bare_model(tokenizer, strategy):
    llm, _ = adapted(tokenizer, strategy)
    bare = make_llm(tokenizer).state_dict().keys()
    assert {name for name in llm.state_dict() if ".lora_" not in name} == set(bare)


@strategies
@pytest.mark.parametrize("task", TASKS)
def test_fresh_adapters_change_nothing(tokenizer, strategy, task):
    llm, adapters = adapted(tokenizer, strategy, fresh=True)
    x = torch.randn(2, 5, 32)
    assert torch.equal(run(llm, adapters, x, task), llm(inputs_embeds=x).logits)


@adapting
def test_rows_of_mixed_tasks_equal_rows_alone(tokenizer, strategy):
    llm, adapters = adapted(tokenizer, strategy)
    tasks = ["vsr", "asr", "asr", "avsr", "vsr"]
    x = torch.randn(len(tasks), 4, 32)
    together = run(llm, adapters, x, tasks)
    alone = torch.cat([run(llm, adapters, row[None], task) for row, task in zip(x, tasks, strict=True)])
    torch.testing.assert_close(together, alone)
    assert not torch.allclose(together, llm(inputs_embeds=x).logits, atol=1e-3)


@strategies
@pytest.mark.parametrize("tasks", ["asr", ["vsr", "avsr"]])
def test_gradients_reach_exactly_the_active_adapters(tokenizer, strategy, tasks):
    llm, adapters = adapted(tokenizer, strategy)
    run(llm, adapters, torch.randn(2, 4, 32), tasks).sum().backward()
    moved = {n.rpartition(".")[2] for n, p in llm.named_parameters() if ".lora_" in n and p.grad is not None}
    active = {name for task in ([tasks] if isinstance(tasks, str) else tasks) for name in LORA[strategy].active(task)}
    assert moved == active


def test_routing_ends_with_its_block_and_its_thread(tokenizer):
    llm, adapters = adapted(tokenizer, "ST")
    x = torch.randn(1, 4, 32)
    base, asr = llm(inputs_embeds=x).logits, run(llm, adapters, x, "asr")
    with pytest.raises(RuntimeError), adapters.use("asr"):
        raise RuntimeError
    torch.testing.assert_close(llm(inputs_embeds=x).logits, base)
    with adapters.use("asr"):
        with adapters.use("vsr"):
            pass
        torch.testing.assert_close(llm(inputs_embeds=x).logits, asr)
        elsewhere: list[Tensor] = []
        thread = threading.Thread(target=lambda: elsewhere.append(llm(inputs_embeds=x).logits))
        thread.start()
        thread.join()
    torch.testing.assert_close(elsewhere[0], base)


def test_unknown_task_is_refused(tokenizer):
    _, adapters = adapted(tokenizer, "S")
    with pytest.raises(ConfigError, match=r"does not perform 'avrs'; did you mean 'avsr'"), adapters.use("avrs"):
        pass


def test_no_target_is_refused(tokenizer):
    with pytest.raises(ConfigError, match="query"):
        attach(make_llm(tokenizer), LoraConfig(), TASKS, ("query",))


@strategies
def test_merged_equals_unmerged_and_comes_back_exactly(tokenizer, strategy):
    llm, adapters = adapted(tokenizer, strategy)
    x = torch.randn(2, 5, 32)
    before = {name: tensor.clone() for name, tensor in llm.state_dict().items()}
    expected = run(llm, adapters, x, "vsr")
    adapters.merge("asr")
    adapters.merge("vsr")
    torch.testing.assert_close(run(llm, adapters, x, "vsr"), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match="'vsr' is merged"), adapters.use("asr"):
        pass
    adapters.unmerge()
    assert all(torch.equal(tensor, before[name]) for name, tensor in llm.state_dict().items())
    torch.testing.assert_close(run(llm, adapters, x, "vsr"), expected)


@adapting
def test_peft_computes_the_same_from_the_exported_files(tokenizer, strategy):
    peft = pytest.importorskip("peft")
    llm, adapters = adapted(tokenizer, strategy)
    bare = make_llm(tokenizer)
    bare.load_state_dict({n: t for n, t in llm.state_dict().items() if ".lora_" not in n})
    x = torch.randn(2, 5, 32)
    exported = export_peft(adapters, base_model="somewhere")
    assert set(exported) == ({"shared"} if strategy == "S" else set(TASKS))
    for name, adapter in exported.items():
        reference = peft.get_peft_model(bare, peft.LoraConfig(**adapter.config))
        outcome = peft.set_peft_model_state_dict(reference, adapter.tensors)
        assert not outcome.unexpected_keys
        task = "asr" if name == "shared" else name
        torch.testing.assert_close(reference(inputs_embeds=x).logits, run(llm, adapters, x, task), atol=1e-5, rtol=1e-5)
        bare = reference.unload()


@strategies
def test_peft_round_trip_folds_another_scale(tokenizer, strategy):
    llm, adapters = adapted(tokenizer, strategy)
    other, received = adapted(tokenizer, strategy, scale=0.125)
    other.load_state_dict(llm.state_dict())
    import_peft(received, export_peft(adapters))
    x = torch.randn(2, 5, 32)
    for task in TASKS:
        torch.testing.assert_close(run(other, received, x, task), run(llm, adapters, x, task), atol=1e-5, rtol=1e-5)


def test_peft_adapters_that_do_not_fit_are_refused(tokenizer):
    _, adapters = adapted(tokenizer, "ST")
    stored = export_peft(adapters)
    with pytest.raises(CheckpointError, match="exactly"):
        import_peft(adapters, {"asr": stored["asr"]})
    dora = {t: PeftAdapter(a.config | {"use_dora": True}, a.tensors) for t, a in stored.items()}
    with pytest.raises(CheckpointError, match="use_dora"):
        import_peft(adapters, dora)
    with pytest.raises(CheckpointError, match="no tensor"):
        import_peft(adapters, {t: PeftAdapter(a.config, {}) for t, a in stored.items()})
    _, smaller = adapted(tokenizer, "T")
    with pytest.raises(CheckpointError, match=r"lora\.rank"):
        import_peft(smaller, stored)
    torn = {t: PeftAdapter(a.config, {n: torch.randn_like(x) for n, x in a.tensors.items()}) for t, a in stored.items()}
    with pytest.raises(CheckpointError, match="shared half"):
        import_peft(adapters, torn)
