from __future__ import annotations

import dataclasses
import itertools
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from omni_avsr.config import Part
from omni_avsr.errors import ConfigError, InputError, RateError
from omni_avsr.model.batch import collate
from omni_avsr.model.compress import COMPRESSORS
from omni_avsr.model.llm import LLM_FAMILIES
from omni_avsr.model.lora import LORA
from omni_avsr.model.omni import IGNORE, PARTS, build_model, sink_loss
from omni_avsr.model.projectors import PROJECTORS
from omni_avsr.tasks import TASKS

RATES = {"audio": 4, "video": 2}
ALL_RATES = [{"audio": a, "video": v} for a, v in itertools.product((4, 16), (2, 5))]

families = pytest.mark.parametrize("family", LLM_FAMILIES)
tasks = pytest.mark.parametrize("task", TASKS)


def losses_of(model, batch, **options):
    with torch.no_grad():
        return model(batch, RATES, **options)


# ---- what the LLM reads and learns -----------------------------------------------------------


@families
@tasks
def test_prefix_is_bos_tagged_streams_and_prompt(tiny_model, batch, family, task):
    model = tiny_model(llm={"family": family})
    table, tokenizer = model.llm.get_input_embeddings().weight, model.tokenizer
    tokens = model.project(model.encode(batch), RATES).tokens
    for row, prefix in zip((2, 0), model.prefixes(task, tokens, [2, 0]), strict=True):
        expected = [] if tokenizer.bos_id is None else [table[[tokenizer.bos_id]]]
        for modality in TASKS[task].modalities:
            count = int(batch.lengths(modality)[row]) // RATES[modality]
            start, end = tokenizer.tags[modality]
            expected += [table[[start]], tokens[modality].states[row, :count], table[[end]]]
        expected.append(table[tokenizer.encode(TASKS[task].prompt)])
        assert torch.equal(prefix, torch.cat(expected))


@families
def test_labels_cover_exactly_the_answer(tiny_model, batch, family):
    model = tiny_model(llm={"family": family})
    tokens = model.project(model.encode(batch), RATES).tokens
    prefixes = model.prefixes("avsr", tokens, range(3))
    answers = [[*model.tokenizer.encode(text), model.tokenizer.eos_id] for text in batch.texts]
    read = model.sequences(prefixes, answers)
    assert read.inputs.shape[:2] == read.labels.shape
    for i, (prefix, answer) in enumerate(zip(prefixes, answers, strict=True)):
        assert read.prefixes[i] == len(prefix)
        labelled = (read.labels[i] != IGNORE).nonzero().flatten().tolist()
        assert labelled == list(range(len(prefix) - 1, len(prefix) - 1 + len(answer)))
        assert read.labels[i, labelled].tolist() == answer
        own = torch.cat([prefix, model.llm.get_input_embeddings().weight[answer[:-1]]])
        assert torch.equal(read.inputs[i, : len(own)], own)


@families
@tasks
def test_loss_is_that_of_transformers_on_the_whole_sequence(tiny_model, make_features, family, task):
    model = tiny_model(llm={"family": family})
    batch = collate([make_features(20)], ["bin blue at f"])
    prefix = model.prefixes(task, model.project(model.encode(batch), RATES).tokens, [0])[0]
    answer = torch.tensor([*model.tokenizer.encode("bin blue at f"), model.tokenizer.eos_id])
    inputs = torch.cat([prefix, model.llm.get_input_embeddings()(answer)])
    labels = torch.cat([torch.full((len(prefix),), IGNORE), answer])
    with model.adapters.use(task):
        reference = model.llm(inputs_embeds=inputs[None], labels=labels[None]).loss
    torch.testing.assert_close(losses_of(model, batch).tasks[task], reference, rtol=1e-5, atol=1e-5)


@families
def test_padding_is_learned_only_for_compatibility(tiny_model, batch, family):
    model = tiny_model(llm={"family": family})
    assert all(answer.count(model.tokenizer.eos_id) == 1 for answer in model._answers(batch.texts))
    compatible = tiny_model(llm={"family": family}, compat={"train_on_padding": True})
    answers = compatible._answers(["bin", *batch.texts])
    assert len({len(answer) for answer in answers}) == 1
    said = [*compatible.tokenizer.encode("bin"), compatible.tokenizer.eos_id]
    assert answers[0] == said + [compatible.tokenizer.pad_id] * (len(answers[0]) - len(said))


# ---- rows and streams do not disturb each other ----------------------------------------------


@families
@pytest.mark.parametrize("projector", PROJECTORS)
@pytest.mark.parametrize("compression", COMPRESSORS)
def test_loss_of_a_batch_is_that_of_its_rows(tiny_model, make_features, projector, compression, family):
    model = tiny_model(projector={"kind": projector}, compression=compression, llm={"family": family})
    texts = ("bin blue at f two now", "place red")
    clips = [make_features(frames, seed=frames) for frames in (20, 33)]
    together = losses_of(model, collate(clips, texts))
    alone = [losses_of(model, collate([clip], [text])) for clip, text in zip(clips, texts, strict=True)]
    counts = [len(model.tokenizer.encode(text)) + 1 for text in texts]
    for task in TASKS:
        mean = sum(n * loss.tasks[task] for n, loss in zip(counts, alone, strict=True)) / sum(counts)
        torch.testing.assert_close(together.tasks[task], mean, rtol=1e-4, atol=1e-4)


def test_asr_does_not_depend_on_the_video_nor_vsr_on_the_audio(tiny_model, batch):
    model = tiny_model()
    plain = losses_of(model, batch).tasks
    other_video = losses_of(model, dataclasses.replace(batch, video=torch.randn_like(batch.video))).tasks
    other_audio = losses_of(model, dataclasses.replace(batch, mel=torch.randn_like(batch.mel))).tasks
    assert other_video["asr"] == plain["asr"]
    assert other_audio["vsr"] == plain["vsr"]
    assert plain["avsr"] not in (other_video["avsr"], other_audio["avsr"])


def test_rows_take_part_in_the_tasks_whose_streams_they_have(tiny_model, make_features):
    model = tiny_model(ctc={"units": "char"})
    clips = [make_features(20), make_features(30, audio=False), make_features(25, video=False)]
    texts = ["bin blue", "place red", "set white"]
    mixed = losses_of(model, collate(clips, texts))
    for task, rows in {"asr": [0, 2], "vsr": [0, 1], "avsr": [0]}.items():
        subset = losses_of(model, collate([clips[i] for i in rows], [texts[i] for i in rows]))
        torch.testing.assert_close(subset.tasks[task], mixed.tasks[task], rtol=1e-5, atol=1e-5)
    assert set(losses_of(model, collate(clips[2:], texts[2:])).tasks) == {"asr"}


def test_false_lips_teach_neither_the_lips_nor_their_head(tiny_model, make_features):
    model = tiny_model(ctc={"units": "char"})
    clips = [make_features(20, seed=1), dataclasses.replace(make_features(30, seed=2), false_lips=True)]
    texts = ["bin blue", "place red"]
    batch = collate(clips, texts)
    losses, true = losses_of(model, batch), losses_of(model, collate(clips[:1], texts[:1]))
    believed = losses_of(model, dataclasses.replace(batch, false_lips=frozenset()))
    torch.testing.assert_close(losses.tasks["vsr"], true.tasks["vsr"], rtol=1e-5, atol=1e-5)
    assert losses.tasks["asr"] == believed.tasks["asr"]
    assert losses.tasks["avsr"] == believed.tasks["avsr"]
    video = batch.video.clone()
    video[1] = torch.randn_like(video[1])
    assert losses_of(model, dataclasses.replace(batch, video=video)).auxiliary["ctc"] == losses.auxiliary["ctc"]
    assert losses.auxiliary["ctc"] != believed.auxiliary["ctc"]


@pytest.mark.parametrize(("quirk", "modality"), [("trim_to_longest", "audio"), ("unmasked_padding", "video")])
def test_official_lengths_are_those_of_the_longest_row(tiny_model, batch, quirk, modality):
    model = tiny_model(compat={quirk: True})
    encoded = model.encode(batch, learning=True)
    other = "video" if modality == "audio" else "audio"
    assert set(encoded[modality].lengths.tolist()) == {int(batch.lengths(modality).max())}
    assert encoded[other].lengths.tolist() == batch.lengths(other).tolist()
    assert model.encode(batch)[modality].lengths.tolist() == batch.lengths(modality).tolist()  # decoding


# ---- the sum ---------------------------------------------------------------------------------


def test_total_is_the_weighted_mean_over_tasks_plus_auxiliary_losses(tiny_model, batch):
    model = tiny_model(projector={"kind": "smop_pool"}, ctc={"units": "token"})
    losses = losses_of(model, batch, sink_weight=2.0, task_weights={"avsr": 3.0})
    assert set(losses.auxiliary) == {"balance", "router_z", "ctc", "sink"}
    tasks = (losses.tasks["asr"] + 1.5 * losses.tasks["vsr"] + 3.0 * losses.tasks["avsr"]) / 3
    torch.testing.assert_close(losses.total, tasks + sum(losses.auxiliary.values()))


def test_several_rates_are_averaged_and_each_pass_is_made_once(tiny_model, batch, monkeypatch):
    model = tiny_model(projector={"kind": "smop_dedr"})
    with torch.no_grad():
        single = [model(batch, rates, sink_weight=1.0) for rates in ALL_RATES]
        passes = []
        learn = model._learn
        monkeypatch.setattr(model, "_learn", lambda task, *rest: passes.append(task) or learn(task, *rest))
        mean = model(batch, ALL_RATES, sink_weight=1.0)
    torch.testing.assert_close(mean.total, torch.stack([one.total for one in single]).mean())
    assert {task: passes.count(task) for task in TASKS} == {"asr": 2, "vsr": 2, "avsr": 4}


def test_label_smoothing_shares_probability_among_all_tokens(tiny_model, make_features):
    model = tiny_model(tasks=("asr",))
    batch = collate([make_features(20)], ["bin blue"])
    answer = [*model.tokenizer.encode("bin blue"), model.tokenizer.eos_id]
    read = model.sequences(model.prefixes("asr", model.project(model.encode(batch), RATES).tokens, [0]), [answer])
    with model.adapters.use("asr"), torch.no_grad():
        logprobs = model.llm(inputs_embeds=read.inputs).logits[0, -len(answer) :].log_softmax(-1)
    sharp = -logprobs.gather(1, torch.tensor(answer)[:, None]).mean()
    smooth = losses_of(model, batch, label_smoothing=0.2).tasks["asr"]
    torch.testing.assert_close(smooth, 0.8 * sharp - 0.2 * logprobs.mean(), rtol=1e-5, atol=1e-5)


def test_sink_loss_by_hand():
    first, second = (
        torch.tensor([[[1.0, 0], [1, 1], [0, 5], [9, 9]], [[0, 2], [0, 3], [7, 7], [7, 7]]]),
        torch.ones(2, 4, 2),
    )
    # layer 1: row 0 has angles of 45 and 90 degrees, row 1, whose prefix is shorter, one of 0; layer 2: all are 0
    expected = ((0.5 + 0.0 + 1.0) / 3 + 1.0) / 2
    assert float(sink_loss([first, second], torch.tensor([3, 2]))) == pytest.approx(expected)


def test_sink_loss_reads_the_inner_layers_and_the_prefix_only(tiny_model, make_features):
    model = tiny_model(tasks=("asr",))
    batch = collate([make_features(20)], ["bin blue at f two now"])
    prefix = model.prefixes("asr", model.project(model.encode(batch), RATES).tokens, [0])[0]
    with model.adapters.use("asr"), torch.no_grad():
        hidden = model.llm(inputs_embeds=prefix[None], output_hidden_states=True).hidden_states[1:-1]
    squares = [F.cosine_similarity(h[0, :1], h[0, 1:], dim=-1).square().mean() for h in hidden]
    assert len(hidden) == model.llm.config.num_hidden_layers - 1
    torch.testing.assert_close(
        losses_of(model, batch, sink_weight=3.0).auxiliary["sink"], 3 * sum(squares) / len(squares)
    )


# ---- rates -----------------------------------------------------------------------------------


def test_rates_are_checked_and_default_to_the_finest(tiny_model, batch):
    model = tiny_model(audio_rates=(16, 4))
    assert model.check_rates("asr") == {"audio": 4}
    assert model.check_rates("avsr", audio_rate=16) == {"audio": 16, "video": 2}
    for call in (
        lambda: model.check_rates("vsr", video_rate=3),
        lambda: model.check_rates("vsr", video_rate=0),
        lambda: model(batch, {"audio": 4, "video": 3}),
        lambda: model(batch, {"audio": 4}),
    ):
        with pytest.raises(RateError, match=r"video_rate = (3|0|None): this model was trained for 2, 5"):
            call()
    with pytest.raises(ConfigError, match="did you mean 'vsr'"):
        model.check_rates("vrs")


def test_every_rate_gives_its_number_of_tokens(tiny_model, batch):
    model = tiny_model()
    encoded = model.encode(batch)
    for rates in ALL_RATES:
        for modality, tokens in model.project(encoded, rates).tokens.items():
            assert tokens.lengths.tolist() == (batch.lengths(modality) // rates[modality]).tolist()
            assert tokens.states.shape[-1] == model.llm.config.hidden_size


# ---- training parts --------------------------------------------------------------------------


def test_every_parameter_belongs_to_exactly_one_part(tiny_model):
    model = tiny_model(ctc={"units": "char"})
    assert set(PARTS) == set(get_args(Part))
    whole = {part: owns for part, owns in PARTS.items() if part != "task_lora"}  # which is a part of llm_lora
    owners = {name: [part for part, owns in whole.items() if owns(name)] for name, _ in model.named_parameters()}
    assert all(len(parts) == 1 for parts in owners.values())
    assert {parts[0] for parts in owners.values()} == set(whole)


@families
@pytest.mark.parametrize("part", PARTS)
def test_gradients_reach_exactly_the_trained_part(tiny_model, batch, part, family):
    changes = {"ctc": {"units": "char"}, "projector": {"kind": "mlp_shared"}, "video_encoder": {"layer_drop": 0.0}}
    model = tiny_model(llm={"family": family}, **changes)
    model.set_trainable((part,))
    model.train()
    for parameter in model.parameters():
        if parameter.requires_grad:  # a zero weight may hide a path
            torch.nn.init.normal_(parameter, std=0.1)
    model(batch, RATES).total.backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    expected = {name for name, _ in model.named_parameters() if PARTS[part](name)}
    blind = {name for name in expected - reached if "k_proj.bias" in name}  # softmax does not see a bias of all keys
    assert reached | blind == expected


@families
@pytest.mark.parametrize("strategy", [name for name in LORA if name != "none"])
def test_each_task_trains_its_own_adapters(tiny_model, make_features, strategy, family):
    model = tiny_model(lora={"strategy": strategy}, llm={"family": family})
    model.set_trainable(("llm_lora",))
    model(collate([make_features(video=False)], ["bin blue"]), RATES).total.backward()
    reached = {name.rpartition(".")[2] for name, p in model.named_parameters() if p.grad is not None}
    assert reached == set(LORA[strategy].active("asr"))


def test_frozen_modules_stay_in_eval_mode(tiny_model, batch):
    model = tiny_model()
    model.set_trainable(("projectors", "video_lora"))
    model.train()
    norms = [m for m in model.video_encoder.modules() if isinstance(m, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d))]
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert norms
    assert not any(norm.training for norm in norms)
    assert not model.audio_encoder.training
    assert not model.llm.training
    assert model.projector.training
    assert model.video_encoder.training
    model(batch, RATES)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    model.eval()
    assert not any(module.training for module in model.modules())


def test_parts_that_cannot_be_trained_are_refused(tiny_model):
    model = tiny_model(lora={"strategy": "none"})
    with pytest.raises(ConfigError, match="unknown part 'projector'; did you mean 'projectors'"):
        model.set_trainable(("projector",))
    with pytest.raises(ConfigError, match="nothing would be trained"):
        model.set_trainable(("llm_lora", "ctc"))


# ---- the rest --------------------------------------------------------------------------------


@families
@pytest.mark.parametrize("strategy", LORA)
def test_state_dict_round_trip(tiny_model, batch, family, strategy):
    changes = {"llm": {"family": family}, "lora": {"strategy": strategy}, "ctc": {"units": "char"}}
    model, other = tiny_model(**changes), tiny_model(**changes)
    assert losses_of(model, batch).total != losses_of(other, batch).total
    other.load_state_dict(model.state_dict())
    assert losses_of(model, batch).total == losses_of(other, batch).total
    rooms = {name.partition(".")[0] for name in model.state_dict()}
    assert rooms == {"audio_encoder", "video_encoder", "projector", "llm", "ctc"}


@pytest.mark.parametrize("present", [("asr",), ("vsr",), ("avsr",), ("asr", "vsr")])
def test_a_model_of_fewer_tasks_has_only_their_encoders(tiny_model, batch, present):
    model = tiny_model(tasks=present)
    used = {m for task in present for m in TASKS[task].modalities}
    assert {m for m in ("audio", "video") if hasattr(model, f"{m}_encoder")} == used
    losses = losses_of(model, batch)
    assert set(losses.tasks) == set(present)
    weighted = sum(TASKS[task].loss_weight * loss for task, loss in losses.tasks.items()) / len(present)
    torch.testing.assert_close(losses.total, weighted)


def test_prompts_of_the_configuration_are_asked(tiny_model, batch):
    model = tiny_model(prompts={"asr": "now"})
    prefix = model.prefixes("asr", model.project(model.encode(batch), RATES).tokens, [0])[0]
    now = model.llm.get_input_embeddings().weight[model.tokenizer.encode("now")]
    assert torch.equal(prefix[-len(now) :], now)


def test_half_precision_models_take_the_same_features(tiny_model, batch):
    model = tiny_model()
    expected = losses_of(model, batch).total
    assert losses_of(model.bfloat16(), batch).total == pytest.approx(float(expected), rel=0.05)


def test_batches_without_text_or_streams_are_refused(tiny_model, make_features):
    with pytest.raises(InputError, match="no texts"):
        tiny_model()(collate([make_features()]), RATES)
    with pytest.raises(InputError, match="streams of any of avsr"):
        tiny_model(tasks=("avsr",))(collate([make_features(audio=False)], ["bin"]), RATES)


def test_alphabet_is_that_of_the_texts(tiny_config):
    model = build_model(tiny_config(ctc={"units": "char"}), ["ab", "ca"])
    assert model.ctc_alphabet == "abc"
    assert model.ctc.audio.out_features == 4
