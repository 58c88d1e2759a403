"""Rows that come and go, drafts, and what is read: the words stay the same."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_avsr.model.batch import collate
from omni_avsr.model.decode import DecodeOptions, Prompt, Search, decode, prompts
from omni_avsr.model.search import _Node, _Row
from omni_avsr.model.spelling import Beginning
from omni_avsr.tasks import TASKS

LIMIT = 8
OPTIONS = {size: DecodeOptions(size, max_new_tokens=LIMIT) for size in (1, 3)}

rows = st.tuples(
    st.integers(13, 40),  # video frames
    st.sampled_from(sorted(TASKS)),
    st.sampled_from([4, 16]),
    st.sampled_from([2, 5]),
)


@pytest.fixture(scope="module")
def model(talkative):
    torch.manual_seed(3)
    return talkative()


def asked(model, make_features, mixed, options):
    """The prompts of `mixed` rows, encoded in one batch."""
    clips = [make_features(frames, seed=i) for i, (frames, *_) in enumerate(mixed)]
    tasks = [task for _, task, _, _ in mixed]
    return prompts(model, collate(clips), tasks, [{"audio": a, "video": v} for *_, a, v in mixed], options)


def run(model, asking, options, width=None):
    """The hypotheses in the order of the prompts, and the search that found them."""
    search = Search(model, options)
    found = dict(search.run(asking, width))
    assert sorted(found) == list(range(len(asking)))
    return [found[i] for i in range(len(asking))], search


def same(found, expected):
    assert [h.tokens for h in found] == [h.tokens for h in expected]
    assert [h.score for h in found] == pytest.approx([h.score for h in expected], abs=1e-5)


@settings(max_examples=8)
@given(mixed=st.lists(rows, min_size=2, max_size=5), beam_size=st.sampled_from([1, 3]), width=st.integers(1, 3))
def test_rows_of_any_length_task_and_rate_are_as_if_alone(model, make_features, mixed, beam_size, width):
    options = OPTIONS[beam_size]
    alone = []
    for i, (frames, task, audio_rate, video_rate) in enumerate(mixed):
        clip = collate([make_features(frames, seed=i)])
        alone += decode(model, clip, task, {"audio": audio_rate, "video": video_rate}, options)
    together = asked(model, make_features, mixed, options)
    same(run(model, together, options)[0], alone)
    same(run(model, together, options, width)[0], alone)  # rows enter as others leave


def test_a_row_that_leaves_makes_room_for_the_next(model, make_features):
    mixed = [(20 + i, "asr", 4, 2) for i in range(6)]
    asking = asked(model, make_features, mixed, OPTIONS[1])
    taken = []
    lazy = (taken.append(i) or prompt for i, prompt in enumerate(asking))
    search = Search(model, OPTIONS[1])
    for done, _ in enumerate(search.run(lazy, width=2), 1):
        assert len(taken) <= min(len(asking), done + 2)
    assert taken == list(range(6))


def test_a_prompt_is_read_once_and_every_beam_s_token_once(model, make_features):
    asking = asked(model, make_features, [(20, "asr", 4, 2), (31, "avsr", 4, 5)], OPTIONS[3])
    endless = [replace(prompt, limit=LIMIT) for prompt in asking]
    found, search = run(model, endless, OPTIONS[3])
    longest = max(len(h.tokens) for h in found)
    assert search.passes <= LIMIT
    read = search.positions - sum(len(prompt.prefix) for prompt in asking)
    assert longest - 1 <= read <= 2 * 3 * (LIMIT - 1)


@settings(max_examples=15)
@given(data=st.data(), beam_size=st.sampled_from([1, 3]))
def test_a_draft_never_changes_what_is_said(model, make_features, data, beam_size):
    mixed = data.draw(st.lists(rows, min_size=1, max_size=3))
    asking = asked(model, make_features, mixed, OPTIONS[beam_size])
    expected, _ = run(model, asking, OPTIONS[beam_size])
    tokens = st.lists(st.integers(0, len(model.tokenizer) - 1), max_size=LIMIT + 3)
    guesses = [
        data.draw(st.one_of(tokens, st.just([*h.tokens, model.tokenizer.eos_id]), st.just(h.tokens))) for h in expected
    ]
    drafted = [replace(p, draft=lambda said, g=g: list(g[len(said) :])) for p, g in zip(asking, guesses, strict=True)]
    same(run(model, drafted, OPTIONS[beam_size])[0], expected)


def test_a_right_draft_needs_one_pass(model, make_features):
    asking = asked(model, make_features, [(20, "avsr", 4, 2), (31, "vsr", 4, 5), (40, "asr", 16, 5)], OPTIONS[1])
    expected, plain = run(model, asking, OPTIONS[1])
    right = [
        replace(p, draft=lambda said, h=h: list(h.tokens[len(said) :])) for p, h in zip(asking, expected, strict=True)
    ]
    found, search = run(model, right, OPTIONS[1])
    same(found, expected)
    assert search.passes == 1 < plain.passes
    assert search.positions == plain.positions


@dataclass(frozen=True)
class Text(Beginning):
    """A beginning that says what it is."""

    tokens: tuple[int, ...] = ()


class Against:
    """Heads that cannot bear one text, and do not care about any other."""

    def __init__(self, tokens):
        self.tokens = tuple(tokens)

    def nothing(self):
        return Text()

    def longer(self, before, tokens):
        return [Text(score=self._score(text), tokens=tuple(text)) for text in tokens]

    def whole(self, text):
        return self._score(text.tokens)

    def _score(self, tokens):
        return -1e6 if tuple(tokens) == self.tokens else 0.0


def test_what_the_heads_cannot_bear_is_not_said(model, make_features):
    mixed = [(20, "asr", 4, 2), (31, "avsr", 4, 5)]
    asking = asked(model, make_features, mixed, OPTIONS[3])
    plain, _ = run(model, asking, OPTIONS[3])
    against = [replace(p, spelling=Against(h.tokens)) for p, h in zip(asking, plain, strict=True)]
    other, _ = run(model, against, OPTIONS[3])
    assert all(h.tokens != p.tokens for h, p in zip(other, plain, strict=True))
    assert all(-50 < h.score < 0 for h in other)  # the LLM's own mean, without what the heads think


def test_heads_that_do_not_care_change_nothing_but_the_choice(model, make_features):
    asking = asked(model, make_features, [(20, "asr", 4, 2), (31, "avsr", 4, 5)], OPTIONS[3])
    search = Search(model, OPTIONS[3])
    search._chosen = lambda row: row.finished[0][1]
    plain, _ = run(model, asking, OPTIONS[3])
    found = dict(search.run([replace(p, spelling=Against((-1,))) for p in asking]))
    same([found[0], found[1]], plain)


def test_the_answer_has_the_fewest_wrong_words_to_be_expected(model):
    row = _Row(0, Prompt(torch.zeros(1, 4), "asr", 9, spelling=Against(())), model.tokenizer.eos_id, OPTIONS[3])

    def ended(text, total):
        node = row.root
        for token in model.tokenizer.encode(text):
            node = _Node(token, parent=node, depth=node.depth + 1)
        return total, _Node(row.eos, parent=node, total=total)

    # the likeliest whole text has a first word that the two others do not have
    row.finished = [ended("set red at", -1.0), ended("bin red at", -1.1), ended("bin red by", -1.2)]
    words = [node.token for node in Search(model, OPTIONS[3])._chosen(row).path()[:-1]]
    assert model.tokenizer.decode(words) == "bin red at"


def test_a_model_may_ask_its_ctc_heads(tiny_model, make_features):
    torch.manual_seed(3)
    batch = collate([make_features(30, seed=1), make_features(24, seed=2)])
    model = tiny_model(ctc={"units": "char", "decode_weight": 0.9})
    options = DecodeOptions(3, max_new_tokens=LIMIT)
    assert all(p.spelling for p in prompts(model, batch, "avsr", {"audio": 4, "video": 2}, options))
    assert not any(p.spelling for p in prompts(model, batch, "avsr", {"audio": 4}, DecodeOptions(1)))
    together = decode(model, batch, "avsr", {"audio": 4, "video": 2}, options)
    for row, clip in enumerate((make_features(30, seed=1), make_features(24, seed=2))):
        same(decode(model, collate([clip]), "avsr", {"audio": 4, "video": 2}, options), [together[row]])
