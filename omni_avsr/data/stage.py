"""Where a talking head is filmed: background, body, and the faults of a camera."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np

from omni_avsr.data.portrait import Colour, Face, Light, smooth_noise, smoothstep


@dataclass(frozen=True)
class Scene:
    """Camera, light and movement of one clip."""

    scale: float = 52.0  # pixels of the frame a unit: half the width of the face
    centre: tuple[float, float] = (0.5, 0.56)  # of the face, as shares of the frame's width and height
    light: Light = field(default_factory=Light)
    yaw: float = 0.0  # radians, mean; positive looks to the right of the picture
    pitch: float = 0.0  # radians, mean; positive looks down
    roll: float = 0.0  # radians, mean; positive leans clockwise
    liveliness: float = 1.0  # factor of the head's movement
    background: str = "wall"  # row of `BACKGROUNDS`
    wall: Colour = (0.25, 0.55, 0.70)
    clothes: Colour = (0.25, 0.30, 0.40)
    neckline: float = 0.25  # units, depth of the collar
    blur: float = 0.5  # pixels, standard deviation of the lens
    noise: float = 2.0  # grey levels, standard deviation of the sensor
    flicker: float = 0.01  # relative change of exposure
    quality: int = 0  # JPEG quality of every frame; 0 leaves the frame as it is


def _wall(shape: tuple[int, int], scene: Scene, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    direction = scene.light.direction
    bright = 0.85 + 0.22 * (x * direction[0] + y * direction[1]) - 0.10 * (x**2 + y**2)
    return np.array(scene.wall) * (bright + 0.01 * smooth_noise(rng, shape, 3.0))[..., None]


def _room(shape: tuple[int, int], scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Blurred furniture: boxes of many colours out of focus."""
    picture = _wall(shape, scene, rng).astype(np.float32)
    for _ in range(rng.integers(6, 16)):
        x, y = rng.uniform(-0.2, 1.0, 2) * (shape[1], shape[0])
        w, h = rng.uniform(0.08, 0.5, 2) * (shape[1], shape[0])
        colour = np.clip(np.array(scene.wall) + rng.normal(0, 0.13) + rng.normal(0, 0.06, 3), 0.03, 1)
        cv2.rectangle(picture, (int(x), int(y)), (int(x + w), int(y + h)), colour.tolist(), -1)
    return cv2.GaussianBlur(picture, (0, 0), shape[0] * rng.uniform(0.01, 0.04))


def _lights(shape: tuple[int, int], scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A dark street with discs of light out of focus."""
    picture = (_wall(shape, scene, rng) * 0.35).astype(np.float32)
    for _ in range(rng.integers(10, 30)):
        centre = (int(rng.uniform(0, shape[1])), int(rng.uniform(0, shape[0])))
        glow = np.zeros_like(picture)
        cv2.circle(glow, centre, int(shape[0] * rng.uniform(0.02, 0.08)), rng.uniform(0.1, 0.5, 3).tolist(), -1)
        picture += glow
    return cv2.GaussianBlur(picture, (0, 0), shape[0] * 0.008)


def _foliage(shape: tuple[int, int], scene: Scene, rng: np.random.Generator) -> np.ndarray:
    leaves = sum(
        a * smooth_noise(rng, shape, s * shape[0] / 288) for a, s in ((0.10, 12.0), (0.18, 30.0), (0.15, 80.0))
    )
    return np.array((0.32, 0.42, 0.24)) * np.clip(1 + leaves, 0.2, 2)[..., None]


BACKGROUNDS: dict[str, Callable[[tuple[int, int], Scene, np.random.Generator], np.ndarray]] = {
    "wall": _wall,
    "room": _room,
    "lights": _lights,
    "foliage": _foliage,
}


def backdrop(scene: Scene, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(h, w, 3) uint8: the scene without people."""
    return _to_bytes(BACKGROUNDS[scene.background]((size[1], size[0]), scene, rng))


def paint_body(stage: np.ndarray, face: Face, scene: Scene, place: np.ndarray, rng: np.random.Generator) -> None:
    """Paint neck, shoulders and clothes in place on (h, w, 3) uint8; `place` is the face's (0, `PIVOT_Y`) in pixels."""
    rows, columns = stage.shape[:2]
    x = ((np.arange(columns, dtype=np.float32) - place[0]) / scene.scale)[None]
    y = ((np.arange(rows, dtype=np.float32) - place[1]) / scene.scale)[:, None] + 0.55
    edge = 2.0 / scene.scale
    direction = scene.light.direction
    build = 0.66 + 0.35 * (face.jaw - 0.85)
    neck_half = build + 0.10 * smoothstep(y, 1.7, 2.3) ** 2
    neck = smoothstep(neck_half - np.abs(x), -edge / 2, edge / 2) * (y > 0.9)
    round_neck = np.sqrt(np.clip(1 - (x / (neck_half + 0.03)) ** 2, 0, 1))
    under_chin = 1 - 0.45 * smoothstep(-y, -2.35, -1.7)
    neck_light = (0.55 + 0.45 * round_neck) * (1 + 0.3 * x * direction[0]) * under_chin
    skin = np.array(face.skin) * np.array([0.97, 0.88, 0.85]) * neck_light[..., None]
    shoulder = 2.02 + 0.20 * np.clip(np.abs(x) - build, 0, None) + 0.28 * np.clip(np.abs(x) - 1.25, 0, None) ** 2.2
    body = smoothstep(y - shoulder, -edge, edge) * smoothstep(2.35 - np.abs(x), -edge, edge)
    collar = 2.10 + scene.neckline - (0.9 * scene.neckline + 0.12) * (np.abs(x) / build) ** 2
    cloth = body * np.where(np.abs(x) < build * 1.05, smoothstep(y - collar, -edge, edge), 1.0)
    folds = (
        smooth_noise(rng, (rows, columns), 0.35 * scene.scale) * 0.05 + smooth_noise(rng, (rows, columns), 1.3) * 0.015
    )
    cloth_light = (0.8 + folds) * (1 + 0.18 * x * direction[0]) * (1 - 0.25 * np.exp(-(((y - collar) / 0.05) ** 2)))
    clothes = np.array(scene.clothes) * cloth_light[..., None]
    picture = stage.astype(np.float32) / 255
    for colour, mask in ((skin, np.maximum(neck, body)), (clothes, cloth)):
        picture += (colour - picture) * mask[..., None]
    stage[:] = _to_bytes(picture)


class Camera:
    """Lens blur, exposure, sensor noise and compression; a bank of noise is drawn once and shifted for each frame."""

    def __init__(self, scene: Scene, size: tuple[int, int], rng: np.random.Generator) -> None:
        self.scene, self.rng, self.size = scene, rng, size
        margin = 32
        grain = rng.normal(0, scene.noise, (size[1] + margin, size[0] + margin, 3))
        self.grain = cv2.GaussianBlur(grain, (0, 0), 0.6).astype(np.int16) if scene.noise else None

    def shoot(self, frame: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 -> what the camera stores."""
        scene = self.scene
        if scene.blur > 0.2:
            frame = cv2.GaussianBlur(frame, (0, 0), scene.blur)
        if self.grain is not None:
            dx, dy = self.rng.integers(0, 32, 2)
            noise = self.grain[dy : dy + self.size[1], dx : dx + self.size[0]]
            frame = cv2.add(frame, noise, dtype=cv2.CV_8U)
        if scene.flicker:
            frame = cv2.convertScaleAbs(frame, alpha=1 + self.rng.normal(0, scene.flicker))
        if scene.quality:
            _, coded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, scene.quality])
            frame = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))
        return frame


def _to_bytes(picture: np.ndarray) -> np.ndarray:
    return (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
