"""Options that several commands share, under one name and one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from omni_avsr.tasks import TASKS


def choices(*names: str) -> dict[str, Any]:
    """What an option says of its values in the help, and what the shell completes. The library checks them."""
    return {"metavar": "|".join(names), "autocompletion": lambda: list(names)}


Offline = Annotated[bool, typer.Option("--offline/--no_offline", help="Fetch nothing; say what is missing.")]
Model = Annotated[
    str, typer.Option("--model", metavar="default|DIR|HUB_ID", autocompletion=lambda: ["default"], help="The model.")
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda|cuda:N",
        autocompletion=lambda: ["auto", "cpu", "cuda"],
        help="Where it runs.",
    ),
]
ComputeType = Annotated[
    str,
    typer.Option(
        "--compute_type",
        **choices("default", "float32", "bfloat16", "float16", "int8"),
        help="Numbers to compute in; default is exact.",
    ),
]
Fast = Annotated[
    bool, typer.Option("--fast/--exact", help="Whisper hears the real length and not 30 s: faster, a little different.")
]
BeamSize = Annotated[int, typer.Option("--beam_size", min=1, help="Hypotheses kept in search; 1 = greedy.")]
BatchSize = Annotated[int, typer.Option("--batch_size", min=1, help="Stretches of speech decoded together.")]
Out = Annotated[Path, typer.Option("--output_dir", "-o", metavar="DIR", help="Where results go.")]
Task = Annotated[
    str,
    typer.Option("--task", **choices("auto", *TASKS), help="Listen (asr), read lips (vsr), both, or what is there."),
]
AudioRate = Annotated[
    int | None,
    typer.Option("--audio_rate", min=1, show_default="the finest", help="Audio frames (50/s) per token."),
]
VideoRate = Annotated[
    int | None,
    typer.Option("--video_rate", min=1, show_default="the finest", help="Video frames (25/s) per token."),
]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        **choices("fast", "balanced", "accurate"),
        show_default="none",
        help="Choose task and rates by what they cost on this machine.",
    ),
]
TargetRtf = Annotated[
    float | None,
    typer.Option(
        "--target_rtf", metavar="X", show_default="none", help="Choose them so that a second takes X seconds of work."
    ),
]
Face = Annotated[str, typer.Option("--face", metavar="largest|x,y,w,h", help="Which of several faces.")]
AnyFace = Annotated[
    str,
    typer.Option(
        "--face",
        metavar="largest|active|all|x,y,w,h",
        autocompletion=lambda: ["largest", "active", "all"],
        help="Whose lips are read; active = whoever speaks, all = each speaker by name.",
    ),
]
Hotwords = Annotated[
    str,
    typer.Option("--hotwords", metavar="WORD,...", help="Names and terms to prefer where the model is in doubt."),
]
Agreement = Annotated[
    bool | None,
    typer.Option(
        "--agreement/--no_agreement",
        show_default="with --word_timestamps",
        help="Second opinions by ear, by lips and by both: what they lack gets less probable, made-up text a flag.",
    ),
]
Engine = Annotated[
    str, typer.Option("--engine", **choices("local", "ray"), help="On this machine, or on a Ray cluster.")
]
Address = Annotated[
    str | None, typer.Option("--address", metavar="auto|HOST:PORT", help="Of the cluster; none = one made here.")
]
