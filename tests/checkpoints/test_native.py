"""Model folders: what goes in comes out, sources are referenced and verified, damage is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, WhisperConfig, WhisperModel

from omni_avsr.checkpoints import build, digest, load_model, model_info, read_config, save_model
from omni_avsr.checkpoints import folder as files
from omni_avsr.checkpoints.weights import state
from omni_avsr.config import ModelConfig
from omni_avsr.errors import AssetError, CheckpointError, ConfigError
from omni_avsr.model.decode import DecodeOptions, decode
from omni_avsr.model.llm import train_tokenizer
from omni_avsr.model.lora import LORA
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.model.projectors import PROJECTORS
from omni_avsr.types import Batch

TEXTS = ("bin blue at f two now", "place red by z nine soon", "set white with k four again")
Make = Callable[..., OmniAVSR]
Configure = Callable[..., ModelConfig]


def same(one: OmniAVSR, other: OmniAVSR) -> None:
    left, right = state(one), state(other)
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


@pytest.fixture
def saved(tiny_model: Make, tmp_path: Path) -> tuple[OmniAVSR, Path]:
    model = tiny_model()
    return model, save_model(model, tmp_path / "model", origin={"recipe": "test"})


@pytest.mark.parametrize("strategy", LORA)
def test_what_goes_in_comes_out(strategy: str, tiny_model: Make, tmp_path: Path) -> None:
    model = tiny_model(lora={"strategy": strategy}, ctc={"units": "char"})
    loaded = load_model(save_model(model, tmp_path / "m", origin={}))
    same(model, loaded)
    assert loaded.config == model.config
    assert loaded.ctc_alphabet == model.ctc_alphabet
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


@pytest.mark.parametrize("kind", PROJECTORS)
def test_every_projector_survives(kind: str, tiny_model: Make, tmp_path: Path) -> None:
    model = tiny_model(projector={"kind": kind})
    same(model, load_model(save_model(model, tmp_path / "m", origin={})))


def test_loaded_model_says_the_same(saved: tuple[OmniAVSR, Path], batch: Batch) -> None:
    model, folder = saved
    rates, options = {"audio": 4, "video": 2}, DecodeOptions(beam_size=2, max_new_tokens=6)
    assert decode(model, batch, "avsr", rates, options) == decode(load_model(folder), batch, "avsr", rates, options)


def test_lora_has_one_home(saved: tuple[OmniAVSR, Path]) -> None:
    _, folder = saved
    names = files.tensor_shapes(folder / files.WEIGHTS)
    assert not [n for n in names if n.startswith("llm.") and "lora" in n]
    assert [n for n in names if n.startswith("video_encoder.") and "lora" in n]
    assert sorted(p.name for p in (folder / "adapters").iterdir()) == ["asr", "avsr", "vsr"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_shipping_types_halve_the_file(dtype: torch.dtype, saved: tuple[OmniAVSR, Path], tmp_path: Path) -> None:
    model, folder = saved
    small = save_model(model, tmp_path / "small", origin={}, dtype=dtype)
    loaded = load_model(small)
    for name, value in state(loaded).items():
        original = state(model)[name]
        assert value.dtype == original.dtype
        assert torch.equal(value, original.to(dtype).to(value.dtype) if value.is_floating_point() else original), name
    assert (small / files.WEIGHTS).stat().st_size < 0.7 * (folder / files.WEIGHTS).stat().st_size
    assert {t.dtype for t in load_model(small, dtype=dtype).parameters()} == {dtype}


def test_float16_refuses_what_it_cannot_hold(tiny_model: Make, tmp_path: Path) -> None:
    model = tiny_model()
    model.llm.model.norm.weight.data[0] = 1e6
    with pytest.raises(CheckpointError, match=r"llm.model.norm.weight.*65504.*bfloat16"):
        save_model(model, tmp_path / "m", origin={}, dtype=torch.float16)
    assert not (tmp_path / "m").exists()


def test_a_failure_leaves_the_previous_version(saved: tuple[OmniAVSR, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model, folder = saved
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    def full_disk(path: Path, tensors: dict[str, Tensor]) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(files, "write_tensors", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_model(model, folder, origin={})
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_saving_replaces_a_model_but_nothing_else(saved: tuple[OmniAVSR, Path]) -> None:
    model, folder = saved
    save_model(model, folder, origin={"second": True})
    assert json.loads((folder / "origin.json").read_text())["second"] is True
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"thesis\.tex.*empty folder"):
        save_model(model, folder, origin={})
    assert (folder / "thesis.tex").exists()


def test_saving_a_loaded_model_gives_the_same_bytes(saved: tuple[OmniAVSR, Path], tmp_path: Path) -> None:
    _, folder = saved
    again = save_model(load_model(folder), tmp_path / "again", origin={"recipe": "test"})
    for path in (p for p in folder.rglob("*") if p.is_file() and p.name != "tokenizer_config.json"):
        assert (again / path.relative_to(folder)).read_bytes() == path.read_bytes(), path.name


def test_label_smoothing_is_known_from_loading_to_saving_and_of_the_last_training(
    saved: tuple[OmniAVSR, Path], tmp_path: Path
) -> None:
    def resaved(model: OmniAVSR, **origin: object) -> OmniAVSR:
        return load_model(save_model(model, tmp_path / "m", origin=origin))

    untold = load_model(saved[1])
    assert untold.label_smoothing == 0
    trained = resaved(untold, recipe={"train": {"label_smoothing": 0.1}})
    assert trained.label_smoothing == 0.1
    shipped = resaved(trained, made_by="a script that does not repeat the recipe")
    assert shipped.label_smoothing == 0.1
    assert resaved(shipped, recipe={"train": {"label_smoothing": 0.0}}).label_smoothing == 0


def test_merged_adapters_are_not_saved(tiny_model: Make, tmp_path: Path) -> None:
    model = tiny_model()
    model.adapters.merge("asr")
    with pytest.raises(CheckpointError, match="unmerge"):
        save_model(model, tmp_path / "m", origin={})


# ---- damage ----------------------------------------------------------------------------------


def _rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / files.WEIGHTS)
    change(tensors)
    save_file(tensors, folder / files.WEIGHTS)


def _transpose(tensors: dict[str, Tensor]) -> None:
    tensors["video_encoder.post_extract_proj.weight"] = tensors["video_encoder.post_extract_proj.weight"].T.contiguous()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("projector.mlps.audio_0.0.bias"), r"has no tensor 'projector.mlps.audio_0.0.bias' \(1 of"),
        (lambda t: t.update(surprise=torch.zeros(1)), "'surprise' that is not expected"),
        (_transpose, r"post_extract_proj.weight' has shape \(48, 24\).*asks for \(24, 48\)"),
    ],
)
def test_every_key_and_shape_counts(
    change: Callable[[dict[str, Tensor]], object], message: str, saved: tuple[OmniAVSR, Path]
) -> None:
    _, folder = saved
    _rewrite(folder, change)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


@pytest.mark.parametrize("keep", [0, 5, 0.5, 0.99])
def test_truncated_weights(keep: float, saved: tuple[OmniAVSR, Path]) -> None:
    path = saved[1] / files.WEIGHTS
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*again"):
        load_model(saved[1])


def test_a_lost_tokenizer_or_adapter(saved: tuple[OmniAVSR, Path]) -> None:
    _, folder = saved
    shutil.move(folder / "adapters" / "vsr", folder.parent / "vsr")
    with pytest.raises(CheckpointError, match=r"\['asr', 'avsr'\].*\['asr', 'avsr', 'vsr'\]"):
        load_model(folder)
    shutil.rmtree(folder / "tokenizer")
    with pytest.raises(CheckpointError, match="tokenizer"):
        load_model(folder)


def test_an_unknown_knob_in_the_configuration(saved: tuple[OmniAVSR, Path]) -> None:
    path = saved[1] / files.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | {"audio_rate": [4]}))
    with pytest.raises(ConfigError, match="did you mean 'audio_rates'"):
        read_config(saved[1])


def test_no_such_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a model folder"):
        load_model(tmp_path)
    with pytest.raises(AssetError, match="offline was asked for"):
        load_model("nobody/such-model", offline=True)


def test_an_interrupted_swap_is_pointed_at(saved: tuple[OmniAVSR, Path]) -> None:
    _, folder = saved
    folder.rename(folder.parent / ".model.previous")
    with pytest.raises(CheckpointError, match=r"\.model\.previous"):
        load_model(folder)


# ---- sources ---------------------------------------------------------------------------------


@pytest.fixture
def sourced(tiny_config: Configure, tmp_path: Path) -> ModelConfig:
    """A configuration whose three foreign parts lie in files."""
    config = tiny_config()
    tokenizer = train_tokenizer(TEXTS, 300)
    dims = {**config.llm.dims, "vocab_size": len(tokenizer) - 5}  # a stock model knows no tags
    llm = LlamaForCausalLM(LlamaConfig(**dims, bos_token_id=0, eos_token_id=1))
    llm.save_pretrained(tmp_path / "llm")
    tokenizer.save(tmp_path / "llm")
    whisper = WhisperConfig(**config.audio_encoder.dims, decoder_layers=1, decoder_ffn_dim=8, decoder_attention_heads=2)
    WhisperModel(whisper).save_pretrained(tmp_path / "whisper")
    eye = build(tiny_config(tasks=("vsr",), video_encoder={"lora_rank": 0}), TEXTS).encoder("video")
    save_file({n: t.contiguous() for n, t in eye.state_dict().items()}, tmp_path / "eye.safetensors")
    return tiny_config(
        llm={"source": str(tmp_path / "llm")},
        audio_encoder={"source": str(tmp_path / "whisper")},
        video_encoder={"source": str(tmp_path / "eye.safetensors")},
    )


def _trained(config: ModelConfig) -> OmniAVSR:
    model = build(config, TEXTS)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name or name.startswith("projector."):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_untouched_sources_are_referenced(sourced: ModelConfig, tmp_path: Path) -> None:
    model = _trained(sourced)
    folder = save_model(model, tmp_path / "m", origin={})
    stored = files.tensor_shapes(folder / files.WEIGHTS)
    assert {n.partition(".")[0] for n in stored if ".lora_" not in n and "#" not in n} == {"projector"}
    assert set(json.loads((folder / "references.json").read_text())) == {"audio_encoder", "video_encoder", "llm"}
    loaded = load_model(folder, offline=True)
    same(model, loaded)
    same(model, load_model(save_model(loaded, tmp_path / "again", origin={})))


def test_the_licence_of_avhubert_stays_with_what_was_trained_on_its_file(sourced: ModelConfig, tmp_path: Path) -> None:
    trained = save_model(_trained(sourced), tmp_path / "m", origin={"licences": ["Ours."]})
    again = save_model(load_model(trained), tmp_path / "full", origin={}, full=True)
    once_more = save_model(load_model(again), tmp_path / "more", origin={})
    for folder in (trained, again, once_more):
        licences = model_info(folder)["origin"]["licences"]
        assert [text.partition(" ")[0] for text in licences] == ["AV-HuBERT's", "Llama's", "Ours."]


def test_a_full_folder_needs_no_source(sourced: ModelConfig, tmp_path: Path) -> None:
    model = _trained(sourced)
    folder = save_model(model, tmp_path / "m", origin={}, full=True)
    for name in ("llm", "whisper"):
        shutil.rmtree(tmp_path / name)
    loaded = load_model(folder)
    same(model, loaded)
    assert not loaded.references
    assert not any(loaded.config.model_dump()[part]["source"] for part in ("audio_encoder", "video_encoder", "llm"))


@pytest.mark.parametrize("part", ["audio_encoder", "video_encoder", "llm"])
def test_a_trained_part_is_stored_whole(part: str, sourced: ModelConfig, tmp_path: Path) -> None:
    model = _trained(sourced)
    with torch.no_grad():
        next(t for n, t in state(model, part).items() if n.endswith("layer_norm.weight") or "layernorm" in n).add_(1)
    folder = save_model(model, tmp_path / "m", origin={})
    assert part not in json.loads((folder / "references.json").read_text())
    same(model, load_model(folder))


def test_a_changed_source_is_refused(sourced: ModelConfig, tmp_path: Path) -> None:
    folder = save_model(_trained(sourced), tmp_path / "m", origin={})
    path = tmp_path / "whisper" / "model.safetensors"
    tensors = load_file(path)
    tensors["encoder.layer_norm.bias"][0] += 1e-3
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"audio_encoder: .*whisper.*sha256.*full=True"):
        load_model(folder)


def test_a_missing_source(sourced: ModelConfig, tmp_path: Path) -> None:
    folder = save_model(_trained(sourced), tmp_path / "m", origin={})
    shutil.rmtree(tmp_path / "llm")
    with pytest.raises(AssetError, match="llm"):
        load_model(folder)


def test_a_video_source_of_another_size_names_the_knobs(sourced: ModelConfig) -> None:
    wide = sourced.video_encoder.model_copy(update={"embed_dim": 48, "layers": 2})
    with pytest.raises(ConfigError, match=r"set video_encoder.embed_dim = 24, video_encoder.layers = 1"):
        build(sourced.model_copy(update={"video_encoder": wide}), TEXTS)


# ---- small things ----------------------------------------------------------------------------


def test_digest_is_of_values_not_types(tiny_model: Make) -> None:
    encoder = tiny_model().encoder("video").bfloat16()
    low = digest(encoder)
    assert digest(encoder.float()) == low
    with torch.no_grad():
        encoder.layer_norm.weight[0] += 0.01
    assert digest(encoder) != low


def test_weights_are_mapped_not_copied(saved: tuple[OmniAVSR, Path]) -> None:
    loaded = load_model(saved[1])
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no /proc on this system")
    assert str(saved[1] / files.WEIGHTS) in maps.read_text()
    loaded.llm.model.norm.weight.data.zero_()  # copied on write: the file stays as it is
    assert load_model(saved[1]).llm.model.norm.weight.abs().sum() > 0


def test_loading_draws_no_random_weights(saved: tuple[OmniAVSR, Path]) -> None:
    """They would cost seconds, and the memory of a second model."""
    before = torch.get_rng_state()
    load_model(saved[1])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loaded_model_can_be_trained(saved: tuple[OmniAVSR, Path], batch: Batch) -> None:
    model = load_model(saved[1])
    model.set_trainable(["projectors", "llm_lora", "video_lora"])
    model(batch, {"audio": 4, "video": 2}).total.backward()
    assert model.projector.mlps["audio_0"][0].weight.grad.abs().sum() > 0


def test_info(saved: tuple[OmniAVSR, Path]) -> None:
    model, folder = saved
    info = model_info(folder)
    json.dumps(info)
    assert info["tasks"] == ["asr", "vsr", "avsr"]
    assert info["rates"] == {"audio": [4, 16], "video": [2, 5]}
    assert info["lora"]["peft_alpha"] == 1.0
    assert info["quirks"] == {}
    assert info["origin"]["recipe"] == "test"
    stored = sum(n for part, n in info["parameters"].items() if not part.startswith("adapter "))
    assert stored == sum(t.numel() for n, t in state(model).items() if not (n.startswith("llm.") and "lora" in n))
