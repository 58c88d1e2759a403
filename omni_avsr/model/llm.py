"""The language model and its words: families of causal LMs, their tokenizers with our tags, building and loading."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as RawTokenizer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from omni_avsr.config import LLMConfig
from omni_avsr.errors import AssetError, ConfigError, nearest
from omni_avsr.model.memory import ATTENTION

TAGS: dict[str, tuple[str, str]] = {"audio": ("<audio>", "</audio>"), "video": ("<video>", "</video>")}


@dataclass(frozen=True)
class LLMFamily:
    """What differs between causal LMs. Another family of transformers is one more row of LLM_FAMILIES.

    Attributes:
        model_type: transformers' name of the architecture.
        bos: names of the token that opens the sequence, the first one in the vocabulary is used; none = no such token.
        eos: names of the token that ends the text, likewise.
        pad: the padding token; added to the vocabulary, before the tags, where it is missing.
        lora_targets: linear layers that carry Omni-LoRA.
    """

    model_type: str
    bos: tuple[str, ...]
    eos: tuple[str, ...]
    pad: str
    lora_targets: tuple[str, ...] = ("q_proj", "v_proj")


LLM_FAMILIES: dict[str, LLMFamily] = {
    "llama": LLMFamily("llama", ("<|begin_of_text|>", "<s>"), ("<|end_of_text|>", "</s>"), "<pad>"),
    "qwen2": LLMFamily("qwen2", (), ("<|endoftext|>",), "<|endoftext|>"),
}


# ---- tokenizer -------------------------------------------------------------------------------


class Tokenizer:
    """A tokenizer of transformers with our tags added as the official code adds them.

    Args:
        backend: a fast tokenizer; it is copied, not changed.
        family: row of LLM_FAMILIES.

    Attributes:
        bos_id: opens every sequence, or None.
        eos_id: ends every text.
        pad_id: fills rows; never learned.
        tags: modality -> ids of its opening and closing tag.

    Raises:
        ConfigError: the vocabulary lacks the family's tokens.
    """

    def __init__(self, backend: PreTrainedTokenizerFast, family: str) -> None:
        row = LLM_FAMILIES[family]
        self._backend = copy.deepcopy(backend)
        vocabulary = self._backend.get_vocab()
        specials = (row.pad, *(tag for pair in TAGS.values() for tag in pair))
        missing = [AddedToken(s, special=True, normalized=False) for s in specials if s not in vocabulary]
        self._backend.add_special_tokens({"extra_special_tokens": missing}, replace_extra_special_tokens=False)
        self.bos_id = self._first(row.bos, family) if row.bos else None
        self.eos_id = self._first(row.eos, family)
        self.pad_id = self._id(row.pad)
        self.tags = {modality: (self._id(start), self._id(end)) for modality, (start, end) in TAGS.items()}

    def __len__(self) -> int:
        """Size of the vocabulary, added tokens included."""
        return len(self._backend)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without opening and ending token."""
        # text that happens to spell a special token stays text
        return list(self._backend.encode(text, add_special_tokens=False, split_special_tokens=True))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; special tokens are left out."""
        return str(self._backend.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    @cached_property
    def words(self) -> list[str]:
        """The words that are one token each, without those that look like another's beginning (of BPE's making)."""
        texts = {self.decode([i]).strip() for i in range(len(self))}
        one = len(self.encode("a"))
        words = sorted(w for w in texts if w.isalpha() and len(self.encode(f"a {w}")) == one + 1)
        return [w for w, after in zip(words, [*words[1:], ""], strict=True) if len(w) == 1 or not after.startswith(w)]

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json into `folder`."""
        self._backend.save_pretrained(str(folder))

    @classmethod
    def load(cls, source: str | Path, family: str, offline: bool = False) -> Tokenizer:
        """The tokenizer of a directory or hub id, as its tokenizer.json says. No code from there is run.

        Raises:
            AssetError: there is none, or it may not be fetched.
        """
        try:
            # not AutoTokenizer: beside a Qwen configuration it replaces the rules of tokenizer.json by its own
            backend = PreTrainedTokenizerFast.from_pretrained(str(source), local_files_only=offline)
        except (OSError, ValueError) as error:
            raise AssetError(f"no tokenizer.json in '{source}': {_first_line(error)}") from None
        return cls(backend, family)

    def _id(self, token: str) -> int:
        return int(self._backend.get_vocab()[token])

    def _first(self, names: Sequence[str], family: str) -> int:
        vocabulary = self._backend.get_vocab()
        for name in names:
            if name in vocabulary:
                return int(vocabulary[name])
        raise ConfigError(f"the tokenizer has none of {', '.join(names)}; is it one of the family '{family}'?")


def train_tokenizer(texts: Sequence[str], vocab_size: int, family: str = "llama") -> Tokenizer:
    """A byte-level BPE tokenizer of `texts` with the family's special tokens; every string survives it unchanged.

    A word is the same token at the beginning and in the middle of a text, and a single token where the vocabulary
    allows it.

    Args:
        texts: transcripts; without any, every byte is a token.
        vocab_size: tokens, the family's special ones counted, our tags and padding not.

    Raises:
        ConfigError: a vocabulary too small for the bytes.
    """
    row = LLM_FAMILIES[family]
    specials = [*row.bos[:1], row.eos[0]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < len(specials) + len(alphabet):
        raise ConfigError(
            f"llm.vocab_size = {vocab_size}: give at least {len(specials) + len(alphabet)}, for the bytes"
        )
    raw = RawTokenizer(models.BPE())
    raw.normalizer = normalizers.Prepend(" ")  # so that the first word looks like the others
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(texts, trainer)
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=raw), family)


def build_tokenizer(config: LLMConfig, texts: Sequence[str] = (), offline: bool = False) -> Tokenizer:
    """The tokenizer that `config` names, or one trained on `texts` where it names none."""
    source = config.tokenizer or config.source
    if source:
        return Tokenizer.load(source, config.family, offline)
    return train_tokenizer(texts, config.vocab_size, config.family)


# ---- model -----------------------------------------------------------------------------------


def build_llm(config: LLMConfig, tokenizer: Tokenizer, offline: bool = False) -> PreTrainedModel:
    """The causal LM of `config`, its embeddings cut or grown to the tokenizer. No code from the hub is run.

    Raises:
        AssetError: no model at `config.source`, or it may not be fetched.
        ConfigError: a model of another family, or an unknown dimension.
    """
    if not config.source:
        return _random_llm(config, tokenizer)
    model_type = LLM_FAMILIES[config.family].model_type
    options = {"local_files_only": offline, "trust_remote_code": False}
    try:
        found = AutoConfig.from_pretrained(config.source, **options).model_type
        if found != model_type:
            raise ConfigError(f"llm.source '{config.source}' is a '{found}' model; llm.family says '{config.family}'")
        llm = AutoModelForCausalLM.from_pretrained(
            config.source, attn_implementation=ATTENTION, dtype=torch.get_default_dtype(), **options
        )
    except (OSError, ValueError) as error:
        raise AssetError(f"no language model in '{config.source}': {_first_line(error)}") from None
    if llm.get_input_embeddings().num_embeddings != len(tokenizer):
        llm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return llm


def _random_llm(config: LLMConfig, tokenizer: Tokenizer) -> PreTrainedModel:
    model_type = LLM_FAMILIES[config.family].model_type
    known = AutoConfig.for_model(model_type)
    for key in config.dims:
        if not hasattr(known, key) and key not in _OLD_NAMES:
            fields = [name for name in vars(known) if not name.startswith("_")]
            raise ConfigError(f"llm.dims: '{key}' is no field of a '{model_type}' model; {nearest(key, fields)}")
    ours = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": None,  # a padding row would get no gradient, and for Qwen it is the end of text
    }
    dims = {key: value for key, value in config.dims.items() if key != "model_type"}
    settings = AutoConfig.for_model(model_type, **{**dims, **ours})
    return AutoModelForCausalLM.from_config(settings, attn_implementation=ATTENTION)


@torch.no_grad()
def round_rotary(llm: PreTrainedModel) -> None:
    """Rounds the rotary frequencies to bfloat16, as casting a whole model to it does; they stay in float32."""
    for name, buffer in llm.named_buffers():
        if name.endswith("inv_freq"):
            buffer.copy_(buffer.bfloat16())


# fields that stored configurations of older transformers have, and that it still reads
_OLD_NAMES = {"rope_theta", "rope_scaling", "torch_dtype"}


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
