"""Every error a user can meet. Each message says what was got, what was expected, and what to do.

OmniAVSRError
├── InputError               a file or array cannot be used; other files go on
│   ├── MediaError           not media, truncated, empty
│   ├── NoAudioError         the task listens, the input is mute
│   ├── NoVideoError         the task reads lips, the input has no picture
│   └── NoFaceError          the task reads lips, no face was found
├── ConfigError              a knob has a value it cannot have, or does not exist
│   └── RateError            a compression rate the model was not trained for
├── DataError                a manifest or one of its rows is wrong
├── CheckpointError          a model folder or a foreign checkpoint does not fit
├── AssetError               a model file (face networks, hub weights) is missing and may not be fetched
├── MissingExtraError        an optional dependency is not installed
└── TrainingInterrupted      Ctrl-C or SIGTERM; the run was saved (exit code 130)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OmniAVSRError(Exception):
    """Base of all errors raised on purpose; the CLI prints its message and exits with `exit_code`."""

    exit_code = 1


class InputError(OmniAVSRError):
    """One input cannot be used; the rest of the work goes on."""


class MediaError(InputError):
    """The file is not media, is empty, or ends before it should."""


class NoAudioError(InputError):
    """The task needs an audio track and the input has none."""


class NoVideoError(InputError):
    """The task needs a picture and the input has none."""


class NoFaceError(InputError):
    """The task needs a mouth and no face was found."""


class ConfigError(OmniAVSRError):
    """A knob has a value it cannot have, or does not exist."""


class RateError(ConfigError):
    """A compression rate the model was not trained for."""


class DataError(OmniAVSRError):
    """A manifest, or one row of it, is wrong."""


class CheckpointError(OmniAVSRError):
    """A model folder or a foreign checkpoint does not fit what is expected."""


class AssetError(OmniAVSRError):
    """A model file is missing and cannot, or may not, be fetched."""


class MissingExtraError(OmniAVSRError):
    """An optional dependency is not installed.

    Args:
        package: the import that failed.
        extra: the extra of this project that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"'{package}' is not installed. Install it with: pip install 'omni-avsr[{extra}]'")
        self.package, self.extra = package, extra

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        # pickled by its arguments, not by its message, so that worker processes can raise it
        return MissingExtraError, (self.package, self.extra)


class TrainingInterrupted(OmniAVSRError):
    """Training was asked to stop and has saved itself; the message says how to go on."""

    exit_code = 130  # what a shell reports for a command ended by Ctrl-C


def reason(error: Exception) -> str:
    """What a user is told of it: its message, or that nobody foresaw it, which makes it our own mistake."""
    if isinstance(error, OmniAVSRError | OSError):
        return str(error)
    what = f"{type(error).__name__}: {error}".strip().rstrip(":")
    return f"unexpected {what}; this is a bug in omni-avsr: run it again with --verbose for the traceback"


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that lists `known` and, where one is close, suggests it instead of `name`."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}known: {', '.join(known)}"
