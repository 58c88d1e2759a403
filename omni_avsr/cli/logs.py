"""What a command says on standard error, and how much: the options --verbose, --quiet and --log_format of them all.

Results go to standard output. Everything else is a log line here, a failed file included, so that one option silences
it, shows all of it, or makes it JSON for programs.
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, get_type_hints

import typer

from omni_avsr.errors import nearest

FORMATS = ("text", "json")
FACTS = "facts"  # the key of `extra` under which a log call gives what a program may want to read


_option = functools.partial(typer.Option, rich_help_panel="Log")


def _format(name: str) -> str:
    if name not in FORMATS:
        raise typer.BadParameter(nearest(name, FORMATS))
    return name


OPTIONS: dict[str, tuple[Any, Any]] = {
    "verbose": (
        Annotated[bool, _option("--verbose/--no_verbose", help="Show tracebacks and every log line.")],
        False,
    ),
    "quiet": (Annotated[bool, _option("--quiet/--no_quiet", "-q", help="Say only what failed.")], False),
    "log_format": (
        Annotated[
            str,
            _option(
                "--log_format", metavar="|".join(FORMATS), help="Log lines for people, or for programs.",
                callback=_format, autocompletion=lambda: FORMATS,
            ),
        ],
        "text",
    ),
}  # fmt: skip
"""Option -> its annotation and default; every command has them."""


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with `OPTIONS` after its own; it need not know of them, but may name one to give it another default."""
    own = inspect.signature(command).parameters
    hints = get_type_hints(command, include_extras=True)
    kinds = hints | {name: annotation for name, (annotation, _) in OPTIONS.items()}
    parameters = [p.replace(annotation=hints[name]) for name, p in own.items() if name not in OPTIONS]
    for name, (annotation, default) in OPTIONS.items():
        keyword = inspect.Parameter.KEYWORD_ONLY
        default = own[name].default if name in own else default
        parameters.append(inspect.Parameter(name, keyword, default=default, annotation=annotation))

    @functools.wraps(command)
    def called(**given: Any) -> None:
        command(**{name: value for name, value in given.items() if name in own})

    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = kinds
    return called


def debugging(options: Mapping[str, Any]) -> bool:
    """Whether tracebacks are wanted: `--verbose`, or OMNI_AVSR_DEBUG."""
    return bool(options.get("verbose")) or bool(os.environ.get("OMNI_AVSR_DEBUG"))


@contextmanager
def logged(options: Mapping[str, Any]) -> Iterator[None]:
    """The library's log lines go to standard error while a command runs; afterwards all is as it was."""
    debug, programs = debugging(options), options.get("log_format") == "json"
    # before torch and transformers are imported: they read these once
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0" if debug else "1")
    log = logging.getLogger("omni_avsr")
    level = log.level
    console = Console(logging.DEBUG if debug else logging.ERROR if options.get("quiet") else logging.INFO, programs)
    console.setFormatter(Json() if programs else Text(debug))
    log.addHandler(console)
    log.setLevel(console.level)
    try:
        yield
    finally:
        log.removeHandler(console)
        log.setLevel(level)


class Console(logging.Handler):
    """Standard error, whatever it is at the time: a progress bar replaces it while it is on.

    Args:
        level: least level that is shown.
        programs: news that comes with facts is for them; people see it only when debugging.
    """

    def __init__(self, level: int, programs: bool) -> None:
        super().__init__(level)
        self.programs = programs
        self.held: list[str] | None = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Shows, holds or drops a record."""
        if self.held is not None and record.levelno == logging.WARNING:
            self.held.append(record.getMessage())
            return False
        news = record.levelno == logging.INFO and hasattr(record, FACTS)
        if news and not self.programs and self.level > logging.DEBUG:
            return False
        return bool(super().handle(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the line."""
        print(self.format(record), file=sys.stderr, flush=True)


@contextmanager
def gathered() -> Iterator[list[str]]:
    """The warnings of a stretch of work, which is to say them in one line of its own; none when debugging."""
    console = _console()
    held: list[str] = []
    if console is None or console.level == logging.DEBUG:
        yield held
        return
    console.held = held
    try:
        yield held
    finally:
        console.held = None


def watched() -> bool:
    """Whether somebody watches standard error, and wants more than errors."""
    console = _console()
    return console is not None and not console.programs and console.level < logging.ERROR and sys.stderr.isatty()


def _console() -> Console | None:
    handlers = logging.getLogger("omni_avsr").handlers
    return next((handler for handler in handlers if isinstance(handler, Console)), None)


class Text(logging.Formatter):
    """A sentence a line; with its origin and traceback when debugging."""

    def __init__(self, debug: bool) -> None:
        super().__init__("%(name)s: %(message)s" if debug else "%(message)s")
        self._debug = debug

    def formatException(self, ei: Any) -> str:
        """The traceback, where it is wanted."""
        return super().formatException(ei) if self._debug else ""

    def format(self, record: logging.LogRecord) -> str:
        """As logging does, without the empty line that an unwanted traceback leaves."""
        return super().format(record).rstrip("\n")


class Json(logging.Formatter):
    """An object a line: time, level, logger, message, and the facts that the call gave."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, FACTS, {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def facts(**what: Any) -> dict[str, Any]:
    """The `extra` of a log call: `log.info("…", extra=facts(file=path))`."""
    return {FACTS: what}
