"""Which task and rates fit a budget: measured on this machine once, remembered, and chosen from what was trained."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from itertools import product
from pathlib import Path

from omni_avsr.config import ModelConfig
from omni_avsr.errors import ConfigError, nearest
from omni_avsr.media.assets import cache_dir
from omni_avsr.tasks import TASKS

log = logging.getLogger(__name__)

BUDGETS = ("fast", "balanced", "accurate")
STATES = {"audio": 50, "video": 25}  # encoder frames per second
ORDER = ("avsr", "asr", "vsr")  # the more a task perceives, the better it recognises; the ear is better than the eye


@dataclass(frozen=True)
class Setting:
    """One way of recognising that the model was trained for."""

    task: str
    audio_rate: int | None  # None = the task does not listen
    video_rate: int | None

    @property
    def tokens(self) -> float:
        """Tokens per second that the LLM reads."""
        rates = {"audio": self.audio_rate, "video": self.video_rate}
        return sum(STATES[m] / rate for m, rate in rates.items() if rate)

    def __str__(self) -> str:
        rates = {"audio": self.audio_rate, "video": self.video_rate}
        return f"{self.task} with " + " and ".join(f"{m} rate {rate}" for m, rate in rates.items() if rate)


Costs = dict[Setting, float]
"""Seconds of work per second of speech: the real-time factor."""


def settings(config: ModelConfig, tasks: Sequence[str] | None = None) -> list[Setting]:
    """All settings of a model (or of some of its tasks), the most accurate first: by task, then by tokens."""
    found = []
    for task in sorted(tasks or config.tasks, key=lambda t: ORDER.index(t) if t in ORDER else len(ORDER)):
        rates = [config.rates(m) if m in TASKS[task].modalities else (None,) for m in ("audio", "video")]
        found += sorted((Setting(task, a, v) for a, v in product(*rates)), key=lambda s: -s.tokens)
    return found


def check_budget(budget: str | None, target_rtf: float | None) -> None:
    """Refuses an unknown budget, both at once, or a target that is no factor.

    Raises:
        ConfigError: as said.
    """
    if budget is not None and budget not in BUDGETS:
        raise ConfigError(f"budget = '{budget}' is unknown; {nearest(budget, BUDGETS)}")
    if target_rtf is not None and target_rtf <= 0:
        raise ConfigError(f"target_rtf = {target_rtf:g}: give seconds of work per second of speech, such as 0.5")
    if budget is not None and target_rtf is not None:
        raise ConfigError("budget and target_rtf were both given; give one")


def choose(costs: Costs, budget: str | None, target_rtf: float | None = None) -> Setting:
    """The most accurate setting that fits; where none does, the cheapest, with a warning.

    Args:
        costs: of the settings to choose from, the most accurate first.
        budget: 'accurate' = the first; 'fast' = the cheapest; 'balanced' = at most the geometric mean of these two.
        target_rtf: seconds of work per second of speech, instead of a budget.
    """
    first, cheapest = next(iter(costs)), min(costs, key=costs.__getitem__)
    limits = {
        "accurate": costs[first],
        "balanced": (costs[first] * costs[cheapest]) ** 0.5,
        "fast": costs[cheapest],
    }
    limit = target_rtf if budget is None else limits[budget]
    assert limit is not None
    chosen = next((s for s, cost in costs.items() if cost <= limit), None)
    if chosen is None:
        log.warning("nothing is as fast as %g here; the fastest is %s, at %.2g", limit, cheapest, costs[cheapest])
    return chosen or cheapest


def fitting(costs: Costs, tasks: Sequence[str], audio_rate: int | None, video_rate: int | None) -> Costs:
    """Those of `costs` that perform one of `tasks` at the rates that were named; None = any."""
    named = {"audio_rate": audio_rate, "video_rate": video_rate}
    fits = [s for s in costs if all(n is None or getattr(s, k) in (None, n) for k, n in named.items())]
    return {s: costs[s] for s in fits if s.task in tasks}


# ---- measuring -------------------------------------------------------------------------------


def sample() -> Path:
    """The clip that comes with the package: a synthetic face and voice."""
    return Path(str(resources.files("omni_avsr") / "assets" / "sample.mp4"))


def measure(run: Callable[[Setting], float], every: Sequence[Setting], repeats: int = 2) -> Costs:
    """The best of `repeats` for each setting; the first of all is run once more before, to warm up.

    Args:
        run: recognises with a setting and returns the seconds of speech.
        every: the settings.
    """
    costs: Costs = {}
    run(every[0])
    for setting in every:
        factors = []
        for _ in range(repeats):
            begun = time.perf_counter()
            seconds = run(setting)
            factors.append((time.perf_counter() - begun) / seconds)
        costs[setting] = min(factors)
    return costs


def costs_file(config: ModelConfig, conditions: Sequence[str]) -> Path:
    """Where the costs of a model are remembered; other weights of the same sizes cost the same."""
    said = config.model_dump_json() + "|".join(conditions)
    return cache_dir() / "costs" / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.json"


def remember(costs: Costs, path: Path) -> None:
    """Writes `costs` to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{**asdict(setting), "rtf": round(cost, 5)} for setting, cost in costs.items()]
    path.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def recall(path: Path) -> Costs | None:
    """The costs in `path`, most accurate first; None where there are none or they cannot be read."""
    try:
        rows = json.loads(path.read_text("utf-8"))
        return {Setting(r["task"], r["audio_rate"], r["video_rate"]): float(r["rtf"]) for r in rows}
    except (OSError, ValueError, KeyError, TypeError):
        return None
