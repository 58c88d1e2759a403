"""The training loop: a recipe in, a model folder out, and a run that can stop at any step and go on as if it had not.

    out/recipe.json     the recipe, bases and overrides resolved; resuming compares with it
    out/metrics.jsonl   out/curves.png   out/tensorboard/
    out/checkpoints/    out/best/        see state.py
    out/model/          the result

A step is `accumulate` batches on each process; its rates, its learning rate and its batches are functions of the
seed and the step, so the state of a run is its weights, the optimiser's moments, the random generators (dropout),
and two numbers. A row of the data is drawn by seed, epoch and row, whoever loads it.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from omni_avsr.checkpoints import native
from omni_avsr.checkpoints.folder import locate
from omni_avsr.config import ModelConfig, Recipe, merge, parse
from omni_avsr.errors import CheckpointError, ConfigError, MissingExtraError, OmniAVSRError, TrainingInterrupted
from omni_avsr.model.omni import PARTS, OmniAVSR
from omni_avsr.train import dev, state
from omni_avsr.train.cache import frozen, state_cache
from omni_avsr.train.claim import claim
from omni_avsr.train.corpus import Corpus
from omni_avsr.train.memory import checkpoint_layers
from omni_avsr.train.optim import RunningMean, average, build_optimizer, lr_factor, set_lr
from omni_avsr.train.origin import describe
from omni_avsr.train.parallel import agree_on_gradients, check_same_passes, collect, gathered, spread, whole
from omni_avsr.train.progress import ProgressReport
from omni_avsr.train.rates import may_skip_parameters, step_rates
from omni_avsr.train.runlog import RunLog
from omni_avsr.train.signals import StopRequest
from omni_avsr.types import Batch, Losses

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)


def train(recipe: Recipe, out: str | Path, resume: bool = False, progress: bool = True) -> Path:
    """Trains a model; under torchrun, with as many processes as it starts.

    Args:
        recipe: what to train, on what, how.
        out: folder of the run.
        resume: go on from the newest checkpoint in `out`; on a CPU the result is the same to the last bit.
        progress: draw a bar if standard error is a terminal; otherwise a line is logged every `train.log_every` steps.

    Returns:
        The model folder, `out/model`.

    Raises:
        ConfigError: `out` holds a run already, or another recipe's run; or a knob does not fit the model.
        DataError: manifests without rows, or an utterance in two splits.
        CheckpointError: a checkpoint could not be written (the older ones are untouched) or does not fit.
        TrainingInterrupted: SIGINT or SIGTERM; a checkpoint was saved and the message says how to go on.
        MissingExtraError: the extra 'train' is not installed.
    """
    folder, recipe = Path(out), inherited(recipe)
    accelerator = _accelerator(recipe)
    if accelerator.is_main_process:
        claim(folder, recipe, resume)
    accelerator.wait_for_everyone()
    return Trainer(recipe, folder, accelerator).run(progress)


class Trainer:
    """One process of a run. Construction builds or restores; `run` trains to the end."""

    def __init__(self, recipe: Recipe, folder: Path, accelerator: Accelerator) -> None:
        self.recipe, self.folder, self.accelerator = recipe, folder, accelerator
        self.knobs = recipe.train
        self.corpus = Corpus(recipe, accelerator.process_index, accelerator.num_processes)
        torch.manual_seed(self.knobs.seed)
        self.model = initial_model(recipe, self.corpus.train.texts).to(accelerator.device)
        self.model.set_trainable(self.knobs.parts)
        self.model.train()
        if self.knobs.checkpointing:
            checkpoint_layers(self.model)
        if recipe.data.cache:
            share = accelerator.process_index, accelerator.num_processes
            caches = {
                m: state_cache(self.model, self.corpus.train, recipe, m, *share, accelerator.autocast)
                for m in frozen(recipe)
            }
            accelerator.wait_for_everyone()
            self.corpus.train.use_states(caches, recipe.data.variants)
        self.wrapped = spread(self.model, self.knobs, accelerator)
        self.optimizer = build_optimizer(self.model, self.knobs)
        self.stepper = accelerator.prepare_optimizer(self.optimizer)
        self.mean = RunningMean(self.model, self.knobs.ema) if self.knobs.ema else None
        self.total = self.knobs.max_steps or self.knobs.epochs * self.corpus.steps_per_epoch
        self.window: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])  # name -> [sum, count]
        self.at = self._restore()

    # ---- the run -----------------------------------------------------------------------------

    def run(self, progress: bool = True) -> Path:
        """Trains from where the run stands to its last step and writes the model."""
        main = self.accelerator.is_main_process
        self.log = RunLog(self.folder, self.at.step) if main else None
        self.clock = time.monotonic()
        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        self._say("%s: %s parameters trained, %d steps", self.recipe.name, f"{trained:,}", self.total)
        with StopRequest() as self.stop, ProgressReport(self.total, self.at.step, main and progress) as self.bar:
            while self.at.step < self.total:
                self._epoch()
        if self.log is not None:
            self.log.close()
        return self._finish()

    def _epoch(self) -> None:
        """The rest of this epoch, or of the run; then evaluation and checkpoint where they are due."""
        for group in self.corpus.groups(self.at.epoch, self.at.batch):
            self._step(group)
            if self.at.step >= self.total:
                break
            self._stop_if_asked()
        self.at.epoch, self.at.batch = self.at.epoch + 1, 0
        last = self.at.step >= self.total
        if last or (self.at.epoch > self.knobs.ctc_epochs and self.at.epoch % self.knobs.eval_every == 0):
            self._evaluate()
        if last or self.at.epoch % self.knobs.save_every == 0:
            self._save()
        if not last:
            self._stop_if_asked()

    def _step(self, group: list[Batch]) -> None:
        """One optimiser step: the mean gradient of the batches of `group`, over all processes."""
        rates = step_rates(self.model.config, self.knobs, self.at.step)
        lr = self.knobs.lr * lr_factor(self.at.step, self.total, self.knobs.warmup, self.knobs.schedule)
        set_lr(self.optimizer, lr)
        ctc_only = self.at.epoch < self.knobs.ctc_epochs
        weights = dict.fromkeys(self.recipe.model.tasks, 0.0) if ctc_only else self.knobs.task_weights
        for i, batch in enumerate(group):
            # processes add up their gradients once a step, with the last batch
            with self.accelerator.no_sync(self.wrapped) if i < len(group) - 1 else torch.enable_grad():
                batch = batch.to(self.accelerator.device)
                check_same_passes(self.wrapped, batch, dict.fromkeys(self.recipe.model.tasks, 1.0) | weights)
                with self._kernels():
                    losses = self.wrapped(
                        batch, rates, weights, self.knobs.sink_weight, self.knobs.label_smoothing, self.knobs.pack
                    )
                    self.accelerator.backward(agree_on_gradients(self.wrapped, losses.total / len(group)))
            self._note(losses)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.knobs.clip or math.inf)
        self.stepper.step()
        self.stepper.zero_grad()
        self._add("grad_norm", float(whole(norm)))
        self._add("frames", sum(int(b.video_lengths.sum()) or int(b.audio_lengths.sum()) // 2 for b in group))
        self.at.step += 1
        if self.mean is not None:
            self.mean.update(self.at.step)
        self.at.batch += len(group)
        if self.at.step % self.knobs.log_every == 0 or self.at.step >= self.total:
            self._log_train(lr)
        self.bar.step(losses.total.item())

    def _kernels(self) -> AbstractContextManager[None]:
        # at the lengths of short clips a CPU is two to three times faster with plain matrices than with fused attention
        on_cpu = self.accelerator.device.type == "cpu"
        return sdpa_kernel(SDPBackend.MATH) if on_cpu else nullcontext()

    def _stop_if_asked(self) -> None:
        """Saves and raises TrainingInterrupted when any process was asked to stop."""
        if any(self._gather(self.stop.asked)):
            path = self._save()
            raise TrainingInterrupted(
                f"stopped after step {self.at.step} of {self.total}; saved in {path}. "
                f"Go on with the same command and --resume"
            )

    # ---- what the run tells --------------------------------------------------------------------

    def _note(self, losses: Losses) -> None:
        total = losses.total.item()
        if not math.isfinite(total):
            raise OmniAVSRError(
                f"the loss is {total} at step {self.at.step}; checkpoints are left as they were. "
                f"Lower train.lr, set train.clip, or check the data"
            )
        self._add("loss", total)
        for name, value in (losses.tasks | losses.auxiliary).items():
            self._add(f"loss/{name}", value.item())

    def _add(self, name: str, value: float) -> None:
        entry = self.window[name]
        entry[0] += value
        entry[1] += 1

    def _log_train(self, lr: float) -> None:
        """One row of metrics.jsonl: means since the last one, over all processes."""
        parts = self._gather({name: list(entry) for name, entry in self.window.items()})
        self.window.clear()
        if self.log is None:
            return
        names = dict.fromkeys(name for part in parts for name in part)
        sums = {name: [sum(p[name][i] for p in parts if name in p) for i in (0, 1)] for name in names}
        frames, _ = sums.pop("frames")
        means = {name: value / count for name, (value, count) in sums.items()}
        now = time.monotonic()
        speed, self.clock = frames / (now - self.clock), now
        row = {"kind": "train", "step": self.at.step, "epoch": self.at.epoch, "lr": lr}
        self.log.write(row | means | {"frames_per_second": round(speed, 1)})
        self.bar.line(self.at.step, means["loss"], lr)

    def _evaluate(self) -> None:
        """Measures the dev split, and keeps the weights if they are among the best; without one, the newest are."""
        with self.mean.in_place() if self.mean is not None else nullcontext():
            self._measure()
        self.clock = time.monotonic()  # the next row's speed is that of training alone

    def _measure(self) -> None:
        score = float(-self.at.step)
        if self.corpus.dev is not None:
            with gathered(self.model), self.accelerator.autocast():
                sums = dev.dev_sums(self.model, self.corpus.dev_batches(), greedy=self.knobs.select_by == "wer")
            result = dev.scores(self._gather(sums))
            score = result.score(self.knobs.select_by)
            self._say("epoch %d: dev %s %.3f", self.at.epoch, self.knobs.select_by, score)
            if self.log is not None:
                self.log.write({"kind": "dev", "step": self.at.step, "epoch": self.at.epoch} | result.row())
        if self.log is not None:
            self.log.draw()
        entry = state.Snapshot(score, self.at.step)
        self.at.best = sorted([*self.at.best, entry], key=lambda s: (s.score, s.step))[: self.knobs.average]
        if entry in self.at.best:
            state.save_snapshot(self.folder, self.model, self.at.step, self.accelerator.is_main_process)

    # ---- state -------------------------------------------------------------------------------

    def _save(self) -> Path:
        self.at.ranks = self._gather({"rng": state.rng_state(), "window": dict(self.window)})
        scaler = self.accelerator.scaler
        self.at.scaler = scaler.state_dict() if scaler is not None else {}
        main, mean = self.accelerator.is_main_process, None if self.mean is None else self.mean.mean
        path = state.save_checkpoint(self.folder, self.model, self.optimizer, self.at, mean, main)
        if main:
            state.prune(self.folder, self.knobs.keep)
        self.accelerator.wait_for_everyone()
        return path

    def _restore(self) -> state.Position:
        """Where the run stands, after putting its newest checkpoint in place; at its beginning without one."""
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        torch.manual_seed(self.knobs.seed + 1 + rank)  # dropout differs between processes
        found = state.checkpoints(self.folder)
        if not found:
            return state.Position()
        at = state.load_checkpoint(found[0], self.model, self.optimizer, None if self.mean is None else self.mean.mean)
        if len(at.ranks) != processes:
            raise ConfigError(f"{found[0]} was written by {len(at.ranks)} process(es), not {processes}; start as many")
        self.window.update({name: list(entry) for name, entry in at.ranks[rank]["window"].items()})
        if at.scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(at.scaler)
        state.set_rng_state(at.ranks[rank]["rng"])
        self._say("resuming from %s", found[0])
        return at

    def _finish(self) -> Path:
        """Writes the mean of the best checkpoints as a model folder."""
        target = self.folder / "model"
        collect(self.model, keep=self.accelerator.is_main_process)
        if self.accelerator.is_main_process:
            weights = average([state.load_snapshot(self.folder, s) for s in self.at.best])
            state.restore_tensors(self.model, weights, self.folder / "best")
            origin = describe(self.recipe, self.corpus.digests(), self.accelerator.device)
            origin["selected"] = [{"step": s.step, self.knobs.select_by: s.score} for s in self.at.best]
            self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)
            native.save_model(self.model, target, origin=origin)
            log.info("the model is in %s", target)
        self.accelerator.wait_for_everyone()
        return target

    def _say(self, message: str, *values: Any) -> None:
        if self.accelerator.is_main_process:
            log.info(message, *values)

    def _gather(self, value: Any) -> list[Any]:
        """`value` of every process, in their order."""
        from accelerate.utils import gather_object

        return gather_object([value])


# ---- beginnings --------------------------------------------------------------------------------


def inherited(recipe: Recipe) -> Recipe:
    """The recipe with the model of `train.init`, but for what it says of the model itself.

    A recipe that describes its own LLM describes a whole model, and is left as it is.
    """
    if not recipe.train.init or "llm" in recipe.model.model_fields_set:
        return recipe
    own = native.read_config(locate(recipe.train.init)).model_dump(mode="json")
    said = recipe.model.model_dump(mode="json", exclude_unset=True)
    return recipe.model_copy(update={"model": parse(ModelConfig, merge(own, said), where=recipe.name)})


def initial_model(recipe: Recipe, texts: list[str]) -> OmniAVSR:
    """The model before the first step: fresh, or with the weights and the words of `train.init`.

    Raises:
        CheckpointError: the weights of `train.init` are not those of a model like `recipe.model`, `train.fresh` aside.
    """
    source = recipe.train.init
    if not source:
        return native.build(recipe.model, texts).float()
    start = native.load_model(source)
    model = OmniAVSR(_unread(recipe.model), start.tokenizer, start.ctc_alphabet)
    model.config, model.heritage = recipe.model, start.heritage
    # parts that the folder only refers to may stay references of the new folder too
    model.references = {part: digest for part, digest in start.references.items() if getattr(recipe.model, part).source}
    begins_anew = [PARTS[part] for part in recipe.train.fresh]
    weights = {n: t for n, t in start.state_dict().items() if not any(new(n) for new in begins_anew)}
    weights |= {n: t for n, t in model.state_dict().items() if any(new(n) for new in begins_anew)}
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:400]
        raise CheckpointError(f"train.init = '{source}' does not fit the recipe's model: {reason}") from None
    return model.float()


def _unread(config: ModelConfig) -> ModelConfig:
    """`config` without the AV-HuBERT file, whose weights come from elsewhere."""
    return config.model_copy(update={"video_encoder": config.video_encoder.model_copy(update={"source": ""})})


def _accelerator(recipe: Recipe) -> Accelerator:
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from accelerate.utils import DistributedDataParallelKwargs
    except ImportError:
        raise MissingExtraError("accelerate", "train") from None
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise ConfigError("Accelerate's own FSDP is switched on; switch it off and set train.parallel = 'fsdp2'")
    # Accelerate keeps the precision of the first run of a process; a second one may ask for another
    AcceleratorState._reset_state()
    ddp = DistributedDataParallelKwargs(find_unused_parameters=may_skip_parameters(recipe.model, recipe.train))
    # said outright: without a GPU and without this, every process of torchrun would train alone
    cpu = not torch.accelerator.is_available()
    return Accelerator(cpu=cpu, mixed_precision=recipe.train.precision, kwargs_handlers=[ddp])
