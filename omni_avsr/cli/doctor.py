"""`omni-avsr doctor FILE`: what a file is, what will be repaired, what will hurt, and what to do about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omni_avsr.cli.options import Offline

if TYPE_CHECKING:
    from rich.table import Table

    from omni_avsr.media.checkup import FaceFacts
    from omni_avsr.media.doctor import Diagnosis

COLOURS = {"fine": "green", "repaired": "yellow", "hurts": "bold red"}


def doctor(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An audio or video file.")],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="PAGE", help="Also write a page with pictures and mouth crops.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json/--no_json", help="Everything, for programs.")] = False,
    offline: Offline = False,
) -> None:
    """Examine a file: streams, timing, sound, faces, lips against sound. Exit code 1 if it cannot be used."""
    from omni_avsr.media.checkup import examine
    from omni_avsr.media.doctor import diagnose

    found = diagnose(examine(file, offline=offline))
    if html is not None:
        from omni_avsr.cli.doctor_page import page

        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(page(found), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(facts(found), indent=2, ensure_ascii=False))
    else:
        _show(found)
    raise typer.Exit(0 if found.usable else 1)


def facts(found: Diagnosis) -> dict[str, Any]:
    """A diagnosis without its pictures, for programs."""
    c = found.checkup
    return {
        "file": c.info.name,
        "usable": found.usable,
        "tasks": list(found.tasks),
        "verdict": found.verdict,
        "findings": [vars(finding) for finding in found.findings],
        "media": vars(c.info),
        "streams": [vars(stream) for stream in c.streams],
        "timing": None if c.timing is None else vars(c.timing) | {"constant": c.timing.constant},
        "looked": c.looked,
        "audio": None if c.audio is None else vars(c.audio),
        "faces": [
            {"id": face.id, "share": face.share, "speaks": face.speaks, "video": vars(face.quality)} for face in c.faces
        ],
        "offset": None if c.offset is None else vars(c.offset),
    }


def _show(found: Diagnosis) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False)
    style = "green" if found.usable else "bold red"
    console.print(Text.assemble((found.checkup.info.name, "bold"), ": ", (found.verdict, style)), soft_wrap=True)
    console.print(Padding(_findings(found), (1, 0, 0, 1)))
    if len(found.checkup.faces) > 1:
        console.print(Padding(_faces(found.checkup.faces), (1, 0, 0, 1)))


def _findings(found: Diagnosis) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for finding in found.findings:
        measured = Text(finding.measured)
        if finding.advice:
            measured.append(f"\n→ {finding.advice}", "dim" if finding.severity == "fine" else "")
        table.add_row(Text(finding.severity, COLOURS[finding.severity]), Text(finding.check, "cyan"), measured)
    return table


def _faces(faces: tuple[FaceFacts, ...]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("face", "seen", "speaks", "mouth", "sharpness", "turned"):
        table.add_column(name, justify="left" if name == "face" else "right")
    for face in faces:
        q = face.quality
        shares = (f"{face.share:.0%}", f"{face.speaks:.0%}")
        table.add_row(str(face.id), *shares, f"{q.mouth:.0f} px", f"{q.sharpness:.2f}", f"{q.yaw:.0f}°")
    return table
