"""A worker process that is watched: what it says of a file, or how it died of it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

MEMORY = 2 * 2**30  # bytes
PATIENCE = 600.0  # seconds for a file of about one second: some claim to last minutes, and the machine may be busy
START = 300.0  # seconds for the worker to begin, on a busy machine


@dataclass(frozen=True)
class Verdict:
    """What became of one file."""

    outcome: str  # text, refused; or, which must not be: error, crash, hang, memory
    message: str = ""
    seconds: float = 0.0
    peak: int = 0  # bytes of memory

    @property
    def good(self) -> bool:
        """Whether the program held: it gave text, or refused in one of its own sentences."""
        return self.outcome in ("text", "refused")


class Watch:
    """Sends files to a worker; starts another one when it is gone.

    Args:
        command: of the worker, which answers as `tests.fuzz.worker`.
        patience: seconds for one file.
        memory: bytes that the worker may hold.
    """

    def __init__(self, command: list[str], patience: float = PATIENCE, memory: int = MEMORY) -> None:
        self._command, self._patience, self._memory = command, patience, memory
        self._worker: subprocess.Popen[bytes] | None = None

    @classmethod
    def transcriber(cls, model: Path) -> Watch:
        """A watch over `tests.fuzz.worker`."""
        return cls([sys.executable, "-m", "tests.fuzz.worker", str(model), str(MEMORY)])

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def file(self, path: Path) -> Verdict:
        """The worker's verdict on `path`, or the watch's on the worker."""
        worker = self._worker or self._start()
        assert worker.stdin is not None
        Path(f"/proc/{worker.pid}/clear_refs").write_text("5")  # the peak counts from here
        worker.stdin.write(f"{path}\n".encode())
        worker.stdin.flush()
        line = self._line(worker, self._patience)
        if line is None:
            self._stop()
            return Verdict("hang", f"no answer within {self._patience:g} s", self._patience)
        if not line:
            code = worker.wait()
            self._worker = None
            return Verdict("crash", signal.Signals(-code).name if code < 0 else f"exit code {code}")
        peak = _peak(worker.pid)
        answer = json.loads(line)
        outcome = "memory" if peak > self._memory or "MemoryError" in answer["message"] else answer["outcome"]
        return Verdict(outcome, answer["message"], answer["seconds"], peak)

    def _start(self) -> subprocess.Popen[bytes]:
        quiet = os.environ | {"OMP_NUM_THREADS": "1"}
        self._worker = worker = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=quiet,
        )
        if self._line(worker, START) != b"ready\n":
            raise RuntimeError(f"the worker does not start: {' '.join(self._command)}")
        return worker

    @staticmethod
    def _line(worker: subprocess.Popen[bytes], patience: float) -> bytes | None:
        """A line of its output, empty where it is gone; None where none comes in time."""
        assert worker.stdout is not None
        ready, _, _ = select.select([worker.stdout], [], [], patience)
        return worker.stdout.readline() if ready else None

    def _stop(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.wait()
            self._worker = None


def _peak(pid: int) -> int:
    """Bytes: the most resident memory since it was last cleared."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
