"""`omni-avsr train RECIPE`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def _recipes() -> list[str]:
    from omni_avsr.config import recipes

    return list(recipes())


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            autocompletion=_recipes, help="A recipe's name or TOML file; 'omni-avsr train list' names them."
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change knobs: --set train.lr=1e-3 data.train='[\"m.jsonl\"]'"),
    ] = None,
    tiny: Annotated[
        bool, typer.Option("--tiny/--no_tiny", help="The same recipe on a model of a few thousand parameters.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume/--no_resume", help="Go on from the newest checkpoint.")] = False,
    plan: Annotated[
        bool, typer.Option("--plan/--no_plan", help="Take a few steps, say what the run will take, and write nothing.")
    ] = False,
    hours: Annotated[
        float | None, typer.Option("--hours", help="With --plan: for so many hours of such data, too.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--output_dir", "-o", show_default="runs/NAME", help="Folder of the run.")
    ] = None,
) -> None:
    """Train a model from a recipe; with several processes under: torchrun --nproc_per_node N -m omni_avsr train ..."""
    from omni_avsr.config import load_recipe, recipes

    if recipe == "list":
        for name in recipes():
            typer.echo(f"{name:14} {load_recipe(name).description}")
        return
    chosen = load_recipe(recipe, settings or (), tiny=tiny)
    if plan:
        from omni_avsr.train.plan import plan as measure

        typer.echo("\n".join(measure(chosen).lines(chosen.train.epochs, hours)))
        return
    from omni_avsr.train.loop import train as run

    model = run(chosen, out or Path("runs") / chosen.name, resume=resume)
    if os.environ.get("RANK", "0") == "0":  # torchrun starts this command once per process
        typer.echo(str(model))
