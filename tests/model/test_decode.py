from __future__ import annotations

import pytest
import torch

from omni_avsr.errors import ConfigError, InputError, NoAudioError, NoVideoError, RateError
from omni_avsr.model.batch import collate
from omni_avsr.model.decode import DecodeOptions, decode
from omni_avsr.model.llm import LLM_FAMILIES
from omni_avsr.model.lora import LORA
from omni_avsr.tasks import TASKS

RATES = {"audio": 4, "video": 2}
tasks = pytest.mark.parametrize("task", TASKS)
beams = pytest.mark.parametrize("beam_size", [1, 4, 15])


def words(hypotheses):
    return [hypothesis.tokens for hypothesis in hypotheses]


def by_transformers(model, batch, row, task, beam_size, limit):
    """Token ids before the end of text, and the beam score, from `generate` on one row."""
    prefix = model.prefixes(task, model.project(model.encode(batch), RATES).tokens, [row])[0]
    with model.adapters.use(task):
        out = model.llm.generate(
            inputs_embeds=prefix[None],
            attention_mask=torch.ones(1, len(prefix), dtype=torch.long),
            num_beams=beam_size,
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=model.tokenizer.eos_id,
            pad_token_id=model.tokenizer.pad_id,
            return_dict_in_generate=True,
            output_scores=True,
        )
    ids = out.sequences[0].tolist()
    ids = ids[: ids.index(model.tokenizer.eos_id)] if model.tokenizer.eos_id in ids else ids
    return tuple(ids), float(out.sequences_scores[0]) if beam_size > 1 else None


@pytest.mark.parametrize("family", LLM_FAMILIES)
@beams
@torch.no_grad()
def test_says_what_transformers_says(talkative, batch, family, beam_size):
    model = talkative(llm={"family": family})
    limit = 12
    lengths = set()
    for task in TASKS:
        found = decode(model, batch, task, RATES, DecodeOptions(beam_size, max_new_tokens=limit))
        for row, hypothesis in enumerate(found):
            ids, score = by_transformers(model, batch, row, task, beam_size, limit)
            assert hypothesis.tokens == ids
            assert hypothesis.text == model.tokenizer.decode(ids)
            assert score is None or hypothesis.score == pytest.approx(score, abs=1e-5)
            lengths.add(len(ids))
    assert len(lengths) > 1  # some ended by themselves


@beams
@torch.no_grad()
def test_rows_of_mixed_tasks_and_rates_equal_rows_alone(talkative, make_features, beam_size):
    model = talkative()
    options = DecodeOptions(beam_size, max_new_tokens=10)
    rows = [
        (make_features(20, seed=1), "vsr", {"video": 5}),
        (make_features(33, seed=2), "asr", {"audio": 4, "video": 2}),
        (make_features(33, seed=2), "avsr", {"audio": 16, "video": 2}),
        (make_features(41, seed=3, audio=False), "vsr", {"video": 2}),
        (make_features(25, seed=4, video=False), "asr", {"audio": 16}),
    ]
    clips, per_row, rates = zip(*rows, strict=True)
    together = decode(model, collate(clips), per_row, rates, options)
    for hypothesis, (clip, task, rate) in zip(together, rows, strict=True):
        alone = decode(model, collate([clip]), task, rate, options)[0]
        assert hypothesis.tokens == alone.tokens
        assert hypothesis.score == pytest.approx(alone.score, abs=1e-5)


@tasks
@torch.no_grad()
def test_scores_are_the_log_probabilities_of_the_tokens(talkative, batch, task):
    model = talkative()
    for row, hypothesis in enumerate(decode(model, batch, task, RATES, DecodeOptions(4, max_new_tokens=10))):
        prefix = model.prefixes(task, model.project(model.encode(batch), RATES).tokens, [row])[0]
        said = [*hypothesis.tokens, model.tokenizer.eos_id][:10]
        read = model.sequences([prefix], [said])
        with model.adapters.use(task):
            logits = model.llm(inputs_embeds=read.inputs).logits[0, len(prefix) - 1 :]
        steps = logits.log_softmax(-1).gather(1, torch.tensor(said)[:, None])[:, 0]
        torch.testing.assert_close(
            torch.tensor(hypothesis.token_logprobs), steps[: len(hypothesis.tokens)], atol=1e-4, rtol=0
        )
        assert hypothesis.score == pytest.approx(float(steps.mean()), abs=1e-4)
        assert hypothesis.avg_logprob == hypothesis.score


@pytest.mark.parametrize("strategy", LORA)
@tasks
@torch.no_grad()
def test_merged_adapters_say_the_same(talkative, batch, strategy, task):
    model = talkative(lora={"strategy": strategy})
    options = DecodeOptions(2, max_new_tokens=6)
    before = decode(model, batch, task, RATES, options)
    model.adapters.merge(task)
    assert words(decode(model, batch, task, RATES, options)) == words(before)


@torch.no_grad()
def test_length_penalty_prefers_longer_answers(talkative, batch):
    model = talkative()
    short, long = (
        decode(model, batch, "avsr", RATES, DecodeOptions(8, max_new_tokens=12, length_penalty=p)) for p in (-3.0, 3.0)
    )
    assert sum(map(len, words(short))) < sum(map(len, words(long)))


def test_speech_is_not_cut_off_by_default(talkative, make_features):
    model = talkative()
    with torch.no_grad():
        model.llm.get_output_embeddings().weight[model.tokenizer.eos_id] = 0.0
        model.llm.get_output_embeddings().weight[5] *= 20  # something else always wins
    clips = [make_features(25, seed=1), make_features(50, seed=2)]
    found = decode(model, collate(clips), "avsr", RATES, DecodeOptions(beam_size=1))
    assert [len(h.tokens) for h in found] == [32 + 16, 32 + 32]


def test_only_the_task_s_encoders_run_and_the_model_is_left_as_it_was(tiny_model, batch, monkeypatch):
    model = tiny_model()
    model.set_trainable(("projectors",))
    model.train()
    modes = {name: module.training for name, module in model.named_modules()}
    monkeypatch.setattr(model.video_encoder, "forward", None)
    decode(model, batch, "asr", RATES, DecodeOptions(2, max_new_tokens=3))
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(p.grad is None for p in model.parameters())


@torch.no_grad()
def test_encoded_clips_are_not_encoded_again(talkative, batch, monkeypatch):
    model = talkative()
    options = DecodeOptions(2, max_new_tokens=6)
    expected = {task: words(decode(model, batch, task, {}, options)) for task in TASKS}  # {}: the finest rates
    assert expected["avsr"] == words(decode(model, batch, "avsr", RATES, options))
    encoded = model.encode(batch)
    monkeypatch.setattr(model, "encode", None)
    assert {task: words(decode(model, batch, task, RATES, options, encoded)) for task in TASKS} == expected


def test_what_cannot_be_decoded_is_refused(tiny_model, make_features):
    model = tiny_model()
    clip = collate([make_features(name="clip")])
    with pytest.raises(NoAudioError, match="'silent' has no audio, which the task 'avsr' needs"):
        decode(model, collate([make_features(audio=False, name="silent")]), "avsr", RATES)
    with pytest.raises(NoVideoError):
        decode(model, collate([make_features(video=False)]), "vsr", RATES)
    with pytest.raises(InputError, match="2 tasks and 1 rates for 1 rows"):
        decode(model, clip, ["asr", "vsr"], RATES)
    with pytest.raises(RateError, match="audio_rate = 3"):
        decode(model, clip, "asr", {"audio": 3})
    with pytest.raises(ConfigError, match="does not perform 'avr'"):
        decode(model, clip, "avr", RATES)
    with pytest.raises(ConfigError, match="beam_size = 0"):
        DecodeOptions(beam_size=0)
    with pytest.raises(ConfigError, match="at most"):
        decode(model, clip, "asr", RATES, DecodeOptions(beam_size=1000))
