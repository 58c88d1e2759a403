"""What the study asks, and the runs that answer: two tables, from which everything else follows."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECIPE = HERE / "recipe.toml"
RESULTS = HERE.parent / "results" / "findings"
SEEDS = (0, 1, 2)
SHIPPED = ("noise", "frontier")  # studies that measure the shipped model and train nothing


@dataclass(frozen=True)
class Run:
    """One model to train.

    Attributes:
        sets: what differs from `recipe.toml`, as `omni-avsr train --set` takes it.
        tasks: the tasks it learns and is measured in.
        pooled: rates that it was not trained for, reached at test time by averaging more states into a token.
    """

    sets: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ("asr", "vsr", "avsr")
    pooled: tuple[int, int] | None = None

    def overrides(self, seed: int) -> list[str]:
        """All overrides of one run."""
        silent = {t: 0.0 for t in ("asr", "vsr", "avsr") if t not in self.tasks}
        weights = [f"train.task_weights.{task}={weight}" for task, weight in silent.items()]
        return [*self.sets, *weights, f"train.seed={seed}"]


def _smop(kind: str, experts: int, top_k: int) -> tuple[str, ...]:
    """A token passes through 384 hidden units, as in the dense projector: in one expert or in two of half the width."""
    sizes = f"model.projector.experts={experts}", f"model.projector.top_k={top_k}"
    return (f"model.projector.kind=smop_{kind}", *sizes, f"model.projector.hidden={384 // top_k}")


def _lora(strategy: str, rank: int) -> tuple[str, ...]:
    return f"model.lora.strategy={strategy}", f"model.lora.rank={rank}"


def _rates(audio: int, video: int) -> tuple[str, ...]:
    return f"model.audio_rates=[{audio}]", f"model.video_rates=[{video}]"


RUNS: dict[str, Run] = {
    "unified": Run(),
    "only_asr": Run(_lora("S", 24), ("asr",)),
    "only_vsr": Run(_lora("S", 24), ("vsr",)),
    "only_avsr": Run(_lora("S", 24), ("avsr",)),
    "lora_s": Run(_lora("S", 48)),
    "lora_t": Run(_lora("T", 16)),
    "fine": Run(_rates(4, 2), pooled=(16, 5)),
    "coarse": Run(_rates(16, 5)),
    "unified_long": Run(("train.max_steps=240",)),
    "pool": Run(_smop("pool", 4, 2)),
    "dedr": Run(_smop("dedr", 4, 2)),
    "jedr": Run(_smop("jedr", 4, 2)),
    "jejr": Run(_smop("jejr", 4, 2)),
    "mlp_shared": Run(("model.projector.kind=mlp_shared",)),
    "pool_2_1": Run(_smop("pool", 2, 1)),
    "pool_4_1": Run(_smop("pool", 4, 1)),
    "pool_8_1": Run(_smop("pool", 8, 1)),
    "pool_8_2": Run(_smop("pool", 8, 2)),
}


@dataclass(frozen=True)
class Entry:
    """A row of a table."""

    run: str
    label: str
    pooled: bool = False  # at the rates it was not trained for


@dataclass(frozen=True)
class Study:
    """A table: the first row is what the others are compared with."""

    title: str
    about: str
    entries: tuple[Entry, ...]


STUDIES: dict[str, Study] = {
    "unified": Study(
        "One model for three tasks, or three models",
        "The unified model runs the LLM three times a step, once per task; a single-task model once. So every task has "
        "had as many utterances in both, and three single-task models together cost as many passes as the one. "
        "LoRA that acts on a task has rank 24 in all four. The unified model's parameters serve all tasks; the "
        "single-task numbers are for one each (their projectors of the other modality are counted but never used).",
        (
            Entry("unified", "unified, ST"),
            Entry("only_asr", "ASR alone"),
            Entry("only_vsr", "VSR alone"),
            Entry("only_avsr", "AVSR alone"),
        ),
    ),
    "lora": Study(
        "Omni-LoRA: shared, per task, or both",
        "Equal trainable parameters: one adapter of rank 48 (S), three of rank 16 (T), four of rank 12 (ST). What acts "
        "on one task is then of rank 48, 16 and 24. The scale is 1 for all.",
        (Entry("unified", "ST, rank 12"), Entry("lora_s", "S, rank 48"), Entry("lora_t", "T, rank 16")),
    ),
    "projectors": Study(
        "Dense projectors, or a sparse mixture",
        "Equal active parameters: a token passes through 384 hidden units, in one MLP, in one expert of 384 or in "
        "two of 192; with its router a mixture has 0.3 to 1.4 % more of them than the MLP. DEDR, JEDR and JEJR are "
        "Llama-SMoP's three configurations, one set per rate; *pool* is one pool of experts and one router for both "
        "modalities and all rates.",
        (
            Entry("unified", "MLP per rate"),
            Entry("dedr", "DEDR, 4 experts, top-2"),
            Entry("jedr", "JEDR, 4 experts, top-2"),
            Entry("jejr", "JEJR, 4 experts, top-2"),
            Entry("pool_2_1", "pool, 2 experts, top-1"),
            Entry("pool_4_1", "pool, 4 experts, top-1"),
            Entry("pool_8_1", "pool, 8 experts, top-1"),
            Entry("pool", "pool, 4 experts, top-2"),
            Entry("pool_8_2", "pool, 8 experts, top-2"),
        ),
    ),
    "join": Study(
        "One pool of experts inside Omni-AVSR, or an MLP per rate",
        "Our join of the two papers: one pool and one router for both modalities, all rates and all tasks. It has 768 "
        "hidden units in all, the four MLPs have 1,536, and the two MLPs that all rates share have 768 as well.",
        (
            Entry("unified", "MLP per modality and rate"),
            Entry("pool", "one SMoP pool"),
            Entry("mlp_shared", "MLP per modality, all rates"),
        ),
    ),
    "matryoshka": Study(
        "One model for all rates, a model per rate, or pooling afterwards",
        "The matryoshka model draws one audio and one video rate a step; a model of fixed rates trains them in every "
        "step, so each of its rates has had twice the utterances; the matryoshka model of twice the steps has had as "
        "many for each rate, and costs what both fixed ones cost together. *Pooled afterwards*: the model trained at "
        "4 and 2 only, whose projectors are given averages over 16 and 5 states at test time.",
        (
            Entry("unified_long", "matryoshka, twice the steps"),
            Entry("unified", "matryoshka"),
            Entry("fine", "trained at 4 and 2 only"),
            Entry("coarse", "trained at 16 and 5 only"),
            Entry("fine", "trained at 4 and 2, pooled afterwards", pooled=True),
        ),
    ),
}


def runs_of(study: str) -> list[str]:
    """The runs that `study` needs, each once."""
    return list(dict.fromkeys(entry.run for entry in STUDIES[study].entries))


def ordered(studies: list[str], seeds: tuple[int, ...] = SEEDS, more: Collection[str] = ()) -> list[tuple[str, int]]:
    """All runs of `studies`, and `more`: every table has one seed before any has two."""
    names = [name for name in RUNS if name in more or any(name in runs_of(study) for study in studies)]
    return [(name, seed) for seed in seeds for name in names]


# ---- what is stored ----------------------------------------------------------------------------

Result = Mapping[str, Any]


def path_of(name: str, seed: int | None = None, folder: Path = RESULTS) -> Path:
    """Where the result of a run, or of a study of the shipped model, lies."""
    return folder / (f"{name}.json" if seed is None else f"{name}-{seed}.json")


def stored(name: str, seed: int | None = None, folder: Path = RESULTS) -> Result | None:
    """The stored result, or None."""
    path = path_of(name, seed, folder)
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def is_done(result: Result | None, key: Mapping[str, Any]) -> bool:
    """Whether `result` is of exactly what would be run now."""
    return result is not None and result["key"] == key


def store(result: Result, path: Path) -> None:
    """Writes `result`, a line per field and per row, whole or not at all."""
    fields = []
    for name, value in result.items():
        if name == "rows":
            text = "[\n" + ",\n".join(json.dumps(row) for row in value) + "\n]"
        else:
            text = json.dumps(value, ensure_ascii=False)
        fields.append(f"{json.dumps(name)}: {text}")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".partial")
    beside.write_text("{\n" + ",\n".join(fields) + "\n}\n", "utf-8")
    beside.replace(path)
