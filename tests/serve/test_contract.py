"""OpenAI's contract, spoken by OpenAI's own client over a real socket."""

from __future__ import annotations

import asyncio
import io

import openai
import pytest
import srt
import webvtt
from openai.types.audio import TranscriptionTextDeltaEvent, TranscriptionTextDoneEvent

from omni_avsr.serve.answers import FORMATS, UNSEEN
from tests.serve.conftest import Serve, Server

TALK = "asr 4 asr 4 asr 4 asr 4 asr 4"


def ask(server: Server, file: bytes, **fields: object) -> object:
    extra = {k: fields.pop(k) for k in ("task", "audio_rate", "video_rate", "face") if k in fields}
    return server.sdk().audio.transcriptions.create(
        **{"model": "default", "file": ("talk.wav", file), **fields}, extra_body=extra or None
    )


# ---- formats -----------------------------------------------------------------------------------


def test_json(server: Server, talk: bytes) -> None:
    answer = ask(server, talk)
    assert isinstance(answer, openai.types.audio.Transcription)
    assert answer.text == TALK
    assert answer.usage is not None
    assert answer.usage.type == "tokens"
    assert answer.usage.output_tokens == 10
    assert answer.usage.total_tokens == answer.usage.input_tokens + 10
    assert answer.usage.input_token_details is not None
    assert answer.usage.input_token_details.audio_tokens == answer.usage.input_tokens > 100


def test_text(server: Server, talk: bytes) -> None:
    assert ask(server, talk, response_format="text") == TALK + "\n"


def test_srt_and_vtt_as_others_read_them(server: Server, talk: bytes) -> None:
    titles = list(srt.parse(ask(server, talk, response_format="srt")))
    captions = webvtt.from_buffer(io.StringIO(ask(server, talk, response_format="vtt"))).captions
    assert [title.content for title in titles] == [caption.text for caption in captions] == ["asr 4"] * 5
    for number, title in enumerate(titles):
        assert abs(title.start.total_seconds() - (5 * number + 0.3)) < 0.3


def test_verbose_json(server: Server, talk: bytes) -> None:
    answer = ask(server, talk, response_format="verbose_json")
    assert isinstance(answer, openai.types.audio.TranscriptionVerbose)
    assert (answer.text, answer.duration, answer.language, answer.words) == (TALK, 25.0, "en", None)
    assert answer.segments is not None
    assert [(s.id, s.text, s.tokens) for s in answer.segments] == [(i, "asr 4", [1, 2]) for i in range(5)]
    assert answer.segments[0].model_extra["av"]["task"] == "asr"


def test_words_and_segments_as_asked_for(server: Server, talk: bytes) -> None:
    words = ask(server, talk, response_format="verbose_json", timestamp_granularities=["word"])
    assert words.segments is None
    assert [w.word for w in words.words] == ["asr", "4"] * 5
    times = [t for w in words.words for t in (w.start, w.end)]
    assert times == sorted(times)
    both = ask(server, talk, response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert len(both.words) == 10
    assert len(both.segments) == 5


def test_diarized_json(server: Server, talk: bytes) -> None:
    answer = ask(server, talk, response_format="diarized_json", chunking_strategy="auto")
    assert isinstance(answer, openai.types.audio.TranscriptionDiarized)
    assert [(s.id, s.speaker, s.text) for s in answer.segments] == [(f"seg_{i:03d}", UNSEEN, "asr 4") for i in range(5)]


def test_every_format_of_the_client_is_a_row() -> None:
    from typing import get_args

    from openai.types import AudioResponseFormat

    assert set(FORMATS) == set(get_args(AudioResponseFormat))


# ---- streams -----------------------------------------------------------------------------------


def test_deltas_are_the_text(server: Server, talk: bytes) -> None:
    events = list(ask(server, talk, stream=True))
    *deltas, done = events
    assert all(isinstance(event, TranscriptionTextDeltaEvent) for event in deltas)
    assert len(deltas) == 5
    assert isinstance(done, TranscriptionTextDoneEvent)
    assert "".join(event.delta for event in deltas) == done.text == TALK
    assert done.usage.output_tokens == 10


def test_streamed_speakers(server: Server, talk: bytes) -> None:
    events = list(ask(server, talk, stream=True, response_format="diarized_json"))
    kinds = [event.type for event in events]
    assert kinds == ["transcript.text.delta", "transcript.text.segment"] * 5 + ["transcript.text.done"]
    assert events[0].segment_id == events[1].id
    assert events[1].speaker == UNSEEN  # nobody is seen in a sound


def test_segments_come_when_they_are_ready(serve: Serve, spoken: list[list[str]], talk: bytes) -> None:
    server = serve(batch_size=1)
    stream = iter(ask(server, talk, stream=True))
    assert next(stream).delta == "asr 4"
    assert len(list(stream)) == 5


def test_an_error_before_the_first_segment_has_its_status(server: Server) -> None:
    with pytest.raises(openai.BadRequestError):
        ask(server, b"no media" * 100, stream=True)


def test_the_asynchronous_client(server: Server, sound: bytes) -> None:
    async def several() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any") as client:
            create = client.audio.transcriptions.create
            answers = await asyncio.gather(*(create(model="default", file=("v.wav", sound)) for _ in range(4)))
            return [answer.text for answer in answers]

    assert asyncio.run(several()) == ["asr 4"] * 4


# ---- our own fields ----------------------------------------------------------------------------


def test_video_and_our_fields(server: Server, clip: bytes) -> None:
    assert ask(server, clip).text == "avsr 4 2"
    assert ask(server, clip, task="vsr", video_rate=5).text == "vsr 5"
    assert ask(server, clip, task="avsr", audio_rate=16, video_rate=5, face="1,2,3,4").text == "avsr 16 5"
    used = ask(server, clip, audio_rate=16, video_rate=5).usage
    assert used.input_token_details.model_extra["video_tokens"] == 75 // 5


# ---- models ------------------------------------------------------------------------------------


def test_models(server: Server) -> None:
    (only,) = server.sdk().models.list()
    assert (only.id, only.object) == ("default", "model")
    assert server.sdk().models.retrieve("default").model_extra["audio_rates"] == [4, 16]
    with pytest.raises(openai.NotFoundError) as caught:
        server.sdk().models.retrieve("another")
    assert caught.value.code == "model_not_found"


def test_names_of_the_model(serve: Serve, spoken: list[list[str]], sound: bytes) -> None:
    server = serve(names=("lips", "ears"))
    assert [m.id for m in server.sdk().models.list()] == ["lips", "ears"]
    for name in ("lips", "ears", "whisper-1"):
        assert ask(server, sound, model=name).text == "asr 4"
    with pytest.raises(openai.NotFoundError, match="did you mean 'ears'"):
        ask(server, sound, model="eers")


# ---- refusals ----------------------------------------------------------------------------------

WRONG = [
    ({"response_format": "xml"}, "invalid_value", "response_format"),
    ({"timestamp_granularities": ["word"]}, "invalid_value", "timestamp_granularities[]"),
    ({"stream": True, "response_format": "srt"}, "invalid_value", "stream"),
    ({"temperature": 3.0}, "invalid_value", "temperature"),
    ({"task": "sing"}, "invalid_value", "task"),
    ({"task": "vsr"}, "no_video", "file"),
    ({"audio_rate": 7}, "rate_not_trained", "audio_rate"),
    ({"audio_rate": "fast"}, "invalid_value", "audio_rate"),
    ({"face": "leftmost"}, "invalid_value", "face"),
    ({"known_speaker_names": ["Ann"]}, "unknown_parameter", "known_speaker_names[]"),
]


@pytest.mark.parametrize(("fields", "code", "param"), WRONG, ids=lambda value: str(value))
def test_wrong_fields(server: Server, sound: bytes, fields: dict[str, object], code: str, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(server, sound, **fields)
    error = caught.value
    assert (error.code, error.param, error.type) == (code, param, "invalid_request_error")
    assert error.body["message"]
    assert error.request_id


def test_a_field_that_does_not_exist_is_not_passed_over(server: Server, sound: bytes) -> None:
    answer = server.post(sound, audio_rates=4)
    assert answer.status_code == 400
    assert "did you mean 'audio_rate'" in answer.json()["error"]["message"]


def test_messages_speak_of_fields_and_not_of_options(server: Server, sound: bytes) -> None:
    message = server.post(sound, task="vsr").json()["error"]["message"]
    assert "use task asr or auto" in message
    assert "--" not in message


def test_what_is_missing_is_named(server: Server, sound: bytes) -> None:
    for parts, name in (({"files": {"file": b"x"}}, "model"), ({"data": {"model": "default"}}, "file"), ({}, "file")):
        answer = server.sdk()._client.post(f"{server.url}/v1/audio/transcriptions", **parts)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, "missing_required_parameter", name)


def test_other_routes_refuse_in_the_same_envelope(server: Server) -> None:
    client = server.sdk()._client
    for method, path, status in (("GET", "/v1/chat", 404), ("GET", "/v1/audio/transcriptions", 405)):
        answer = client.request(method, server.url + path)
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
