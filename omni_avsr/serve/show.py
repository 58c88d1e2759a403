"""What the page shows: the face that is followed, the mouth that the model sees, and transcripts as cards."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from html import escape
from pathlib import Path

import av
import cv2
import numpy as np

from omni_avsr.serve.audition import Answer
from omni_avsr.types import FPS, Mouths

HEIGHT = 288  # pixels of the film
WIDEST = 512  # of its left part
GREEN, GREY = (80, 220, 120), (120, 120, 120)
TITLES = {"asr": ("Ear", "sound only"), "vsr": ("Lips", "picture only"), "avsr": ("Both", "sound and picture")}
STREAMS = {"asr": ("audio",), "vsr": ("video",), "avsr": ("audio", "video")}

CSS = """
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .75rem; }
.card { border: 1px solid var(--border-color-primary); border-radius: .6rem; padding: .8rem 1rem; min-height: 8rem;
        background: var(--background-fill-primary); overflow-wrap: anywhere; }
.card h3 { margin: 0 0 .4rem; font-size: 1rem; }
.card h3 small { font-weight: 400; opacity: .65; margin-left: .4rem; }
.card p { font-size: 1.25rem; line-height: 1.7; margin: 0 0 .5rem; }
.card .facts { font-size: .85rem; opacity: .75; }
.card .problem { font-size: 1rem; font-style: italic; }
.word { border-radius: .25rem; padding: .05rem .25rem; color: #111; white-space: nowrap; }
.legend { display: flex; gap: .4rem; align-items: center; font-size: .8rem; margin-top: .6rem; flex-wrap: wrap; }
.status { min-height: 1.5rem; }
.status.wrong { color: var(--error-text-color, #b00020); font-weight: 600; }
#source video, #seen video { max-height: 18rem; }
footer { display: none !important; }
"""


# ---- the film ----------------------------------------------------------------------------------


def film(path: Path, frames: np.ndarray, found: Mouths) -> Path:
    """A small video: on the left the picture with the face marked, on the right the mouth as the model gets it.

    Args:
        path: to write, `.mp4`.
        frames: (T, height, width, 3) uint8 RGB.
        found: in them.
    """
    scale = min(HEIGHT / frames.shape[1], WIDEST / frames.shape[2])
    width, height = (2 * max(8, round(side * scale / 2)) for side in (frames.shape[2], frames.shape[1]))
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("libx264", rate=FPS, options={"crf": "23", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width + HEIGHT, HEIGHT, "yuv420p"
        stream.time_base = Fraction(1, FPS)
        for frame, crop, box in zip(frames, found.crops, found.boxes, strict=True):
            canvas = np.full((HEIGHT, width + HEIGHT, 3), 24, np.uint8)
            top = (HEIGHT - height) // 2
            canvas[top : top + height, :width] = _marked(cv2.resize(frame, (width, height)), box * scale)
            mouth = cv2.resize(crop, (HEIGHT, HEIGHT), interpolation=cv2.INTER_CUBIC)
            canvas[:, width:] = mouth[..., None]
            out.mux(stream.encode(av.VideoFrame.from_ndarray(canvas, "rgb24")))
        out.mux(stream.encode(None))
    return path


def _marked(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    if np.isnan(box).any():
        cv2.rectangle(picture, (1, 1), (picture.shape[1] - 2, picture.shape[0] - 2), GREY, 2)
        return picture
    x, y, width, height = (round(float(value)) for value in box)
    cv2.rectangle(picture, (x, y), (x + width, y + height), GREEN, 2)
    return picture


# ---- the cards ---------------------------------------------------------------------------------


def cards(answers: Sequence[Answer | str], seconds: float) -> str:
    """HTML of the transcripts side by side.

    Args:
        answers: in order; the name of a task stands for an answer that is on its way.
        seconds: that the recording lasts.
    """
    inner = "".join(card(answer, seconds) for answer in answers)
    return f'<div class="cards">{inner}</div>{LEGEND if answers else ""}'


def card(answer: Answer | str, seconds: float) -> str:
    """One of them."""
    task = answer if isinstance(answer, str) else answer.task
    title, subtitle = TITLES.get(task, (task, ""))
    if isinstance(answer, str):
        body = '<p class="problem">…</p>'
    elif answer.problem:
        body = f'<p class="problem">{escape(answer.problem)}</p>'
    else:
        rate = answer.tokens / max(seconds, 1e-6)
        facts = f"{answer.tokens} tokens ({rate:.1f} a second) · {answer.seconds:.2f} s"
        body = f'<p class="words">{words(answer)}</p><div class="facts">{facts}</div>'
    return f'<div class="card" data-task="{escape(task)}"><h3>{title}<small>{subtitle}</small></h3>{body}</div>'


def words(answer: Answer) -> str:
    """The text, each word on the colour of its probability."""
    marked = (
        f'<span class="word" style="background:{colour(w.probability)}" title="{w.probability:.0%}">'
        f"{escape(w.word.strip())}</span>"
        for w in answer.words
    )
    return " ".join(marked) or "<i>nothing</i>"


def colour(probability: float) -> str:
    """From orange (0) over yellow to blue-green (1): told apart by the colour-blind too."""
    sure = min(max(probability, 0.0), 1.0)
    return f"hsl({25 + 140 * sure:.0f} 75% {72 + 8 * sure:.0f}%)"


LEGEND = '<div class="legend">sure of a word: {}</div>'.format(
    "".join(f'<span class="word" style="background:{colour(p)}">{p:.0%}</span>' for p in (0.1, 0.4, 0.7, 1.0))
)


def status(message: str, wrong: bool = False) -> str:
    """One line about the recording."""
    kind, role = ("status wrong", "alert") if wrong else ("status", "status")
    return f'<div class="{kind}" role="{role}">{escape(message)}</div>'
