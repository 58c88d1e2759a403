"""`omni-avsr prepare KIND ROOT -o OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from omni_avsr.cli.options import Offline, Out


def prepare(
    kind: Annotated[str, typer.Argument(metavar="folder|grid|lrs2|lrs3|synthetic", help="What ROOT holds.")],
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="The corpus: a folder, or a CSV file of it.")],
    out: Out,
    mouths: Annotated[
        bool, typer.Option("--mouths/--no_mouths", help="Cut out the mouths now, once, instead of in every epoch.")
    ] = False,
    face: Annotated[str, typer.Option(metavar="largest|x,y,w,h", help="Which of several faces.")] = "largest",
    min_face: Annotated[float, typer.Option(help="Smallest share of frames with a face.")] = 0.8,
    faceless: Annotated[
        str, typer.Option(metavar="drop|audio", help="What becomes of a video with less: nothing, or audio only.")
    ] = "drop",
    max_seconds: Annotated[float, typer.Option(help="Longer utterances are dropped.")] = 30.0,
    dev_share: Annotated[float, typer.Option(help="Of the rows that come without a split.")] = 0.05,
    test_share: Annotated[float, typer.Option(help="Of the rows that come without a split.")] = 0.0,
    split_by: Annotated[
        str, typer.Option(metavar="auto|speaker|file|row", help="What stays together in one split.")
    ] = "auto",
    workers: Annotated[int | None, typer.Option(show_default="one per core", help="Processes; 0 = this one.")] = None,
    offline: Offline = False,
) -> None:
    """Turn a corpus into OUT/manifest.jsonl, ready for train and evaluate."""
    from omni_avsr.data.prepare import prepare as run

    options = {
        "mouths": mouths, "face": face, "min_face": min_face, "faceless": faceless, "max_seconds": max_seconds,
        "dev_share": dev_share, "test_share": test_share, "split_by": split_by, "workers": workers,
        "offline": offline, "progress": True,
    }  # fmt: skip
    typer.echo(str(run(kind, root, out, **options)))
