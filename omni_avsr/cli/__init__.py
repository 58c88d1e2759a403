"""`omni-avsr`: the table of sub-commands, and what happens when one fails.

A command is a function in a module of this folder and a row of `COMMANDS`. Results go to standard output, progress
and logs to standard error. Exit codes: 0 all done, 1 something failed, 2 not understood, 130 interrupted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from omni_avsr import __version__
from omni_avsr.cli.arguments import Spelling, normalise
from omni_avsr.cli.bench import bench
from omni_avsr.cli.cache import cache
from omni_avsr.cli.doctor import doctor
from omni_avsr.cli.evaluate import evaluate
from omni_avsr.cli.live import live
from omni_avsr.cli.logs import logged, with_options
from omni_avsr.cli.models import import_, info
from omni_avsr.cli.prepare import prepare
from omni_avsr.cli.serve import demo, serve
from omni_avsr.cli.train import train
from omni_avsr.cli.transcribe import transcribe
from omni_avsr.errors import reason

COMMANDS: dict[str, Callable[..., None]] = {
    "transcribe": transcribe,
    "live": live,
    "train": train,
    "evaluate": evaluate,
    "bench": bench,
    "prepare": prepare,
    "doctor": doctor,
    "info": info,
    "cache": cache,
    "serve": serve,
    "demo": demo,
    "import": import_,
}
log = logging.getLogger(__name__)
INTERRUPTED = 130  # 128 + SIGINT, as shells count; TrainingInterrupted has the same


class Command(TyperCommand):
    """A sub-command that reads whisper's way of typing and turns errors into one sentence."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As click, after `arguments.normalise`."""
        return super().parse_args(ctx, normalise(args, Spelling.of(self.params)))

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; what goes wrong is one sentence, with its traceback under `--verbose`."""
        with logged(ctx.params):
            try:
                return super().invoke(ctx)
            except (BrokenPipeError, typer.Exit, typer.Abort):
                raise  # `| head` is no failure; click ends quietly
            except KeyboardInterrupt:
                log.error("interrupted")
                raise typer.Exit(INTERRUPTED) from None
            except Exception as error:
                log.error("error: %s", reason(error), exc_info=True)
                raise typer.Exit(getattr(error, "exit_code", 1)) from None


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"omni-avsr {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="omni-avsr",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(help="One speech recogniser that hears, reads lips, or does both, at the token budget you choose.")
def _root(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for _name, _function in COMMANDS.items():
    app.command(_name, cls=Command)(with_options(_function))


def main() -> None:
    """The entry point of `omni-avsr` and of `python -m omni_avsr`."""
    app()
