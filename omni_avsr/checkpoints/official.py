"""Imports checkpoints of the official Omni-AVSR, Llama-AVSR and Llama-SMoP programs.

The files hold every weight, so the LLM and the audio encoder are asked for their configuration and tokenizer only.
Tensors are mapped from the file and streamed into our folder: memory does not grow with the model.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig, WhisperConfig

from omni_avsr.checkpoints.fairseq import avhubert_state
from omni_avsr.checkpoints.folder import read_tensors
from omni_avsr.checkpoints.heritage import licences
from omni_avsr.checkpoints.keys import translate
from omni_avsr.checkpoints.layout import check_used, infer, need
from omni_avsr.checkpoints.native import network_dims, save_model
from omni_avsr.checkpoints.pickles import plain, read_pickle
from omni_avsr.checkpoints.systems import OFFICIAL_TASK, SYSTEMS, Flags, Layout
from omni_avsr.checkpoints.weights import SkipRandomInit, state
from omni_avsr.config import (
    AudioEncoderConfig,
    CompatConfig,
    LLMConfig,
    LoraConfig,
    ModelConfig,
    PreprocessConfig,
    ProjectorConfig,
    VideoEncoderConfig,
)
from omni_avsr.errors import AssetError, CheckpointError, ConfigError, nearest
from omni_avsr.model.llm import LLM_FAMILIES, Tokenizer
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.tasks import TASKS

log = logging.getLogger(__name__)

WHISPER_HEAD = 64  # width of an attention head in every published Whisper
WHISPER_WIDTHS = (384, 512, 768, 1024, 1280)
_LLM_PARTS = ("mlp.gate_proj", "self_attn.q_proj", "self_attn.k_proj")
_WHISPER_FIELDS = (
    *("d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "num_mel_bins"),
    *("max_source_positions", "activation_function", "scale_embedding"),
)


def import_checkpoint(
    kind: str,
    checkpoint: str | Path,
    out: str | Path,
    *,
    llm: str,
    audio_encoder: str = "",
    video_encoder: str = "",
    flags: Flags | None = None,
    offline: bool = False,
) -> Path:
    """Turns an official checkpoint into a model folder that holds every weight, in the types of the file.

    Args:
        kind: row of SYSTEMS: omni-avsr, llama-avsr or llama-smop.
        checkpoint: a flat state dict (.pth), or a Lightning .ckpt.
        out: the folder to write.
        llm: directory or hub id with the LLM's configuration and tokenizer; weights there are not read.
        audio_encoder: directory or hub id with Whisper's configuration; needed for unpublished widths only.
        video_encoder: a fairseq AV-HuBERT file; only its settings are read, for unpublished widths.
        flags: what the training command said and no shape shows.
        offline: do not ask the hub.

    Returns: `out`.

    Raises:
        CheckpointError: the file is damaged, of another program, or does not fit `llm` or a flag; the message names
            the key, what was expected, and what to do.
        ConfigError: no such kind, or a flag with a value that it cannot have.
        AssetError: no configuration or tokenizer at `llm` or `audio_encoder`.
    """
    if kind not in SYSTEMS:
        raise ConfigError(f"unknown kind of checkpoint '{kind}'; {nearest(kind, SYSTEMS)}")
    given, where = flags or Flags(), Path(checkpoint).name
    given.check()
    official, arguments = read_official(checkpoint)
    flags = given.completed(arguments, where)
    layout = infer(official, SYSTEMS[kind], flags, where)
    check_used(given, layout, where)
    settings = _hub_config(llm, offline, "--llm")
    family = family_of(settings, llm)
    tokenizer = Tokenizer.load(llm, family, offline)
    check_llm(official, settings, tokenizer, llm, where)

    official, video = video_encoder_of(official, layout, video_encoder, flags, where)
    audio = audio_encoder_of(official, layout, audio_encoder, offline, where)
    config = model_config(layout, settings, audio, video, flags)
    config = config.model_copy(update={"prompts": _prompts(official, layout, tokenizer, where)})
    with SkipRandomInit():
        model = OmniAVSR(config, tokenizer)
    ours = {name: tuple(tensor.shape) for name, tensor in state(model).items()}
    tensors, dropped = translate(official, ours, layout, bool(settings.tie_word_embeddings), where)
    for name, target in state(model).items():
        target.data = tensors[name]  # in the type of the file, and still in the file
    origin = _origin(layout, where, family, dropped, flags)
    for option, value in layout.assumed.items():
        log.warning("%s: %s = %s is assumed, as in the published files; no shape shows it", where, option, value)
    for licence in origin["licences"]:
        log.warning("%s", licence)
    return save_model(model, out, origin=origin, full=True)


# ---- reading ---------------------------------------------------------------------------------


def read_official(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Key -> tensor of an official file without any prefix, and the training arguments if it holds them.

    Raises:
        CheckpointError: unreadable, or not a state dict.
    """
    path = Path(path).expanduser()
    content = read_tensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    if isinstance(content, dict) and "cfg" in content and "model" in content:
        raise CheckpointError(f"{path} is a fairseq file of AV-HuBERT alone; give it as --video_encoder")
    tensors = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(tensors, dict) or not tensors or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise CheckpointError(f"{path} holds no state dict; give the .pth or .ckpt file of the official training")
    if all(key.startswith("model.") for key in tensors):
        tensors = {key.removeprefix("model."): tensor for key, tensor in tensors.items()}
    arguments = plain(content.get("hyper_parameters")) if "state_dict" in content else None
    if isinstance(arguments, dict) and isinstance(arguments.get("args"), dict):
        arguments = arguments["args"]
    return dict(tensors), arguments if isinstance(arguments, dict) else {}


def _hub_config(source: str, offline: bool, option: str) -> PretrainedConfig:
    try:
        return AutoConfig.from_pretrained(source, local_files_only=offline, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise AssetError(f"{option} {source}: no configuration there ({first}); give a directory or hub id") from None


# ---- the LLM ---------------------------------------------------------------------------------


def family_of(settings: PretrainedConfig, llm: str) -> str:
    """Row of LLM_FAMILIES of a configuration.

    Raises:
        CheckpointError: a model of no known family.
    """
    families = {row.model_type: name for name, row in LLM_FAMILIES.items()}
    if settings.model_type not in families:
        raise CheckpointError(f"--llm {llm} is a '{settings.model_type}' model; supported: {', '.join(families)}")
    return families[settings.model_type]


def check_llm(
    official: Mapping[str, Tensor], settings: PretrainedConfig, tokenizer: Tokenizer, llm: str, where: str
) -> None:
    """Compares what the file shows about its LLM with what `llm` is; the likeliest mistake deserves its own error."""
    shapes = {key: tuple(tensor.shape) for key, tensor in official.items() if key.startswith("llm.")}
    table, layer = "llm.model.embed_tokens.weight", "llm.model.layers.0"
    rows, width = need(shapes, table, where)
    head = getattr(settings, "head_dim", None) or settings.hidden_size // settings.num_attention_heads
    layers = len({key.split(".")[3] for key in shapes if key.startswith("llm.model.layers.")})
    inside = {part: need(shapes, f"{layer}.{part}.weight", where)[0] for part in _LLM_PARTS}
    bias = f"{layer}.self_attn.q_proj.bias"
    deepest = f"llm.model.layers.{min(layers, settings.num_hidden_layers)}.self_attn.q_proj.weight"
    found = {  # what -> in the file, in the configuration, the key that shows it
        "hidden size": (width, settings.hidden_size, table),
        "number of layers": (layers, settings.num_hidden_layers, deepest),
        "feed-forward width": (inside["mlp.gate_proj"], settings.intermediate_size, f"{layer}.mlp.gate_proj.weight"),
        "query width": (
            *(inside["self_attn.q_proj"], head * settings.num_attention_heads, f"{layer}.self_attn.q_proj.weight"),
        ),
        "key width": (
            *(inside["self_attn.k_proj"], head * settings.num_key_value_heads, f"{layer}.self_attn.k_proj.weight"),
        ),
        "query bias": (bias in shapes, settings.model_type == "qwen2", bias),
    }
    wrong = [f"{what} {got}, not {want} (key '{key}')" for what, (got, want, key) in found.items() if got != want]
    if len(wrong) == 1 and layers < settings.num_hidden_layers:
        raise CheckpointError(
            f"{where} has no key '{deepest}': its LLM has {layers} layers, that of --llm {llm} "
            f"{settings.num_hidden_layers}. Copy or download the file again, it may be truncated; or give the LLM of "
            "the training command"
        )
    if wrong:
        raise CheckpointError(
            f"{where} was not trained with --llm {llm}: its LLM has {'; '.join(wrong)}. Give the LLM of the training "
            "command"
        )
    if rows != len(tokenizer):
        raise CheckpointError(
            f"{where}: 'llm.model.embed_tokens.weight' has {rows} rows, but the tokenizer of --llm {llm} makes "
            f"{len(tokenizer)} tokens with padding and tags; give the tokenizer of the LLM of the training command"
        )


def _prompts(official: Mapping[str, Tensor], layout: Layout, tokenizer: Tokenizer, where: str) -> dict[str, str]:
    """The prompts that are stored as embeddings, where they are not ours: every row is a row of the table."""
    table = official["llm.model.embed_tokens.weight"]
    prompts: dict[str, str] = {}
    for task in layout.tasks if layout.system.unified else ():
        key = f"prompt_{OFFICIAL_TASK[task]}"
        stored = official[key][0] if key in official else None
        if stored is None:
            raise CheckpointError(f"{where} has no key '{key}'; it is truncated, copy or download it again")
        ids = tokenizer.encode(TASKS[task].prompt)
        if len(ids) == len(stored) and torch.equal(table[ids], stored):
            continue
        matches = [(table == row).all(1).nonzero().flatten().tolist() for row in stored]
        text = tokenizer.decode([m[0] for m in matches]) if all(matches) else ""
        if not text or tokenizer.encode(text) != [m[0] for m in matches]:
            raise CheckpointError(
                f"{where}: '{key}' holds {len(stored)} embeddings that are not those of a text in the LLM's table; the "
                "tokenizer is not that of the training, or the file averages several epochs (the official averaging "
                "spoils tied embeddings): give the right --llm, or a file of one epoch"
            )
        prompts[task] = text
    return prompts


# ---- the encoders ----------------------------------------------------------------------------


def video_encoder_of(
    official: dict[str, Tensor], layout: Layout, source: str, flags: Flags, where: str
) -> tuple[dict[str, Tensor], VideoEncoderConfig]:
    """AV-HuBERT's sizes from its keys; its keys come back under their published names."""
    if "video" not in layout.projectors.rates:
        return official, VideoEncoderConfig()
    own = "video_encoder."
    inside = {key.removeprefix(own): value for key, value in official.items() if key.startswith(own)}
    settings: dict[str, Any] = {}
    if source:
        content = read_pickle(source)
        settings = plain(content.get("cfg") or content.get("args")) or {} if isinstance(content, dict) else {}
    fields, used = avhubert_state(inside, settings, flags.video_heads, where, prefix=own)
    others = {
        k: v
        for k, v in official.items()
        if not k.startswith("video_encoder.") or k.removeprefix("video_encoder.") not in used
    }
    return others | {f"video_encoder.{k}": v for k, v in used.items()}, VideoEncoderConfig(**fields)


def audio_encoder_of(
    official: Mapping[str, Tensor], layout: Layout, source: str, offline: bool, where: str
) -> AudioEncoderConfig:
    """Whisper's sizes: from its configuration, else from the shapes of a published width."""
    if "audio" not in layout.projectors.rates:
        return AudioEncoderConfig()
    if source:
        settings = _hub_config(source, offline, "--audio_encoder")
        if not isinstance(settings, WhisperConfig):
            raise CheckpointError(f"--audio_encoder {source} is a '{settings.model_type}' model; expected a Whisper")
        return AudioEncoderConfig(dims={name: getattr(settings, name) for name in _WHISPER_FIELDS})
    shapes = {k.removeprefix("audio_encoder."): tuple(v.shape) for k, v in official.items()}
    width, bands, _ = need(shapes, "conv1.weight", where)
    if width not in WHISPER_WIDTHS:
        raise CheckpointError(
            f"{where}: an audio encoder of width {width} is no published Whisper, and its number of attention heads "
            "shows in no shape; name its configuration with --audio_encoder DIR"
        )
    layers = 1 + max((int(k.split(".")[1]) for k in shapes if k.startswith("layers.") and "fc1" in k), default=-1)
    dims = {
        "d_model": width,
        "encoder_layers": layers,
        "encoder_attention_heads": width // WHISPER_HEAD,
        "encoder_ffn_dim": need(shapes, "layers.0.fc1.weight", where)[0],
        "num_mel_bins": bands,
        "max_source_positions": need(shapes, "embed_positions.weight", where)[0],
    }
    return AudioEncoderConfig(dims=dims)


# ---- the configuration -----------------------------------------------------------------------


def model_config(
    layout: Layout, settings: PretrainedConfig, audio: AudioEncoderConfig, video: VideoEncoderConfig, flags: Flags
) -> ModelConfig:
    """Our configuration of an official model, its quirks in force.

    Args:
        layout: what keys and shapes say.
        settings: of the LLM.
        audio: sizes of Whisper.
        video: sizes of AV-HuBERT.
        flags: whether the official bfloat16 run is to be reproduced.
    """
    family = family_of(settings, "")
    projectors, default = layout.projectors, ModelConfig()
    pool = next(iter(projectors.pools.values()), None)
    mixture = {"experts": pool.experts, "top_k": projectors.top_k} if pool else {}
    return ModelConfig(
        tasks=layout.tasks,
        audio_rates=projectors.rates.get("audio", default.audio_rates),
        video_rates=projectors.rates.get("video", default.video_rates),
        compression=projectors.compression,
        audio_encoder=audio,
        video_encoder=video,
        projector=ProjectorConfig.model_validate(
            {"kind": projectors.kind, "hidden": projectors.hidden, "layer_norm": projectors.layer_norm, **mixture}
        ),
        llm=LLMConfig.model_validate({"family": family, "dims": network_dims(settings)}),
        lora=LoraConfig(strategy=layout.lora.strategy, rank=layout.lora.rank or 1, scale=layout.lora.scale),
        preprocess=PreprocessConfig(
            n_mels=audio.dims.get("num_mel_bins", default.preprocess.n_mels),
            audio_window=audio.dims.get("max_source_positions", 1500) / 50,
            waveform_norm=True,
            min_audio_frames=25,
            length_arithmetic="bfloat16" if flags.bf16 else "float32",
            bf16=flags.bf16,
            normalizer="official",
        ),
        compat=CompatConfig(
            unmasked_padding=True,
            trim_to_longest=True,
            no_layer_norm=projectors.no_layer_norm,
            trim_to_rate="video" in projectors.rates and projectors.single,
            plain_kernels="video" in projectors.rates,
            train_on_padding=family == "qwen2",
            bf16_rotary=flags.bf16 and family == "llama",
        ),
    )


def _origin(layout: Layout, where: str, family: str, dropped: Mapping[str, str], flags: Flags) -> dict[str, Any]:
    return {
        "official": {
            "system": layout.system.name,
            "file": where,
            "strategy": layout.lora.strategy,
            "assumed": layout.assumed,
            "bf16": flags.bf16,
        },
        "licences": licences((*layout.projectors.rates, family)),
        "dropped": dict(sorted(dropped.items())),
    }
