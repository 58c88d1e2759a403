"""The HTTP application of `serve/` as replicas on a cluster: `serve run omni_avsr.scale.ray_serve:app`.

Each replica is the whole server: its own model, its own line, batches shared by its requests. Ray's proxy balances
between them and starts and stops replicas by load. What a replica is told stands in environment variables
OMNI_AVSR_<FIELD of Settings>, for example OMNI_AVSR_MODEL=/models/large OMNI_AVSR_BEAM_SIZE=1; the number of
replicas in OMNI_AVSR_REPLICAS="least most".
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields

from fastapi import FastAPI
from ray import serve

from omni_avsr.errors import ConfigError
from omni_avsr.serve.app import create_app
from omni_avsr.serve.settings import Settings, keys_from_environment

PREFIX = "OMNI_AVSR_"
READ: dict[str, Callable[[str], object]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": lambda text: text.lower() in ("1", "true", "yes"),
    "tuple[str, ...]": lambda text: tuple(text.split()),
}


def settings_from_environment() -> Settings:
    """Settings as the environment tells.

    Raises:
        ConfigError: a value that is no number where one is expected.
    """
    given: dict[str, object] = {"keys": keys_from_environment()}
    for field in fields(Settings):
        text = os.environ.get(PREFIX + field.name.upper())
        if text is not None and str(field.type) in READ and field.name not in given:
            try:
                given[field.name] = READ[str(field.type)](text)
            except ValueError:
                message = f"{PREFIX}{field.name.upper()} = '{text}': expected {field.type}"
                raise ConfigError(message) from None
    return Settings(**given)  # type: ignore[arg-type]


def build() -> FastAPI:
    """The application of one replica; it starts when the model is loaded, so no request meets an empty one."""
    return create_app(settings_from_environment(), wait=True)


def replicas() -> tuple[int, int]:
    """Fewest and most."""
    least, _, most = os.environ.get(PREFIX + "REPLICAS", "1 8").partition(" ")
    return int(least), int(most or least)


_least, _most = replicas()


@serve.deployment(
    name="omni-avsr",
    max_ongoing_requests=64,  # the replica's own queue refuses what is too much
    autoscaling_config={"min_replicas": _least, "max_replicas": _most, "target_ongoing_requests": 8},
    graceful_shutdown_timeout_s=60,
    ray_actor_options={"num_cpus": 1},
)
@serve.ingress(build)
class Replica:
    """One server."""


app = Replica.bind()  # type: ignore[attr-defined]  # made a deployment by its decorator
