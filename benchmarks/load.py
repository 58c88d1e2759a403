"""Load on `omni-avsr serve`: throughput against one by one, latency, memory, and what misbehaving clients do to others.

    python -m benchmarks.load                     all of it: 2,000 good requests each by 1, 4 and 16 clients, into
                                                  results/load.json and docs/scaling.md; an hour of processor
    python -m benchmarks.load --page              docs/scaling.md from what is stored
    python -m benchmarks.load --requests 100 --concurrency 4 -o /tmp/load.json

A level that is in the output already, of the same code, model and arguments, is not run again. Every answer is
compared with the one that the same file and settings got alone. While the load runs, some clients break off, some send
garbage or too much, and some trickle, who are owed the right answer like all others. A server process is started for
each level, on this machine: both sides share its cores. The exit status is 1 where an answer was wrong or lost.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import httpx
import numpy as np

from benchmarks.pages import replaced
from omni_avsr.checkpoints.folder import folder_digest, locate
from omni_avsr.media.reader import read_clip
from omni_avsr.types import SAMPLE_RATE

ROUTE = "/v1/audio/transcriptions"
INSIDE = ("requests_present", "uploads_present", "utterances_waiting")  # gauges that end at 0
OUTPUT = Path(__file__).parent / "results" / "load.json"
DOCS = Path(__file__).parents[1] / "docs" / "scaling.md"
PACKAGE = Path(__file__).parents[1] / "omni_avsr"
PAUSE = 0.1  # seconds between two pieces of a slow client
MEGABYTES = 8  # what the server takes; the oversize client sends more


@dataclass(frozen=True)
class Call:
    """A well-formed request, and the answer it got alone."""

    name: str
    content: bytes
    fields: dict[str, str]
    expected: str = ""

    async def send(self, client: httpx.AsyncClient) -> httpx.Response:
        """One upload."""
        return await client.post(
            ROUTE, files={"file": (self.name, self.content)}, data={"model": "default"} | self.fields
        )


@dataclass
class Tally:
    """What happened at one concurrency."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    misbehaved: dict[str, int] = field(default_factory=dict)
    memory: list[float] = field(default_factory=list)  # MB, of the server, in steps of the run

    def check(self, call: Call, text: str | None, who: str = "") -> bool:
        """Whether a well-formed request got the answer that it got alone; if not, it is a failure."""
        if text != call.expected:
            self.failures.append(f"{who}{call.name} {call.fields}: got {text!r}, expected {call.expected!r}")
        return text == call.expected


def main() -> None:
    """Reads the arguments, runs, writes JSON and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000, help="well-formed requests per concurrency")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--misbehaving", type=float, default=0.1, help="bad clients per good one")
    parser.add_argument("--beam_size", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--audio_only", action="store_true", help="no pictures: the model is then the bottleneck")
    parser.add_argument("--page", action="store_true", help="measure nothing")
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    if not arguments.page:
        results = begun(arguments)
        for concurrency in arguments.concurrency:
            if all(row["concurrency"] != concurrency for row in results["rows"]):
                results["rows"].append(asyncio.run(measure(arguments, concurrency)))
                results["rows"].sort(key=lambda row: row["concurrency"])
                arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    results = json.loads(arguments.output.read_text())
    print(table(results))
    if arguments.output == OUTPUT:
        DOCS.write_text(replaced(DOCS.read_text(), "load", part(results)))
    if any(row["wrong_or_lost"] or any(row["left_inside"].values()) for row in results["rows"]):
        raise SystemExit("an answer was wrong or lost, or a request stayed inside; see 'failures' and 'left_inside'")


def begun(arguments: argparse.Namespace) -> dict[str, Any]:
    """The results so far of the same code, model and arguments, or new ones without rows."""
    own = {
        "what": "benchmarks/load.py",
        "arguments": {k: v for k, v in vars(arguments).items() if k not in ("output", "concurrency", "page")},
        "code": digest(),
        "weights": folder_digest(locate("default")),
        "machine": f"{processor()}, {len(os.sched_getaffinity(0))} cores",
    }
    with suppress(OSError, ValueError):
        before = json.loads(arguments.output.read_text())
        if all(before.get(key) == value for key, value in own.items()):
            return before
    return own | {"rows": []}


def digest() -> str:
    """Of what decides the numbers: the package with its model, and this file. Words about it do not count."""
    found = hashlib.sha256()
    for path in sorted([*PACKAGE.rglob("*"), Path(__file__)]):
        if path.is_file() and path.suffix != ".pyc":
            found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]


async def measure(arguments: argparse.Namespace, concurrency: int) -> dict[str, Any]:
    """One concurrency on a server of its own."""
    with TemporaryDirectory() as folder, served(arguments) as url:
        async with httpx.AsyncClient(base_url=url, timeout=600, limits=httpx.Limits(max_connections=None)) as client:
            await ready(client)
            calls = [await alone(client, call) for call in kinds(Path(folder), arguments.audio_only)]
            before = await counters(client)
            began = time.perf_counter()
            tally = await load(client, calls, arguments.requests, concurrency, arguments.misbehaving)
            elapsed = time.perf_counter() - began
            after = await counters(client)
    found = row(concurrency, tally, elapsed, before, after) | {
        "left_inside": {name: after[f"omni_avsr_{name}"] for name in INSIDE},
        "load_average": round(os.getloadavg()[1], 1),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    print(json.dumps(found), file=sys.stderr, flush=True)
    return found


# ---- what is sent ------------------------------------------------------------------------------


def kinds(folder: Path, audio_only: bool) -> list[Call]:
    """Different tasks, rates and lengths of the packaged clip."""
    source = Path(str(resources.files("omni_avsr") / "assets" / "sample.mp4"))
    audio = read_clip(source).audio
    assert audio is not None
    sounds = {seconds: wav(folder / f"{seconds}.wav", audio, seconds) for seconds in (1.5, 3.0, 7.0)}
    heard = [
        Call("long.wav", sounds[7.0], {"task": "asr"}),
        Call("whole.wav", sounds[3.0], {"task": "asr", "audio_rate": "16"}),
        Call("short.wav", sounds[1.5], {"task": "asr"}),
    ]
    if audio_only:
        return heard
    clip = source.read_bytes()
    return [
        *heard,
        Call("clip.mp4", clip, {"task": "avsr"}),
        Call("clip.mp4", clip, {"task": "vsr", "video_rate": "5"}),
        Call("clip.mp4", clip, {"task": "avsr", "audio_rate": "16", "video_rate": "5"}),
    ]


def wav(path: Path, audio: np.ndarray, seconds: float) -> bytes:
    """The clip's sound, repeated or cut to `seconds`."""
    samples = np.resize(audio, round(seconds * SAMPLE_RATE))
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], "s16", "mono")
        frame.sample_rate = SAMPLE_RATE
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path.read_bytes()


async def alone(client: httpx.AsyncClient, call: Call) -> Call:
    """The call with the answer that it gets while nobody else is there."""
    answer = await call.send(client)
    answer.raise_for_status()
    return Call(call.name, call.content, call.fields, answer.json()["text"])


async def load(
    client: httpx.AsyncClient, calls: list[Call], requests: int, concurrency: int, misbehaving: float
) -> Tally:
    """`requests` good calls by `concurrency` clients, and bad ones between them."""
    tally, dice = Tally(), random.Random(0)
    left = iter(range(requests))
    bad: set[asyncio.Task[None]] = set()

    async def one_client() -> None:
        for number in left:
            call = calls[dice.randrange(len(calls))]
            if number % max(1, requests // 10) == 0:
                tally.memory.append((await counters(client))["process_resident_memory_bytes"] / 2**20)
            if dice.random() < misbehaving:
                bad.add(asyncio.create_task(misbehave(client, dice.choice(sorted(MISBEHAVIOUR)), call, tally)))
            began = time.perf_counter()
            try:
                text = said(await call.send(client))
            except httpx.HTTPError as error:
                text = repr(error)
            tally.seconds.append(time.perf_counter() - began)
            tally.check(call, text)

    await asyncio.gather(*(one_client() for _ in range(concurrency)))
    await asyncio.gather(*bad)
    return tally


def said(answer: httpx.Response) -> str | None:
    """The text, or what came in its place."""
    return answer.json().get("text") if answer.status_code == 200 else answer.text


# ---- who misbehaves ----------------------------------------------------------------------------


async def killed(client: httpx.AsyncClient, call: Call, tally: Tally) -> str:
    """Breaks off in the middle of its upload."""
    await raw(client, call.content, share=0.5)
    return "broke off"


async def impatient(client: httpx.AsyncClient, call: Call, tally: Tally) -> str:
    """Sends all and leaves before the answer."""
    await raw(client, call.content, share=1.0)
    return "left"


async def slow(client: httpx.AsyncClient, call: Call, tally: Tally) -> str:
    """Sends in small pieces, which is well-formed: it counts like all others."""

    async def pieces() -> Any:
        body = request.read()
        for at in range(0, len(body), len(body) // 20 + 1):
            yield body[at : at + len(body) // 20 + 1]
            await asyncio.sleep(PAUSE)

    request = client.build_request(
        "POST", ROUTE, files={"file": (call.name, call.content)}, data={"model": "default"} | call.fields
    )
    headers = {"content-type": request.headers["content-type"]}
    try:
        text = said(await client.post(ROUTE, content=pieces(), headers=headers))
    except httpx.HTTPError as error:
        text = repr(error)
    return "right" if tally.check(call, text, "slow ") else "WRONG"


async def garbage(client: httpx.AsyncClient, call: Call, tally: Tally) -> str:
    """Sends bytes that are no media."""
    files = {"file": (call.name, random.Random(1).randbytes(200_000))}
    return str((await client.post(ROUTE, files=files, data={"model": "default"})).status_code)


async def oversize(client: httpx.AsyncClient, call: Call, tally: Tally) -> str:
    """Sends more than is taken."""
    files = {"file": (call.name, b"\0" * (MEGABYTES + 2) * 2**20)}
    return str((await client.post(ROUTE, files=files, data={"model": "default"})).status_code)


MISBEHAVIOUR = {f.__name__: f for f in (killed, impatient, slow, garbage, oversize)}


async def misbehave(client: httpx.AsyncClient, kind: str, call: Call, tally: Tally) -> None:
    """One bad client; how it ended is counted."""
    try:
        outcome = await MISBEHAVIOUR[kind](client, call, tally)
    except (httpx.HTTPError, OSError) as error:
        outcome = type(error).__name__
    key = f"{kind}: {outcome}"
    tally.misbehaved[key] = tally.misbehaved.get(key, 0) + 1


async def raw(client: httpx.AsyncClient, content: bytes, share: float) -> None:
    """An upload of which only a share is sent; then the connection is cut."""
    host, port = client.base_url.host, client.base_url.port
    parts = '--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ndefault\r\n--b\r\nContent-Disposition: '
    body = parts.encode() + b'form-data; name="file"; filename="a"\r\n\r\n' + content + b"\r\n--b--\r\n"
    head = f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    _, writer = await asyncio.open_connection(host, port)
    writer.write(
        head.encode() + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + body[: int(share * len(body))]
    )
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.transport.abort()


# ---- the server --------------------------------------------------------------------------------


class served:
    """A server process; `with served(arguments) as url`."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        options = {"port": self.port, "beam_size": arguments.beam_size, "batch_size": arguments.batch_size}
        flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self.command = [sys.executable, "-m", "omni_avsr", "serve", "--max_megabytes", str(MEGABYTES), *flags]

    def __enter__(self) -> str:
        self.process = subprocess.Popen(self.command, stderr=subprocess.DEVNULL)
        return f"http://127.0.0.1:{self.port}"

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(60)


async def ready(client: httpx.AsyncClient) -> None:
    """Waits until the model is loaded."""
    for _ in range(600):
        with suppress(httpx.TransportError):
            if (await client.get("/ready")).status_code == 200:
                return
        await asyncio.sleep(0.5)
    raise SystemExit("the server did not become ready")


async def counters(client: httpx.AsyncClient) -> dict[str, float]:
    """The server's own counts."""
    lines = (await client.get("/metrics")).text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


# ---- results -----------------------------------------------------------------------------------


def row(
    concurrency: int, tally: Tally, elapsed: float, before: dict[str, float], after: dict[str, float]
) -> dict[str, Any]:
    """The numbers of one concurrency."""
    grown = {key: after[key] - before.get(key, 0) for key in after}
    batches = grown["omni_avsr_batch_utterances_count"]
    cuts = statistics.quantiles(tally.seconds, n=20)
    return {
        "concurrency": concurrency,
        "requests": len(tally.seconds),
        "wrong_or_lost": len(tally.failures),
        "failures": tally.failures[:5],
        "seconds": round(elapsed, 1),
        "requests_per_second": round(len(tally.seconds) / elapsed, 3),
        "media_seconds_per_second": round(grown["omni_avsr_media_seconds_total"] / elapsed, 2),
        "p50_seconds": round(statistics.median(tally.seconds), 3),
        "p95_seconds": round(cuts[-1], 3),
        "utterances_per_batch": round(grown["omni_avsr_batch_utterances_sum"] / max(batches, 1), 2),
        "model_share": round(grown["omni_avsr_model_seconds_total"] / elapsed, 3),
        "server_cpu_seconds": round(grown["process_cpu_seconds_total"], 1),
        "memory_mb": [round(m) for m in tally.memory],
        "misbehaved": dict(sorted(tally.misbehaved.items())),
    }


def table(results: dict[str, Any]) -> str:
    """For `docs/scaling.md`."""
    rows = results["rows"]
    alone = next((r["requests_per_second"] for r in rows if r["concurrency"] == 1), None)
    columns = ("clients", "requests/s", "against one by one", "CPU s/request", "p50 s", "p95 s", "utterances/batch")
    columns += ("memory MB", "wrong or lost")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for r in rows:
        ratio = f"{r['requests_per_second'] / alone:.2f}" if alone else "–"
        lost = f"{r['wrong_or_lost']} of {r['requests']}"
        memory = f"{r['memory_mb'][0]} → {r['memory_mb'][-1]}"
        cpu = r["server_cpu_seconds"] / r["requests"]
        lines.append(
            f"| {r['concurrency']} | {r['requests_per_second']:.2f} | {ratio} | {cpu:.2f} | {r['p50_seconds']:.2f} "
            f"| {r['p95_seconds']:.2f} | {r['utterances_per_batch']:.2f} | {memory} | {lost} |"
        )
    return "\n".join(lines)


def part(results: dict[str, Any]) -> str:
    """The page's part: the table, and what it says."""
    rows, args = results["rows"], results["arguments"]
    bad = sum(sum(r["misbehaved"].values()) for r in rows)
    slow = sum(r["misbehaved"].get("slow: right", 0) for r in rows)
    busy = [r["load_average"] for r in rows]
    halves = ((r["concurrency"], r["memory_mb"], r["memory_mb"][len(r["memory_mb"]) // 2 :]) for r in rows)
    spread = [f"{clients}: {max(a) - min(a)} and {max(b) - min(b)}" for clients, a, b in halves]
    return "\n".join(
        [
            f"{rows[-1]['date'][:10]}, {results['machine']}, {args['requests']:,} good requests per level, {bad:,} by "
            f"clients that misbehave, of whom the {slow} slow ones got the right answer:",
            "",
            table(results),
            "",
            f"Load average {min(busy)} to {max(busy)}: other work ran on the machine, so processor time per request "
            "says more than requests a second and latencies. Memory, largest less smallest MB of a whole level and of "
            f"its second half, by clients: {', '.join(spread)}.",
        ]
    )


def processor() -> str:
    """Its name."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.processor()


if __name__ == "__main__":
    main()
