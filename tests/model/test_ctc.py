from __future__ import annotations

import itertools
import math

import pytest
import torch

from omni_avsr.config import CtcConfig
from omni_avsr.errors import ConfigError
from omni_avsr.model.ctc import BLANK, UNITS, CtcHeads
from omni_avsr.types import Encoded

DIMS = {"audio": 6, "video": 5}
ALPHABET = " abcdefghijklmnopqrstuvwxyz"

every_unit = pytest.mark.parametrize("units", UNITS)


def make_heads(units, tokenizer, weight=0.3):
    return CtcHeads(CtcConfig(units=units, weight=weight), DIMS, tokenizer, ALPHABET)


def encoded(lengths, dim):
    return Encoded(torch.randn(len(lengths), max(lengths), dim), torch.tensor(lengths))


def test_none_has_no_heads_and_no_loss(tokenizer):
    heads = make_heads("none", tokenizer)
    assert not list(heads.parameters())
    assert heads.loss({"audio": encoded([9], 6)}, ["bin"]) is None


@every_unit
def test_what_the_frames_spell_is_read_back(units, tokenizer):
    heads = make_heads(units, tokenizer)
    text = "bin blue at f two now"
    targets = heads.targets(text, "audio")
    assert BLANK not in targets
    path = [c for target in targets for c in (target, target, BLANK)]  # repeats and blanks are no new units
    classes = heads["audio"].out_features
    heads["audio"] = torch.nn.Identity()
    states = torch.nn.functional.one_hot(torch.tensor([path, path]), classes).float()
    assert heads.text(Encoded(states, torch.tensor([len(path), 3])), "audio")[0] == text


@every_unit
def test_log_probs_are_normalised_over_units_and_blank(units, tokenizer):
    heads = make_heads(units, tokenizer)
    log_probs = heads.log_probs(encoded([7, 4], 6), "audio")
    assert log_probs.shape == (2, 7, heads.units["audio"].count + 1)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(2, 7))


def test_loss_is_the_probability_of_all_paths(tokenizer):
    heads = CtcHeads(CtcConfig(units="char", weight=0.5), {"audio": 6}, tokenizer, "ab")
    states = encoded([4], 6)
    probs = heads.log_probs(states, "audio")[0].exp().detach()
    total = 0.0
    for path in itertools.product(range(3), repeat=4):
        if [c for c, _ in itertools.groupby(path) if c != BLANK] == [1, 2]:
            total += math.prod(float(probs[t, c]) for t, c in enumerate(path))
    assert heads.loss({"audio": states}, ["ab"]).item() == pytest.approx(0.5 * -math.log(total) / 2, rel=1e-5)


@every_unit
def test_loss_of_a_batch_is_the_mean_of_its_rows(units, tokenizer):
    heads = make_heads(units, tokenizer)
    texts = ["bin", "two now", "place", ""]
    lengths = [20, 33, 0, 9]  # the third has no stream, the fourth says nothing
    batch = encoded(lengths, 6)
    alone = [
        heads.loss({"audio": Encoded(batch.states[i : i + 1, :n], torch.tensor([n]))}, [texts[i]])
        for i, n in enumerate(lengths)
        if n
    ]
    assert alone[-1] is None
    torch.testing.assert_close(heads.loss({"audio": batch}, texts), (alone[0] + alone[1]) / 2)


def test_text_that_does_not_fit_counts_as_zero_and_modalities_add_up(tokenizer):
    heads = make_heads("char", tokenizer)
    assert heads.loss({"audio": encoded([3], 6)}, ["place red"]).item() == 0.0
    streams = {"audio": encoded([30], 6), "video": encoded([15], 5)}
    parts = [heads.loss({m: e}, ["place"]) for m, e in streams.items()]
    torch.testing.assert_close(heads.loss(streams, ["place"]), parts[0] + parts[1])


def test_the_lips_may_spell_other_units(tokenizer):
    heads = CtcHeads(CtcConfig(units="char", video_units="token"), DIMS, tokenizer, ALPHABET)
    assert heads["audio"].out_features == len(ALPHABET) + 1
    assert heads["video"].out_features == len(tokenizer) + 1
    assert heads.targets("bin", "audio") == [ALPHABET.index(c) + 1 for c in "bin"]
    assert heads.targets("bin", "video") == [unit + 1 for unit in tokenizer.encode("bin")]
    silent = CtcHeads(CtcConfig(units="char", video_units="none"), DIMS, tokenizer, ALPHABET)
    assert list(silent) == ["audio"]


@every_unit
def test_tokens_are_spelled_as_their_text_is(units, tokenizer):
    heads = make_heads(units, tokenizer)
    tokens = tokenizer.encode("bin blue at f")
    assert heads.spell("audio")(tokens) == heads.targets("bin blue at f", "audio")
    assert heads.spell("audio")(tokens)[:3] == heads.spell("audio")(tokens[:-1])[:3]


def test_characters_without_an_alphabet_are_refused(tokenizer):
    with pytest.raises(ConfigError, match="alphabet"):
        CtcHeads(CtcConfig(units="char"), DIMS, tokenizer)
