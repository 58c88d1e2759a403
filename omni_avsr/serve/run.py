"""A server in this process, until it is told to end."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import threading
import time
from contextlib import suppress
from socket import socket

import cv2
import uvicorn

from omni_avsr.serve.app import create_app
from omni_avsr.serve.desk import Desk
from omni_avsr.serve.settings import Settings

M_ARENA_MAX = -8  # of malloc.h
TRIM = 10.0  # seconds between two returns of free memory to the system
LAST_WORDS = 5.0  # seconds to tell those whose time is over

log = logging.getLogger(__name__)


def run(settings: Settings, host: str, port: int, drain: float) -> None:
    """Serves. On SIGTERM or Ctrl-C no new request is taken, and those that are there get their answers.

    Args:
        settings: of the server.
        host: address to listen at.
        port: likewise.
        drain: seconds for the last answers.
    """
    cv2.setNumThreads(1)  # one input per core is looked at already
    with suppress(OSError, AttributeError):  # glibc: threads share two heaps, so memory stays flat with many of them
        ctypes.CDLL("libc.so.6").mallopt(M_ARENA_MAX, 2)
        threading.Thread(target=_trim, name="trim", daemon=True).start()
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,  # `gate.Record` writes a better one
        server_header=False,
        timeout_graceful_shutdown=round(drain + LAST_WORDS),
    )
    door = "with a key" if settings.keys else "without a key"
    log.info("serving '%s' on http://%s:%d, open to all who come %s", settings.model, host, port, door)
    Server(config, app.state.desk, drain).run()


def _trim() -> None:
    """For ever: hands back what glibc keeps between blocks of many sizes, which otherwise grows with the batches."""
    libc = ctypes.CDLL("libc.so.6")
    while True:
        time.sleep(TRIM)
        libc.malloc_trim(0)


class Server(uvicorn.Server):
    """One that tells those whom it cannot wait for."""

    def __init__(self, config: uvicorn.Config, desk: Desk, drain: float) -> None:
        super().__init__(config)
        self._desk, self._drain = desk, drain

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """As uvicorn's: waits for the answers that are under way."""
        asyncio.get_running_loop().call_later(self._drain, self._desk.send_away)
        await super().shutdown(sockets)
