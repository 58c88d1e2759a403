"""`omni-avsr prepare KIND ROOT -o OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from omni_avsr.cli.options import Device, Offline, Out
from omni_avsr.errors import ConfigError

KINDS = "folder|grid|lrs2|lrs3|muavic|synthetic|shards"
ListenerName = Annotated[
    str,
    typer.Option(
        "--listener",
        metavar="DIR|HUB_ID",
        show_default="none",
        help="A Whisper, or a model of this project: transcribes what has no transcript.",
    ),
]
Language = Annotated[
    str | None,
    typer.Option("--language", metavar="CODE", show_default="Whisper guesses", help="Of the speech, for a Whisper."),
]
MaxWer = Annotated[
    float,
    typer.Option("--max_wer", help="Drop transcripts that differ more from what the listener hears; 1 = keep all."),
]
MaxOffset = Annotated[
    float,
    typer.Option(
        "--max_offset", help="Seconds that lips and sound may be apart, file by file; 0 = any. Needs --mouths."
    ),
]
Faceless = Annotated[
    str,
    typer.Option("--faceless", metavar="drop|audio", help="What becomes of a video with less: nothing, or audio only."),
]
MinMouth = Annotated[float, typer.Option("--min_mouth", help="Smallest width of the mouth in the video, pixels.")]


def prepare(
    kind: Annotated[str, typer.Argument(metavar=KINDS, help="What ROOT holds; shards: a manifest to be packed.")],
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="The corpus: a folder, a CSV file, or a manifest.")],
    out: Out,
    mouths: Annotated[
        bool, typer.Option("--mouths/--no_mouths", help="Cut out the mouths now, once, instead of in every epoch.")
    ] = False,
    face: Annotated[str, typer.Option("--face", metavar="largest|x,y,w,h", help="Which of several faces.")] = "largest",
    min_face: Annotated[float, typer.Option("--min_face", help="Smallest share of frames with a face.")] = 0.8,
    faceless: Faceless = "drop",
    min_mouth: MinMouth = 0.0,
    max_offset: MaxOffset = 0.2,
    listener: ListenerName = "",
    max_wer: MaxWer = 1.0,
    language: Language = None,
    device: Device = "auto",
    max_seconds: Annotated[float, typer.Option("--max_seconds", help="Longer utterances are dropped.")] = 30.0,
    dev_share: Annotated[float, typer.Option("--dev_share", help="Of the rows that come without a split.")] = 0.05,
    test_share: Annotated[float, typer.Option("--test_share", help="Of the rows that come without a split.")] = 0.0,
    split_by: Annotated[
        str, typer.Option("--split_by", metavar="auto|speaker|file|row", help="What stays together in one split.")
    ] = "auto",
    workers: Annotated[
        int | None, typer.Option("--workers", show_default="one per core", help="Processes; 0 = this one.")
    ] = None,
    offline: Offline = False,
) -> None:
    """Turn a corpus into OUT/manifest.jsonl, ready for train and evaluate."""
    from omni_avsr.data.prepare import prepare as run

    if kind == "shards":  # of a corpus that is prepared already; ROOT is its manifest
        from omni_avsr.data.shards import write_shards

        typer.echo(str(write_shards(root, out)))
        return
    if max_wer < 1 and not listener:
        raise ConfigError("--max_wer compares with what a listener hears; name one with --listener")
    heard_by = None
    if listener:
        from omni_avsr.cli.listening import load_listener

        heard_by = load_listener(listener, language, device, offline)
    options = {
        "mouths": mouths, "face": face, "min_face": min_face, "faceless": faceless, "max_seconds": max_seconds,
        "min_mouth": min_mouth, "max_offset": max_offset, "max_wer": max_wer,
        "dev_share": dev_share, "test_share": test_share, "split_by": split_by, "workers": workers,
        "offline": offline, "progress": True,
    }  # fmt: skip
    typer.echo(str(run(kind, root, out, heard_by, **options)))
