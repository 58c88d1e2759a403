"""`omni-avsr info MODEL` and `omni-avsr import KIND CHECKPOINT`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from omni_avsr.cli.options import Offline, Out

_TRAINED = "As in the training command; only where the file does not tell."


def info(
    model: Annotated[str, typer.Argument(help="'default', a model folder, or a hub id.")] = "default",
    as_json: Annotated[bool, typer.Option("--json/--no_json", help="Everything, for programs.")] = False,
    offline: Offline = False,
) -> None:
    """What a model is: tasks, rates, parts and their sizes, where it comes from, quirks in force."""
    from omni_avsr.checkpoints import model_info

    found = model_info(model, offline=offline)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for line in summary(found):
        typer.echo(line)


def summary(found: Mapping[str, Any]) -> Iterator[str]:
    """`model_info` for people, line by line."""
    millions = {part: f"{count / 1e6:.2f} M" for part, count in found["parameters"].items()}
    yield f"{found['name']}  ({found['folder']}, {found['bytes'] / 1e6:.1f} MB)"
    yield f"  tasks         {', '.join(found['tasks'])}"
    for modality, rates in found["rates"].items():
        yield f"  {modality} rates   {', '.join(map(str, rates))}  ({found['compression']})"
    for modality, encoder in found["encoders"].items():
        yield f"  {modality} encoder {encoder['kind']}"
    yield f"  projector     {found['projector']['kind']}"
    lora = found["lora"]
    yield f"  Omni-LoRA     {lora['strategy']}, rank {lora['rank']}, alpha {lora['peft_alpha']:g}"
    yield f"  LLM           {found['llm']['family']} {found['llm']['source']}".rstrip()
    yield f"  stored here   {', '.join(f'{part} {count}' for part, count in millions.items())}"
    for part, reference in found["references"].items():
        yield f"  not here      {part}: {reference['source']} (sha256 {reference['sha256'][:12]}…)"
    for name, sentence in found["quirks"].items():
        yield f"  quirk         {name}: {sentence}"
    for option, value in found["origin"].get("official", {}).get("assumed", {}).items():
        yield f"  assumed       {option} = {value}, as in the published files"
    for licence in found["origin"].get("licences", ()):
        yield f"  licence       {licence}"
    for key, value in found["origin"].items():
        if isinstance(value, str | int | float):
            yield f"  {key:<13} {value}"


def import_(
    kind: Annotated[str, typer.Argument(metavar="omni-avsr|llama-avsr|llama-smop", help="Whose checkpoint it is.")],
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="The published file.")],
    out: Out,
    llm: Annotated[str, typer.Option(metavar="DIR|HUB_ID", help="The language model it was trained on.")],
    audio_encoder: Annotated[str, typer.Option("--audio_encoder", metavar="DIR|HUB_ID", help="Whisper.")] = "",
    video_encoder: Annotated[str, typer.Option("--video_encoder", metavar="FILE", help="AV-HuBERT.")] = "",
    audio_rates: Annotated[list[int] | None, typer.Option("--audio_rates", metavar="N...", help=_TRAINED)] = None,
    video_rates: Annotated[list[int] | None, typer.Option("--video_rates", metavar="N...", help=_TRAINED)] = None,
    strategy: Annotated[str, typer.Option(metavar="S|T|ST", help=_TRAINED)] = "",
    compression: Annotated[str, typer.Option(metavar="average|stack", help=_TRAINED)] = "",
    rank: Annotated[float | None, typer.Option(help=_TRAINED)] = None,
    alpha: Annotated[float | None, typer.Option(help=_TRAINED)] = None,
    top_k: Annotated[int | None, typer.Option("--top_k", help=_TRAINED)] = None,
    video_heads: Annotated[int | None, typer.Option("--video_heads", help=_TRAINED)] = None,
    bf16: Annotated[bool, typer.Option("--bf16/--no_bf16", help="Round as the official bfloat16 run.")] = False,
    offline: Offline = False,
) -> None:
    """Turn a published checkpoint into a model folder of this project."""
    from omni_avsr.checkpoints.official import import_checkpoint
    from omni_avsr.checkpoints.systems import Flags

    rates = tuple(audio_rates or ()), tuple(video_rates or ())
    flags = Flags(*rates, strategy, compression, rank, alpha, top_k, video_heads, bf16)
    encoders = {"audio_encoder": audio_encoder, "video_encoder": video_encoder}
    typer.echo(str(import_checkpoint(kind, checkpoint, out, llm=llm, **encoders, flags=flags, offline=offline)))
