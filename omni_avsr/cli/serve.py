"""`omni-avsr serve` and `omni-avsr demo`: the model behind OpenAI's transcription API, and behind a page."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from omni_avsr.cli.options import BeamSize, Budget, ComputeType, Device, Fast, Model, Offline, TargetRtf
from omni_avsr.errors import MissingExtraError

Host = Annotated[str, typer.Option("--host", help="Address to listen at; 0.0.0.0 = every network.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen at.")]


def serve(
    model: Model = "default",
    host: Host = "127.0.0.1",
    port: Port = 8000,
    served_model_name: Annotated[
        list[str] | None,
        typer.Option("--served_model_name", metavar="NAME...", show_default="the model's", help="As clients call it."),
    ] = None,
    device: Device = "auto",
    compute_type: ComputeType = "default",
    fast: Fast = False,
    budget: Budget = None,
    target_rtf: TargetRtf = None,
    beam_size: BeamSize = 5,
    batch_size: Annotated[int, typer.Option("--batch_size", min=1, help="Utterances in one call of the model.")] = 16,
    workers: Annotated[
        int, typer.Option("--workers", min=0, show_default="one per core", help="Inputs that are looked at at once.")
    ] = 0,
    queue: Annotated[int, typer.Option("--queue", min=1, help="Requests inside; more get 429 and Retry-After.")] = 64,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds for an upload, and its answer.")] = 600,
    drain: Annotated[float, typer.Option("--drain", min=0, help="Seconds for the last answers after SIGTERM.")] = 30,
    max_megabytes: Annotated[float, typer.Option("--max_megabytes", min=0.001, help="Largest upload.")] = 512,
    max_seconds: Annotated[float, typer.Option("--max_seconds", min=1, help="Longest media.")] = 7200,
    max_megapixels: Annotated[float, typer.Option("--max_megapixels", min=0.001, help="Largest picture.")] = 9.5,
    log_transcripts: Annotated[
        bool, typer.Option("--log_transcripts/--no_log_transcripts", help="Write what was said into the log.")
    ] = False,
    offline: Offline = False,
    log_format: str = "json",
) -> None:
    """Serve a model over HTTP: OpenAI's /v1/audio/transcriptions, for audio and video. Keys: OMNI_AVSR_API_KEYS."""
    try:
        from omni_avsr.serve.run import run
        from omni_avsr.serve.settings import Limits, Settings, keys_in
    except ModuleNotFoundError as missing:
        raise MissingExtraError(missing.name or "fastapi", "serve") from None
    settings = Settings(
        model=model,
        names=tuple(served_model_name or ()),
        device=device,
        compute_type=compute_type,
        fast=fast,
        offline=offline,
        budget=budget,
        target_rtf=target_rtf,
        beam_size=beam_size,
        batch_size=batch_size,
        workers=workers,
        queue=queue,
        timeout=timeout,
        limits=Limits(round(max_megabytes * 2**20), max_seconds, round(max_megapixels * 1e6)),
        keys=keys_in(os.environ),
        log_transcripts=log_transcripts,
    )
    run(settings, host, port, drain)


def demo(
    model: Model = "default",
    host: Host = "127.0.0.1",
    port: Port = 7860,
    device: Device = "auto",
    compute_type: ComputeType = "default",
    fast: Fast = False,
    beam_size: BeamSize = 5,
    max_megabytes: Annotated[float, typer.Option("--max_megabytes", min=0.001, help="Largest upload.")] = 512,
    max_megapixels: Annotated[float, typer.Option("--max_megapixels", min=0.001, help="Largest picture.")] = 9.5,
    offline: Offline = False,
) -> None:
    """Open a page to play with a model: drop or record a video, hear the noise, compare ear, lips and both."""
    try:
        from omni_avsr.serve.demo import run_demo
        from omni_avsr.serve.settings import Limits, Settings
    except ModuleNotFoundError as missing:
        raise MissingExtraError(missing.name or "gradio", "demo") from None
    limits = Limits(round(max_megabytes * 2**20), pixels=round(max_megapixels * 1e6))
    settings = Settings(
        model=model,
        device=device,
        compute_type=compute_type,
        fast=fast,
        offline=offline,
        beam_size=beam_size,
        limits=limits,
    )
    run_demo(settings, host, port)
