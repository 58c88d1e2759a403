"""What is refused, when, and that nothing of it stays."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import av
import httpx
import numpy as np
import openai
import pytest
from starlette.testclient import TestClient

from omni_avsr.errors import ConfigError
from omni_avsr.serve import gate
from omni_avsr.serve.app import create_app
from omni_avsr.serve.gate import TRANSCRIPTIONS
from omni_avsr.serve.refusals import Refusal
from omni_avsr.serve.settings import API_KEYS, Limits, Settings, keys_in
from tests.clips import grey, video, voice, wav
from tests.serve.conftest import Brake, Serve, Server, heard, wait_until

pytestmark = pytest.mark.usefixtures("spoken", "faces")


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# ---- bytes, seconds, pixels --------------------------------------------------------------------


def test_bytes_that_are_announced(serve: Serve, sound: bytes) -> None:
    server = serve(limits=Limits(bytes=50_000))
    assert error(server.post(sound)) == (413, "too_many_bytes")
    assert server.post(sound[:40_000]).status_code == 200


def test_bytes_that_are_not_announced(serve: Serve, sound: bytes) -> None:
    server = serve(limits=Limits(bytes=50_000))
    request = httpx.Request("POST", "http://x", files={"file": ("a", sound)}, data={"model": "default"})
    body = request.read()

    def pieces() -> Iterator[bytes]:
        yield from (body[at : at + 4096] for at in range(0, len(body), 4096))

    headers = {"content-type": request.headers["content-type"]}
    answer = httpx.post(f"{server.url}/v1/audio/transcriptions", content=pieces(), headers=headers)
    assert error(answer) == (413, "too_many_bytes")


def test_seconds(serve: Serve, sound: bytes, talk: bytes) -> None:
    server = serve(limits=Limits(seconds=10))
    assert error(server.post(talk)) == (413, "too_long")
    assert server.post(sound).status_code == 200


def test_seconds_that_the_header_hides(serve: Serve, talk: bytes) -> None:
    """A wav file that is cut off by its writer says it has no length at all, or too little."""
    lying = bytearray(talk)
    lying[40:44] = struct.pack("<I", 0xFFFFFFFF)
    assert error(serve(limits=Limits(seconds=10)).post(bytes(lying))) == (413, "too_long")


def test_pixels(serve: Serve, clip: bytes) -> None:
    assert error(serve(limits=Limits(pixels=64 * 63)).post(clip)) == (413, "too_many_pixels")
    assert serve(limits=Limits(pixels=64 * 64)).post(clip).status_code == 200


def test_a_huge_picture_is_never_decoded(tmp_path: Path) -> None:
    path = tmp_path / "huge.mov"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 4000, 4000, "rgb24"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((4000, 4000, 3), np.uint8), "rgb24")))
        out.mux(stream.encode(None))
    before = _peak()
    with path.open("rb") as file, pytest.raises(Refusal) as caught:
        Limits(pixels=10**5).check(file)
    assert caught.value.status_code == 413
    assert _peak() - before < 4000 * 4000  # a third of one picture


def test_a_picture_that_grows_midway_is_not_decoded(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omni_avsr.media.source.MAX_PIXELS", 64 * 64)
    small = video(tmp_path / "small.ts", grey(2, 64), container="mpegts").read_bytes()
    large = video(tmp_path / "large.ts", grey(2, 256), container="mpegts").read_bytes()
    answer = serve().post(small + large, task="vsr", response_format="verbose_json")
    (segment,) = answer.json()["segments"]
    assert segment["end"] <= 2.1


def _peak() -> int:
    """Bytes; the high-water mark is reset first where the system lets us."""
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError


# ---- what is no media --------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"garbage" * 5000, b"\0" * 100_000, b"\x1aE\xdf\xa3" + b"\xff" * 5000])
def test_garbage(server: Server, content: bytes) -> None:
    assert error(server.post(content)) == (400, "unreadable_media")


def test_an_upload_names_no_file_of_the_server(server: Server, tmp_path: Path) -> None:
    secret = wav(tmp_path / "secret.wav", voice())
    playlists = (
        f"ffconcat version 1.0\nfile '{secret}'\n",
        "ffconcat version 1.0\nfile secret.wav\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:3.0,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        f"#EXTM3U\n#EXTINF:3.0,\n{server.url}/health\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    )
    for text in playlists:
        began = time.monotonic()
        assert error(server.post(text.encode())) == (400, "unreadable_media")
        assert time.monotonic() - began < 5


def test_a_broken_form(server: Server) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = httpx.post(f"{server.url}/v1/audio/transcriptions", content=b"--x\r\nnonsense", headers=headers)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_truncated_video_is_read_as_far_as_it_goes(server: Server, clip: bytes) -> None:
    assert server.post(clip[: len(clip) * 2 // 3]).status_code == 200


# ---- keys --------------------------------------------------------------------------------------


def test_keys(serve: Serve, sound: bytes) -> None:
    server = serve(keys=("first", "second"))
    for key in ("first", "second"):
        assert server.sdk(key).audio.transcriptions.create(model="default", file=("a.wav", sound)).text == "asr 4"
    for key in ("third", "firs", "first2"):
        with pytest.raises(openai.AuthenticationError) as caught:
            server.sdk(key).audio.transcriptions.create(model="default", file=("a.wav", sound))
        assert caught.value.code == "invalid_api_key"
    assert httpx.get(f"{server.url}/v1/models").status_code == 401
    for open_to_all in ("health", "ready", "metrics"):
        assert httpx.get(f"{server.url}/{open_to_all}").status_code == 200


def test_keys_of_the_environment() -> None:
    assert keys_in({}) == ()
    assert keys_in({API_KEYS: " one, two ,"}) == ("one", "two")
    with pytest.raises(ConfigError, match="holds no key"):
        keys_in({API_KEYS: " ,"})
    assert "secret" not in repr(Settings(keys=("secret",)))


def test_the_door_is_where_the_application_is_mounted() -> None:
    app = create_app(Settings(keys=("secret",)))  # never started: whoever passes the door gets 503
    for root in ("", "/asr", "/v1"):
        client = TestClient(app, root_path=root)
        for method, path in (("GET", "/v1/models"), ("POST", TRANSCRIPTIONS)):
            assert error(client.request(method, root + path)) == (401, "invalid_api_key")
            key = {"authorization": "Bearer secret"}
            assert error(client.request(method, root + path, headers=key)) == (503, "unavailable")
        assert "omni_avsr_requests_total" in client.get(root + "/metrics").text


# ---- room and time -----------------------------------------------------------------------------


def test_a_full_queue_says_when_to_come_back(serve: Serve, brake: Brake, sound: bytes) -> None:
    server = serve(queue=2)
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0)
    waiting = [_later(lambda: server.post(sound)) for _ in range(2)]
    wait_until(lambda: len(server.desk._present) == 2)
    with pytest.raises(openai.RateLimitError) as caught:
        client.audio.transcriptions.create(model="default", file=("a.wav", sound))
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert caught.value.code == "queue_full"
    brake.go.set()
    assert [w().status_code for w in waiting] == [200, 200]
    wait_until(lambda: not server.desk._present)
    assert server.post(sound).status_code == 200


def test_an_answer_that_takes_too_long(serve: Serve, brake: Brake, sound: bytes) -> None:
    server = serve(timeout=1)
    answer = server.post(sound)
    assert error(answer) == (504, "timeout")
    assert answer.headers["x-should-retry"] == "false"
    brake.go.set()
    wait_until(lambda: not server.desk._present)


def test_an_upload_that_never_ends(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "SILENCE", 0.3)
    server = serve()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as slow:
        head = "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n"
        slow.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n".encode())
        wait_until(lambda: "omni_avsr_uploads_present 1.0" in _metrics(server))
        assert b"408" in slow.recv(1000)
    wait_until(lambda: "omni_avsr_uploads_present 0.0" in _metrics(server))


def _metrics(server: Server) -> str:
    return httpx.get(f"{server.url}/metrics").text


def _later(work):  # type: ignore[no-untyped-def]
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return future.result


# ---- traces ------------------------------------------------------------------------------------


def test_logs_hold_facts_and_not_what_was_said(serve: Serve, sound: bytes) -> None:
    with heard("omni_avsr") as lines:
        server = serve()
        server.post(sound)
        server.post(b"garbage")
        server = serve(log_transcripts=True)
        server.post(sound)
        wait_until(lambda: len(lines) >= 3)
    records: list[dict[str, object]] = [vars(line)["facts"] for line in lines if "facts" in vars(line)]
    assert [r["status"] for r in records] == [200, 400, 200]
    assert records[0].items() >= {"task": "asr", "audio_rate": 4, "segments": 1, "bytes": len(sound)}.items()
    assert records[1]["error"] == "unreadable_media"
    assert records[2].pop("text") == "asr 4"
    assert "asr 4" not in f"{records} {[line.getMessage() for line in lines]}"


def test_a_defect_is_told_with_a_name_to_look_for(
    server: Server, sound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("inner secret")

    monkeypatch.setattr("omni_avsr.serve.worker.recognise", broken)
    with heard("omni_avsr") as lines:
        answer = server.post(sound)
    assert error(answer) == (500, "internal_error")
    assert "secret" not in answer.text
    name = answer.headers["x-request-id"]
    assert any(line.exc_info and name in line.getMessage() for line in lines)
    assert server.post(b"x").status_code == 400  # it lives


def test_metrics_add_up(server: Server, sound: bytes) -> None:
    for _ in range(3):
        server.post(sound)
    server.post(b"x" * 100)
    text = _metrics(server)
    route = 'route="/v1/audio/transcriptions"'
    assert f'omni_avsr_requests_total{{{route},status="200"}} 3.0' in text
    assert f'omni_avsr_requests_total{{{route},status="400"}} 1.0' in text
    assert "omni_avsr_media_seconds_total 9.0" in text
    assert "omni_avsr_batch_utterances_sum 3.0" in text
    assert "process_resident_memory_bytes" in text
