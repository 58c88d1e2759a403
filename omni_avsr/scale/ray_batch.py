"""A corpus on a cluster: files stream through actors that each hold the model; every file gives one set of outputs.

Files are read and written by path, so all machines need the same folders (NFS, a mounted bucket). Outputs appear whole,
by a rename. Where a worker dies, Ray does its files again, and the same outputs take the place of what was there. A
file on which workers keep dying is given up and reported.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from traceback import format_exc
from typing import Any

import numpy as np
import ray
import ray.data

from omni_avsr.errors import ConfigError, reason
from omni_avsr.transcribe.cues import Lines
from omni_avsr.transcribe.subtitles import save
from omni_avsr.transcribe.transcriber import Request, Transcriber
from omni_avsr.types import Transcript

TRIES = 3  # workers that may die on a file before it is given up
BLOCK = 8  # files that a worker is given at once; these are done again where it dies

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """What is done with every file."""

    request: Request
    folder: Path  # on all machines
    kinds: tuple[str, ...]
    lines: Lines
    model: Mapping[str, Any]  # keywords of `Transcriber`


@dataclass(frozen=True)
class Outcome:
    """How one file ended."""

    source: Path
    error: str  # as a user is told; empty = its outputs are there
    traceback: str  # of an error
    notes: tuple[str, ...]  # what was warned of
    duration: float  # seconds of media
    seconds: float  # of work


PLAIN = ("error", "traceback", "duration", "seconds")  # columns of an outcome that are its fields as they are


class Scribe:
    """An actor with a model of its own. What goes wrong with a file is its outcome, not the end of the rest."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._transcriber = Transcriber(**order.model)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Ray Data's call: columns in, columns out."""
        outcomes = [self._attempt(Path(s), str(stem)) for s, stem in zip(batch["source"], batch["stem"], strict=True)]
        return {
            "source": [str(outcome.source) for outcome in outcomes],
            "notes": ["\n".join(outcome.notes) for outcome in outcomes],
            **{name: [getattr(outcome, name) for outcome in outcomes] for name in PLAIN},
        }

    def _attempt(self, source: Path, stem: str) -> Outcome:
        began = time.perf_counter()
        self._order.folder.mkdir(parents=True, exist_ok=True)
        tries = self._order.folder / f".{stem}.tries"  # survives this process, whatever the file does to it
        count = int(tries.read_text() or 0) if tries.exists() else 0
        error = trace = ""
        duration, notes = 0.0, list[str]()
        if count >= TRIES:
            error = f"{count} workers died on it"
        else:
            tries.write_text(str(count + 1))
            try:
                with noted() as notes:
                    duration = self._transcribe(source, stem)
            except Exception as caught:
                error, trace = reason(caught), format_exc()
        tries.unlink(missing_ok=True)
        return Outcome(source, error, trace, tuple(notes), duration, time.perf_counter() - began)

    def _transcribe(self, source: Path, stem: str) -> float:
        order = self._order
        segments, info = self._transcriber.transcribe(source, **vars(order.request.of_file(stem)))
        save(Transcript(tuple(segments), info), order.folder, stem, order.kinds, order.lines)
        return info.duration


@contextmanager
def noted() -> Iterator[list[str]]:
    """The warnings of a stretch of work."""
    notes: list[str] = []
    ear = logging.Handler(logging.WARNING)
    ear.emit = lambda record: notes.append(record.getMessage())  # type: ignore[method-assign]
    ours = logging.getLogger("omni_avsr")
    ours.addHandler(ear)
    try:
        yield notes
    finally:
        ours.removeHandler(ear)


def transcribe_files(
    files: Sequence[tuple[Path, str]], order: Order, address: str | None = None, actors: int = 0
) -> Iterator[Outcome]:
    """Outcomes as they come, in any order, one per file.

    Args:
        files: absolute path, and name of its outputs without the ending.
        order: what is done.
        address: of a Ray cluster; 'auto' = the one this machine belongs to; None = one of this machine's own.
        actors: most models at once; 0 = one per GPU of the cluster, or per CPU where there are none.

    Raises:
        ConfigError: no such cluster.
    """
    if not ray.is_initialized():
        try:
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, ValueError) as error:
            raise ConfigError(f"--address {address}: no Ray cluster answers ({error})") from None
    there = ray.cluster_resources()
    gpus = int(there.get("GPU", 0))
    most = min(actors or gpus or int(there.get("CPU", 1)), len(files))
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"source": str(path), "stem": stem} for path, stem in files]
    blocks = max(most, -(-len(rows) // BLOCK))
    outcomes = ray.data.from_items(rows, override_num_blocks=min(blocks, len(rows))).map_batches(
        Scribe,
        fn_constructor_args=(order,),
        batch_size=1,  # a file at a time, so that outcomes stream
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most, max_tasks_in_flight_per_actor=2),
        num_gpus=1 if gpus else None,
        num_cpus=None if gpus else 1,
    )
    for row in outcomes.iter_rows():
        notes = tuple(row["notes"].splitlines())
        yield Outcome(Path(row["source"]), notes=notes, **{name: row[name] for name in PLAIN})
