"""`omni-avsr bench MODEL`: where the time goes on this machine, and what it could be at best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omni_avsr.cli.options import (
    AudioRate,
    BatchSize,
    BeamSize,
    ComputeType,
    Device,
    Fast,
    Offline,
    Task,
    VideoRate,
    choices,
)
from omni_avsr.errors import ConfigError, nearest

if TYPE_CHECKING:
    from omni_avsr.transcribe.transcriber import Transcriber


def bench(
    model: Annotated[str, typer.Argument(metavar="default|DIR|HUB_ID", help="The model.")] = "default",
    files: Annotated[
        list[Path] | None, typer.Option("--files", metavar="FILE...", show_default="the bundled clip", help="Clips.")
    ] = None,
    task: Task = "auto",
    audio_rate: AudioRate = None,
    video_rate: VideoRate = None,
    beam_size: BeamSize = 5,
    batch_size: BatchSize = 8,
    device: Device = "auto",
    compute_type: ComputeType = "default",
    fast: Fast = False,
    threads: Annotated[int | None, typer.Option("--threads", min=1, show_default="PyTorch's", help="Threads.")] = None,
    clock: Annotated[
        str, typer.Option("--clock", **choices("wall", "cpu"), help="cpu = processor time, for a busy machine.")
    ] = "wall",
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure what each task and rate costs, for --budget and --target_rtf.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    offline: Offline = False,
) -> None:
    """Time per stage, tokens per second, real-time factor and memory, beside what the machine allows at best."""
    from omni_avsr.bench import stages
    from omni_avsr.bench.floor import measure_machine
    from omni_avsr.transcribe.budget import sample
    from omni_avsr.transcribe.transcriber import Request, Transcriber

    with stages.threads(threads):
        if clock not in stages.CLOCKS:
            raise ConfigError(f"--clock {clock}: {nearest(clock, stages.CLOCKS)}")
        if calibrate:
            _calibrate(Transcriber(model, device, offline, compute_type, fast), beam_size, as_json)
            return
        runner = stages.Bench(model, device, offline, compute_type, fast)
        runner.clock = clock
        request = Request(task, audio_rate, video_rate, beam_size, batch_size=batch_size)
        report = runner.run(files or [sample()], request)
        machine = measure_machine(compute_type, runner.device, stages.CLOCKS[clock])
    answers = report.stages["prompts"].seconds + report.stages["answers"].seconds
    facts = {
        "model": model,
        "compute_type": compute_type,
        "device": str(runner.device),
        "clock": clock,
        "speech_seconds": round(report.audio_seconds, 2),
        "seconds": round(report.seconds, 3),
        "rtf": round(report.seconds / report.audio_seconds, 4),
        "llm_passes": report.passes,
        "tokens_per_second": round(report.tokens / answers, 1) if answers else None,
        "peak_memory_gib": round(stages.peak_memory(runner.device), 2),
        "machine_gflops": round(machine.flops / 1e9, 1),
        "machine_gb_per_second": round(machine.bandwidth / 1e9, 1),
    }
    rows = list(report.rows(machine))
    if as_json:
        typer.echo(json.dumps({**facts, "stages": rows}, indent=1))
    else:
        _print(facts, rows)


def _calibrate(transcriber: Transcriber, beam_size: int, as_json: bool) -> None:
    costs = transcriber.costs(beam_size, anew=True)
    if as_json:
        typer.echo(json.dumps([{**vars(setting), "rtf": round(cost, 5)} for setting, cost in costs.items()], indent=1))
        return
    for setting, cost in costs.items():
        typer.echo(f"{cost:8.4f} s of work per second   {setting}")
    typer.echo("remembered for --budget and --target_rtf", err=True)


def _print(facts: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("stage", "seconds", "share", "RTF", "GFLOP", "floor, s", "× floor")
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(
            row["stage"],
            f"{row['seconds']:.3f}",
            f"{row['share']:.0%}",
            f"{row['rtf']:.3f}",
            f"{row['gflop']:.2f}" if row["gflop"] else "",
            f"{row['floor']:.3f}" if row["floor"] else "",
            f"{row['times_floor']:.1f}" if row["times_floor"] else "",
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"{facts['speech_seconds']:.1f} s of speech in {facts['seconds']:.2f} s: real-time factor {facts['rtf']:.3f}; "
        f"{facts['tokens_per_second']} tokens/s, {facts['llm_passes']} passes of the LLM; "
        f"{facts['peak_memory_gib']:.2f} GiB at most"
    )
    console.print(
        f"{facts['compute_type']} on {facts['device']}: {facts['machine_gflops']:.0f} GFLOP/s in a large product, "
        f"{facts['machine_gb_per_second']:.0f} GB/s of weights"
    )
