"""Options that several commands share, under one name and one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Verbose = Annotated[bool, typer.Option("--verbose/--no_verbose", help="Show tracebacks and every log line.")]
Offline = Annotated[bool, typer.Option("--offline/--no_offline", help="Fetch nothing; say what is missing.")]
Model = Annotated[str, typer.Option("--model", metavar="default|DIR|HUB_ID", help="The model.")]
Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda|cuda:N", help="Where it runs.")]
BeamSize = Annotated[int, typer.Option("--beam_size", min=1, help="Hypotheses kept in search; 1 = greedy.")]
BatchSize = Annotated[int, typer.Option("--batch_size", min=1, help="Stretches of speech decoded together.")]
Out = Annotated[Path, typer.Option("--output_dir", "-o", metavar="DIR", help="Where results go.")]
