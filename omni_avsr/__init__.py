"""omni-avsr: one speech recogniser that hears, reads lips, or does both, at the token budget you choose."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Segment", "Transcriber", "TranscriptionInfo", "Word", "__version__"]

# Threads that wait sleep instead of spinning: on a busy machine the default model's small products took ten times as
# long. OpenMP reads it when torch is imported, which comes later.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from omni_avsr.transcribe.transcriber import Transcriber
    from omni_avsr.types import Segment, TranscriptionInfo, Word

_HOMES = {
    "Transcriber": "omni_avsr.transcribe.transcriber",
    "Segment": "omni_avsr.types",
    "TranscriptionInfo": "omni_avsr.types",
    "Word": "omni_avsr.types",
}


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; `omni-avsr --help` should not
    if name not in _HOMES:
        raise AttributeError(f"module 'omni_avsr' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
