"""The page: drop or record a video, choose what the model may use, and watch its transcripts side by side.

Everything is served from this machine: no analytics, no fonts and no scripts from elsewhere.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence
from functools import reduce
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import gradio as gr
import numpy as np
import uvicorn
from fastapi import FastAPI

from omni_avsr.errors import OmniAVSRError
from omni_avsr.model.decode import DecodeOptions
from omni_avsr.serve.audition import QUIET, Answer, Recording, answers, in_noise, look, transcript
from omni_avsr.serve.desk import Desk
from omni_avsr.serve.metrics import Metrics
from omni_avsr.serve.refusals import Refusal
from omni_avsr.serve.settings import Settings
from omni_avsr.serve.show import CSS, TITLES, cards, film, status
from omni_avsr.tasks import TASKS
from omni_avsr.transcribe.subtitles import save
from omni_avsr.types import FPS, SAMPLE_RATE

log = logging.getLogger(__name__)

LOUDEST = 20.0  # dB of noise above the voice
KEPT = 3600  # seconds for which gradio keeps uploads and what was shown; at its end they all go
KINDS = ("white", "pink", "brown", "music")  # noises that need no other voices
CAMERA = {"video": {"width": 640, "height": 480}}  # enough for a mouth; gradio's own 1920 chokes a slow browser
OFFERED = ("srt", "vtt", "txt")  # files to take away
FONTS = ("system-ui", "sans-serif")  # those of the reader's machine
FIRST = status("Drop a video, record one, or take the sample.")


class Page:
    """The page and what its controls do.

    Args:
        desk: whose worker has the model.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk, self._settings = desk, desk.settings
        self._config = desk.check_ready().config
        self._tasks = {TITLES[task][0]: task for task in TASKS if task in self._config.tasks}

    # ---- what is seen --------------------------------------------------------------------------

    def build(self) -> gr.Blocks:
        """The page."""
        with gr.Blocks(title="omni-avsr", analytics_enabled=False, delete_cache=(KEPT, KEPT)) as blocks:
            gr.Markdown("# omni-avsr\nSpeech by ear, by lips, or by both, from one model, at the budget you choose.")
            recording = gr.State(None)
            with gr.Row(equal_height=False):
                with gr.Column(min_width=280):
                    source = gr.Video(
                        label="Video, or a recording", sources=["upload", "webcam"], include_audio=True,
                        elem_id="source", webcam_options=gr.WebcamOptions(constraints=CAMERA),
                    )  # fmt: skip
                    sample = gr.Button("Take the sample", size="sm", elem_id="sample")
                    line = gr.HTML(FIRST, elem_id="line")
                with gr.Column(min_width=280):
                    seen = gr.Video(
                        label="What it sees", interactive=False, elem_id="seen", autoplay=True, loop=True,
                    )  # fmt: skip
                    heard = gr.Audio(label="What it hears", interactive=False, elem_id="heard")
            controls = self._controls()
            table = gr.HTML(cards([], 1), elem_id="table")
            files = gr.File(label="Subtitles", file_count="multiple", interactive=False, elem_id="files")

            wired = {"inputs": [recording, *controls], "outputs": [heard, table, files], "show_progress": "hidden"}
            sample.click(lambda: str(resources.files("omni_avsr") / "assets" / "sample.mp4"), outputs=source)
            source.change(self.look, source, [recording, seen, line]).then(self.listen, **wired)
            for control in controls:
                moved = control.release if isinstance(control, gr.Slider) else control.change
                moved(self.listen, **wired, trigger_mode="always_last")
        return blocks

    def _controls(self) -> list[Any]:
        with gr.Row():
            senses = gr.CheckboxGroup(list(self._tasks), value=list(self._tasks), label="By", elem_id="senses")
            level = gr.Slider(
                QUIET, LOUDEST, QUIET, step=1, elem_id="level",
                label="Noise", info=f"dB louder than the voice; {QUIET:.0f} = none",
            )  # fmt: skip
            kind = gr.Radio(KINDS, value=KINDS[0], label="Kind of noise", elem_id="kind")
        with gr.Row():
            sliders = [
                gr.Slider(
                    *_span(self._config.rates(modality)), elem_id=f"{modality}_rate", label=f"{modality.title()} rate",
                    info=f"frames ({per_second} a second) per token; trained: {_listed(self._config.rates(modality))}",
                )
                for modality, per_second in (("audio", 2 * FPS), ("video", FPS))
                if modality in self._config.modalities
            ]  # fmt: skip
        return [senses, level, kind, *sliders]

    # ---- what happens --------------------------------------------------------------------------

    def look(self, path: str | None) -> Iterator[tuple[Recording | None, str | None, str]]:
        """A new recording: what there is to hear and to see in it."""
        if path is None:
            yield None, None, FIRST
            return
        with TemporaryDirectory() as folder:  # gradio copies what is yielded before it asks for more
            yield self._looked(path, Path(folder) / "seen.mp4")

    def _looked(self, path: str, seen: Path) -> tuple[Recording | None, str | None, str]:
        try:
            recording, clip = look(Path(path), self._settings.limits, self._settings.offline)
            shown = None
            if clip.frames is not None and recording.mouths is not None:
                shown = str(film(seen, clip.frames, recording.mouths))
        except (OmniAVSRError, Refusal, OSError) as error:
            message = error.error["message"] if isinstance(error, Refusal) else str(error)
            return None, None, status(str(message).replace(path, "The recording"), wrong=True)
        return recording, shown, status(described(recording), wrong=bool(recording.lacks("vsr")))

    def listen(
        self, recording: Recording | None, senses: Sequence[str], level: float, kind: str, *rates: float
    ) -> Iterator[tuple[Any, str, list[str] | None]]:
        """A control was moved: the noisy sound at once, then one transcript after the other, then the subtitles."""
        tasks = [self._tasks[sense] for sense in self._tasks if sense in senses]
        if recording is None:
            yield None, cards([], 1), None
            return
        audio = None if recording.audio is None else in_noise(recording.audio, level, kind)
        sound = None if audio is None else (SAMPLE_RATE, _audible(audio))
        chosen: dict[str, int] = {
            modality: _nearest(rate, self._config.rates(modality))
            for modality, rate in zip(self._config.modalities, rates, strict=True)
        }
        done: list[Answer] = []
        yield sound, cards(tasks, recording.lasts), None
        options = DecodeOptions(self._settings.beam_size)
        for answer in answers(self._desk.worker, recording, audio, tasks, chosen, options):
            done.append(answer)
            yield sound, cards([*done, *tasks[len(done) :]], recording.lasts), None
        best = next((a for a in reversed(done) if a.text), None)
        if best is not None:
            with TemporaryDirectory() as folder:  # as above
                written = save(transcript(recording, best, chosen), Path(folder), f"subtitles-{best.task}", OFFERED)
                yield sound, cards(done, recording.lasts), [str(path) for path in written]


def described(recording: Recording) -> str:
    """One line about a recording."""
    parts = [f"{recording.info.duration:.1f} s"]
    if recording.cut:
        parts.append(f"the first {recording.lasts:.0f} s are used")
    if recording.mouths is not None:
        parts.append(f"a face in {recording.mouths.share:.0%} of the pictures")
    for task in ("asr", "vsr"):
        if recording.lacks(task) and not (task == "vsr" and recording.mouths is not None):
            parts.append(recording.lacks(task))
    return " · ".join(parts)


def _span(rates: Sequence[int]) -> tuple[int, int, int, int]:
    """Slider: minimum, maximum, value, step. Trained rates lie on steps; what lies between them is rounded."""
    step = reduce(math.gcd, (b - a for a, b in zip(sorted(rates), sorted(rates)[1:], strict=False)), 0)
    return min(rates), max(max(rates), min(rates) + 1), min(rates), max(step, 1)


def _nearest(rate: float, trained: Sequence[int]) -> int:
    return min(trained, key=lambda known: abs(known - rate))


def _listed(rates: Sequence[int]) -> str:
    return ", ".join(map(str, sorted(rates)))


def _audible(audio: np.ndarray) -> np.ndarray:
    """(S,) int16; a sum that is too loud is turned down, since clipping would be another noise."""
    return (audio / max(1.0, float(np.abs(audio).max(initial=0.0))) * 32767).astype(np.int16)


def page_app(desk: Desk) -> FastAPI:
    """The page as an application of its own.

    Args:
        desk: with a model.
    """
    settings = desk.settings
    blocks = Page(desk).build().queue(max_size=settings.queue, default_concurrency_limit=settings.places)
    return gr.mount_gradio_app(
        FastAPI(title="omni-avsr"), blocks, path="/", max_file_size=settings.limits.bytes, css=CSS,
        theme=gr.themes.Soft(font=FONTS, font_mono="monospace"), footer_links=[], ssr_mode=False,
        enable_monitoring=False,
    )  # fmt: skip


def run_demo(settings: Settings, host: str, port: int) -> None:
    """Serves the page until it is told to end.

    Args:
        settings: of the model and of what is taken.
        host: address to listen at.
        port: likewise.
    """
    desk = Desk(settings, Metrics())
    desk.start()
    try:
        desk.wait_ready()
        config = uvicorn.Config(
            page_app(desk), host=host, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=5
        )
        log.info("the page is at http://%s:%d", host, port)
        uvicorn.Server(config).run()
    finally:
        desk.stop()
