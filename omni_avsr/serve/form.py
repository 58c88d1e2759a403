"""The form of /v1/audio/transcriptions: OpenAI's fields, and five of our own.

task, audio_rate, video_rate, face and keywords[].
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field

from omni_avsr.serve.answers import FORMATS
from omni_avsr.serve.refusals import Refusal
from omni_avsr.serve.settings import Settings
from omni_avsr.transcribe.transcriber import Request

Format = Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"]
Granularity = Literal["word", "segment"]

GROUP = 4  # windows of one request that wait together; the worker's batches join those of all requests
_ACCEPTED = "Accepted for compatibility; "


class Form(BaseModel):
    """What a client sends, checked."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    file: Annotated[UploadFile, Field(description="Audio or video, any container and codec.")]
    model: Annotated[str, Field(description="A name of /v1/models.")]
    response_format: Format = "json"
    timestamp_granularities: Annotated[
        list[Granularity], Field(alias="timestamp_granularities[]", description="With verbose_json.")
    ] = []
    stream: Annotated[bool, Field(description="Server-sent events; with json, text and diarized_json.")] = False
    task: Annotated[str, Field(description="auto, asr (listen), vsr (read lips) or avsr (both).")] = "auto"
    audio_rate: Annotated[int | None, Field(description="Audio frames (50/s) per token; none = the finest.")] = None
    video_rate: Annotated[int | None, Field(description="Video frames (25/s) per token; none = the finest.")] = None
    face: Annotated[
        str | None, Field(description="Of several: largest, x,y,w,h, active or all; none = largest, all if diarized.")
    ] = None
    keywords: Annotated[
        list[str], Field(alias="keywords[]", description="Words that are preferred where the model is in doubt.")
    ] = []
    language: Annotated[str, Field(description=_ACCEPTED + "a model knows its language.")] = ""
    prompt: Annotated[str, Field(description=_ACCEPTED + "not used.")] = ""
    temperature: Annotated[float, Field(ge=0, le=1, description=_ACCEPTED + "decoding never samples.")] = 0.0
    chunking_strategy: Annotated[str, Field(description=_ACCEPTED + "files are always cut by voice.")] = "auto"

    def request(self, settings: Settings) -> Request:
        """What the transcriber is asked for, under the server's settings.

        Raises:
            Refusal: fields that do not go together.
        """
        if self.timestamp_granularities and self.response_format != "verbose_json":
            message = f"response_format = '{self.response_format}' has no time stamps to choose; use verbose_json"
            raise Refusal(400, message, code="invalid_value", param="timestamp_granularities[]")
        if self.stream and not FORMATS[self.response_format].streams:
            able = ", ".join(name for name, row in FORMATS.items() if row.streams)
            message = f"response_format = '{self.response_format}' cannot be streamed; use one of {able}"
            raise Refusal(400, message, code="invalid_value", param="stream")
        return Request(
            task=self.task,
            audio_rate=self.audio_rate,
            video_rate=self.video_rate,
            beam_size=settings.beam_size,
            face=self.face or FORMATS[self.response_format].face,
            batch_size=1 if self.stream else GROUP,
            word_timestamps="word" in self.timestamp_granularities,
            hotwords=",".join(self.keywords),
            budget=settings.budget,
            target_rtf=settings.target_rtf,
        )


FIELDS = tuple(field.alias or name for name, field in Form.model_fields.items())
