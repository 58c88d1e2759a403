"""A video of a face that speaks given phonemes: movement of mouth, eyes and head, composed over a body and a room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from omni_avsr.data.casting import random_face, random_scene
from omni_avsr.data.expression import MOUTH_HALF, MouthState, draw_eyes, draw_mouth, move_jaw
from omni_avsr.data.portrait import EXTENT, SCALE, Face, Portrait, paint
from omni_avsr.data.speech_synthesis import Phoneme
from omni_avsr.data.stage import Camera, Scene, backdrop, paint_body
from omni_avsr.data.visemes import ARTICULATORS, articulate
from omni_avsr.types import FPS

PIVOT_Y = 0.55  # the point of the face, in units, that stands at the scene's centre and about which the head turns


@dataclass(frozen=True)
class Rendered:
    """A clip and the truth about its mouth."""

    frames: np.ndarray  # (T, height, width, 3) uint8 RGB, 25 fps
    landmarks: np.ndarray  # (T, 4, 2) float32 pixels: left corner, right corner, upper and lower inner edge of the lips
    opening: np.ndarray  # (T,) float32 distance of the lips over the width of the mouth at rest
    jaw: np.ndarray  # (T,) float32 0 to 1


def render(
    phonemes: Sequence[Phoneme],
    duration: float,
    *,
    seed: int,
    size: tuple[int, int] = (360, 288),
    face: Face | None = None,
    scene: Scene | None = None,
) -> Rendered:
    """Film a face that speaks `phonemes` for `duration` seconds; the same arguments give the same pixels.

    Args:
        phonemes: in seconds from the first frame; what lies between or after them is rest.
        duration: seconds; the clip has round(25 * duration) frames, one at least.
        seed: of movement, blinks and noise, and of `face` and `scene` where they are not given.
        size: width and height in pixels.
        face: the look.
        scene: light, place and camera.
    """
    return render_group([(phonemes, face)], duration, seed=seed, size=size, scene=scene)[0]


def render_group(
    speakers: Sequence[tuple[Sequence[Phoneme], Face | None]],
    duration: float,
    *,
    seed: int,
    size: tuple[int, int] = (360, 288),
    scene: Scene | None = None,
) -> list[Rendered]:
    """Film several faces side by side, each with its own phonemes; every result holds the same frames."""
    rng = np.random.default_rng(seed)
    scene = scene or random_scene(rng, len(speakers), size)
    count = max(1, round(duration * FPS))
    heads = []
    for i, (phonemes, face) in enumerate(speakers):
        place = (scene.centre[0] + (i + 0.5) / len(speakers) - 0.5, scene.centre[1])
        heads.append(_Head(face or random_face(rng), scene, place, size, phonemes, count, rng))
    stage = backdrop(scene, size, rng)
    for head in heads:
        paint_body(stage, head.portrait.face, scene, head.place, rng)
    camera = Camera(scene, size, rng)
    frames = np.empty((count, size[1], size[0], 3), np.uint8)
    for i in range(count):
        frame = stage.copy()
        for head in heads:
            head.paint_head(frame, i)
        frames[i] = camera.shoot(frame)
    return [Rendered(frames, head.landmarks, head.opening, head.jaw) for head in heads]


# ---- one person ------------------------------------------------------------------------------


class _Head:
    """A painted face with its movement through the clip."""

    def __init__(
        self,
        face: Face,
        scene: Scene,
        place: tuple[float, float],
        size: tuple[int, int],
        phonemes: Sequence[Phoneme],
        count: int,
        rng: np.random.Generator,
    ) -> None:
        self.portrait: Portrait = paint(face, scene.light)
        self.canvas = np.dstack([self.portrait.picture, 255 * self.portrait.alpha]).round().astype(np.uint8)
        self.eyes: dict[tuple[float, float, float], np.ndarray] = {}
        self.size, self.scale = size, scene.scale
        self.place = np.array(place) * size
        mouth = articulate(phonemes, count)
        self.states = [MouthState(*(float(getattr(mouth, name)[i]) for name in ARTICULATORS)) for i in range(count)]
        self.jaw = np.asarray(mouth.jaw, np.float32)
        self.pose = _movement(count, scene, rng)
        self.lids, self.gaze = _blinks(count, rng), _gazes(count, rng)
        self.landmarks = np.zeros((count, 4, 2), np.float32)
        self.opening = np.zeros(count, np.float32)

    def paint_head(self, frame: np.ndarray, i: int) -> None:
        """Draw the head at moment `i` into (h, w, 3) uint8, and note where its mouth is."""
        state = self.states[i]
        canvas = self._with_eyes(self.lids[i], self.gaze[i]).copy()
        move_jaw(canvas, state, self.portrait.face)
        points = draw_mouth(canvas, self.portrait, state)
        self.opening[i] = (points[3, 1] - points[2, 1]) / (2 * MOUTH_HALF * self.portrait.face.mouth_width)
        self.landmarks[i] = self._project(points, self.pose[i])
        u, v, (left, top, right, bottom) = self._maps(self.pose[i])
        warped = cv2.remap(canvas, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        alpha = warped[..., 3].astype(np.float32) / 255
        behind = np.ascontiguousarray(frame[top:bottom, left:right])
        frame[top:bottom, left:right] = cv2.blendLinear(
            cv2.cvtColor(warped, cv2.COLOR_BGRA2BGR), behind, alpha, 1 - alpha
        )

    def _with_eyes(self, lid: float, gaze: tuple[float, float]) -> np.ndarray:
        key = (lid, *gaze)
        if key not in self.eyes:
            self.eyes[key] = self.canvas.copy()
            draw_eyes(self.eyes[key], self.portrait, lid, gaze)
        return self.eyes[key]

    def _project(self, points: np.ndarray, pose: _Pose) -> np.ndarray:
        """(n, 2) units -> (n, 2) pixels of the frame."""
        x, y = points[:, 0], points[:, 1]
        z = _depth(x, y)
        x = x * np.cos(pose.yaw) + z * np.sin(pose.yaw)
        y = (y - PIVOT_Y) * np.cos(pose.pitch) + z * np.sin(pose.pitch)
        c, s = np.cos(pose.roll) * self.scale * pose.zoom, np.sin(pose.roll) * self.scale * pose.zoom
        return np.stack([c * x - s * y, s * x + c * y], 1) + self.place + pose.shift

    def _maps(self, pose: _Pose) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int, int]]:
        """For each pixel of the part of the frame that the head can reach, the place on the canvas it shows.

        Computed on every `_STEP`-th pixel and interpolated: a turned head is a smooth map.
        """
        reach = 2.4 * self.scale * pose.zoom
        centre = self.place + pose.shift
        left, top = (max(0, int(c - reach)) for c in centre)
        right, bottom = (min(limit, int(c + reach)) for c, limit in zip(centre, self.size, strict=True))
        columns, rows = -(-(right - left) // _STEP) + 2, -(-(bottom - top) // _STEP) + 2
        px = (np.arange(columns, dtype=np.float32) - 0.5) * _STEP - 0.5 + left - centre[0]
        py = (np.arange(rows, dtype=np.float32)[:, None] - 0.5) * _STEP - 0.5 + top - centre[1]
        c, s = np.cos(pose.roll) / (self.scale * pose.zoom), np.sin(pose.roll) / (self.scale * pose.zoom)
        turned_x, turned_y = c * px + s * py, c * py - s * px
        x, y = turned_x, turned_y + PIVOT_Y
        for _ in range(2):  # the depth is that of the unturned point, so solve by iteration
            z = _depth(x, y)
            x = (turned_x - z * np.sin(pose.yaw)) / np.cos(pose.yaw)
            y = (turned_y - z * np.sin(pose.pitch)) / np.cos(pose.pitch) + PIVOT_Y
        maps = []
        for coordinate, origin in ((x, EXTENT[0]), (y, EXTENT[1])):
            coarse = ((coordinate - origin) * SCALE - 0.5).astype(np.float32)
            fine = cv2.resize(coarse, (columns * _STEP, rows * _STEP), interpolation=cv2.INTER_LINEAR)
            maps.append(fine[_STEP : _STEP + bottom - top, _STEP : _STEP + right - left])
        return maps[0], maps[1], (left, top, right, bottom)


def _depth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How far a point of the face stands out towards the camera, in units; a smooth version of the painted surface."""
    skull = 0.95 * np.sqrt(np.clip(1 - (x / 1.3) ** 2, 0, 1) * np.clip(1 - ((y - 0.1) / 2.1) ** 2, 0, 1))
    return skull + 0.30 * np.exp(-0.5 * ((x / 0.16) ** 2 + ((y - 0.6) / 0.2) ** 2))


# ---- movement --------------------------------------------------------------------------------

_STEP = 8  # pixels


@dataclass(frozen=True)
class _Pose:
    """Where the head is at one moment: radians, pixels, factor."""

    yaw: float
    pitch: float
    roll: float
    shift: np.ndarray  # (2,) x, y
    zoom: float


def _drift(count: int, rng: np.random.Generator) -> np.ndarray:
    """(T,) smooth random movement of unit size: three slow waves."""
    time = np.arange(count) / FPS
    waves = [rng.normal() * np.sin(2 * np.pi * f * time + rng.uniform(0, 2 * np.pi)) for f in rng.uniform(0.08, 0.9, 3)]
    return np.sum(waves, 0) / np.sqrt(1.5)


def _movement(count: int, scene: Scene, rng: np.random.Generator) -> list[_Pose]:
    yaw, pitch, roll, x, y, zoom = (_drift(count, rng) * scene.liveliness for _ in range(6))
    unit = 0.03 * scene.scale
    return [
        _Pose(
            scene.yaw + 0.05 * yaw[i],
            scene.pitch + 0.035 * pitch[i],
            scene.roll + 0.02 * roll[i],
            np.array([unit * x[i], unit * y[i]]),
            1 + 0.008 * zoom[i],
        )
        for i in range(count)
    ]


def _blinks(count: int, rng: np.random.Generator) -> list[float]:
    """Lid at each frame, 0 open to 1 shut: a blink of a fifth of a second every three seconds or so."""
    lids = np.zeros(count)
    shape = (0.5, 1.0, 0.9, 0.6, 0.25)
    at = rng.exponential(2.0 * FPS)
    while at < count:
        for k, lid in enumerate(shape):
            if int(at) + k < count:
                lids[int(at) + k] = lid
        at += rng.uniform(1.5, 5.0) * FPS
    return [float(lid) for lid in lids]


def _gazes(count: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Where the eyes look at each frame: mostly at the camera, with small jumps."""
    gazes: list[tuple[float, float]] = []
    while len(gazes) < count:
        away = rng.random() < 0.3
        target = (float(rng.normal(0, 0.35)), float(rng.normal(0, 0.2))) if away else (0.0, 0.0)
        gazes += [target] * int(rng.uniform(0.4, 2.0) * FPS)
    return gazes[:count]
