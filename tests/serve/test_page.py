"""The page, by its functions, and in a real Chromium: upload, record, drag, go wrong, on a narrow screen."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import uvicorn

from omni_avsr.media.reader import open_media
from omni_avsr.model.decode import DecodeOptions
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.serve import show
from omni_avsr.serve.audition import QUIET, Answer, answers, in_noise, look, transcript
from omni_avsr.serve.desk import Desk
from omni_avsr.serve.metrics import Metrics
from omni_avsr.serve.settings import Limits, Settings
from omni_avsr.types import Mouths, Word
from tests.clips import voice
from tests.serve.conftest import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

RATES = {"audio": 4, "video": 2}


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """`found(0.5)`: the share of pictures in which a face is found from now on."""

    def install(share: float) -> None:
        def see(frames: np.ndarray, **_: object) -> Mouths:
            seen = np.arange(len(frames)) < share * len(frames)
            boxes = np.where(seen[:, None], np.float32([8, 8, 32, 32]), np.nan).astype(np.float32)
            return Mouths(np.full((len(frames), 96, 96), 90, np.uint8), seen, boxes, boxes[:, 0])

        monkeypatch.setattr("omni_avsr.serve.audition.mouths", see)

    install(1.0)
    return install


@pytest.fixture
def desk(model: OmniAVSR, spoken: list[list[str]]) -> Iterator[Desk]:
    desk = Desk(Settings(offline=True, beam_size=1), Metrics(), model)
    desk.start()
    desk.wait_ready()
    yield desk
    desk.stop()


@pytest.fixture
def path(clip: bytes, tmp_path: Path) -> Path:
    (tmp_path / "clip.mkv").write_bytes(clip)
    return tmp_path / "clip.mkv"


# ---- what it does ------------------------------------------------------------------------------


def test_one_look_and_three_answers(desk: Desk, path: Path, found: Callable[[float], None]) -> None:
    recording, _ = look(path, Limits(), offline=True)
    assert not recording.cut
    got = list(answers(desk.worker, recording, recording.audio, ("asr", "vsr", "avsr"), RATES, DecodeOptions(1)))
    assert [(a.text, a.tokens, a.problem) for a in got] == [
        ("asr 4", 37, ""), ("vsr 2", 37, ""), ("avsr 4 2", 74, ""),
    ]  # fmt: skip
    assert all(a.seconds > 0 for a in got)
    assert all(0 <= w.probability <= 1 for a in got for w in a.words)
    written = transcript(recording, got[2], RATES)
    assert (written.text, written.info.video_rate) == ("avsr 4 2", 2)


def test_what_is_lacking_is_said(desk: Desk, path: Path, found: Callable[[float], None]) -> None:
    found(0.1)
    recording, _ = look(path, Limits(), offline=True)
    got = list(answers(desk.worker, recording, recording.audio, ("asr", "vsr", "avsr"), RATES, DecodeOptions(1)))
    assert got[0].text == "asr 4"
    assert [a.problem for a in got[1:]] == ["a face was found in 11% of the pictures"] * 2


def test_noise_is_as_loud_as_the_slider_says() -> None:
    clean = voice()
    assert in_noise(clean, QUIET, "white") is clean
    for level in (-10.0, 0.0, 12.0):
        noise = in_noise(clean, level, "pink") - clean
        assert 10 * np.log10(np.square(noise).sum() / np.square(clean).sum()) == pytest.approx(level, abs=0.01)
    assert np.array_equal(in_noise(clean, 5, "music"), in_noise(clean, 5, "music"))


def test_the_film_shows_the_box_and_the_mouth(path: Path, tmp_path: Path, found: Callable[[float], None]) -> None:
    found(0.5)
    recording, clip = look(path, Limits(), offline=True)
    assert clip.frames is not None
    assert recording.mouths is not None
    made = show.film(tmp_path / "film.mp4", clip.frames, recording.mouths)
    with open_media(made) as media:
        frames = list(media.frames())
    assert len(frames) == len(clip.frames)
    height, width = frames[0].shape[:2]
    assert (height, width - height) == (show.HEIGHT, show.HEIGHT)  # a square picture beside a square mouth
    first, last = frames[0].astype(int), frames[-1].astype(int)
    assert abs(first[height // 2, -height // 2] - 90).max() < 12  # the mouth
    edge = first[36:180, 36]  # 8 * 288 / 64: the left edge of the box
    assert (edge[:, 1] - edge[:, 0]).mean() > 60  # green
    assert (last[36:180, 36, 1] - last[36:180, 36, 0]).mean() < 20  # not found, so not marked


def test_cards_escape_what_was_said() -> None:
    answer = Answer("asr", "<b>", (Word(0, 1, " <b>", 0.5),), tokens=3, seconds=0.1)
    html = show.card(answer, 1.0)
    assert "<b>" not in html
    assert "&lt;b&gt;" in html
    assert 'title="50%"' in html


def test_colours_tell_sure_from_unsure() -> None:
    hues = [int(show.colour(p)[4:].split()[0]) for p in (0.0, 0.3, 0.6, 1.0)]
    assert hues == sorted(set(hues))


def test_sliders_reach_every_rate() -> None:
    from omni_avsr.serve.demo import _nearest, _span

    for rates in ((4, 16), (2, 5), (4,), (1, 2, 4, 8), (16, 4)):
        least, most, value, step = _span(rates)
        assert value in rates
        assert most > least
        assert all((rate - least) % step == 0 and least <= rate <= most for rate in rates)
        assert {_nearest(x, rates) for x in range(least, most + 1)} == set(rates)


# ---- served ------------------------------------------------------------------------------------


@contextmanager
def served(desk: Desk) -> Iterator[str]:
    """The page's address."""
    from omni_avsr.serve.demo import page_app

    server = uvicorn.Server(uvicorn.Config(page_app(desk), port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, 120)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(60)
    assert not thread.is_alive()


def test_nothing_stays_on_the_disk(
    desk: Desk, path: Path, found: Callable[[float], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradio_client import Client, handle_file

    disk = tmp_path / "disk"
    disk.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)

    def files() -> list[Path]:
        return [file for file in disk.rglob("*") if file.is_file()]

    with served(desk) as url:
        client = Client(url, download_files=False, verbose=False)  # it would keep what it takes in the same folder
        film, _ = client.predict(handle_file(path), api_name="/look")
        assert "seen.mp4" in str(film)
        for level in (QUIET, 0.0, 10.0):
            *_, subtitles = client.predict(["Ear", "Lips", "Both"], level, "white", 4, 2, api_name="/listen")
            assert all(f".{form}" in str(subtitles) for form in ("srt", "vtt", "txt"))
        assert files()  # gradio's own, while it runs
        client.close()
    assert files() == []


# ---- in a browser ------------------------------------------------------------------------------

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)  # fmt: skip
PATIENCE = 120_000  # ms
REQUIRED = "OMNI_AVSR_REQUIRE_BROWSER"  # environment variable; .ci/run sets it


def chromium() -> str:
    """Where it is. Without one the test is skipped, or fails where `REQUIRED` says that there should be one."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        message = "no Chromium is installed (Debian: apt-get install chromium)"
        pytest.fail(message) if os.environ.get(REQUIRED) else pytest.skip(message)
    return found


def test_a_browser_that_should_be_there_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception, match="no Chromium"):
        chromium()
    monkeypatch.delenv(REQUIRED)
    with pytest.raises(pytest.skip.Exception, match="no Chromium"):
        chromium()


@pytest.fixture
def tab(desk: Desk, found: Callable[[float], None]) -> Iterator[Tab]:
    """The page in a Chromium with a fake camera, and what it asked other machines for."""
    browser_path = chromium()
    from playwright.sync_api import sync_playwright

    with served(desk) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, headless=True, args=list(FLAGS))
        context = browser.new_context(permissions=["camera", "microphone"], viewport={"width": 1200, "height": 900})
        tab = context.new_page()
        tab.set_default_timeout(PATIENCE)
        strangers: list[str] = []
        tab.on("request", lambda r: strangers.append(r.url) if not r.url.startswith((url, "data:", "blob:")) else None)
        tab.on("pageerror", lambda error: strangers.append(f"script error: {error}"))
        tab.goto(url)
        yield tab
        assert strangers == []  # works offline, and no script broke
        browser.close()


def texts(tab: Tab) -> list[str]:
    return tab.locator(".card .words").all_inner_texts()


def expect(tab: Tab, wanted: list[str], part: str = "words") -> None:
    """Waits until this is what the cards say: their transcripts, or their problems. Answers come one by one."""
    script = "([p, w]) => JSON.stringify([...document.querySelectorAll(`.card .${p}`)].map(e => e.innerText)) == w"
    tab.wait_for_function(script, arg=[part, json.dumps(wanted, separators=(",", ":"))])


def see(tab: Tab, selector: str, text: str) -> None:
    """Waits until `text` is part of what is shown there."""
    tab.locator(selector, has_text=text).first.wait_for()


def slide(tab: Tab, name: str, value: float) -> None:
    """As a hand does: the slider moves, then is let go."""
    slider: Any = tab.locator(f"#{name} input[type=range]")
    slider.evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})); }", value)
    slider.dispatch_event("pointerup")


@pytest.mark.slow
def test_upload_and_drag(tab: Tab, path: Path, desk: Desk) -> None:
    tab.set_input_files("#source input[type=file]", str(path))
    expect(tab, ["asr 4", "vsr 2", "avsr 4 2"])
    see(tab, "#line", "a face in 100% of the pictures")
    see(tab, "#table", "37 tokens")
    tab.wait_for_selector("#seen video[src]")
    tab.wait_for_selector("#files a[download]")

    slide(tab, "audio_rate", 16)
    expect(tab, ["asr 16", "vsr 2", "avsr 16 2"])
    slide(tab, "video_rate", 5)
    expect(tab, ["asr 16", "vsr 5", "avsr 16 5"])
    before = desk.metrics.registry.get_sample_value("omni_avsr_batch_utterances_sum")
    slide(tab, "level", 10)
    wait_until(lambda: desk.metrics.registry.get_sample_value("omni_avsr_batch_utterances_sum") == before + 3, 60)

    tab.click("#senses label:has-text('Lips')")
    expect(tab, ["asr 16", "avsr 16 5"])
    with tab.expect_download() as download:
        tab.locator("#files a[download]").first.click()
    assert "avsr 16 5" in Path(download.value.path()).read_text()


@pytest.mark.slow
def test_record_by_camera_and_microphone(tab: Tab, found: Callable[[float], None]) -> None:
    found(0.0)
    tab.click("#source [aria-label='Capture from camera']")
    tab.click("#source [title='grant webcam access']")
    tab.click("#source [aria-label='start recording']")
    tab.wait_for_timeout(8000)  # a busy machine's browser takes seconds to deliver the first picture
    tab.wait_for_selector("#source [title='stop recording']")
    tab.click("#source [aria-label='start recording']")  # the same button, which keeps its name
    expect(tab, ["asr 4"])  # the fake microphone beeps; the fake camera shows no face
    expect(tab, ["a face was found in 0% of the pictures"] * 2, part="problem")
    see(tab, "#line [role=alert]", "a face in 0% of the pictures")


@pytest.mark.slow
def test_what_cannot_be_read_is_said_and_forgotten(tab: Tab, path: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no media" * 1000)
    tab.set_input_files("#source input[type=file]", str(bad))
    see(tab, "#line [role=alert]", "cannot be read")
    assert str(tmp_path) not in tab.inner_text("#line")
    assert texts(tab) == []
    tab.click("#source [aria-label='Clear']")
    tab.set_input_files("#source input[type=file]", str(path))
    expect(tab, ["asr 4", "vsr 2", "avsr 4 2"])
    assert tab.locator("#line [role=alert]").count() == 0


@pytest.mark.slow
def test_a_narrow_screen(tab: Tab) -> None:
    tab.set_viewport_size({"width": 360, "height": 740})
    tab.click("#sample")
    expect(tab, ["asr 4", "vsr 2", "avsr 4 2"])
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    boxes = [card.bounding_box() for card in tab.locator(".card").all()]
    assert all(box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 360 for box in boxes)
    assert len({box["y"] for box in boxes if box}) == 3  # one under the other
