"""The HTTP application of `serve/` as replicas on a cluster: `serve run omni_avsr.scale.ray_serve:app`.

Each replica is the whole server: its own model, its own line, batches shared by its requests. Ray's proxy balances
between them and starts and stops replicas by load. What they are told stands in the environment of that command and
goes with them to every machine: OMNI_AVSR_<FIELD> for the fields of `Settings` and of `Fleet`, OMNI_AVSR_MAX_<FIELD>
for those of `Limits`, keys as everywhere in OMNI_AVSR_API_KEYS. Ray's own way does as well, and wins:

    OMNI_AVSR_API_KEYS=… serve run omni_avsr.scale.ray_serve:app model=/models/large replicas="2 16" gpus=0.5
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_origin, get_type_hints

from fastapi import FastAPI
from pydantic import TypeAdapter, ValidationError
from ray import serve

from omni_avsr.errors import ConfigError, nearest
from omni_avsr.serve.app import create_app
from omni_avsr.serve.settings import API_KEYS, Limits, Settings, keys_in

PREFIX = "OMNI_AVSR_"
LIMIT = f"{PREFIX}MAX_"
Told = Mapping[str, str]  # variable -> what it says


@dataclass(frozen=True)
class Fleet:
    """How many replicas, and what each takes of its machine."""

    replicas: tuple[int, ...] = (1, 8)  # fewest and most; one number = always as many
    gpus: float = 0.0  # of each; 0.5 = two share one; 0 = the replica sees none

    def __post_init__(self) -> None:
        if len(self.replicas) not in (1, 2) or not 1 <= self.replicas[0] <= self.replicas[-1]:
            got = " ".join(map(str, self.replicas))
            raise ConfigError(f"{PREFIX}REPLICAS = '{got}': give the fewest and the most, like '2 16'")
        if self.gpus < 0 or (self.gpus > 1 and self.gpus % 1):
            raise ConfigError(f"{PREFIX}GPUS = {self.gpus}: give a share of one, like 0.5, or a whole number")


def read(kind: type, prefix: str, told: Told) -> dict[str, Any]:
    """Those fields of the dataclass `kind` that `told` has, each as its type.

    Raises:
        ConfigError: a text that does not say such a value.
    """
    given = {}
    for name, hint in get_type_hints(kind).items():
        text = told.get(variable := prefix + name.upper())
        if text is not None:
            try:
                given[name] = TypeAdapter(hint).validate_python(text.split() if get_origin(hint) is tuple else text)
            except ValidationError as error:
                raise ConfigError(f"{variable} = '{text}': {error.errors()[0]['msg']}") from None
    return given


def settings(told: Told) -> Settings:
    """What every replica is told.

    Raises:
        ConfigError: a value that cannot be.
    """
    limits = Limits(**read(Limits, LIMIT, told))
    return Settings(**read(Settings, PREFIX, told) | {"limits": limits, "keys": keys_in(told)})


def variables() -> Iterator[str]:
    """All that are read."""
    yield API_KEYS
    for kind, prefix in ((Settings, PREFIX), (Fleet, PREFIX), (Limits, LIMIT)):
        yield from (prefix + name.upper() for name in get_type_hints(kind) if name not in ("limits", "keys"))


def deployment(told: Told) -> serve.Deployment:
    """Replicas that start when their model is loaded, so that no request meets an empty one.

    Raises:
        ConfigError: a value that cannot be. What depends on the replica's machine is said there.
    """
    fleet = Fleet(**read(Fleet, PREFIX, told))
    Limits(**read(Limits, LIMIT, told))
    read(Settings, PREFIX, told)

    def build() -> FastAPI:
        return create_app(settings(told), wait=True)

    return serve.deployment(
        serve.ingress(build)(Replica),
        name="omni-avsr",
        max_ongoing_requests=64,  # the replica's own queue refuses what is too much
        autoscaling_config={
            "min_replicas": fleet.replicas[0],
            "max_replicas": fleet.replicas[-1],
            "target_ongoing_requests": 8,
        },
        graceful_shutdown_timeout_s=60,
        ray_actor_options={"num_cpus": 1, "num_gpus": fleet.gpus},
    )


class Replica:
    """One server."""


def app(arguments: Mapping[str, object]) -> serve.Application:
    """What `serve run` asks for.

    Args:
        arguments: variables without their prefix, in small letters; they win over the environment.
    """
    known = {name.removeprefix(PREFIX).lower(): name for name in variables()}
    for name in arguments:
        if name not in known:
            raise ConfigError(f"unknown argument '{name}'; {nearest(name, known)}")
    told = {name: os.environ[name] for name in known.values() if name in os.environ}
    return deployment(told | {known[name]: str(value) for name, value in arguments.items()}).bind()
