"""A diagnosis as one self-contained page: the findings, scenes with their faces, and what the model sees of each."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape

import cv2
import numpy as np

from omni_avsr.media.checkup import FaceFacts, Scene
from omni_avsr.media.doctor import Diagnosis, duration

HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by colour-blind readers too
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; max-width: 1040px; margin: 2.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
.verdict { font-size: 1.05rem; margin-top: 0; } .sub { color: #5b6675; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .35rem .7rem; text-align: left; border-bottom: 1px solid #e3e7ec; vertical-align: top; }
th { color: #5b6675; font-weight: 600; } td:first-child { white-space: nowrap; }
.tag { border-radius: 1rem; padding: .05rem .6rem; font-size: .85em; white-space: nowrap; }
.fine { background: #e2f4e9; color: #14653a; } .repaired { background: #fff2d0; color: #7a5300; }
.hurts { background: #fde3df; color: #9b1c0f; font-weight: 600; }
.scenes { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 1rem; }
figure { margin: 0; } figure > div { position: relative; } img, svg { display: block; width: 100%; }
svg { position: absolute; inset: 0; height: 100%; }
figcaption { color: #5b6675; font-size: .88em; padding-top: .25rem; }
.strip { border-radius: 4px; margin-bottom: 1.2rem; } .face { display: inline-block; width: .8em; height: .8em; }
"""


def page(found: Diagnosis) -> str:
    """HTML, pictures included."""
    c = found.checkup
    title = escape(c.info.name)
    hue = {face.id: HUES[number % len(HUES)] for number, face in enumerate(sorted(c.faces, key=lambda f: f.id))}
    style = "fine" if found.usable else "hurts"
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f"<title>{title}</title><style>{STYLE}</style>",
        f"<h1>{title}</h1><p class=verdict><span class='tag {style}'>{escape(found.verdict)}</span></p>",
        f"<p class=sub>{duration(c.looked)} of {duration(c.info.duration)} were looked at.</p>",
        "<h2>Findings</h2>",
        _findings(found),
    ]
    if c.scenes:
        parts += ["<h2>Scenes</h2><div class=scenes>", *(_scene(scene, hue) for scene in c.scenes), "</div>"]
    if c.faces:
        parts += ["<h2>Faces, and what the model sees of them</h2>", *_faces(c.faces, hue)]
    return "\n".join([*parts, "</html>\n"])


def _findings(found: Diagnosis) -> str:
    rows = (
        f"<tr><td>{escape(f.check)}<td>{escape(f.measured)}<td><span class='tag {f.severity}'>{f.severity}</span>"
        f"<td>{escape(f.advice)}</tr>"
        for f in found.findings
    )
    return f"<table><tr><th>check<th>measured<th><th>what is done, or what to do</tr>{''.join(rows)}</table>"


def _scene(scene: Scene, hue: dict[int, str]) -> str:
    height, width = scene.picture.shape[:2]
    boxes = "".join(
        f"<rect x='{x:.0f}' y='{y:.0f}' width='{w:.0f}' height='{h:.0f}' rx='4' fill='none' "
        f"stroke='{hue[id]}' stroke-width='3'/>"
        for id, (x, y, w, h) in scene.boxes.items()
    )
    overlay = f"<svg viewBox='0 0 {width} {height}'>{boxes}</svg>"
    picture = _image(scene.picture, ".jpg", f"scene at {duration(scene.time)}")
    return f"<figure><div>{picture}{overlay}</div><figcaption>at {duration(scene.time)}</figcaption></figure>"


def _faces(faces: tuple[FaceFacts, ...], hue: dict[int, str]) -> Iterator[str]:
    for face in faces:
        q = face.quality
        says = f"speaks {face.speaks:.0%} of the time with a voice · " if len(faces) > 1 else ""
        facts = (
            f"seen {face.share:.0%} · {says}mouth {q.mouth:.0f} px · sharpness {q.sharpness:.2f} · turned {q.yaw:.0f}°"
        )
        yield f"<p><span class=face style='background:{hue[face.id]}'></span> face {face.id} · {facts}</p>"
        strip = np.concatenate(list(face.strip), axis=1)
        yield _image(strip, ".png", f"mouth of face {face.id}", "strip")


def _image(picture: np.ndarray, kind: str, text: str, style: str = "") -> str:
    coded = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    data = base64.b64encode(cv2.imencode(kind, coded)[1].tobytes()).decode()
    mime = {".jpg": "jpeg", ".png": "png"}[kind]
    return f"<img class='{style}' alt='{escape(text)}' src='data:image/{mime};base64,{data}'>"
