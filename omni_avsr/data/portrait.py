"""The still picture of a face: skin shaded from a height field, eyes, brows, hair, beard, glasses.

Coordinates are the face's own: x to the right and y down, 1 is half the width of the face, (0, 0) is between the eyes,
the lips meet at y = `MOUTH_Y`, the chin ends near 1.78. The canvas shows `EXTENT` at `SCALE` pixels a unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

SCALE = 80  # pixels of the canvas a unit
EXTENT = (-1.7, -2.0, 1.7, 2.3)  # left, top, right, bottom in units
MOUTH_Y, EYE_X, EYE_HALF = 1.15, 0.44, 0.20
Colour = tuple[float, float, float]  # RGB, 0 to 1
Window = tuple[float, float, float, float]  # left, top, right, bottom in units


@dataclass(frozen=True)
class Face:
    """What a person looks like; lengths are factors of the average face."""

    skin: Colour = (0.80, 0.62, 0.52)
    length: float = 1.0
    jaw: float = 0.85  # width of the jaw over that of the cheeks
    cheeks: float = 0.5  # 0 flat, 1 marked
    nose_width: float = 1.0
    nose_height: float = 1.0
    eye_size: float = 1.0
    eye_tilt: float = 0.0  # radians, outer corners up
    iris: Colour = (0.35, 0.25, 0.15)
    brow: float = 1.0  # thickness
    brow_height: float = 0.30  # units above the eyes
    lips: Colour = (0.66, 0.36, 0.36)
    upper_lip: float = 1.0
    lower_lip: float = 1.0
    mouth_width: float = 1.0
    hair: str = "short"  # row of `HAIR`
    hair_colour: Colour = (0.20, 0.14, 0.10)
    volume: float = 0.15  # units of hair above the skull
    beard: float = 0.0  # 0 shaven, 0.3 stubble, 1 full
    moustache: float = 0.0
    glasses: str = ""  # row of `GLASSES`, or none
    age: float = 0.3  # 0 smooth, 1 wrinkled
    articulation: float = 1.0  # how far the mouth moves
    asymmetry: float = 0.0  # of the mouth, units
    seed: int = 0  # of skin grain and strands


@dataclass(frozen=True)
class Light:
    """One lamp and the sky."""

    direction: tuple[float, float, float] = (-0.4, -0.5, 0.8)  # to the lamp: x right, y down, z to the camera
    ambient: float = 0.45  # share of the light that comes from everywhere
    colour: Colour = (1.0, 0.98, 0.95)


@dataclass(frozen=True)
class HairStyle:
    """Where hair grows, in units; `None` for no hair on top."""

    hairline: float | None  # y of the forehead's edge
    sides: float  # y down to which the hair hangs beside the face
    fullness: float  # factor of the face's `volume` at the sides
    behind: float = 0.0  # y down to which it hangs behind the neck; 0 = it does not
    curve: float = 0.1  # how much lower the hairline is at the temples


HAIR: dict[str, HairStyle] = {
    "short": HairStyle(-0.95, 0.05, 0.6, 0.0, 0.12),
    "crew": HairStyle(-1.05, -0.15, 0.25),
    "fringe": HairStyle(-0.58, 0.35, 0.9),
    "bob": HairStyle(-0.98, 1.25, 1.3, 1.3, 0.45),
    "long": HairStyle(-1.05, 1.9, 1.1, 2.05, 0.5),
    "tied": HairStyle(-1.0, -0.1, 0.2, 0.0, 0.35),
    "receding": HairStyle(-1.28, 0.1, 0.4, 0.0, -0.1),
    "bald": HairStyle(None, 0.0, 0.0),
}
GLASSES: dict[
    str, tuple[float, float, int, float]
] = {  # half width, half height (units), thickness (pixels), roundness
    "round": (0.34, 0.31, 3, 1.0),
    "square": (0.38, 0.26, 4, 0.35),
    "thin": (0.36, 0.24, 2, 0.5),
    "heavy": (0.38, 0.29, 6, 0.4),
}


@dataclass(frozen=True)
class Portrait:
    """The layers from which frames are made; float32 in 0..255 or 0..1, (height, width[, channels]) of the canvas."""

    picture: np.ndarray  # (h, w, 3) head without lips and with empty eyes
    alpha: np.ndarray  # (h, w) 0..1
    shade: np.ndarray  # (h, w) brightness of the light on the skin, about 0.3..1.2
    face: Face


def to_pixels(x: float, y: float) -> tuple[float, float]:
    """Face units -> canvas pixels."""
    return (x - EXTENT[0]) * SCALE, (y - EXTENT[1]) * SCALE


def window_pixels(window: Window) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in units -> in whole pixels of the canvas."""
    (left, top), (right, bottom) = to_pixels(*window[:2]), to_pixels(*window[2:])
    return round(left), round(top), round(right), round(bottom)


def grid(left: float, top: float, right: float, bottom: float) -> tuple[np.ndarray, np.ndarray]:
    """Units at the centres of the canvas's pixels in a window: x (1, w) and y (h, 1), float32."""
    x0, y0, x1, y1 = window_pixels((left, top, right, bottom))
    x = (np.arange(x0, x1, dtype=np.float32) + 0.5) / SCALE + EXTENT[0]
    y = (np.arange(y0, y1, dtype=np.float32) + 0.5) / SCALE + EXTENT[1]
    return x[None, :], y[:, None]


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _bump(x: np.ndarray, y: np.ndarray, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
    return np.exp(-0.5 * (((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2))


def _pair(x: np.ndarray, y: np.ndarray, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
    return _bump(np.abs(x), y, cx, cy, sx, sy)


def paint(face: Face, light: Light) -> Portrait:
    """Paint the layers of `face` under `light`; about 60 ms."""
    rng = np.random.default_rng(face.seed)
    x, y = grid(*EXTENT)
    outline = _half_width(y, face)
    inside = smoothstep((outline - np.abs(x)) * SCALE, -0.8, 0.8)
    height = _height(x, y, outline, face)
    shade, gloss = _lit(height, light)
    skin = _skin(x, y, face, rng)
    picture = skin * shade[..., None] * np.array(light.colour, np.float32) + gloss[..., None]
    picture, alpha = _ears(picture, inside, x, y, face, light)
    _brows(picture, x, y, face, rng, shade)
    picture, alpha = _hair(picture, alpha, x, y, face, light, rng)
    if face.glasses:
        picture = _glasses(picture, *GLASSES[face.glasses])
    return Portrait((np.clip(picture, 0, 1) * 255).astype(np.float32), alpha.astype(np.float32), shade, face)


# ---- the skull -------------------------------------------------------------------------------


def _half_width(y: np.ndarray, face: Face) -> np.ndarray:
    """(h, 1) half the width of the head at each height; 0 above and below it."""
    top, chin = -1.5, 1.78 * face.length
    knots = [top, top + 0.03, -1.38, -1.15, -0.8, -0.3, 0.2, 0.6, 0.95, 1.25, 1.5, 1.66, 1.75, 1.78]
    widths = np.array([0, 0.28, 0.55, 0.80, 0.94, 1.0, 0.99, 0.95, 0.90, 0.80, 0.62, 0.42, 0.2, 0])
    widths[7:12] *= 1 - (1 - face.jaw / 0.85) * np.array([0.25, 0.6, 1.0, 1.0, 0.8])
    knots = [k * face.length if k > 0.6 else k for k in knots]
    width = np.interp(y[:, 0], knots, widths).astype(np.float32)
    soft = cv2.GaussianBlur(width[:, None], (1, 0), 1, sigmaY=0.05 * SCALE)
    return np.where((y > top) & (y < chin), np.maximum(soft, 1e-3), 1e-3)


def _height(x: np.ndarray, y: np.ndarray, outline: np.ndarray, face: Face) -> np.ndarray:
    """(h, w) distance towards the camera in units, without the lips."""
    across = np.sqrt(np.clip(1 - (x / outline) ** 2, 0, 1))
    along = np.sqrt(np.clip(1 - ((y - 0.1) / 1.75) ** 2, 0.02, 1))
    z = 0.95 * along * across**0.75
    n, w = face.nose_height, 0.13 * face.nose_width
    ridge = smoothstep(y, -0.15, 0.55) * (1 - smoothstep(y, 0.62, 0.86))
    z = z + 0.34 * n * ridge * np.exp(-0.5 * (x / (w * (0.75 + 0.45 * smoothstep(y, 0.2, 0.7)))) ** 2)
    z = z + 0.10 * n * _bump(x, y, 0, 0.62, w * 0.9, 0.10) + 0.08 * _pair(x, y, 1.45 * w, 0.68, 0.07, 0.07)
    z = z - 0.15 * _pair(x, y, EYE_X, 0.02, 0.20, 0.13) + 0.07 * _pair(x, y, EYE_X, 0.02, 0.13, 0.10)
    z = z + 0.06 * _pair(x, y, 0.40, -0.27, 0.26, 0.09) - 0.03 * _bump(x, y, 0, -0.12, 0.10, 0.12)
    z = z + 0.08 * face.cheeks * _pair(x, y, 0.60, 0.42, 0.22, 0.20)
    z = z + 0.10 * _bump(x, y, 0, MOUTH_Y, 0.36, 0.22) - 0.025 * _bump(x, y, 0, 0.92, 0.035, 0.08)
    z = z - 0.05 * _bump(x, y, 0, 1.40, 0.25, 0.06) + 0.08 * _bump(x, y, 0, 1.60, 0.20, 0.12)
    fold = np.abs(x) - (0.24 + 0.30 * (y - 0.70))
    z = z - 0.03 * (0.4 + face.age) * np.exp(-0.5 * (fold / 0.035) ** 2) * smoothstep(y, 0.7, 0.85) * smoothstep(
        -y, -1.25, -1.0
    )
    return z.astype(np.float32)


def _lit(height: np.ndarray, light: Light) -> tuple[np.ndarray, np.ndarray]:
    """(h, w) brightness and (h, w) gloss of a height field."""
    z = cv2.GaussianBlur(height, (0, 0), 1.5)
    dx, dy = cv2.Sobel(z, cv2.CV_32F, 1, 0, scale=SCALE / 8), cv2.Sobel(z, cv2.CV_32F, 0, 1, scale=SCALE / 8)
    norm = 1 / np.sqrt(dx**2 + dy**2 + 1)
    direction = np.array(light.direction, np.float32) / np.linalg.norm(light.direction)
    facing = (-dx * direction[0] - dy * direction[1] + direction[2]) * norm
    diffuse = np.clip((facing + 0.25) / 1.25, 0, 1)  # light enters skin and leaves beyond the shadow's edge
    hollow = np.clip(1 - 2.0 * (cv2.GaussianBlur(z, (0, 0), 14) - z), 0.76, 1.12)
    half = direction + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    shine = np.clip((-dx * half[0] - dy * half[1] + half[2]) * norm, 0, 1) ** 24
    shade = (light.ambient * (0.55 + 0.45 * norm) + (1 - light.ambient) * 1.25 * diffuse) * hollow
    return cv2.GaussianBlur(shade, (0, 0), 1.0), 0.07 * shine


def _skin(x: np.ndarray, y: np.ndarray, face: Face, rng: np.random.Generator) -> np.ndarray:
    """(h, w, 3) the colour of the skin under white light, with beard and stubble."""
    shape = (y.shape[0], x.shape[1])
    mottle = np.sum([a * smooth_noise(rng, shape, s) for a, s in ((0.018, 1.0), (0.02, 6.0), (0.025, 25.0))], 0)
    red = (
        0.5 * _pair(x, y, 0.55, 0.55, 0.25, 0.22)
        + 0.6 * _bump(x, y, 0, 0.62, 0.15, 0.12)
        + 0.25 * _bump(x, y, 0, 1.55, 0.2, 0.15)
    )
    dark = 0.16 * (0.5 + face.age) * _pair(x, y, EYE_X, 0.17, 0.17, 0.05) + 0.60 * _pair(
        x, y, 0.095 * face.nose_width, 0.765, 0.042, 0.024
    )
    lines = np.sum([np.exp(-0.5 * ((y + 0.72 + 0.14 * i + 0.03 * np.cos(3 * x)) / 0.012) ** 2) for i in range(3)], 0)
    dark = dark + 0.10 * face.age * lines * np.exp(-0.5 * (x / 0.45) ** 2)
    skin = np.array(face.skin, np.float32) * (1 + mottle)[..., None]
    skin = skin * (1 - red[..., None] * np.array([0.0, 0.14, 0.13], np.float32))
    skin = skin * (1 - dark[..., None])
    growth = face.beard * _beard_area(x, y, face) + face.moustache * _moustache_area(x, y)
    strands = 0.75 + 0.25 * smooth_noise(rng, shape, 0.8)
    growth = np.clip(growth * strands, 0, 1)[..., None]
    return (skin * (1 - growth) + np.array(face.hair_colour, np.float32) * 0.8 * growth).astype(np.float32)


def _beard_area(x: np.ndarray, y: np.ndarray, face: Face) -> np.ndarray:
    edge = 0.78 - 0.55 * (np.abs(x) - 0.55)
    around = smoothstep(y - edge, 0.0, 0.35) * smoothstep(np.abs(x) + 0.9 * (y - 0.75), 0.35, 0.62)
    chin = smoothstep(y, 1.32, 1.45)
    return np.maximum(around, chin) * (1 - 0.9 * _bump(x, y, 0, MOUTH_Y + 0.02, 0.34, 0.10))


def _moustache_area(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * ((y - 0.97 - 0.25 * x**2) / 0.055) ** 2) * smoothstep(-np.abs(x), -0.5, -0.3)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], size: float) -> np.ndarray:
    """(h, w) float32 smooth noise of unit variance and `size` pixels."""
    small = rng.standard_normal((int(shape[0] / size) + 3, int(shape[1] / size) + 3)).astype(np.float32)
    return cv2.resize(small, None, fx=size, fy=size, interpolation=cv2.INTER_CUBIC)[: shape[0], : shape[1]]


# ---- what grows and sits on it ---------------------------------------------------------------


def _ears(
    picture: np.ndarray, inside: np.ndarray, x: np.ndarray, y: np.ndarray, face: Face, light: Light
) -> tuple[np.ndarray, np.ndarray]:
    radius = ((np.abs(x) - 1.0) / 0.15) ** 2 + ((y - 0.22 + 0.25 * (np.abs(x) - 1.0)) / 0.33) ** 2
    ear = smoothstep(1 - radius, -0.06, 0.06) * (1 - inside)
    side = 1 + 0.35 * np.sign(x) * light.direction[0]
    tone = np.array(face.skin, np.float32) * np.array([1.0, 0.86, 0.84], np.float32)
    ear_colour = tone * (side * (0.82 - 0.35 * np.exp(-(((radius - 0.35) / 0.25) ** 2))))[..., None]
    return picture * inside[..., None] + ear_colour * (1 - inside)[..., None], np.maximum(inside, ear)


def _brows(
    picture: np.ndarray, x: np.ndarray, y: np.ndarray, face: Face, rng: np.random.Generator, shade: np.ndarray
) -> None:
    t = (np.abs(x) - 0.17) / 0.58  # 0 at the inner end, 1 at the outer
    middle = -face.brow_height - 0.11 * np.sin(np.clip(t, 0, 1) * 2.2) + 0.05 * t - face.eye_tilt * 0.3 * t
    thickness = 0.055 * face.brow * (1.0 - 0.65 * np.clip(t, 0, 1))
    hair = (
        np.exp(-0.5 * ((y - middle) / np.maximum(thickness, 0.01)) ** 2)
        * smoothstep(t, -0.06, 0.12)
        * smoothstep(-t, -1.05, -0.8)
    )
    hair = np.clip(hair * (0.85 + 0.25 * smooth_noise(rng, shade.shape, 1.2)), 0, 0.92)[..., None]
    picture *= 1 - hair
    picture += hair * np.array(face.hair_colour, np.float32) * 0.7 * shade[..., None]


def _hair(
    picture: np.ndarray,
    alpha: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    face: Face,
    light: Light,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    style = HAIR[face.hair]
    if style.hairline is None:
        return picture, alpha
    ragged = 0.022 * smooth_noise(rng, alpha.shape, 12.0) + 0.016 * smooth_noise(rng, alpha.shape, 3.0)
    side = 1 + style.fullness * face.volume
    skull = (np.abs(x / side) ** 2.4 + np.abs((y + 0.25) / (1.22 + face.volume)) ** 2.4) ** (
        1 / 2.4
    )  # 1 on the surface of the hair
    cap = (1 - smoothstep(skull + ragged * 0.5, 0.98, 1.02)) * (y < 0.3)
    hang = (1 - smoothstep(np.abs(x) + ragged, side - 0.03, side + 0.03)) * smoothstep(y, -0.3, -0.2)
    hang = hang * (1 - smoothstep(y + 2 * ragged, style.sides - 0.08, style.sides + 0.04))
    line = style.hairline + (0.10 + style.curve) * x**2 + ragged
    front = 1 - smoothstep(y - line, -0.04, 0.04)
    temple = smoothstep(np.abs(x) + 0.6 * ragged + 0.10 * smoothstep(y, -0.9, 0.2), 0.86, 0.95)
    over = np.clip(cap * np.maximum(front, temple) + hang * temple, 0, 1)
    behind = (1 - smoothstep(np.abs(x) + ragged, side - 0.06, side)) * smoothstep(y, -0.3, -0.2)
    behind = behind * (1 - smoothstep(y + ragged, style.behind - 0.1, style.behind)) if style.behind else 0 * behind
    colour = _strands(x, y, face, light, rng)
    shadow = cv2.GaussianBlur(over.astype(np.float32), (0, 0), 5) * 0.35 * alpha
    picture = picture * (1 - shadow)[..., None]
    covered = np.maximum(over, behind * (1 - alpha))[..., None]
    return picture * (1 - covered) + colour * covered, np.maximum(alpha, np.maximum(over, behind))


def _glasses(picture: np.ndarray, half: float, height: float, thickness: int, roundness: float) -> np.ndarray:
    """Frames around the eyes, their shadow, and a little sky on the lenses."""
    angle = np.linspace(0, 2 * np.pi, 60)
    power = 0.25 + 0.75 * roundness  # a superellipse: 1 is an ellipse, less is a box
    shape_x, shape_y = (half * np.sign(f) * np.abs(f) ** power for f in (np.cos(angle), np.sin(angle)))
    shape_y = shape_y * height / half
    rims = [
        np.array([to_pixels(side * 0.47 + float(a), 0.05 + float(b)) for a, b in zip(shape_x, shape_y, strict=True)])
        for side in (-1, 1)
    ]
    edge = 0.47 + half
    bridge = [to_pixels(x, 0.0 - 0.05 * np.cos(np.pi * x / 0.26)) for x in np.linspace(half - 0.47, 0.47 - half, 9)]
    lines = [
        *rims,
        np.array(bridge),
        *(np.array([to_pixels(s * edge, -0.05), to_pixels(s * 1.02, -0.02)]) for s in (-1, 1)),
    ]
    ink, lens = np.zeros(picture.shape[:2], np.uint8), np.zeros(picture.shape[:2], np.uint8)
    for line in lines:
        cv2.polylines(ink, [(line * 8).round().astype(np.int32)], False, 255, thickness, cv2.LINE_AA, 3)
    cv2.fillPoly(lens, [(rim * 8).round().astype(np.int32) for rim in rims], 255, cv2.LINE_AA, 3)
    frame, glass = (mask.astype(np.float32)[..., None] / 255 for mask in (ink, lens))
    shadow = cv2.GaussianBlur(np.roll(ink, 4, 0), (0, 0), 3).astype(np.float32)[..., None] / 255
    picture = picture * (1 - 0.3 * shadow) * (1 - 0.04 * glass) + 0.04 * glass
    return picture * (1 - 0.92 * frame) + 0.06 * frame


def _strands(x: np.ndarray, y: np.ndarray, face: Face, light: Light, rng: np.random.Generator) -> np.ndarray:
    """(h, w, 3) hair: fine lines that run from the crown outwards and then down."""
    crown_x, crown_y = 0.15, -1.35
    angle = np.arctan2(x - crown_x, np.maximum(y - crown_y, -0.3) + 0.4)
    radius = np.sqrt((x - crown_x) ** 2 + (y - crown_y) ** 2)
    noise = rng.standard_normal((16, 512)).astype(np.float32)
    u = (angle + math.pi) / (2 * math.pi) * 511
    lines = sum(
        cv2.remap(noise, (u * k % 511).astype(np.float32), (radius * 3 + k).astype(np.float32), cv2.INTER_LINEAR)
        for k in (1.0, 2.7)
    )
    facing = np.clip(-(x * light.direction[0] + (y + 0.4) * light.direction[1]), -1, 1)
    sheen = np.exp(-(((radius - 0.55) / 0.25) ** 2)) * 0.25
    bright = 0.75 + 0.30 * facing + sheen + 0.13 * lines
    return (np.array(face.hair_colour, np.float32) * np.clip(bright, 0.25, 2.0)[..., None] + 0.02).astype(np.float32)
