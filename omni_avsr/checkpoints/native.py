"""Our model folders: what was trained, and references with digests to what was not.

    config.json           ModelConfig, the preprocessing contract included
    model.safetensors     every weight that is not referenced; LoRA of the LLM lies in adapters/
    references.json       part -> source and sha256 of the frozen weights that are read from there
    adapters/<name>/      the LLM's LoRA in PEFT's format, one adapter for S, one per task for T and ST; its licences
    tokenizer/            always used, whatever `llm.source` says
    ctc.json              the alphabet of the CTC heads
    origin.json           how the model came to be; the label smoothing of its recipe is undone in word probabilities

In a folder, `<part>.source` in config.json is set exactly when the weights of that part lie there and not here.
Loading is strict: every key, every shape, every digest.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

import omni_avsr
from omni_avsr.checkpoints import folder as files
from omni_avsr.checkpoints import heritage
from omni_avsr.checkpoints.fairseq import load_avhubert
from omni_avsr.checkpoints.folder import Lazy, lazy, read_json, write_json
from omni_avsr.checkpoints.weights import (
    FOREIGN,
    ROWS,
    SkipRandomInit,
    added_rows,
    fill,
    fill_rows,
    is_lora,
    part_digest,
    state,
)
from omni_avsr.config import ModelConfig, parse
from omni_avsr.errors import AssetError, CheckpointError, ConfigError
from omni_avsr.model import compute
from omni_avsr.model.llm import Tokenizer
from omni_avsr.model.lora import PeftAdapter, export_peft, import_peft
from omni_avsr.model.omni import OmniAVSR, build_model

log = logging.getLogger(__name__)

FORMAT = 1  # of the folder; origin.json carries it


# ---- building --------------------------------------------------------------------------------


def build(config: ModelConfig, texts: Iterable[str] = ()) -> OmniAVSR:
    """A model to train: pretrained parts from their sources, random weights elsewhere.

    Args:
        config: the model.
        texts: transcripts, for a tokenizer and a CTC alphabet that are made of them.

    Raises:
        AssetError, CheckpointError, ConfigError: a source is missing or does not fit the configuration.
    """
    model = build_model(_without_video_source(config), list(texts))
    _enter_sources(model, config)
    for licence in model.heritage.get("licences", ()):
        log.warning("%s", licence)
    return model


def _without_video_source(config: ModelConfig) -> ModelConfig:
    return config.model_copy(update={"video_encoder": config.video_encoder.model_copy(update={"source": ""})})


def _cached(config: ModelConfig) -> ModelConfig:
    """`config` with the hub ids of sources replaced by the folders where the hub's cache keeps them."""
    update = {}
    for part in FOREIGN:
        source = _source(config, part)
        if source and not Path(source).expanduser().exists():
            local = str(files.fetch(source, offline=True))
            update[part] = getattr(config, part).model_copy(update={"source": local})
    return config.model_copy(update=update)


def _enter_sources(model: OmniAVSR, config: ModelConfig) -> None:
    """Reads `video_encoder.source` (the model room reads no fairseq files) and remembers what the sources gave."""
    model.config, model.heritage = config, heritage.of_sources(config)
    if "video" in config.modalities and config.video_encoder.source:
        _enter_avhubert(model, config)
    model.references = {part: part_digest(model, part) for part in FOREIGN if _source(config, part)}


def _enter_avhubert(model: OmniAVSR, config: ModelConfig) -> None:
    source = config.video_encoder.source
    found, tensors = load_avhubert(source, heads=config.video_encoder.heads)
    given = config.video_encoder.model_dump()
    wrong = {k: v for k, v in found.items() if given[k] != v and k not in ("lora_rank", "lora_scale")}
    if wrong:
        settings = ", ".join(f"video_encoder.{k} = {list(v) if isinstance(v, tuple) else v}" for k, v in wrong.items())
        raise ConfigError(f"{source} does not fit the configuration; set {settings}")
    own = {f"video_encoder.{k}": v for k, v in tensors.items()}
    expected = [name for name in state(model, "video_encoder") if name in own or not is_lora(name)]
    fill(model, own, expected, where=source, dtype=torch.float32)


def _source(config: ModelConfig, part: str) -> str:
    used = part == "llm" or part.removesuffix("_encoder") in config.modalities
    return str(getattr(config, part).source) if used else ""


# ---- saving ----------------------------------------------------------------------------------


def save_model(
    model: OmniAVSR,
    folder: str | Path,
    *,
    origin: Mapping[str, Any],
    full: bool = False,
    dtype: torch.dtype | None = None,
) -> Path:
    """Writes a model folder beside `folder` and renames it: a failure leaves the previous version.

    Args:
        model: any OmniAVSR; parts whose weights still are those of their source are referenced, not stored.
        origin: how the model came to be: recipe, data, metrics; the model's heritage is added.
        full: store every part.
        dtype: store floating-point weights as this (float16, bfloat16); None = as they are.

    Raises:
        CheckpointError: `folder` holds other files, adapters are merged, or a value does not fit `dtype`.
    """
    if model.adapters.merged is not None:
        raise CheckpointError(f"'{model.adapters.merged}' is merged into the weights; unmerge before saving")
    kept = {} if full else {part: d for part, d in model.references.items() if d == part_digest(model, part)}
    tensors = {name: lazy(t).cast(dtype) for name, t in state(model).items() if not _elsewhere(name, kept)}
    if "llm" in kept:
        tensors |= {name: lazy(rows).cast(dtype) for name, rows in added_rows(model).items()}
    adapters = {
        name: (adapter.config, {k: lazy(t).cast(dtype) for k, t in adapter.tensors.items()})
        for name, adapter in export_peft(model.adapters, _source(model.config, "llm") if "llm" in kept else "").items()
    }
    return write_folder(
        folder,
        config=_resolved(model, kept),
        tokenizer=model.tokenizer,
        tensors=tensors,
        adapters=adapters,
        references={part: {"source": _stored_source(model.config, part), "sha256": d} for part, d in kept.items()},
        ctc_alphabet=model.ctc_alphabet,
        origin={**origin, **heritage.joined(model.heritage, origin)},
    )


def write_folder(
    folder: str | Path,
    *,
    config: ModelConfig,
    tokenizer: Tokenizer,
    tensors: Mapping[str, Lazy],
    adapters: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Lazy]]],
    references: Mapping[str, Mapping[str, str]],
    ctc_alphabet: str,
    origin: Mapping[str, Any],
) -> Path:
    """Writes a model folder from its contents; large tensors are made one at a time."""
    folder = Path(folder)
    with files.replaced(folder) as draft:
        write_json(draft / files.CONFIG, config.model_dump(mode="json"))
        write_json(draft / files.ORIGIN, {"format": FORMAT, "omni_avsr": omni_avsr.__version__, **origin})
        if references:
            write_json(draft / files.REFERENCES, references)
        if ctc_alphabet:
            write_json(draft / files.CTC, {"alphabet": ctc_alphabet})
        tokenizer.save(draft / files.TOKENIZER)
        for name, (settings, factors) in adapters.items():
            home = draft / files.ADAPTERS / name
            home.mkdir(parents=True)
            write_json(home / "adapter_config.json", settings)
            if origin.get("licences"):  # an adapter may be passed on alone
                (home / "README.md").write_text("\n\n".join(("# Licences", *origin["licences"])) + "\n", "utf-8")
            files.write_tensors(home / "adapter_model.safetensors", factors)
        files.write_tensors(draft / files.WEIGHTS, tensors)
    log.info("wrote model folder %s (%d tensors, %d referenced parts)", folder, len(tensors), len(references))
    return folder


def _elsewhere(name: str, kept: Mapping[str, str]) -> bool:
    """Whether `name` is not in model.safetensors but in an adapter (the LLM's LoRA) or at its source."""
    part = name.partition(".")[0]
    return part == "llm" if is_lora(name) else part in kept


def _resolved(model: OmniAVSR, kept: Mapping[str, str]) -> ModelConfig:
    """The configuration with which the folder can be loaded: sources of stored parts give way to dimensions."""
    update: dict[str, Any] = {}
    for part in FOREIGN:
        section = getattr(model.config, part)
        changes: dict[str, Any] = {"source": _stored_source(model.config, part) if part in kept else ""}
        if part not in kept and _source(model.config, part) and "dims" in type(section).model_fields:
            changes["dims"] = network_dims(_network_config(model, part))
        if part == "llm":
            changes["tokenizer"] = ""
        update[part] = section.model_copy(update=changes)
    return model.config.model_copy(update=update)


def _network_config(model: OmniAVSR, part: str) -> Any:
    module: Any = model.get_submodule(part)
    return module.config if part == "llm" else module.whisper.config


def network_dims(config: Any) -> dict[str, Any]:
    """The fields of a transformers configuration that differ from its defaults and shape the network."""
    noise = {"transformers_version", "architectures", "_name_or_path", "model_type", "dtype", "torch_dtype"}
    tokens = {"bos_token_id", "eos_token_id", "pad_token_id", "vocab_size"}
    return {k: v for k, v in config.to_diff_dict().items() if k not in noise | tokens and not k.startswith("_")}


def _stored_source(config: ModelConfig, part: str) -> str:
    source = _source(config, part)
    path = Path(source).expanduser()
    return str(path.resolve()) if source and path.exists() else source


# ---- loading ---------------------------------------------------------------------------------


def load_model(
    name: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    offline: bool = False,
) -> OmniAVSR:
    """A model in eval mode.

    Args:
        name: a model folder, a hub id, or "default" for the one that comes with the package.
        device: where it goes.
        dtype: of its floating-point weights; None = float32, whatever the file holds. Weights that are stored in
            this type are mapped from the file, not copied.
        offline: do not ask the hub.

    Raises:
        CheckpointError: a key, shape or digest does not fit; nothing is guessed.
        AssetError: the folder, or the source of a referenced part, is not there.
    """
    dtype = dtype or torch.float32
    return _cast(_read(name, offline, dtype), dtype).to(device)


def _read(name: str | Path, offline: bool, dtype: torch.dtype | None = None) -> OmniAVSR:
    """A model on the CPU, what its weight file holds in `dtype`; None = as it holds it."""
    folder = files.locate(name, offline)
    config = read_config(folder)
    tokenizer = _read_tokenizer(folder, config)
    alphabet = read_json(folder / files.CTC, {"alphabet": ""})["alphabet"]
    with SkipRandomInit():
        model = OmniAVSR(_without_video_source(_cached(config) if offline else config), tokenizer, alphabet)
    _enter_sources(model, config)
    _check_references(folder, model)
    model.heritage = heritage.joined(model.heritage, read_json(folder / files.ORIGIN, {}))
    tensors = files.read_tensors(folder / files.WEIGHTS)
    rows = {name: tensors.pop(name) for name in list(tensors) if name.endswith(ROWS)}
    expected = [name for name in state(model) if not _elsewhere(name, model.references)]
    fill(model, tensors, expected, where=str(folder / files.WEIGHTS), dtype=dtype)
    if rows or "llm" in model.references:
        fill_rows(model, rows, where=str(folder / files.WEIGHTS))
    import_peft(model.adapters, _read_adapters(folder))
    return model.requires_grad_(False).eval()


def _cast(model: OmniAVSR, dtype: torch.dtype) -> OmniAVSR:
    for tensor in state(model).values():  # not model.to(dtype): that would round the rotary frequencies as well
        tensor.data = tensor.data.to(dtype) if tensor.is_floating_point() else tensor.data
    return model


def load_for_inference(
    name: str | Path,
    device: str = "auto",
    compute_type: str = "default",
    fast: bool = False,
    offline: bool = False,
) -> OmniAVSR:
    """A model laid out for the kernels of its device, which can no longer be trained, merged or saved.

    Args:
        name, offline: as `load_model`.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1".
        compute_type: a row of `model.compute.COMPUTE`.
        fast: Whisper hears the real length of a clip and not its 30 s.

    Raises:
        CheckpointError, AssetError: as `load_model`.
        ConfigError: no such device, or a compute type that is unknown or does not pay on it.
    """
    chosen = compute.device_named(device)
    row = compute.compute_type(compute_type, chosen)
    model = _read(name, offline)  # layers are converted one by one, so that no two copies of all weights exist
    if fast:
        compute.without_window(model)
    if chosen.type == "cpu":
        compute.prepare(model, row)
    return _cast(model, row.dtype).to(chosen)


def read_config(folder: str | Path) -> ModelConfig:
    """The configuration of a model folder.

    Raises:
        CheckpointError: no config.json, or not JSON.
        ConfigError: an unknown field or value.
    """
    path = Path(folder) / files.CONFIG
    return parse(ModelConfig, read_json(path), where=str(path))


def _read_tokenizer(folder: Path, config: ModelConfig) -> Tokenizer:
    try:
        return Tokenizer.load(folder / files.TOKENIZER, config.llm.family, offline=True)
    except AssetError as error:
        raise CheckpointError(f"{folder} has no usable tokenizer: {error}; copy or download the folder again") from None


def _read_adapters(folder: Path) -> dict[str, PeftAdapter]:
    homes = sorted(p for p in (folder / files.ADAPTERS).glob("*") if p.is_dir())
    return {
        home.name: PeftAdapter(
            read_json(home / "adapter_config.json"), files.read_tensors(home / "adapter_model.safetensors")
        )
        for home in homes
    }


def _check_references(folder: Path, model: OmniAVSR) -> None:
    stored = read_json(folder / files.REFERENCES, {})
    if set(stored) != set(model.references):
        raise CheckpointError(
            f"{folder}: references.json names {sorted(stored)}, config.json gives a source to "
            f"{sorted(model.references)}; one of them was edited, take the folder's original files"
        )
    for part, got in model.references.items():
        expected = stored[part]["sha256"]
        if got != expected:
            raise CheckpointError(
                f"{part}: the weights at '{_source(model.config, part)}' have sha256 {got}, this model was trained on "
                f"top of {expected}. Put the original weights there, or use a folder that was saved with full=True"
            )
