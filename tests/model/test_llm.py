from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig

from omni_avsr.config import LLMConfig
from omni_avsr.errors import AssetError, ConfigError
from omni_avsr.model.llm import LLM_FAMILIES, TAGS, Tokenizer, build_llm, build_tokenizer, train_tokenizer

families = pytest.mark.parametrize("family", LLM_FAMILIES)
TEXTS = ("bin blue at f two now", "place red by z nine soon", "set white with k four again")
DIMS = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SPOKEN = train_tokenizer(TEXTS, 400)


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_any_text_survives(text):
    assert SPOKEN.decode(SPOKEN.encode(text)) == text


@pytest.mark.parametrize("text", ["<audio>", "<|end_of_text|> </video>", "<pad>", "  two  spaces "])
def test_text_that_spells_a_special_token_stays_text(text):
    specials = {SPOKEN.eos_id, SPOKEN.pad_id, *(i for pair in SPOKEN.tags.values() for i in pair)}
    assert not specials & set(SPOKEN.encode(text))
    assert SPOKEN.decode(SPOKEN.encode(text)) == text


def test_words_are_single_tokens_wherever_they_stand():
    words = sorted({word for text in TEXTS for word in text.split()})
    ids = {word: SPOKEN.encode(word) for word in words}
    assert all(len(i) == 1 for i in ids.values())
    assert SPOKEN.encode(" ".join(words)) == [i for word in words for i in ids[word]]


@families
def test_special_tokens_are_added_after_the_vocabulary_and_skipped_in_text(family):
    row = LLM_FAMILIES[family]
    tokenizer = train_tokenizer(TEXTS, 300, family)
    assert (tokenizer.bos_id is None) == (not row.bos)
    added = [i for m in TAGS for i in tokenizer.tags[m]]
    if row.pad not in row.eos:
        added.insert(0, tokenizer.pad_id)
    assert added == list(range(len(tokenizer) - len(added), len(tokenizer)))
    opening = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    ids = [*opening, *tokenizer.tags["audio"], *tokenizer.encode("bin blue"), tokenizer.eos_id, tokenizer.pad_id]
    assert tokenizer.decode(ids) == "bin blue"


@families
def test_tokenizer_comes_back_from_disk(family, tmp_path):
    tokenizer = train_tokenizer(TEXTS, 300, family)
    tokenizer.save(tmp_path)
    loaded = build_tokenizer(LLMConfig(family=family, tokenizer=str(tmp_path)), offline=True)
    for text in (*TEXTS, " é <audio>"):
        assert loaded.encode(text) == tokenizer.encode(text)
        assert loaded.decode(loaded.encode(text)) == text
    for name in ("bos_id", "eos_id", "pad_id", "tags"):
        assert getattr(loaded, name) == getattr(tokenizer, name)
    assert len(loaded) == len(tokenizer)


def test_a_configuration_beside_it_does_not_change_a_tokenizer(tmp_path):
    """transformers' AutoTokenizer replaces the rules of tokenizer.json where config.json says Qwen."""
    tokenizer = train_tokenizer(TEXTS, 300, "qwen2")
    tokenizer.save(tmp_path)
    AutoConfig.for_model("qwen2").save_pretrained(tmp_path)
    loaded = Tokenizer.load(tmp_path, "qwen2", offline=True)
    for text in (*TEXTS, "it's 1234"):
        assert loaded.encode(text) == tokenizer.encode(text)


def test_tokenizer_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(AssetError, match=r"no tokenizer\.json in"):
        Tokenizer.load(tmp_path / "nothing", "llama", offline=True)
    train_tokenizer(TEXTS, 300, "qwen2").save(tmp_path)
    with pytest.raises(ConfigError, match="family 'llama'"):
        Tokenizer.load(tmp_path, "llama", offline=True)
    with pytest.raises(ConfigError, match="vocab_size = 100"):
        train_tokenizer(TEXTS, 100)


@families
def test_random_model_has_its_dimensions_and_one_row_per_token(family):
    tokenizer = train_tokenizer(TEXTS, 300, family)
    llm = build_llm(LLMConfig(family=family, dims=DIMS), tokenizer)
    assert llm.config.hidden_size == 32
    assert llm.get_input_embeddings().weight.shape == (len(tokenizer), 32)
    assert llm.get_output_embeddings().weight.shape == (len(tokenizer), 32)
    assert llm.config._attn_implementation == "omni_memory"


@families
def test_pretrained_model_keeps_its_weights_and_gets_rows_for_our_tokens(family, tmp_path):
    tokenizer = train_tokenizer(TEXTS, 300, family)
    base = build_llm(LLMConfig(family=family, dims=DIMS), tokenizer)
    base.resize_token_embeddings(len(tokenizer) - 3)
    base.save_pretrained(tmp_path)
    llm = build_llm(LLMConfig(family=family, source=str(tmp_path)), tokenizer, offline=True)
    table, old = llm.get_input_embeddings().weight, base.get_input_embeddings().weight
    assert len(table) == len(tokenizer)
    assert torch.equal(table[: len(old)], old)
    assert torch.equal(llm.model.layers[0].self_attn.q_proj.weight, base.model.layers[0].self_attn.q_proj.weight)


def test_model_that_does_not_fit_is_refused(tmp_path, tokenizer):
    with pytest.raises(ConfigError, match="'hiden_size' is no field of a 'llama' model; did you mean 'hidden_size'"):
        build_llm(LLMConfig(dims={"hiden_size": 8}), tokenizer)
    with pytest.raises(AssetError, match="no language model in"):
        build_llm(LLMConfig(source=str(tmp_path / "nothing")), tokenizer, offline=True)
    build_llm(LLMConfig(family="qwen2", dims=DIMS), tokenizer).config.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="is a 'qwen2' model"):
        build_llm(LLMConfig(source=str(tmp_path)), tokenizer, offline=True)
