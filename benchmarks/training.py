"""What each saving of the training loop is worth on this machine, and whether `train --plan` keeps its word.

    python benchmarks/training.py                                  tiny and small, on noise, on a CPU
    python benchmarks/training.py --memory -o benchmarks/results/plan_memory.json      only: the plan's memory
    python benchmarks/training.py --recipe omni_st --set data.train='["lrs3/manifest.jsonl"]'      full size, on a GPU

Variants take turns in one process, so that a busy machine hits all of them alike; ratios are to the first one. Without
a GPU, seconds are those of the processor that this process had (one thread), which other jobs do not lengthen.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omni_avsr.config import Recipe, load_recipe
from omni_avsr.data.manifest import Row, write_manifest
from omni_avsr.data.mouth_store import write_store
from omni_avsr.train import loop
from omni_avsr.train.plan import Plan, plan

SAVINGS = {
    "as it is": (),
    "packed": ("train.pack=true",),
    "recomputed": ("train.checkpointing=true",),
    "kept states": ("data.cache={folder}/cache",),
    "fused AdamW": ("train.fused=true",),
}
PEAK_FLOPS = {"NVIDIA H100": 989e12, "NVIDIA H200": 989e12, "NVIDIA A100": 312e12}  # bf16, dense
STEPS = 20  # of the run that a plan is compared with
CLOCK = time.monotonic if torch.cuda.is_available() else time.process_time


def corpus(folder: Path, rows: int) -> Path:
    """Utterances of one to four seconds of noise."""
    random = np.random.default_rng(0)
    words = ["bin", "blue", "at", "f", "two", "now", "place", "red", "by", "z", "nine", "soon"]
    out = []
    for number in range(rows):
        frames = int(random.integers(25, 100))
        audio = random.normal(0, 0.1, frames * 640).astype(np.float32)
        crops = random.integers(0, 256, (frames, 96, 96), dtype=np.uint8)
        store = write_store(folder / f"{number}.mkv", crops, audio, codec="ffv1")
        text = " ".join(random.choice(words, max(2, frames // 12)))
        out.append(Row(f"u{number}", store, text, "train", f"s{number}", mouths=store, frames=frames))
    return write_manifest(folder / "manifest.jsonl", out)


def utilisation(found: Plan) -> float:
    """Share of the GPU's peak that the LLM's and the other matrices take: per token and weight 2 operations forward,
    2 for the gradient of what comes in, and 2 more where the weight is trained."""
    count, trained = (sum(values) for values in zip(*found.parameters.values(), strict=True))
    name = torch.cuda.get_device_name()
    peak = next((flops for known, flops in PEAK_FLOPS.items() if name.startswith(known)), float("nan"))
    return found.tokens_per_step * (4 * count + 2 * trained) / found.seconds_per_step / peak


def row(name: str, found: Plan, first: Plan) -> str:
    """A line of the table."""
    cells = [name, f"{found.seconds_per_step:.3f}", f"{found.seconds_per_step / first.seconds_per_step:.2f}",
             f"{found.tokens_per_step / found.seconds_per_step:,.0f}", f"{found.padding:.1%}",
             f"{found.activations:,.0f}", f"{found.activations / first.activations:.2f}"]  # fmt: skip
    if torch.cuda.is_available():
        cells += [f"{utilisation(found):.1%}", f"{found.peak:,.0f}"]
    return "| " + " | ".join(cells) + " |"


def run(recipe: Recipe) -> float:
    """Seconds per step of a true run of `STEPS` steps, the first one not counted."""
    marks: list[float] = []
    step = loop.Trainer._step

    def timed(self: loop.Trainer, group: list) -> None:
        step(self, group)
        marks.append(CLOCK())

    loop.Trainer._step = timed  # type: ignore[method-assign]
    try:
        short = recipe.train.model_copy(update={"max_steps": STEPS})
        with tempfile.TemporaryDirectory() as folder:
            loop.train(recipe.model_copy(update={"train": short}), Path(folder) / "run", progress=False)
    finally:
        loop.Trainer._step = step  # type: ignore[method-assign]
    return (marks[-1] - marks[0]) / (len(marks) - 1)


# ---- memory ------------------------------------------------------------------------------------

MEMORY_STEPS = 5
MEMORY = {
    "default, everything trained": (),
    "default, LoRA and projectors": ("train.parts=['projectors','llm_lora']",),
    "default, LoRA and projectors, recomputed": (
        "train.parts=['projectors','llm_lora']",
        "train.checkpointing=true",
    ),
}


def resident(what: str) -> float:
    """MB of this process: 'VmRSS' now, 'VmHWM' at most since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def forget_peak() -> None:
    """The peak of this process is from now on counted anew."""
    Path("/proc/self/clear_refs").write_text("5")


def peak(settings: list[str]) -> dict[str, float]:
    """What a plan says, and the most that a run's steps took: weights, and all that came on top of a built model.

    The plan goes first, so that what libraries take when they are first used is there before the run.
    """
    recipe = load_recipe("default", settings)
    found = plan(recipe, MEMORY_STEPS - 1)
    gc.collect()
    others: list[float] = []
    marks: list[float] = []
    step = loop.Trainer._step

    def watched(self: loop.Trainer, group: list) -> None:
        if not others:
            others.append(resident("VmRSS") - sum(p.nbytes for p in self.model.parameters()) / 2**20)
        forget_peak()
        step(self, group)
        marks.append(resident("VmHWM") - others[0])

    loop.Trainer._step = watched  # type: ignore[method-assign]
    short = recipe.train.model_copy(update={"max_steps": MEMORY_STEPS})
    with tempfile.TemporaryDirectory() as folder:
        loop.train(recipe.model_copy(update={"train": short}), Path(folder) / "run", progress=False)
    return {"planned": found.memory, "activations": found.activations, "measured": max(marks)}


def memory(folder: Path) -> list[dict[str, Any]]:
    """Rows of plan and run, each in a process of its own, which gives back what it frees at once."""
    data = [f"data.train=['{corpus(folder, 60)}']", "data.dev=[]", "data.workers=0", "data.frames_per_batch=800"]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    rows = []
    for label, knobs in MEMORY.items():
        line = [sys.executable, __file__, "--peak", json.dumps([*data, "train.ctc_epochs=0", *knobs])]
        done = subprocess.run(line, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        rounded = {name: round(value) for name, value in found.items()}
        rows.append({"recipe": label, **rounded, "ratio": round(found["planned"] / found["measured"], 2)})
        print("| " + " | ".join(map(str, rows[-1].values())) + " |", flush=True)
    return rows


def main() -> None:
    """Prints two tables, or that of the memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="")
    parser.add_argument("--set", nargs="*", default=[], dest="settings")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--probes", type=int, default=6)
    parser.add_argument("--memory", action="store_true", help="only: the plan's memory against that of a run")
    parser.add_argument("-o", "--output", type=Path, help="JSON of --memory")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak:
        print(json.dumps(peak(json.loads(given.peak))))
        return
    if given.memory:
        with tempfile.TemporaryDirectory() as name:
            rows = memory(Path(name))
        if given.output:
            given.output.write_text(
                json.dumps({"what": "benchmarks/training.py --memory", "MB": rows}, indent=1) + "\n"
            )
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.recipe:
            cases = {given.recipe: (given.recipe, list(given.settings), False)}
        else:
            data = [f"data.train=['{corpus(folder, 120)}']", "data.dev=[]", "data.workers=0"]
            small = [*data, "train.parts=['projectors','llm_lora']", "train.ctc_epochs=0", "data.frames_per_batch=400"]
            cases = {
                "omni_st --tiny": ("omni_st", [*data, "data.frames_per_batch=400"], True),
                "default, LoRA and projectors": ("default", small, False),
            }
        print("| recipe, saving | s a step | ratio | tokens a second | padding | activations, MB | ratio |", end="")
        print(" of peak | GPU, MB |" if torch.cuda.is_available() else "")
        print("|---" * (9 if torch.cuda.is_available() else 7) + "|")
        for label, (recipe_name, settings, tiny) in cases.items():
            found: dict[str, list[Plan]] = {saving: [] for saving in SAVINGS}
            for _ in range(given.rounds):
                for saving, knobs in SAVINGS.items():
                    chosen = [*settings, *(knob.format(folder=folder) for knob in knobs)]
                    found[saving].append(plan(load_recipe(recipe_name, chosen, tiny=tiny), given.probes, CLOCK))
            best = {saving: min(plans, key=lambda p: p.seconds_per_step) for saving, plans in found.items()}
            for saving, one in best.items():
                print(row(f"{label}, {saving}", one, best["as it is"]), flush=True)
        print("\n| recipe | planned, s a step | the run | ratio |\n|---|---|---|---|")
        for label, (recipe_name, settings, tiny) in cases.items():
            recipe = load_recipe(recipe_name, settings, tiny=tiny)
            for _ in range(given.rounds):
                planned, measured = plan(recipe, given.probes, CLOCK).seconds_per_step, run(recipe)
                print(f"| {label} | {planned:.3f} | {measured:.3f} | {planned / measured:.2f} |", flush=True)


if __name__ == "__main__":
    main()
