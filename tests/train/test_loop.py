"""Runs: what a step changes, stopping and going on, choosing and averaging, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from omni_avsr.checkpoints import native
from omni_avsr.config import Recipe
from omni_avsr.data.manifest import Row, read_manifest, write_manifest
from omni_avsr.errors import CheckpointError, ConfigError, DataError, OmniAVSRError, TrainingInterrupted
from omni_avsr.train import loop, state
from omni_avsr.train.parallel import PARALLEL
from omni_avsr.train.runlog import read_metrics
from omni_avsr.train.state import Snapshot

Make = Callable[..., Recipe]

# everything that draws at random or carries state over: dropout, layer drop, noise, rates, accumulation, averaging
BUSY = (
    "model.video_encoder.dropout=0.2",
    "model.video_encoder.layer_drop=0.2",
    "model.ctc.units=char",
    "train.parts=['projectors','llm_lora','video_lora','llm','audio_encoder','video_encoder','ctc']",
    "train.average=2",
    "train.label_smoothing=0.1",
    "data.augment.speed=[0.9,1.1]",
    "train.log_every=2",
)


def numbers(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without what the clock says."""
    return [{k: v for k, v in r.items() if k != "frames_per_second"} for r in read_metrics(folder / "metrics.jsonl")]


def last_state(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    path = state.checkpoints(folder)[0]
    position = vars(state._position(path))
    return state.read_tensors(path), position


def stop_after(step: int, monkeypatch: pytest.MonkeyPatch, number: int = signal.SIGINT) -> None:
    """A signal arrives during optimiser step `step`."""
    original = loop.Trainer._step

    def interrupted(self: loop.Trainer, group: Any) -> None:
        if self.at.step + 1 == step:
            os.kill(os.getpid(), number)
        original(self, group)

    monkeypatch.setattr(loop.Trainer, "_step", interrupted)


@pytest.fixture(scope="module")
def straight(make_recipe: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs of four steps that nobody stops."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    loop.train(make_recipe("omni_st", *BUSY), folder, progress=False)
    return folder


@pytest.mark.parametrize("step", [1, 4, 6])  # in an epoch, at its last step, in the next one
def test_stopped_and_resumed_is_the_same_run_to_the_last_bit(
    step: int, straight: Path, make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe("omni_st", *BUSY)
    with monkeypatch.context() as patch:
        stop_after(step, patch)
        with pytest.raises(TrainingInterrupted, match=f"after step {step} of 8.*--resume") as stopped:
            loop.train(recipe, tmp_path, progress=False)
    assert stopped.value.exit_code == 130
    assert not (tmp_path / "model").exists()
    torch.manual_seed(999)  # another process would not share our generators
    loop.train(recipe, tmp_path, resume=True, progress=False)

    (expected, position), (got, other) = last_state(straight), last_state(tmp_path)
    assert any(k.startswith("optimizer.") for k in expected)
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, got[name]), name
    assert position == other
    assert numbers(straight) == numbers(tmp_path)
    for one, two in zip(sorted((straight / "best").iterdir()), sorted((tmp_path / "best").iterdir()), strict=True):
        assert one.read_bytes() == two.read_bytes()
    name = "model/model.safetensors"
    assert (straight / name).read_bytes() == (tmp_path / name).read_bytes()


def test_dropout_and_data_really_differ_between_steps(straight: Path) -> None:
    """The proof above would prove nothing on a run without chance."""
    rows = [r for r in numbers(straight) if r["kind"] == "train"]
    assert len({r["loss"] for r in rows}) == len(rows) == 4


def test_ctc_epochs_leave_the_llm_alone(make_recipe: Make, tmp_path: Path) -> None:
    knobs = ("model.ctc.units=char", "train.max_steps=6", "train.ctc_epochs=1", "train.log_every=1")
    parts = "train.parts=['projectors','llm','audio_encoder','video_encoder','ctc']"
    loop.train(make_recipe("omni_st", parts, *knobs), tmp_path, progress=False)
    rows = [r for r in numbers(tmp_path) if r["kind"] == "train"]
    assert [sorted(k for k in r if k.startswith("loss/")) == ["loss/ctc"] for r in rows] == [True] * 4 + [False] * 2
    assert all({"loss/asr", "loss/vsr", "loss/avsr", "loss/ctc"} <= r.keys() for r in rows[4:])


def test_ctc_epochs_move_only_what_lies_below_the_heads(make_recipe: Make, tmp_path: Path) -> None:
    parts = "train.parts=['projectors','llm','audio_encoder','video_encoder','ctc']"
    recipe = make_recipe("omni_st", parts, "model.ctc.units=char", "train.max_steps=2", "train.ctc_epochs=1")
    torch.manual_seed(recipe.train.seed)
    before = loop.initial_model(recipe, loop.Corpus(recipe).train.texts).state_dict()
    after = native.load_model(loop.train(recipe, tmp_path, progress=False)).state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name].float())}
    assert moved == {"audio_encoder", "video_encoder", "ctc"}


def test_resuming_with_accumulation_in_bf16(make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe("omni_smop", "train.precision=bf16", "train.accumulate=3", "train.max_steps=3")
    loop.train(recipe, tmp_path / "straight", progress=False)
    with monkeypatch.context() as patch:
        stop_after(1, patch, signal.SIGTERM)
        with pytest.raises(TrainingInterrupted):
            loop.train(recipe, tmp_path / "stopped", progress=False)
    loop.train(recipe, tmp_path / "stopped", resume=True, progress=False)
    (expected, _), (got, _) = last_state(tmp_path / "straight"), last_state(tmp_path / "stopped")
    assert all(torch.equal(tensor, got[name]) for name, tensor in expected.items())
    assert {t.dtype for name, t in got.items() if "num_batches" not in name} == {torch.float32}  # master weights


SAVINGS = ("train.ema=0.5", "train.pack=true", "train.schedule=plateau", "train.max_steps=4")


def test_resuming_with_mean_packing_and_recomputation(
    make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe("omni_st", *BUSY, *SAVINGS)
    loop.train(recipe, tmp_path / "straight", progress=False)
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(TrainingInterrupted):
            loop.train(recipe, tmp_path / "stopped", progress=False)
    # recomputation changes no bit, so it may be switched on in mid-run
    resumed = make_recipe("omni_st", *BUSY, *SAVINGS, "train.checkpointing=true")
    loop.train(resumed, tmp_path / "stopped", resume=True, progress=False)
    (expected, _), (got, _) = last_state(tmp_path / "straight"), last_state(tmp_path / "stopped")
    assert any(name.startswith("mean.") for name in expected)
    assert all(torch.equal(tensor, got[name]) for name, tensor in expected.items())
    snapshot = state.load_snapshot(tmp_path / "straight", Snapshot(0, 4))
    name = next(n.removeprefix("mean.") for n in expected if n.startswith("mean."))
    assert torch.equal(snapshot[name], expected[f"mean.{name}"])
    assert not torch.equal(snapshot[name], expected[f"model.{name}"])


def test_a_full_disk_keeps_the_previous_checkpoint_usable(
    straight: Path, make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe("omni_st", *BUSY)
    save = state.save_file

    def full(tensors: Any, path: Path, metadata: Any) -> None:
        if "step-00000008" in path.name:
            path.write_bytes(b"half a file")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(tensors, path, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(state, "save_file", full)
        with pytest.raises(
            CheckpointError, match=r"No space left on device.*the last whole checkpoint is step-00000004.*--resume"
        ):
            loop.train(recipe, tmp_path, progress=False)
    assert not list(tmp_path.rglob("*.partial"))
    loop.train(recipe, tmp_path, resume=True, progress=False)
    name = "model/model.safetensors"
    assert (straight / name).read_bytes() == (tmp_path / name).read_bytes()


def test_the_model_is_the_mean_of_the_best_and_says_where_it_comes_from(straight: Path, manifest: Path) -> None:
    dev = {r["step"]: r["loss"] for r in numbers(straight) if r["kind"] == "dev"}
    origin = json.loads((straight / "model" / "origin.json").read_text())
    best = sorted(dev, key=dev.__getitem__)[:2]
    assert [s["step"] for s in origin["selected"]] == best
    assert origin["recipe"]["train"]["average"] == 2
    assert list(origin["manifests"]) == [str(manifest)]
    assert origin["versions"]["torch"] == torch.__version__

    model = native.load_model(straight / "model")
    parts = [state.load_snapshot(straight, Snapshot(0, step)) for step in best]
    weights = dict(model.named_parameters())
    trained = [name for name in parts[0] if name in weights]
    assert len(trained) > 50
    for name in trained:
        torch.testing.assert_close(weights[name], (parts[0][name] + parts[1][name]) / 2, rtol=1e-6, atol=1e-7)


def test_only_the_checkpoints_asked_for_are_kept(straight: Path) -> None:
    assert [p.stem for p in state.checkpoints(straight)] == ["step-00000008", "step-00000004"]
    assert (straight / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_it_learns(make_recipe: Make, tmp_path: Path) -> None:
    parts = "train.parts=['projectors','llm_lora','llm']"
    plain = ("data.augment.noise=[]", "data.augment.noise_probability=0", "data.frames_per_batch=200")
    once = ("train.epochs=40", "train.eval_every=40", "train.save_every=40")
    recipe = make_recipe("omni_s", parts, *plain, *once, "train.lr=1e-2", "train.warmup=0.1")
    loop.train(recipe, tmp_path, progress=False)
    rows = [r for r in numbers(tmp_path) if r["kind"] == "train"]
    for task in ("asr", "vsr", "avsr"):
        assert rows[-1][f"loss/{task}"] < 0.5 * rows[0][f"loss/{task}"]


def test_choosing_by_word_error_rate(make_recipe: Make, tmp_path: Path) -> None:
    loop.train(make_recipe("omni_st", "train.select_by=wer", "train.max_steps=1"), tmp_path, progress=False)
    (row,) = [r for r in numbers(tmp_path) if r["kind"] == "dev"]
    assert {f"wer/{task}" for task in ("asr", "vsr", "avsr")} <= row.keys()
    assert [f"loss/{n}" in row for n in ("asr@4", "asr@16", "vsr@2", "vsr@5", "avsr@4,2", "avsr@16,5")] == [True] * 6


def test_without_a_dev_split_the_newest_weights_are_taken(make_recipe: Make, tmp_path: Path) -> None:
    loop.train(make_recipe("omni_st", "data.dev=[]", "train.max_steps=6"), tmp_path, progress=False)
    origin = json.loads((tmp_path / "model" / "origin.json").read_text())
    assert [s["step"] for s in origin["selected"]] == [6]
    assert not [r for r in numbers(tmp_path) if r["kind"] == "dev"]


def test_starting_from_a_model_folder(straight: Path, make_recipe: Make, tmp_path: Path) -> None:
    start = native.load_model(straight / "model")
    recipe = make_recipe("omni_st", *BUSY, f"train.init={straight / 'model'}", "model.video_encoder.dropout=0")
    model = loop.initial_model(recipe, ["words that the folder's tokenizer never saw"])
    for name, tensor in start.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert model.tokenizer.encode("bin blue") == start.tokenizer.encode("bin blue")
    assert model.config.video_encoder.dropout == 0
    wider = make_recipe("omni_st", *BUSY, f"train.init={straight / 'model'}", "model.projector.hidden=33")
    with pytest.raises(CheckpointError, match=r"does not fit the recipe's model.*projector"):
        loop.initial_model(wider, [])


def test_parts_that_begin_anew_may_have_another_form(straight: Path, make_recipe: Make) -> None:
    start = native.load_model(straight / "model").state_dict()
    anew = ("model.projector.hidden=33", "model.lora.strategy=T", "train.fresh=['projectors','llm_lora']")
    recipe = make_recipe("omni_st", *BUSY, f"train.init={straight / 'model'}", *anew)
    found = loop.initial_model(recipe, []).state_dict()
    kept = [n for n in found if not n.startswith("projector.") and not (n.startswith("llm.") and ".lora_" in n)]
    assert len(kept) > 30
    assert all(torch.equal(found[n], start[n]) for n in kept)
    assert found["projector.mlps.audio_0.0.weight"].shape[0] == 33
    assert not any(n.endswith(".shared") for n in found)


# ---- what is refused -----------------------------------------------------------------------------


def test_a_folder_with_a_run_is_not_overwritten(straight: Path, make_recipe: Make) -> None:
    recipe = make_recipe("omni_st", *BUSY)
    with pytest.raises(ConfigError, match="holds a run already; give --resume"):
        loop.train(recipe, straight)


def test_resuming_with_another_recipe_names_what_differs(straight: Path, make_recipe: Make) -> None:
    with pytest.raises(ConfigError, match=r"train\.lr, train\.seed differ"):
        loop.train(make_recipe("omni_st", *BUSY, "train.lr=1", "train.seed=5", "data.workers=0"), straight, resume=True)


def test_resuming_a_finished_run_changes_nothing(straight: Path, make_recipe: Make, tmp_path: Path) -> None:
    copy = shutil.copytree(straight, tmp_path / "run")
    loop.train(make_recipe("omni_st", *BUSY, "train.log_every=1"), copy, resume=True, progress=False)
    assert numbers(copy) == numbers(straight)
    name = "model/model.safetensors"
    assert (straight / name).read_bytes() == (copy / name).read_bytes()


def test_a_run_of_an_older_version_can_be_resumed(straight: Path, make_recipe: Make, tmp_path: Path) -> None:
    copy = shutil.copytree(straight, tmp_path / "run")
    tree = json.loads((copy / "recipe.json").read_text())
    del tree["model"]["projector"]["router_z_weight"]  # a knob that did not exist then; it stands at its default
    tree["model"]["projector"]["gone"] = 1  # one that does not exist any more
    (copy / "recipe.json").write_text(json.dumps(tree))
    loop.train(make_recipe("omni_st", *BUSY), copy, resume=True, progress=False)
    changed = ("model.projector.router_z_weight=0.5", "model.llm.dims.head_dim=8")
    with pytest.raises(ConfigError, match=r"recipe: model\.projector\.router_z_weight, model\.llm\.dims differ"):
        loop.train(make_recipe("omni_st", *BUSY, *changed), copy, resume=True)


@pytest.mark.parametrize("other", ["train", "test"])
def test_a_dev_split_that_overlaps_is_refused(other: str, manifest: Path, make_recipe: Make, tmp_path: Path) -> None:
    rows = read_manifest(manifest)
    taken = next(r for r in rows if r.split == "dev")
    twin = Row("twin", taken.media, taken.text, other, mouths=taken.mouths, frames=taken.frames)
    second = write_manifest(tmp_path / "second.jsonl", [*[r for r in rows if r.split == "train"], twin])
    recipe = make_recipe("omni_st", f"data.train=['{second}']")
    with pytest.raises(DataError, match=f"splits 'dev' and '{other}' share 1 utterance"):
        loop.train(recipe, tmp_path / "run")


def test_no_data_says_how_to_name_it(make_recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.train is empty.*--set"):
        loop.train(make_recipe("omni_st", "data.train=[]"), tmp_path)


def test_a_run_that_failed_at_once_is_not_in_the_way(make_recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        loop.train(make_recipe("omni_st", "train.parts=['ctc']"), tmp_path)
    loop.train(make_recipe("omni_st", "train.max_steps=1", "data.dev=[]"), tmp_path, progress=False)
    assert (tmp_path / "model").is_dir()


def test_a_loss_that_is_no_number_stops_the_run(make_recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(OmniAVSRError, match=r"the loss is nan at step \d.*Lower train.lr"):
        loop.train(make_recipe("omni_st", "train.lr=1e30", "train.clip=0"), tmp_path, progress=False)


def test_parts_that_the_model_lacks_are_refused(make_recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing would be trained"):
        loop.train(make_recipe("omni_st", "train.parts=['ctc']"), tmp_path)


# ---- other processes -----------------------------------------------------------------------------

ALONE = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def command(recipe: Recipe, out: Path, *launcher: str) -> list[str]:
    """The command line that trains `recipe`."""
    file = out.with_suffix(".toml")
    flat = _flat(recipe.model_dump(mode="json"))
    file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in flat.items()))
    return [sys.executable, *launcher, "-m", "omni_avsr", "train", str(file), "-o", str(out)]


def _flat(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return out


STILL = ("model.video_encoder.dropout=0", "train.ema=0.9", "train.precision=no", "train.clip=0.5")
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def launch(line: list[str]) -> None:
    done = subprocess.run(line, env=ALONE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def assert_same_rows(folder: Path, other: Path) -> None:
    rows, others = numbers(folder), numbers(other)
    assert [r["step"] for r in rows] == [r["step"] for r in others]
    for row, another in zip(rows, others, strict=True):
        assert row.keys() == another.keys()
        same = [name for name in row if name != "kind"]
        assert [another[n] for n in same] == pytest.approx([row[n] for n in same], rel=1e-5)


def assert_same_tensors(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("parallel", sorted(PARALLEL))
def test_two_processes_train_as_one_with_the_same_batches(make_recipe: Make, tmp_path: Path, parallel: str) -> None:
    """A step of two processes is a step of one that accumulates the same two batches."""
    still = (*STILL, "model.video_encoder.layer_drop=0", "train.epochs=1")
    one, two = tmp_path / "one", tmp_path / "two"
    loop.train(make_recipe("omni_st", *still, "train.accumulate=2"), one, progress=False)
    launch(command(make_recipe("omni_st", *still, f"train.parallel={parallel}"), two, *TWO))
    assert [r["step"] for r in numbers(one)] == [1, 2, 2]
    assert_same_rows(one, two)
    (expected, _), (got, position) = last_state(one), last_state(two)
    assert len(position["ranks"]) == 2
    assert any(name.startswith("mean.") for name in expected)
    assert_same_tensors(got, expected)
    assert_same_tensors(*(native.load_model(run / "model").state_dict() for run in (two, one)))


@pytest.mark.slow
def test_shards_stopped_and_resumed_are_the_same_run(make_recipe: Make, tmp_path: Path) -> None:
    """With what processes do not share: layers that one of them drops, experts that none of its tokens visits."""
    busy = ("model.projector.kind=smop_dedr", "train.parts=['projectors','llm_lora','video_lora']", "train.pack=true")
    recipe = make_recipe("omni_st", *BUSY, *busy, "train.parallel=fsdp2", "train.checkpointing=true")
    out, straight = tmp_path / "run", tmp_path / "straight"
    line = command(recipe, out, *TWO)
    launch(line)
    shutil.copytree(out, straight)
    newest, _ = state.checkpoints(out)
    newest.unlink()
    shutil.rmtree(out / "model")
    launch([*line, "--resume"])
    assert_same_rows(straight, out)
    assert_same_tensors(last_state(out)[0], last_state(straight)[0])
    assert_same_tensors(*(native.load_model(run / "model").state_dict() for run in (out, straight)))


def test_ctrl_c_at_the_command_line(make_recipe: Make, tmp_path: Path) -> None:
    out = tmp_path / "run"
    recipe = make_recipe("omni_st", "train.epochs=5000", "train.eval_every=5000", "train.save_every=5000")
    process = subprocess.Popen(command(recipe, out), env=ALONE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 600  # a busy machine
    while not read_metrics(out / "metrics.jsonl") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert "--resume" in said
    assert "Traceback" not in said
    (saved,) = state.checkpoints(out)
    assert state._position(saved).step == read_metrics(out / "metrics.jsonl")[-1]["step"]
