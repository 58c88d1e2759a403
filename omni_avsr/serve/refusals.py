"""Every way to say no, in OpenAI's error envelope: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from omni_avsr.errors import (
    ConfigError,
    InputError,
    MediaError,
    NoAudioError,
    NoFaceError,
    NoVideoError,
    OmniAVSRError,
    RateError,
    nearest,
)

NO_RETRY = {"x-should-retry": "false"}  # told to OpenAI's SDK where coming back would only repeat the work


class Refusal(HTTPException):
    """An answer that is not what was asked for.

    Args:
        status: of HTTP.
        message: what was got, what was expected, what to do.
        kind: OpenAI's `type`.
        code: for programs.
        param: the form field that is to blame.
        headers: to go with it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.error = {"message": message, "type": kind, "param": param, "code": code}

    def response(self) -> JSONResponse:
        """As it is sent."""
        return JSONResponse({"error": self.error}, self.status_code, self.headers)


CODES: dict[type[OmniAVSRError], tuple[str, str | None]] = {  # the nearest class of an error decides
    InputError: ("unusable_input", "file"),
    MediaError: ("unreadable_media", "file"),
    NoAudioError: ("no_audio", "file"),
    NoVideoError: ("no_video", "file"),
    NoFaceError: ("no_face", "file"),
    ConfigError: ("invalid_value", None),
    RateError: ("rate_not_trained", None),
}


def refused(error: OmniAVSRError, fields: Sequence[str] = ()) -> Refusal:
    """An error of the library as the caller's mistake; one that is the server's own is raised again.

    Args:
        error: what was raised.
        fields: names of the form's fields, to find the one that the message is about.
    """
    known = next((kind for kind in type(error).__mro__ if kind in CODES), None)
    if known is None:
        raise error
    code, param = CODES[known]
    message = re.sub(r"--(?=[a-z])", "", str(error))  # the command line's options are the form's fields
    begins = message.partition(" ")[0]
    return Refusal(400, message, code=code, param=param or (begins if begins in fields else None))


def malformed(errors: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> Refusal:
    """The first of pydantic's complaints about a form."""
    first = errors[0]
    name = str(first["loc"][1])  # ('body', field, ...)
    if first["type"] == "extra_forbidden":
        return Refusal(400, f"unknown field '{name}'; {nearest(name, fields)}", code="unknown_parameter", param=name)
    if first["type"] == "missing":
        message = f"the field '{name}' is missing; send multipart/form-data with at least 'file' and 'model'"
        return Refusal(400, message, code="missing_required_parameter", param=name)
    return Refusal(400, f"{name} = {first.get('input')!r}: {first['msg']}", code="invalid_value", param=name)


def too_large(message: str, code: str) -> Refusal:
    """More bytes, seconds or pixels than the server takes."""
    return Refusal(413, message, code=code, param="file")


def busy(seconds: int) -> Refusal:
    """The queue is full."""
    message = f"all places are taken; come back in {seconds} s"
    return Refusal(429, message, "rate_limit_error", "queue_full", headers={"retry-after": str(seconds)})


def not_ready(message: str, seconds: int = 5) -> Refusal:
    """The model is being loaded, or the server is leaving."""
    return Refusal(503, message, "server_error", "unavailable", headers={"retry-after": str(seconds)})


def too_late(seconds: float) -> Refusal:
    """The work took longer than the server allows."""
    message = f"no answer within {seconds:.0f} s; send a shorter file"
    return Refusal(504, message, "server_error", "timeout", headers=NO_RETRY)


def slow_upload(seconds: float) -> Refusal:
    """The body did not arrive."""
    message = f"the upload was not complete after {seconds:.0f} s"
    return Refusal(408, message, code="upload_timeout", param="file", headers=NO_RETRY)


def unauthorised() -> Refusal:
    """No key, or a wrong one."""
    message = "missing or wrong API key; send the header 'Authorization: Bearer KEY'"
    return Refusal(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


def broken() -> Refusal:
    """A defect of the server."""
    message = "the server made a mistake; its log tells more under the x-request-id of this answer"
    return Refusal(500, message, "server_error", "internal_error")
