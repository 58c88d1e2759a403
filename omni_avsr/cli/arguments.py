"""What may be typed: whisper's habits on top of typer's. Read from each command's own options, so nothing is repeated.

--beam-size 5            the same as --beam_size 5
--rates 4 16             a list option takes values until the next option
--word_timestamps True   a switch may be given a value
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

NUMBER = re.compile(r"-\d")  # '-5' is a value, not an option
TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")


@dataclass(frozen=True)
class Spelling:
    """The options of one command by kind, with their dashes: '--snrs', '-o'."""

    lists: frozenset[str]
    switches: dict[str, str]  # switch -> its opposite

    @classmethod
    def of(cls, parameters: Iterable[Any]) -> Spelling:
        """From click's parameters."""
        options = [p for p in parameters if p.param_type_name == "option"]
        return cls(
            lists=frozenset(name for p in options if p.multiple for name in p.opts),
            switches={name: p.secondary_opts[0] for p in options if p.is_flag and p.secondary_opts for name in p.opts},
        )


def normalise(arguments: Sequence[str], spelling: Spelling) -> list[str]:
    """`arguments` as click reads them: one value per option, switches without one."""
    out: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--":
            return [*out, argument, *left]
        if not is_option(argument):
            out.append(argument)
            continue
        name, equals, value = argument.partition("=")
        name = f"--{name[2:].replace('-', '_')}" if name.startswith("--") else name
        if name in spelling.switches:
            out.append(_switch(name, value if equals else _taken_bool(left), spelling))
        elif name in spelling.lists and not equals:
            values = _taken_values(left)
            out += [part for v in values for part in (name, v)] or [name]
        else:
            out.append(f"{name}={value}" if equals else name)
            if not equals and left and NUMBER.match(left[0]):
                out.append(left.pop(0))
    return out


def is_option(argument: str) -> bool:
    """Whether `argument` names an option; '-' and negative numbers are values."""
    return argument.startswith("-") and argument != "-" and not NUMBER.match(argument)


def _taken_values(left: list[str]) -> list[str]:
    count = next((i for i, argument in enumerate(left) if is_option(argument)), len(left))
    values, left[:] = left[:count], left[count:]
    return values


def _taken_bool(left: list[str]) -> str:
    # only a whole truth value belongs to the switch; anything else is the next argument
    return left.pop(0) if left and left[0].lower() in (*TRUE[:2], *FALSE[:2]) else ""


def _switch(name: str, value: str, spelling: Spelling) -> str:
    if value.lower() in ("", *TRUE):
        return name
    return spelling.switches[name] if value.lower() in FALSE else f"{name}={value}"  # click says what is wrong
