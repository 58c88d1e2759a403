"""A server in this process, until it is told to end."""

from __future__ import annotations

import logging

import cv2
import uvicorn

from omni_avsr.serve.app import create_app
from omni_avsr.serve.settings import Settings

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
    config = uvicorn.Config(
        create_app(settings),
        host=host,
        port=port,
        log_config=None,
        access_log=False,  # `gate.Record` writes a better one
        server_header=False,
        timeout_graceful_shutdown=round(drain),
    )
    door = "with a key" if settings.keys else "without a key"
    log.info("serving '%s' on http://%s:%d, open to all who come %s", settings.model, host, port, door)
    uvicorn.Server(config).run()
