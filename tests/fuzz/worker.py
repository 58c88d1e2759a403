"""One process that transcribes the files named on its standard input, under a limit of memory.

    python -m tests.fuzz.worker MODEL BYTES

Every line is answered by one of JSON: {"outcome": "text" | "refused" | "error", "message": …, "seconds": …}. An error
is any exception that is not one of ours.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
import traceback
from pathlib import Path

from omni_avsr.errors import OmniAVSRError
from omni_avsr.transcribe.transcriber import Transcriber


def main(model: str, limit: int) -> None:
    """Answers until the input ends."""
    logging.disable(logging.CRITICAL)
    transcriber = Transcriber(model, device="cpu", offline=True)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))  # beyond it memory is refused
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        outcome, message = attempt(transcriber, Path(line.rstrip("\n")))
        answer = {"outcome": outcome, "message": message, "seconds": round(time.perf_counter() - began, 2)}
        print(json.dumps(answer), flush=True)


def attempt(transcriber: Transcriber, path: Path) -> tuple[str, str]:
    """Outcome and message of one file."""
    try:
        segments, _ = transcriber.transcribe(path, beam_size=1, batch_size=1)
        return "text", f"{sum(1 for _ in segments)} segments"
    except OmniAVSRError as refusal:
        return "refused", str(refusal)
    except Exception:
        return "error", traceback.format_exc()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
