"""The importer: what it infers, what it refuses, and what its errors say."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig

from omni_avsr.checkpoints import load_model, model_info, save_model
from omni_avsr.checkpoints.keys import official_keys
from omni_avsr.checkpoints.native import network_dims
from omni_avsr.checkpoints.official import import_checkpoint
from omni_avsr.checkpoints.systems import SYSTEMS, Flags, Layout, Lora, Pool, Projectors
from omni_avsr.checkpoints.weights import state
from omni_avsr.config import ModelConfig
from omni_avsr.errors import AssetError, CheckpointError, ConfigError
from omni_avsr.model.llm import Tokenizer
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.types import Batch
from tests.parity.goldens import Golden

State = dict[str, Tensor]
Import = Callable[..., Path]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Golden]:
    folder = tmp_path_factory.mktemp("golden")
    return lambda name: Golden(name, folder)


@pytest.fixture
def importing(cases: Callable[[str], Golden], tmp_path: Path) -> Import:
    """`importing("stack", change=..., flags=...)`: imports a golden checkpoint after changing its state dict."""

    def run(
        name: str,
        change: Callable[[State], Any] = lambda state: None,
        flags: Flags | None = None,
        kind: str = "",
        wrap: Callable[[State], Any] = lambda state: state,
        **options: Any,
    ) -> Path:
        case = cases(name)
        tensors = torch.load(case.checkpoint, weights_only=True)
        change(tensors)
        path = tmp_path / "official.pth"
        torch.save(wrap(tensors), path)
        given = {"llm": str(case.llm), "audio_encoder": str(case.whisper), "offline": True} | options
        return import_checkpoint(kind or case.kind, path, tmp_path / "out", flags=flags or HEADS, **given)

    return run


HEADS = Flags(video_heads=4)


def same(one: OmniAVSR, other: OmniAVSR) -> None:
    left, right = state(one), state(other)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


# ---- what is inferred ------------------------------------------------------------------------


def test_stacked_rates_show_in_shapes(importing: Import) -> None:
    config = load_model(importing("stack")).config
    assert (config.compression, config.audio_rates, config.video_rates) == ("stack", (4, 16), (2, 5))
    assert (config.lora.strategy, config.lora.rank, config.lora.scale) == ("S", 2, 0.125)
    assert (config.projector.kind, config.compat.no_layer_norm, config.projector.hidden) == (
        *("mlp_per_rate", ("audio", "video"), 40),
    )
    assert config.tasks == ("asr", "vsr", "avsr")
    assert config.compat.train_on_padding is False


def test_averaged_rates_are_assumed_and_said(importing: Import, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        out = importing("ST_qwen")
    origin = json.loads((out / "origin.json").read_text())
    assumed = {"rank": 32, "alpha": 4, "audio_rates": [4, 16], "video_rates": [2, 5]}
    assert origin["official"]["assumed"] == assumed
    for option in assumed:
        assert f"{option} = " in caplog.text
    assert "non-commercial" in caplog.text
    config = load_model(out).config
    assert (config.compression, config.lora.strategy, config.llm.family) == ("average", "ST", "qwen2")
    assert config.compat.train_on_padding is True


def test_one_task_one_rate(importing: Import) -> None:
    out = importing("llama_avsr/asr_avg_ln_sink", flags=Flags(audio_rates=(16,)))
    config = load_model(out).config
    assert (config.tasks, config.audio_rates, config.projector.layer_norm) == (("asr",), (16,), True)


def test_flags_overrule_assumptions(importing: Import) -> None:
    flags = Flags(audio_rates=(3, 12), video_rates=(1, 7), rank=28, alpha=7, video_heads=2)
    config = load_model(importing("ST_qwen", flags=flags)).config
    assert (config.audio_rates, config.video_rates) == ((3, 12), (1, 7))
    assert config.lora.scale == 0.25
    assert config.video_encoder.heads == 2


def test_info_lists_the_quirks(importing: Import) -> None:
    quirks = model_info(importing("ST_qwen"))["quirks"]
    assert set(quirks) == {
        *("unmasked_padding", "trim_to_longest", "length_arithmetic", "minimum_frames", "missing_layer_norm"),
        *("waveform_norm", "rank_divisor", "prompts", "token_order_qwen", "added_rows", "train_on_padding"),
        *("plain_kernels", "float_grey", "answer_length"),
    }
    assert "sampled_beams" in model_info(importing("stack"))["quirks"]
    assert all((sentence.endswith(".") and "ours" in sentence) or "here" in sentence for sentence in quirks.values())


def test_bf16_asks_for_the_roundings_of_the_official_run(importing: Import) -> None:
    config = load_model(importing("stack", flags=Flags(video_heads=4, bf16=True))).config
    assert config.preprocess.bf16
    assert config.preprocess.length_arithmetic == "bfloat16"
    assert config.compat.bf16_rotary


def test_a_lightning_checkpoint_brings_its_arguments(importing: Import) -> None:
    arguments = argparse.Namespace(
        rank=28, alpha=7, downsample_ratio_audio=[3, 12], downsample_ratio_video=[1, 7], compression_mode="avg-pooling"
    )

    def lightning(tensors: State) -> Any:
        return {
            "state_dict": {f"model.{key}": value for key, value in tensors.items()},
            "hyper_parameters": arguments,
            "epoch": 7,
            "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}}],
            "pytorch-lightning_version": "2.3.3",
        }

    out = importing("ST_qwen", wrap=lightning)
    origin, config = json.loads((out / "origin.json").read_text()), load_model(out).config
    assert origin["official"]["assumed"] == {}
    assert (config.audio_rates, config.video_rates, config.lora.scale) == ((3, 12), (1, 7), 0.25)
    with pytest.raises(CheckpointError, match=r"--audio_rates 4 16 was given, but official.pth was trained with 3 12"):
        importing("ST_qwen", wrap=lightning, flags=Flags(audio_rates=(4, 16), video_heads=4))


def test_safetensors_and_fp32_files(cases: Callable[[str], Golden], importing: Import, tmp_path: Path) -> None:
    case, out = cases("stack"), importing("stack")
    tensors = torch.load(case.checkpoint, weights_only=True)
    wide = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items() if k != "llm.lm_head.weight"}
    save_file(wide, tmp_path / "wide.safetensors")
    options = {"llm": str(case.llm), "audio_encoder": str(case.whisper), "flags": HEADS, "offline": True}
    same(
        load_model(import_checkpoint("omni-avsr", tmp_path / "wide.safetensors", tmp_path / "wide", **options)),
        load_model(out),
    )


def test_a_folder_of_an_import_is_a_model_like_any_other(importing: Import, tmp_path: Path) -> None:
    model = load_model(importing("ST_qwen"))
    same(model, load_model(save_model(model, tmp_path / "again", origin={})))


def test_prompts_of_another_training_are_read_from_their_embeddings(
    importing: Import, cases: Callable[[str], Golden]
) -> None:
    tokenizer = Tokenizer.load(cases("stack").llm, "llama", offline=True)

    def change(tensors: State) -> None:
        ids = tokenizer.encode("Read the lips, please.")
        tensors["prompt_video"] = tensors["llm.model.embed_tokens.weight"][ids][None].clone()

    config = load_model(importing("stack", change)).config
    assert config.prompts == {"vsr": "Read the lips, please."}
    assert config.prompt("asr") == "Transcribe speech to text."


def test_separate_output_embeddings(importing: Import, cases: Callable[[str], Golden], tmp_path: Path) -> None:
    folder = tmp_path / "untied"
    shutil.copytree(cases("stack").llm, folder)
    settings = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(settings))

    def change(tensors: State) -> None:
        tensors["llm.lm_head.weight"] = 2 * tensors["llm.lm_head.weight"].clone()

    model = load_model(importing("stack", change, llm=str(folder)))
    assert torch.equal(model.llm.lm_head.weight, 2 * model.llm.model.embed_tokens.weight)
    with pytest.raises(CheckpointError, match=r"ties.*'llm.lm_head.weight' differs"):
        importing("stack", change)


# ---- Llama-SMoP ------------------------------------------------------------------------------


@pytest.fixture
def mixture(cases: Callable[[str], Golden], tiny_config: Callable[..., ModelConfig]) -> Callable[..., OmniAVSR]:
    """A small Llama-SMoP of our own on the LLM of the golden checkpoints."""

    def make(kind: str, eye: int = 24, task: str = "avsr") -> OmniAVSR:
        llm = cases("stack").llm
        settings = AutoConfig.from_pretrained(str(llm))
        config = tiny_config(
            tasks=(task,),
            projector={"kind": kind, "experts": 3, "hidden": 20},
            video_encoder={"embed_dim": eye},
            audio_rates=(4,),
            video_rates=(2,),
            lora={"strategy": "S", "scale": 0.125},
            llm={"dims": network_dims(settings)},
        )
        return OmniAVSR(config, Tokenizer.load(llm, "llama", offline=True)).eval()

    return make


def _official_names(model: OmniAVSR, kind: str) -> State:
    """The state dict of a model in the keys that the description of Llama-SMoP gives."""
    prefixes = {"smop_jejr": {"joint_0": "audiovisual_proj"}}.get(
        kind, {"audio_0": "audio_proj", "video_0": "video_proj"}
    )
    kept = {f"{modality}_0" for modality in model.config.modalities} | {"joint_0"}
    pools = {name: Pool(prefix, 3, "w1", "w2", "ln") for name, prefix in prefixes.items() if name in kept}
    projectors = Projectors(kind, "average", {}, listed=False, hidden=20, layer_norm=True, pools=pools)
    layout = Layout(SYSTEMS["llama-smop"], ("avsr",), Lora("S"), projectors, {})
    out: State = {}
    for name, value in state(model).items():
        keys = official_keys(name, layout)
        parts = [value] if len(keys) == 1 else value.unbind()
        out |= {key: part.detach().clone() for key, part in zip(keys, parts, strict=True)}
    return out


def _write_whisper(model: OmniAVSR, folder: Path) -> str:
    model.encoder("audio").whisper.config.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(("kind", "task"), [("smop_jejr", "avsr"), ("smop_dedr", "avsr"), ("smop_dedr", "vsr")])
@torch.no_grad()
def test_mixtures(
    kind: str, task: str, mixture: Callable[..., OmniAVSR], cases: Callable[[str], Golden], batch: Batch, tmp_path: Path
) -> None:
    model = mixture(kind, task=task)
    torch.save(_official_names(model, kind), tmp_path / "smop.pth")
    ear = _write_whisper(model, tmp_path / "whisper") if "audio" in model.config.modalities else ""
    options = {"llm": str(cases("stack").llm), "audio_encoder": ear}
    flags = Flags(video_heads=2)
    out = import_checkpoint("llama-smop", tmp_path / "smop.pth", tmp_path / "out", flags=flags, offline=True, **options)
    imported = load_model(out)
    projector = imported.config.projector
    assert (projector.kind, projector.experts, projector.top_k, projector.hidden) == (kind, 3, 2, 20)
    assert imported.config.tasks == (task,)
    assert {m: imported.config.rates(m) for m in model.config.modalities} == {
        m: model.config.rates(m) for m in model.config.modalities
    }
    assert json.loads((out / "origin.json").read_text())["official"]["assumed"]["top_k"] == 2
    same(imported, model)


def test_a_joint_pool_needs_encoders_of_one_width(
    mixture: Callable[..., OmniAVSR], cases: Callable[[str], Golden], tmp_path: Path
) -> None:
    file = _official_names(mixture("smop_jejr"), "smop_jejr")
    wide = _official_names(mixture("smop_dedr", eye=32), "smop_dedr")
    torch.save(file | {k: v for k, v in wide.items() if k.startswith("video_encoder.")}, tmp_path / "smop.pth")
    with pytest.raises(CheckpointError, match=r"'audiovisual_proj.gate' reads 24 values, the video encoder gives 32"):
        import_checkpoint("llama-smop", tmp_path / "smop.pth", tmp_path / "out", llm=str(cases("stack").llm))


@pytest.mark.parametrize(
    "gates", [("audiovisual_proj.gate_audio", "audiovisual_proj.gate_video"), ("audio_proj.gate",)]
)
def test_one_pool_with_two_routers_is_refused_as_what_it_is(
    gates: tuple[str, ...], mixture: Callable[..., OmniAVSR], cases: Callable[[str], Golden], tmp_path: Path
) -> None:
    file = _official_names(mixture("smop_jejr"), "smop_jejr")
    router = file["audiovisual_proj.gate.weight"]
    if len(gates) > 1:
        del file["audiovisual_proj.gate.weight"]
    torch.save(file | {f"{gate}.weight": router for gate in gates}, tmp_path / "smop.pth")
    with pytest.raises(CheckpointError, match=r"one pool of experts and 2 routers \(audio.*JEDR.*report these names"):
        import_checkpoint("llama-smop", tmp_path / "smop.pth", tmp_path / "out", llm=str(cases("stack").llm))


def test_an_unknown_expert_is_reported(
    mixture: Callable[..., OmniAVSR], cases: Callable[[str], Golden], tmp_path: Path
) -> None:
    file = _official_names(mixture("smop_jejr"), "smop_jejr")
    file["audiovisual_proj.experts.0.w3.weight"] = torch.ones(20, 24)
    torch.save(file, tmp_path / "smop.pth")
    with pytest.raises(CheckpointError, match=r"holds w1 \(20, 24\).*w3 \(20, 24\).*please report these names"):
        import_checkpoint("llama-smop", tmp_path / "smop.pth", tmp_path / "out", llm=str(cases("stack").llm))


def test_more_experts_than_there_are(
    mixture: Callable[..., OmniAVSR], cases: Callable[[str], Golden], tmp_path: Path
) -> None:
    torch.save(_official_names(mixture("smop_jejr"), "smop_jejr"), tmp_path / "smop.pth")
    with pytest.raises(CheckpointError, match=r"--top_k 9 was given, but the pools of smop.pth have 3 experts; give 1"):
        import_checkpoint(
            "llama-smop", tmp_path / "smop.pth", tmp_path / "out", llm=str(cases("stack").llm), flags=Flags(top_k=9)
        )


# ---- what is refused -------------------------------------------------------------------------


def _rename(old: str, new: str) -> Callable[[State], None]:
    return lambda tensors: tensors.update({new: tensors.pop(old)})


def _double(key: str) -> Callable[[State], None]:
    return lambda tensors: tensors.update({key: torch.cat([tensors[key]] * 2)})


def _last_keys(tensors: State) -> None:
    for key in list(tensors)[-20:]:
        del tensors[key]


NO_KEY = r"has no key '{}', expected with shape "


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _rename("audio_proj.0.2.weight", "audio_proj.0.2.wieght"),
            NO_KEY.format("audio_proj.0.2.weight") + r"\(64, 40\).*unknown key 'audio_proj.0.2.wieght' instead",
        ),
        (
            _rename("audio_encoder.layer_norm.bias", "audio_encoder.layer_norm.beta"),
            NO_KEY.format("audio_encoder.layer_norm.bias") + r".*'audio_encoder.layer_norm.beta' instead",
        ),
        (lambda t: t.pop("llm.model.layers.1.self_attn.lora_up_V.weight"), NO_KEY.format(r"llm.*lora_up_V.weight")),
        (
            lambda t: t.pop("video_encoder.encoder.layers.1.fc1.bias"),
            r"has no 'video_encoder.encoder.layers.1.fc1.bias'",
        ),
        (
            _last_keys,
            r"no key 'llm.model.layers.2.self_attn.q_proj.weight': its LLM has 2 layers, that.* 3\..*truncated",
        ),
        (lambda t: t.update({"llm.surprise": torch.ones(3)}), r"has the key 'llm.surprise' of shape \(3,\)"),
        (lambda t: t.update({"video_encoder.odd": torch.ones(3)}), r"has the key 'video_encoder.odd' of shape \(3,\)"),
        (
            _double("llm.model.norm.weight"),
            r"'llm.model.norm.weight' has shape \(128,\), expected \(64,\); --llm",
        ),
        (
            _double("audio_encoder.conv1.bias"),
            r"'audio_encoder.conv1.bias' has shape \(64,\), expected \(32,\); --a",
        ),
        (
            lambda t: t.pop("llm.model.embed_tokens.weight"),
            "no key 'llm.model.embed_tokens.weight'.*download it",
        ),
        (lambda t: t.pop("prompt_audio"), r"has no key 'prompt_audio'"),
        (lambda t: t.update(prompt_audio=t["prompt_audio"] + 1), r"'prompt_audio' holds .* averages several epochs"),
        (lambda t: t.update(**{"audiovisual_encoder.x": torch.ones(1)}), "one audio-visual encoder.*not supported"),
        (lambda t: t.update(**{"audio_encoder.feature_projection.x": torch.ones(1)}), "WavLM.*not supported"),
        (lambda t: t.clear(), "holds no state dict"),
        (lambda t: t.update(**{"audio_proj.0.3.weight": torch.ones(64)}), "LayerNorm: {'audio'.*True"),
        (lambda t: [t.pop(k) for k in list(t) if k.startswith("video_encoder.")], r"has no 'video_encoder\.\*' keys"),
    ],
)
def test_every_key_counts(change: Callable[[State], Any], message: str, importing: Import) -> None:
    with pytest.raises(CheckpointError, match=message):
        importing("stack", change)


def test_a_truncated_file(importing: Import, cases: Callable[[str], Golden], tmp_path: Path) -> None:
    content = cases("stack").checkpoint.read_bytes()
    (tmp_path / "half.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"half\.pt is not a complete PyTorch file.*download it again"):
        import_checkpoint("omni-avsr", tmp_path / "half.pt", tmp_path / "out", llm=str(cases("stack").llm))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (Flags(strategy="ST"), r"--strategy ST was given, but the keys of official.pth are those of S"),
        (Flags(compression="average"), r"--compression average was given.*stacked frames \(audio 4 16, video 2 5\)"),
        (Flags(audio_rates=(4, 8)), r"--audio_rates 4 8 was given.*stack 4 16"),
        (Flags(rank=16, alpha=4), r"--rank 16 divides the LLM's width 64 into r = 4, but official.pth has r = 2"),
        (Flags(rank=30), "none of the published settings; give --rank and --alpha"),
        (Flags(top_k=9), r"--top_k 9 was given, but official.pth has no mixture of experts .*leave the option out"),
        (Flags(video_heads=5), r"5 attention heads do not divide AV-HuBERT's width 48; give the right number"),
        (Flags(), r"width 48 is neither base \(768\) nor large \(1024\)"),
    ],
)
def test_flags_are_cross_checked(flags: Flags, message: str, importing: Import) -> None:
    with pytest.raises(CheckpointError, match=message):
        importing("stack", flags=flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (Flags(compression="foo"), r"--compression foo was given; expected is average or stack: give"),
        (Flags(strategy="X"), r"--strategy X was given; expected is none, S, T or ST: give"),
        (Flags(rank=0), r"--rank 0 was given; expected is a number above 0.*: give"),
        (Flags(alpha=float("nan")), r"--alpha nan was given; expected is a number above 0: give"),
        (Flags(audio_rates=(4, 4)), r"--audio_rates 4 4 was given; expected is one or more rates from 1 on, each once"),
        (Flags(video_rates=(0, 4)), r"--video_rates 0 4 was given; expected is one or more rates from 1 on, each once"),
        (Flags(top_k=0), r"--top_k 0 was given; expected is a number of experts from 1 on: give"),
        (Flags(video_heads=-2), r"--video_heads -2 was given; expected is a number of attention heads from 1 on"),
    ],
)
def test_values_that_no_training_had(flags: Flags, message: str, importing: Import) -> None:
    with pytest.raises(ConfigError, match=message):
        importing("stack", flags=flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (Flags(audio_rates=(16,), video_rates=(2,)), r"--video_rates 2 was given, but official.pth has no video enc"),
        (Flags(audio_rates=(16,), video_heads=4), r"--video_heads 4 was given, but official.pth has no video encoder"),
        (Flags(audio_rates=(16,), compression="stack"), r"--compression stack was given.*read one frame at a time"),
    ],
)
def test_options_about_what_is_not_there(flags: Flags, message: str, importing: Import) -> None:
    with pytest.raises(CheckpointError, match=message):
        importing("llama_avsr/asr_avg_ln_sink", flags=flags)


def test_the_number_of_rates_is_that_of_the_projectors(importing: Import) -> None:
    with pytest.raises(CheckpointError, match=r"--audio_rates 4 8 16: 3 rates, but official.pth has 2 audio"):
        importing("ST_qwen", flags=Flags(audio_rates=(4, 8, 16), video_heads=4))
    with pytest.raises(CheckpointError, match=r"averages audio frames, which leaves no trace of the rate"):
        importing("llama_avsr/asr_avg_ln_sink")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 128, "head_dim": 8}, r"hidden size 64, not 128 \(key 'llm.model.embed_tokens.weight'\)"),
        ({"num_hidden_layers": 2}, r"number of layers 3, not 2 \(key 'llm.model.layers.2.self_attn.q_proj.weight'\)"),
        ({"num_hidden_layers": 5}, r"no key 'llm.model.layers.3.*3 layers, that.* 5\..*truncated"),
        ({"num_key_value_heads": 4}, r"key width 16, not 32 \(key 'llm.model.layers.0.self_attn.k_proj.weight'\)"),
        ({"intermediate_size": 64}, r"feed-forward width 128, not 64 \(key 'llm.model.layers.0.mlp.gate_proj"),
        ({"model_type": "qwen2"}, r"query bias False, not True \(key 'llm.model.layers.0.self_attn.q_proj.bias'\)"),
        ({"model_type": "gpt2"}, r"'gpt2' model; supported: llama, qwen2"),
    ],
)
def test_another_llm(
    change: dict[str, Any], message: str, importing: Import, cases: Callable[[str], Golden], tmp_path: Path
) -> None:
    folder = tmp_path / "llm"
    shutil.copytree(cases("stack").llm, folder)
    settings = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(settings))
    if change.get("model_type") == "qwen2":
        shutil.copyfile(cases("ST_qwen").llm / "tokenizer.json", folder / "tokenizer.json")
        shutil.copyfile(cases("ST_qwen").llm / "tokenizer_config.json", folder / "tokenizer_config.json")
    with pytest.raises(CheckpointError, match=message):
        importing("stack", llm=str(folder))


def test_another_tokenizer(importing: Import, cases: Callable[[str], Golden], tmp_path: Path) -> None:
    folder = tmp_path / "llm"
    shutil.copytree(cases("stack").llm, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 302, "content": "<extra>"})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(CheckpointError, match=r"307 rows, but the tokenizer of --llm .* makes 308 tokens"):
        importing("stack", llm=str(folder))


def test_no_configuration_there(importing: Import, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AssetError, match=r"--llm .*empty: no configuration there"):
        importing("stack", llm=str(tmp_path / "empty"))
    with pytest.raises(AssetError, match=r"--audio_encoder .*empty: no configuration there"):
        importing("stack", audio_encoder=str(tmp_path / "empty"))
    with pytest.raises(CheckpointError, match=r"width 32 is no published Whisper.*--audio_encoder DIR"):
        importing("stack", audio_encoder="")


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("stack", "llama-avsr", "official.pth is a checkpoint of omni-avsr, not of llama-avsr; import it as omni-avsr"),
        ("llama_avsr/asr_avg_ln_sink", "omni-avsr", "is a checkpoint of llama-avsr, not of omni-avsr"),
        ("stack", "llama-smop", "is a checkpoint of omni-avsr"),
    ],
)
def test_a_file_of_another_program(name: str, kind: str, message: str, importing: Import) -> None:
    with pytest.raises(CheckpointError, match=message):
        importing(name, kind=kind)


def test_an_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'llama-smop'"):
        import_checkpoint("llama-smob", tmp_path / "x.pth", tmp_path / "out", llm="x")


def test_an_llm_of_the_hub_is_found_in_its_cache(
    importing: Import, cases: Callable[[str], Golden], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "hub" / "models--meta-llama--Llama-3.2-1B"
    shutil.copytree(cases("stack").llm, home / "snapshots" / "abc")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert load_model(importing("stack", llm="meta-llama/Llama-3.2-1B")).config.lora.rank == 2
    with pytest.raises(AssetError, match=r"--llm meta-llama/Llama-3\.2-3B: no configuration there"):
        importing("stack", llm="meta-llama/Llama-3.2-3B")


def test_an_avhubert_of_another_size(importing: Import, tmp_path: Path) -> None:
    torch.save({"cfg": {"model": {"encoder_embed_dim": 1024}}, "model": {}}, tmp_path / "large.pt")
    with pytest.raises(
        CheckpointError, match=r"AV-HuBERT is 48 wide here, but 1024 in the settings; give.*--video_encoder"
    ):
        importing("stack", video_encoder=str(tmp_path / "large.pt"))


def test_avhubert_alone_is_no_model(importing: Import) -> None:
    with pytest.raises(CheckpointError, match="fairseq file of AV-HuBERT alone; give it as --video_encoder"):
        importing("stack", wrap=lambda tensors: {"cfg": {}, "model": tensors})
