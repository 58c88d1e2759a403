"""A Whisper as a labeller: a random one of a few thousand weights, in transformers' own file format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from omni_avsr.data.listener import WhisperListener
from omni_avsr.data.speech_synthesis import Voice, synthesize
from omni_avsr.errors import AssetError

SPECIALS = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>",
            "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")  # fmt: skip


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Raw
    from transformers import (
        GenerationConfig,
        PreTrainedTokenizerFast,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )

    folder = tmp_path_factory.mktemp("whisper")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Raw(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(s, special=True) for s in SPECIALS])
    ids = {s: raw.token_to_id(s) for s in SPECIALS}
    end = ids["<|endoftext|>"]
    PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|endoftext|>", eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    ).save_pretrained(str(folder))
    WhisperFeatureExtractor().save_pretrained(str(folder))
    config = WhisperConfig(
        vocab_size=raw.get_vocab_size(), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_target_positions=32,
        decoder_start_token_id=ids["<|startoftranscript|>"], bos_token_id=end, eos_token_id=end, pad_token_id=end,
        suppress_tokens=[], begin_suppress_tokens=[],
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=ids["<|startoftranscript|>"], eos_token_id=end, pad_token_id=end, bos_token_id=end,
        max_length=12, is_multilingual=True, lang_to_id={"<|en|>": ids["<|en|>"], "<|de|>": ids["<|de|>"]},
        task_to_id={"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]},
        no_timestamps_token_id=ids["<|notimestamps|>"], suppress_tokens=list(ids.values()),
    )  # fmt: skip
    model.save_pretrained(str(folder))
    return folder


def test_each_stretch_of_speech_becomes_a_sentence_and_silence_none(whisper: Path) -> None:
    voice = Voice("en-us")
    first, second = (synthesize(text, voice, seed=1).audio for text in ("Place blue at f two now", "Hello there again"))
    pause = np.zeros(32_000, np.float32)
    listener = WhisperListener(str(whisper), "en", "cpu", offline=True)
    spans = listener(np.concatenate([pause, first, pause, second]))
    assert len(spans) == 2
    assert all(span.text for span in spans)
    assert abs(spans[0].start - 2) < 0.5
    assert spans[1].end is not None
    assert abs(spans[1].start - (4 + len(first) / 16_000)) < 0.6
    assert listener(np.zeros(48_000, np.float32)) == []
    assert listener.name == f"{whisper} en"


def test_what_is_no_whisper_is_named(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"no Whisper model in '.*'; give a directory|no Whisper model in"):
        WhisperListener(str(tmp_path), offline=True)
