"""What a server is told when it starts, and what it refuses before decoding anything."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

import av
from av.stream import Disposition

from omni_avsr.errors import ConfigError, MediaError
from omni_avsr.model.compute import compute_type, device_named
from omni_avsr.serve.refusals import too_large
from omni_avsr.transcribe.budget import check_budget

API_KEYS = "OMNI_AVSR_API_KEYS"  # environment variable; keys between commas, none = everybody may come in


@dataclass(frozen=True)
class Limits:
    """The largest input that is taken."""

    bytes: int = 512 * 2**20  # of the whole request body
    seconds: float = 7200.0
    pixels: int = 4096 * 2304  # of one picture

    def check(self, file: BinaryIO) -> None:
        """Refuses by the file's header; at most the first picture of a stream is looked into, never a larger one.

        What a header does not tell, or tells wrong, is noticed while reading (`worker.Watched`).

        Raises:
            Refusal: more seconds or pixels than allowed.
            MediaError: not media.
        """
        # ffmpeg allocates nothing larger, and then says that the size is 0 x 0
        options = {"max_pixels": str(self.pixels)}
        try:
            with av.open(file, "r", options=options, container_options={"protocol_whitelist": "none"}) as container:
                pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
                sizes = [s.width * s.height or self.pixels + 1 for s in pictures]
                seconds = (container.duration or 0) / av.time_base
        except (av.FFmpegError, ValueError, OSError) as error:
            raise MediaError(f"the upload cannot be read as media ({error}); send an audio or video file") from None
        finally:
            file.seek(0)
        self.check_picture(max(sizes, default=0))
        self.check_seconds(seconds)

    def check_bytes(self, size: int) -> None:
        """Raises Refusal where a request has more bytes than allowed."""
        if size > self.bytes:
            raise too_large(
                f"the upload has {size:,} bytes or more; at most {self.bytes:,} are taken", "too_many_bytes"
            )

    def check_picture(self, pixels: int) -> None:
        """Raises Refusal where a picture is larger than allowed."""
        if pixels > self.pixels:
            raise too_large(f"the picture has more than the {self.pixels:,} pixels that are taken", "too_many_pixels")

    def check_seconds(self, seconds: float) -> None:
        """Raises Refusal where the media lasts longer than allowed."""
        if seconds > self.seconds:
            raise too_large(f"the media lasts {seconds:.0f} s; at most {self.seconds:.0f} s are taken", "too_long")


@dataclass(frozen=True)
class Settings:
    """How a server runs."""

    model: str = "default"
    names: tuple[str, ...] = ()  # by which requests may call the model; empty = that of the model
    device: str = "auto"
    compute_type: str = "default"  # a row of model.compute.COMPUTE
    fast: bool = False  # Whisper hears the real length and not 30 s
    offline: bool = False
    budget: str | None = None  # chooses what a request leaves open: task and rates, by their costs on this machine
    target_rtf: float | None = None  # likewise, in seconds of work per second of speech
    beam_size: int = 5
    batch_size: int = 16  # utterances in one call of the model
    workers: int = 0  # inputs that are decoded and looked at at once; 0 = one per core
    queue: int = 64  # requests being uploaded, and as many being worked on; more are told to come back
    timeout: float = 600.0  # seconds for an upload, and again for its answer
    limits: Limits = Limits()
    keys: tuple[str, ...] = field(default=(), repr=False)
    log_transcripts: bool = False

    def __post_init__(self) -> None:
        for name in ("beam_size", "batch_size", "queue", "timeout"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: it must be at least 1")
        check_budget(self.budget, self.target_rtf)
        compute_type(self.compute_type, device_named(self.device))

    @property
    def places(self) -> int:
        """Inputs that are perceived at the same time."""
        return self.workers or len(os.sched_getaffinity(0))


def keys_in(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The API keys of OMNI_AVSR_API_KEYS.

    Raises:
        ConfigError: the variable is set and holds no key, which would leave the door open by mistake.
    """
    value = environment.get(API_KEYS)
    keys = tuple(key.strip() for key in (value or "").split(",") if key.strip())
    if value is not None and not keys:
        raise ConfigError(f"{API_KEYS} is set but holds no key; list keys between commas, or unset it")
    return keys
