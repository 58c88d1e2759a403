"""Every key and shape of the official checkpoints at real size, for each LLM and strategy, on meta tensors."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig

from omni_avsr.checkpoints.keys import translate
from omni_avsr.checkpoints.layout import infer
from omni_avsr.checkpoints.official import audio_encoder_of, check_llm, model_config, video_encoder_of
from omni_avsr.checkpoints.systems import SYSTEMS, Flags
from omni_avsr.checkpoints.weights import state
from omni_avsr.config import ModelConfig
from omni_avsr.errors import CheckpointError
from omni_avsr.model.omni import OmniAVSR

FILE = Path(__file__).parent.parent / "golden" / "full_keys.json.gz"
KEYS: dict[str, list] = json.loads(gzip.decompress(FILE.read_bytes()))
PROMPT = 6  # tokens; the key list leaves the number open

LLMS = {  # hidden, layers, heads, key heads, feed-forward, tied
    "Llama-3.2-1B": ("llama", 2048, 16, 32, 8, 8192, True),
    "Llama-3.2-3B": ("llama", 3072, 28, 24, 8, 8192, True),
    "Llama-3.1-8B": ("llama", 4096, 32, 32, 8, 14336, False),
    "Qwen2.5-0.5B": ("qwen2", 896, 24, 14, 2, 4864, True),
    "Qwen2.5-1.5B": ("qwen2", 1536, 28, 12, 2, 8960, True),
    "Qwen2.5-3B": ("qwen2", 2048, 36, 16, 2, 11008, True),
    "Qwen2.5-7B": ("qwen2", 3584, 28, 28, 4, 18944, False),
}
TOKENS = {"llama": 128_261, "qwen2": 151_669}
RANKS = {"Llama-3.2-1B": 64, "Llama-3.2-3B": 96, "Llama-3.1-8B": 128}
RANKS |= {"Qwen2.5-0.5B": 28, "Qwen2.5-1.5B": 48, "Qwen2.5-3B": 64, "Qwen2.5-7B": 112}


class Words:
    """As much of a tokenizer as building a model needs."""

    bos_id, eos_id, pad_id = 0, 1, 2

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size


def official(name: str) -> dict[str, Tensor]:
    """The state dict of a published checkpoint, without values."""
    shapes = {}
    for pattern, shape, layers in KEYS[name]:
        size = [PROMPT if isinstance(n, str) else n for n in shape]
        for key in [pattern.replace("*", str(i), 1) for i in range(layers)] or [pattern]:
            shapes[key] = torch.empty(size, device="meta", dtype=torch.bfloat16)
    return shapes


def settings_of(llm: str) -> object:
    """The LLM's configuration on the hub, as far as it shapes the network."""
    family, hidden, layers, heads, key_heads, ffn, tied = LLMS[llm]
    return AutoConfig.for_model(
        family,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        intermediate_size=ffn,
        tie_word_embeddings=tied,
    )


@pytest.mark.parametrize("name", KEYS)
def test_every_key_of_a_published_checkpoint(name: str) -> None:
    strategy, _, llm = name.partition("_")
    settings, family = settings_of(llm), LLMS[llm][0]
    file = official(name)
    layout = infer(file, SYSTEMS["omni-avsr"], Flags(), name)
    check_llm(file, settings, Words(TOKENS[family]), llm, name)
    file, video = video_encoder_of(file, layout, "", Flags(), name)
    audio = audio_encoder_of(file, layout, "", True, name)
    config = model_config(layout, settings, audio, video, Flags())
    _check_config(config, strategy, llm)
    with torch.device("meta"):
        model = OmniAVSR(config, Words(TOKENS[family]))
    ours = {key: tuple(tensor.shape) for key, tensor in state(model).items()}
    tensors, dropped = translate(file, ours, layout, LLMS[llm][-1], name)
    assert tensors.keys() == ours.keys()
    # each is used once: nothing of the file is lost, and nothing is taken twice
    assert len(tensors) + len(dropped) == len(file)
    assert len({id(tensor) for tensor in tensors.values()}) == len(tensors)
    trained = sum(t.numel() for n, t in tensors.items() if ".lora_" in n or n.startswith("projector."))
    published = {"S_Llama-3.2-1B": 38.29, "T_Llama-3.2-1B": 51.92, "ST_Llama-3.2-1B": 58.74}
    assert trained / 1e6 == pytest.approx(published.get(name, trained / 1e6), abs=0.01)


def _check_config(config: ModelConfig, strategy: str, llm: str) -> None:
    assert config.lora.strategy == strategy
    assert config.lora.rank == RANKS[llm]
    assert config.lora.scale == 0.125
    assert (config.audio_rates, config.video_rates, config.compression) == ((4, 16), (2, 5), "average")
    assert (config.projector.kind, config.projector.hidden, config.compat.no_layer_norm) == (
        "mlp_per_rate",
        2048,
        ("audio", "video"),
    )
    eye = config.video_encoder
    assert (eye.embed_dim, eye.layers, eye.heads, eye.ffn_dim, eye.lora_rank) == (1024, 24, 16, 4096, 64)
    assert eye.resnet_widths == (64, 128, 256, 512)
    assert config.audio_encoder.dims == {
        "d_model": 1024,
        "encoder_layers": 24,
        "encoder_attention_heads": 16,
        "encoder_ffn_dim": 4096,
        "num_mel_bins": 80,
        "max_source_positions": 1500,
    }


@pytest.mark.parametrize("llm", LLMS)
@pytest.mark.parametrize("other", LLMS)
def test_another_llm_is_noticed(llm: str, other: str) -> None:
    name = f"S_{llm}"
    words = Words(TOKENS[LLMS[other][0]])
    if llm == other:
        check_llm(official(name), settings_of(other), words, other, name)
        return
    with pytest.raises(
        CheckpointError,
        match=rf"S_{llm} (was not trained with --llm {other}|has no key.* layers, that of --llm {other} )",
    ):
        check_llm(official(name), settings_of(other), words, other, name)


@pytest.mark.parametrize(("width", "layers", "ffn"), [(768, 12, 3072), (1024, 24, 4096)])
def test_avhubert_base_and_large(width: int, layers: int, ffn: int) -> None:
    """Llama-AVSR was also trained on AV-HuBERT base; its size comes from the keys."""
    file = official("S_Llama-3.2-1B")
    large = {"width": 1024, "ffn": 4096}
    scaled = {}
    for key, value in file.items():
        if key.startswith("video_encoder."):
            if "encoder.layers." in key and int(key.split(".")[3]) >= layers:
                continue
            swap = {large["width"]: width, 2 * large["width"]: 2 * width, large["ffn"]: ffn}
            size = [swap.get(n, n) for n in value.shape]
            if key.endswith("weight_v"):
                size[1] = width // 16
            value = torch.empty(size, device="meta")
        if key.startswith("video_proj.") and key.endswith("0.weight"):
            value = torch.empty(value.shape[0], width, device="meta")
        scaled[key] = value
    layout = infer(scaled, SYSTEMS["omni-avsr"], Flags(), "file")
    _, video = video_encoder_of(scaled, layout, "", Flags(), "file")
    assert (video.embed_dim, video.layers, video.heads, video.ffn_dim) == (width, layers, width // 64, ffn)
