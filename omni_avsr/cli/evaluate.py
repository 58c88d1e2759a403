"""`omni-avsr evaluate MANIFEST -o OUT`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omni_avsr.cli.options import BatchSize, BeamSize, Budget, ComputeType, Device, Fast, Model, Offline, Out, TargetRtf
from omni_avsr.errors import ConfigError

if TYPE_CHECKING:
    from omni_avsr.evaluate.measure import Options


def evaluate(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="JSON lines, as 'prepare' writes them.")],
    out: Out,
    model: Model = "default",
    tasks: Annotated[
        list[str] | None, typer.Option("--tasks", metavar="TASK...", show_default="the model's", help="asr vsr avsr.")
    ] = None,
    audio_rates: Annotated[
        list[int] | None, typer.Option("--audio_rates", metavar="N...", show_default="those it was trained for")
    ] = None,
    video_rates: Annotated[
        list[int] | None, typer.Option("--video_rates", metavar="N...", show_default="those it was trained for")
    ] = None,
    snrs: Annotated[
        list[str] | None,
        typer.Option("--snrs", metavar="DB...", show_default="clean", help="Signal-to-noise ratios: clean 10 5 0 -5."),
    ] = None,
    noise: Annotated[
        list[str] | None,
        typer.Option(
            "--noise",
            metavar="NOISE...",
            show_default="babble",
            help="babble, white, pink, brown, music; a sound file or a folder of them; babble=FOLDER of single voices.",
        ),
    ] = None,
    normalizer: Annotated[
        str,
        typer.Option(
            "--normalizer",
            show_default="the model's",
            help="Of references and answers: basic, official, whisper_english, none.",
        ),
    ] = "",
    split: Annotated[str, typer.Option("--split", show_default="all rows", help="Only rows of this split.")] = "",
    seed: Annotated[int, typer.Option("--seed", help="Of the noise and of the confidence intervals.")] = 0,
    beam_size: BeamSize = 5,
    batch_size: BatchSize = 16,
    device: Device = "auto",
    compute_type: ComputeType = "default",
    fast: Fast = False,
    budget: Budget = None,
    target_rtf: TargetRtf = None,
    offline: Offline = False,
) -> None:
    """Word error rates for every combination of tasks, rates and noise: results.json, utterances.jsonl, report.html."""
    from omni_avsr.evaluate.grid import evaluate as run
    from omni_avsr.evaluate.measure import Options
    from omni_avsr.evaluate.report import condition, system

    levels, noises = _levels(snrs, noise), noise or ["babble"]
    options = Options(tasks, audio_rates, video_rates, levels, noises, seed, split, normalizer, beam_size, batch_size)
    loading: dict[str, Any] = {"device": device, "compute_type": compute_type, "fast": fast, "offline": offline}
    options = _within(budget, target_rtf, options, {"model": model, **loading})
    command = shlex.join(["omni-avsr", *sys.argv[1:]])
    results = run(manifest, model, out, options, **loading, command=command, progress=True)
    for row in results["rows"]:
        name = f"{system(row):<12} {condition(row):<16}"
        typer.echo(f"{name} WER {100 * row['wer']:6.2f} %   CER {100 * row['cer']:6.2f} %")
    typer.echo(f"report: {out / 'report.html'}", err=True)
    raise typer.Exit(bool(results["meta"]["left_out"]))  # each was reported when its turn came


def _within(budget: str | None, target_rtf: float | None, options: Options, loading: dict[str, Any]) -> Options:
    """`options` with what `transcribe` would choose, where there is a budget: for each named task, or among all."""
    if budget is None and target_rtf is None:
        return options
    if options.audio_rates or options.video_rates:
        raise ConfigError("--budget and --target_rtf choose the rates; leave out --audio_rates and --video_rates")
    from omni_avsr.evaluate.measure import System
    from omni_avsr.transcribe.budget import check_budget
    from omni_avsr.transcribe.transcriber import Request, Transcriber

    check_budget(budget, target_rtf)
    transcriber = Transcriber(**loading)
    asked = Request(beam_size=options.beam_size, budget=budget, target_rtf=target_rtf)
    wanted = [replace(asked, task=task) for task in options.tasks or [asked.task]]
    for request in wanted:
        transcriber.check(request)
    return replace(options, systems=[System(**vars(transcriber.setting(request))) for request in wanted])


def _levels(snrs: list[str] | None, noise: list[str] | None) -> list[float | None]:
    if noise and not snrs:
        raise ConfigError(f"--noise {' '.join(noise)}: say how loud, for example --snrs clean 5 0 -5")
    return [_snr(text) for text in snrs or ["clean"]]


def _snr(text: str) -> float | None:
    """'clean' or decibels."""
    if text == "clean":
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigError(
            f"--snrs {text}: expected 'clean' or a number of decibels, for example --snrs clean 5 -5"
        ) from None
