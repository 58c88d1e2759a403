"""The HTTP application: OpenAI's transcription routes, health and metrics, on one desk."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI
from fastapi import Form as FormData
from fastapi import Request as HTTPRequest
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from omni_avsr import __version__
from omni_avsr.errors import OmniAVSRError, nearest
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.serve.answers import FORMATS, Narrator, event
from omni_avsr.serve.desk import Desk
from omni_avsr.serve.form import FIELDS, Form
from omni_avsr.serve.gate import LEFT, TRANSCRIPTIONS, Gate, Record
from omni_avsr.serve.metrics import Metrics
from omni_avsr.serve.refusals import Refusal, malformed, refused
from omni_avsr.serve.settings import Settings
from omni_avsr.types import Segment, Transcript, TranscriptionInfo

log = logging.getLogger(__name__)

ALIAS = "whisper-1"  # programs written for OpenAI's service ask for it
T = TypeVar("T")
Visit = AsyncGenerator[TranscriptionInfo | Segment, None]


def create_app(settings: Settings, model: OmniAVSR | None = None, wait: bool = False) -> FastAPI:
    """The application; the model is loaded when it starts.

    Args:
        settings: of the server.
        model: one that is loaded, instead of the one that `settings` name.
        wait: start only when the model is loaded, instead of answering 503 until then.
    """
    desk = Desk(settings, Metrics(), model)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        desk.start()
        if wait:
            await asyncio.to_thread(desk.wait_ready)
        yield
        await asyncio.to_thread(desk.stop)

    app = FastAPI(title="omni-avsr", version=__version__, lifespan=lifespan)
    app.state.desk = desk
    app.add_middleware(Gate, desk=desk)
    app.add_middleware(Record, desk=desk)  # the outermost
    for error, handler in HANDLERS.items():
        app.add_exception_handler(error, handler)
    app.get("/health")(health)
    app.get("/ready")(ready)
    app.get("/metrics")(metrics)
    app.get("/v1/models")(models)
    app.get("/v1/models/{name:path}")(one_model)
    app.post(TRANSCRIPTIONS)(transcriptions)
    return app


def desk_of(http: HTTPRequest) -> Desk:
    """The application's desk."""
    return http.app.state.desk


# ---- routes ------------------------------------------------------------------------------------


async def transcriptions(form: Annotated[Form, FormData()], http: HTTPRequest) -> Response:
    """Transcribes an audio or video file, as OpenAI's route of this name."""
    desk = desk_of(http)
    desk.check_ready()
    check_model(desk, form.model)
    request = form.request(desk.settings)
    desk.check_request(request)
    facts = http.state.facts
    facts |= {"bytes": form.file.size, "format": form.response_format, "stream": form.stream, "task": form.task}
    file, form.file.file = form.file.file, io.BytesIO()  # from here on the request's thread closes it
    visit = desk.visit(file, request)
    if form.stream:
        # what is wrong with the input is known with the first item, so the status can still say it
        info = await _unless_left(http, anext(visit))
        if info is None:
            return Response(status_code=LEFT)  # nobody hears it
        return StreamingResponse(_narrated(visit, info, form, facts, desk), media_type="text/event-stream")
    transcript = await _unless_left(http, _collected(visit))
    if transcript is None:
        return Response(status_code=LEFT)
    _note(facts, transcript, desk)
    row = FORMATS[form.response_format]
    return Response(row.write(transcript, form.timestamp_granularities), media_type=row.media_type)


async def models(http: HTTPRequest) -> dict[str, Any]:
    """The model that is served."""
    desk = desk_of(http)
    loaded = desk.check_ready()
    return {"object": "list", "data": [described(name, loaded) for name in names(desk)]}


async def one_model(name: str, http: HTTPRequest) -> dict[str, Any]:
    """The model by one of its names."""
    desk = desk_of(http)
    check_model(desk, name)
    return described(name, desk.check_ready())


async def health(http: HTTPRequest) -> Response:
    """Whether this process is worth keeping."""
    desk = desk_of(http)
    broken = desk.worker.failure is not None or not desk.worker.alive
    return JSONResponse({"status": "broken" if broken else "ok"}, 503 if broken else 200)


async def ready(http: HTTPRequest) -> dict[str, str]:
    """Whether requests can be taken now."""
    desk_of(http).check_ready()
    return {"status": "ready"}


async def metrics(http: HTTPRequest) -> Response:
    """For Prometheus."""
    return Response(generate_latest(desk_of(http).metrics.registry), media_type=CONTENT_TYPE_LATEST)


# ---- the model's names -------------------------------------------------------------------------


def names(desk: Desk) -> tuple[str, ...]:
    """By which the model may be called, the first one first."""
    return desk.settings.names or (desk.settings.model.rstrip("/").rpartition("/")[2],)


def check_model(desk: Desk, name: str) -> None:
    """Raises Refusal for a model that is not served here."""
    known = names(desk)
    if name not in (*known, ALIAS):
        message = f"the model '{name}' is not served here; {nearest(name, known)}"
        raise Refusal(404, message, code="model_not_found", param="model")


def described(name: str, model: OmniAVSR) -> dict[str, Any]:
    """OpenAI's model object, with what this model can do."""
    config = model.config
    rates = {f"{modality}_rates": list(config.rates(modality)) for modality in config.modalities}
    return {"id": name, "object": "model", "created": 0, "owned_by": "omni-avsr", "tasks": list(config.tasks), **rates}


# ---- answering ---------------------------------------------------------------------------------


async def _collected(visit: Visit) -> Transcript:
    try:
        info, *segments = [item async for item in visit]
    finally:
        await visit.aclose()
    return Transcript(tuple(segments), info)  # type: ignore[arg-type]  # the info comes first


async def _unless_left(http: HTTPRequest, work: Awaitable[T]) -> T | None:
    """What `work` gives; None, and `work` is cancelled, where the client leaves before."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(http))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for task in (working, leaving):
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


async def _left(http: HTTPRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


async def _narrated(visit: Visit, info: Any, form: Form, facts: dict[str, Any], desk: Desk) -> AsyncIterator[bytes]:
    narrator, segments = Narrator(form.response_format), list[Segment]()
    try:
        async for segment in visit:
            assert isinstance(segment, Segment)
            segments.append(segment)
            yield narrator.segment(segment)
        transcript = Transcript(tuple(segments), info)
        _note(facts, transcript, desk)
        yield narrator.done(transcript)
    except (Refusal, OmniAVSRError) as error:  # too late for a status
        refusal = error if isinstance(error, Refusal) else refused(error, FIELDS)
        facts["error"] = refusal.error["code"]
        yield event({"type": "error", "error": refusal.error})
    finally:
        await visit.aclose()


def _note(facts: dict[str, Any], transcript: Transcript, desk: Desk) -> None:
    info = transcript.info
    facts |= {
        "media_seconds": round(info.duration, 3),
        "task": info.task,
        "audio_rate": info.audio_rate,
        "video_rate": info.video_rate,
        "segments": len(transcript.segments),
    }
    if desk.settings.log_transcripts:
        facts["text"] = transcript.text


# ---- errors ------------------------------------------------------------------------------------


def _say_no(http: HTTPRequest, refusal: Refusal) -> Response:
    http.state.facts["error"] = refusal.error["code"]
    return refusal.response()


async def _on_refusal(http: HTTPRequest, error: Any) -> Response:
    return _say_no(http, error)


async def _on_mistake(http: HTTPRequest, error: Any) -> Response:
    return _say_no(http, refused(error, FIELDS))


async def _on_malformed(http: HTTPRequest, error: Any) -> Response:
    return _say_no(http, malformed(error.errors(), FIELDS))


async def _on_http(http: HTTPRequest, error: Any) -> Response:
    return _say_no(http, Refusal(error.status_code, str(error.detail), code="http_error", headers=error.headers))


HANDLERS: dict[Any, Callable[[HTTPRequest, Any], Awaitable[Response]]] = {
    Refusal: _on_refusal,
    OmniAVSRError: _on_mistake,
    RequestValidationError: _on_malformed,
    HTTPException: _on_http,
}
