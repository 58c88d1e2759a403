"""What every request passes, before and after the application: name, key, size, patience; counting and one log line."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omni_avsr.serve.desk import Desk
from omni_avsr.serve.refusals import Refusal, broken, busy, slow_upload, unauthorised
from omni_avsr.serve.settings import Settings

log = logging.getLogger("omni_avsr.serve")

TRANSCRIPTIONS = "/v1/audio/transcriptions"
ROUTES = (TRANSCRIPTIONS, "/v1/models", "/health", "/ready", "/metrics")
LEFT = 499  # as nginx counts those who leave before the answer
SILENCE = 30.0  # seconds without a byte after which an upload is given up
LINGER_BYTES, LINGER_SECONDS = 64 * 2**20, 5.0  # of a refused body that is still read, so that the client hears why


class Record:
    """Gives each request a name, counts it, and writes one log line about it, by default without what was said."""

    def __init__(self, app: ASGIApp, desk: Desk) -> None:
        self._app, self._metrics = app, desk.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = Headers(scope=scope).get("x-request-id", "")[:64] or uuid4().hex
        began, status = time.perf_counter(), LEFT
        scope["state"] = {**scope.get("state", {}), "facts": {}}

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = name
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except Exception:
            log.exception("request %s failed", name)
            if status != LEFT:
                raise  # half an answer is out already
            await broken().response()(scope, receive, answer)
        finally:
            seconds = time.perf_counter() - began
            route = next((r for r in ROUTES if path(scope).startswith(r)), "other")
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(seconds)
            if route not in ("/health", "/ready", "/metrics"):
                facts = {"id": name, "route": route, "status": status, "seconds": round(seconds, 3)}
                log.info("%s %d", route, status, extra={"facts": facts | scope["state"]["facts"]})


def path(scope: Scope) -> str:
    """As the application's routes see it: below where it is mounted, or a proxy has put it."""
    whole, root = str(scope["path"]), scope.get("root_path", "")
    return whole.removeprefix(root) if whole.startswith(f"{root}/") else whole


class Gate:
    """Keys for all of /v1; for uploads also room, bytes and patience."""

    def __init__(self, app: ASGIApp, desk: Desk) -> None:
        self._app, self._desk = app, desk
        self._uploads = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or not path(scope).startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        upload = path(scope) == TRANSCRIPTIONS and scope["method"] == "POST"
        try:
            check_key(headers, self._desk.settings.keys)
            if upload:
                self._check_room(headers)
        except Refusal as refusal:
            if headers.get("expect") != "100-continue":
                await _linger(receive)
            scope["state"]["facts"]["error"] = refusal.error["code"]
            await refusal.response()(scope, receive, send)
            return
        if not upload:
            await self._app(scope, receive, send)
            return
        self._count(1)
        body = _Body(receive, self._desk.settings, partial(self._count, -1))
        try:
            await self._app(scope, body, send)
        finally:
            body.end()

    def _check_room(self, headers: Headers) -> None:
        self._desk.check_ready()
        self._desk.check_room()
        if self._uploads >= self._desk.settings.queue:
            raise busy(5)
        length = headers.get("content-length", "")
        self._desk.settings.limits.check_bytes(int(length) if length.isdecimal() else 0)

    def _count(self, step: int) -> None:
        self._uploads += step
        self._desk.metrics.uploads.set(self._uploads)


def check_key(headers: Headers, keys: Sequence[str]) -> None:
    """Raises Refusal without one of `keys`; where there are none, everybody may come in."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    given = key.strip().encode() if scheme.lower() == "bearer" else b""
    # every key is compared, each in constant time
    if keys and not sum(hmac.compare_digest(given, known.encode()) for known in keys):
        raise unauthorised()


class _Body:
    """`receive` of an upload: counts its bytes, and does not wait forever."""

    def __init__(self, receive: Receive, settings: Settings, at_end: Callable[[], None]) -> None:
        self._receive, self._limits, self._at_end = receive, settings.limits, at_end
        self._deadline = time.monotonic() + settings.timeout
        self._size, self._ended = 0, False

    async def __call__(self) -> Message:
        if self._ended:
            return await self._receive()  # only a disconnect can follow
        patience = max(0.0, min(SILENCE, self._deadline - time.monotonic()))
        try:
            message = await asyncio.wait_for(self._receive(), patience)
        except TimeoutError:
            self.end()
            raise slow_upload(patience) from None
        self._size += len(message.get("body", b""))
        last = message["type"] == "http.disconnect" or not message.get("more_body")
        try:
            self._limits.check_bytes(self._size)
        except Refusal:
            if not last:
                await _linger(self._receive)
            self.end()
            raise
        if last:
            self.end()
        return message

    def end(self) -> None:
        """The body is here, or will never be."""
        if not self._ended:
            self._ended = True
            self._at_end()


async def _linger(receive: Receive) -> None:
    """Reads on for a while: a client that is still sending would not hear an answer."""
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while size < LINGER_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return
