from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omni_avsr.model.batch import collate
from omni_avsr.model.decode import DecodeOptions, Search, prompts
from omni_avsr.model.draft import Draft, drafts, spelled
from omni_avsr.tasks import TASKS

WORDS = ("bin", "blue", "at", "f", "two", "now", "place", "red", "by", "z", "xylophone")
texts = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)


@given(text=texts, cut=st.integers(0, 40))
def test_a_right_guess_goes_on_from_everywhere(tokenizer, text, cut):
    tokens = tokenizer.encode(text)
    said = tokens[:cut]
    assert Draft(text, tokenizer)(said) == [*tokens[len(said) :], tokenizer.eos_id]


@pytest.mark.parametrize(
    ("guess", "said", "rest"),
    [
        ("bin blue at s two now", "bin blue at f", " two now"),  # another word
        ("bin blue at fi two now", "bin blue at f two", " now"),  # a longer one
        ("bin blu at f two now", "bin blue", " at f two now"),  # a shorter one
        ("blue at f two now", "bin blue at", " f two now"),  # one that was not guessed
        ("bin z blue at f two now", "bin blue", " at f two now"),  # one too many
        ("", "bin blue", ""),
    ],
)
def test_one_wrong_word_does_not_spoil_the_rest(tokenizer, guess, said, rest):
    following = Draft(guess, tokenizer)(tokenizer.encode(said))
    assert tokenizer.encode(said) + following == [*tokenizer.encode(said + rest), tokenizer.eos_id]


def test_a_misspelt_word_is_taken_for_one_the_llm_knows(tokenizer):
    assert {"bin", "at", "soon", "f"} <= set(tokenizer.words)
    assert "soo" not in tokenizer.words
    assert spelled("bn at f xylophone", tokenizer.words) == "bin at f xylophone"


@given(guess=st.text(max_size=20), said=st.lists(st.integers(0, 299), max_size=8))
def test_any_guess_after_any_tokens_is_tokens_or_nothing(tokenizer, guess, said):
    following = Draft(guess, tokenizer)(said)
    assert not following or following[-1] == tokenizer.eos_id


@pytest.fixture
def spelling(tiny_model, make_features):
    """A model with CTC heads, and two clips encoded."""
    model = tiny_model(ctc={"units": "char"})
    return model, model.encode(collate([make_features(20, seed=1), make_features(33, seed=2)]))


@torch.no_grad()
def test_the_surer_head_guesses(spelling):
    model, encoded = spelling
    alone = {m: [d.text for d in drafts(model.ctc, {m: encoded[m]}, model.tokenizer)] for m in encoded}
    for sure in encoded:
        for modality in encoded:  # the other head finds all units alike
            model.ctc[modality].weight.mul_(100.0 if modality == sure else 0.0)
        found = [d.text for d in drafts(model.ctc, encoded, model.tokenizer)]
        assert found == [d.text for d in drafts(model.ctc, {sure: encoded[sure]}, model.tokenizer)]
        torch.nn.init.normal_(model.ctc["audio"].weight)
        torch.nn.init.normal_(model.ctc["video"].weight)
    assert all(len(texts) == 2 for texts in alone.values())


@pytest.mark.parametrize("task", TASKS)
@torch.no_grad()
def test_only_models_with_heads_draft_and_only_if_asked(spelling, tiny_model, make_features, task):
    model, encoded = spelling
    batch = collate([make_features(20, seed=1), make_features(33, seed=2)])
    rows = prompts(model, batch, task, {}, DecodeOptions(1), encoded)
    assert all(isinstance(row.draft, Draft) for row in rows)
    plain = prompts(model, batch, task, {}, DecodeOptions(1, draft=False), encoded)
    assert all(row.draft is None for row in plain)
    assert all(row.draft is None for row in prompts(tiny_model(), batch, task, {}, DecodeOptions(1)))
    found, expected = (
        {i: h.tokens for i, h in Search(model, DecodeOptions(1, max_new_tokens=6)).run(p)} for p in (rows, plain)
    )
    assert found == expected
