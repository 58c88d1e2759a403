"""The moving parts of a face: lips, teeth, tongue, jaw and eyelids, drawn on the canvas of `portrait`."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from omni_avsr.data.portrait import (
    EXTENT,
    EYE_HALF,
    EYE_X,
    MOUTH_Y,
    SCALE,
    Face,
    Portrait,
    grid,
    smoothstep,
    window_pixels,
)

JAW_DROP = 0.24  # units by which the chin falls when the jaw is wide open
APERTURE = 0.34  # units between the lips when they are as far apart as they go
MOUTH_HALF = 0.37  # units, half the width of the mouth at rest
WINDOW = (-0.72, 0.72, 0.72, 1.98)  # where the mouth is drawn: left, top, right, bottom in units
LOWER_FACE = (-1.25, 0.55, 1.25, 2.2)  # what the jaw moves
EYES = (-0.85, -0.32, 0.85, 0.34)


@dataclass(frozen=True)
class MouthState:
    """One moment of an `Articulation`; the same fields as numbers."""

    jaw: float
    open: float
    spread: float
    round: float
    close: float
    tuck: float
    tongue: float


@dataclass(frozen=True)
class Lips:
    """The four edges of the lips over x, in units; between the inner two lies the opening."""

    half: float  # half the width of the mouth
    centre: float  # x of its middle
    upper_outer: np.ndarray  # (1, w) y
    upper_inner: np.ndarray
    lower_inner: np.ndarray
    lower_outer: np.ndarray

    def landmarks(self, x: np.ndarray) -> np.ndarray:
        """(4, 2) left corner, right corner, middle of the upper and lower inner edge, in units; `x` (1, w)."""
        middle = int(np.argmin(np.abs(x[0] - self.centre)))
        left, right = (int(np.argmin(np.abs(x[0] - self.centre - s * self.half))) for s in (-1, 1))
        return np.array(
            [
                (self.centre - self.half, self.upper_inner[0, left]),
                (self.centre + self.half, self.upper_inner[0, right]),
                (self.centre, self.upper_inner[0, middle]),
                (self.centre, self.lower_inner[0, middle]),
            ]
        )


def lips(x: np.ndarray, state: MouthState, face: Face) -> Lips:
    """The lips' edges for (1, w) positions `x`."""
    gain = face.articulation
    half = MOUTH_HALF * face.mouth_width * (1 + gain * (0.16 * state.spread - 0.24 * state.round))
    aperture = APERTURE * gain * state.open * (1 - state.close)
    drop = JAW_DROP * gain * state.jaw
    s = (x - face.asymmetry) / half
    corner = MOUTH_Y + 0.22 * drop - 0.02 * state.spread
    inner = np.clip(1 - np.abs(s / 0.94) ** 2.4, 0, 1) ** 0.8
    body = np.clip(1 - np.abs(s) ** 2.0, 0, 1) ** 0.75
    pressed = 1 - 0.35 * state.close
    bow = 1 - 0.22 * np.exp(-((s / 0.16) ** 2)) + 0.10 * np.exp(-(((np.abs(s) - 0.28) / 0.15) ** 2))
    upper = 0.105 * face.upper_lip * pressed * (1 + 0.30 * state.round - 0.12 * state.spread) * body * bow
    lower = 0.145 * face.lower_lip * pressed * (1 + 0.08 * state.round - 0.10 * state.spread) * body
    lower = lower * (1 - 0.5 * state.tuck)
    wave = 0.012 * np.cos(np.clip(s, -1, 1) * 5) * body  # the upper lip's tubercle, on closed lips
    sag = 0.55 * drop * (1 - state.close) * body  # the middle follows the jaw more than the corners do
    middle = corner + wave + 0.35 * sag
    upper_inner = middle - 0.30 * aperture * inner
    lower_inner = middle + 0.70 * aperture * inner - 0.03 * state.tuck * inner
    return Lips(half, face.asymmetry, upper_inner - upper, upper_inner, lower_inner, lower_inner + lower)


def move_jaw(canvas: np.ndarray, state: MouthState, face: Face) -> None:
    """Pull the lower face down and the cheeks inwards, in place; `canvas` is (h, w, c) uint8."""
    x, y = grid(*LOWER_FACE)
    drop = JAW_DROP * face.articulation * state.jaw
    pull = smoothstep(y, 0.85, 1.45) * (1 - 0.35 * np.clip(np.abs(x), 0, 1.1) ** 2)
    side = 0.05 * face.articulation * (state.spread - state.round)
    cheek = side * np.sign(x) * np.exp(-0.5 * (((np.abs(x) - 0.5) / 0.2) ** 2 + ((y - MOUTH_Y) / 0.25) ** 2))
    u, v = ((a - b) * SCALE - 0.5 for a, b in ((x - cheek, EXTENT[0]), (y - drop * pull, EXTENT[1])))
    left, top, right, bottom = window_pixels(LOWER_FACE)
    canvas[top:bottom, left:right] = cv2.remap(canvas, u.astype(np.float32), v.astype(np.float32), cv2.INTER_LINEAR)


def draw_mouth(canvas: np.ndarray, portrait: Portrait, state: MouthState) -> np.ndarray:
    """Draw lips, teeth and tongue in place on (h, w, c) uint8; returns the (4, 2) landmarks of `Lips` in units."""
    face = portrait.face
    x, y = grid(*WINDOW)
    shape = lips(x, state, face)
    left, top, right, bottom = window_pixels(WINDOW)
    patch = canvas[top:bottom, left:right, :3].astype(np.float32)
    shade = portrait.shade[top:bottom, left:right]
    soft = 1.3 / SCALE
    s = np.abs((x - shape.centre) / shape.half)
    within = smoothstep(1 - s, -0.01, 0.03)
    _shadow(patch, y, shape, np.clip(1 - s**2, 0, 1))
    hollow = smoothstep(y - shape.upper_inner, -soft, soft) * smoothstep(shape.lower_inner - y, -soft, soft) * within
    if hollow.any():
        lamp = 0.45 + 0.55 * np.clip(shade, 0.2, 1.1)[..., None]
        _blend(patch, _cavity(x, y, shape, state, face) * lamp, hollow)
    upper = smoothstep(y - shape.upper_outer, -2 * soft, 2 * soft) * smoothstep(shape.upper_inner - y, -soft, soft)
    lower = smoothstep(y - shape.lower_inner, -soft, soft) * smoothstep(shape.lower_outer - y, -3 * soft, 3 * soft)
    _blend(patch, _lip_colour(y, shape, state, face, shade), np.maximum(upper, lower) * within)
    gap = shape.lower_inner - shape.upper_inner
    seam = np.exp(-0.5 * ((y - shape.upper_inner - gap / 2) / 0.014) ** 2) * np.exp(-((gap / 0.03) ** 2))
    patch *= (1 - 0.55 * seam * within)[..., None]
    canvas[top:bottom, left:right, :3] = np.clip(patch, 0, 255)
    return shape.landmarks(x)


def _blend(patch: np.ndarray, colour: np.ndarray, mask: np.ndarray) -> None:
    patch += (colour - patch) * mask[..., None]


def _shadow(patch: np.ndarray, y: np.ndarray, shape: Lips, fade: np.ndarray) -> None:
    below = np.exp(-0.5 * ((y - shape.lower_outer - 0.035) / 0.045) ** 2)
    above = np.exp(-0.5 * ((y - shape.upper_outer + 0.01) / 0.02) ** 2)
    patch *= (1 - fade * (0.22 * below - 0.05 * above))[..., None]


def _lip_colour(y: np.ndarray, shape: Lips, state: MouthState, face: Face, shade: np.ndarray) -> np.ndarray:
    """(h, w, 3): the upper lip turns away from the light towards its inner edge, the lower lip bulges and shines."""
    up = np.clip((y - shape.upper_outer) / np.maximum(shape.upper_inner - shape.upper_outer, 1e-3), 0, 1)
    down = np.clip((y - shape.lower_inner) / np.maximum(shape.lower_outer - shape.lower_inner, 1e-3), 0, 1)
    is_upper = y < 0.5 * (shape.upper_inner + shape.lower_inner)
    tone = np.where(
        is_upper, 1.02 - 0.30 * up, 0.82 + 0.36 * np.sin(np.pi * np.clip(0.1 + 0.8 * down, 0, 1)) - 0.12 * down
    )
    gloss = np.where(is_upper, 0.0, np.exp(-(((down - 0.38) / 0.16) ** 2))) * (12 + 12 * state.round)
    base = np.array(face.lips, np.float32) * 255
    return (base * (tone * np.clip(shade, 0.35, 1.2))[..., None] + gloss[..., None] * shade[..., None]).astype(
        np.float32
    )


def _cavity(x: np.ndarray, y: np.ndarray, shape: Lips, state: MouthState, face: Face) -> np.ndarray:
    """(h, w, 3) inside of the mouth: throat, upper teeth (fixed to the skull), lower teeth and tongue (on the jaw)."""
    drop = JAW_DROP * face.articulation * state.jaw
    s = (x - shape.centre) / (MOUTH_HALF * face.mouth_width)
    colour = np.ones((y.shape[0], x.shape[1], 1), np.float32) * np.array([58, 22, 22], np.float32)
    arch = 0.035 * s**2
    upper_edge = MOUTH_Y + 0.055 - arch
    lower_edge = MOUTH_Y + 0.045 + 0.95 * drop + arch
    sides = np.clip(1.05 - 0.55 * s**2, 0.25, 1)
    gaps = 1 - 0.22 * np.exp(-(((np.sin(np.pi * s / 0.22)) / 0.18) ** 2))
    under_lip = np.clip(0.55 + (y - shape.upper_inner) / 0.14, 0.5, 1)
    enamel = np.array([214, 203, 187], np.float32) * (sides * gaps * under_lip * (1 - 0.55 * state.round))[..., None]
    in_arch = smoothstep(0.98 - np.abs(s), -0.05, 0.1)
    soft = 1.2 / SCALE
    _blend(colour, enamel * 0.88, smoothstep(y - lower_edge, -soft, soft) * in_arch)
    tip = lower_edge + 0.03 - state.tongue * (lower_edge - upper_edge + 0.05)
    dome = tip + 0.10 * (s / 0.75) ** 2
    flesh = np.array([168, 84, 84], np.float32) * np.clip(0.65 + 1.6 * (y - dome), 0.6, 1.05)[..., None]
    tongue = smoothstep(y - dome, -2 * soft, 2 * soft) * smoothstep(0.72 - np.abs(s), 0, 0.1)
    if state.tongue < 0.85:  # the upper teeth hide a tongue that is behind them
        _blend(colour, flesh, tongue)
        _blend(colour, enamel, smoothstep(upper_edge - y, -soft, soft) * in_arch)
    else:
        _blend(colour, enamel, smoothstep(upper_edge - y, -soft, soft) * in_arch)
        _blend(colour, flesh, tongue)
    return colour


def draw_eyes(canvas: np.ndarray, portrait: Portrait, lid: float, gaze: tuple[float, float]) -> None:
    """Draw both eyes in place on (h, w, c) uint8: `lid` 0 open to 1 shut; `gaze` -1 to 1 right and down."""
    face = portrait.face
    x, y = grid(*EYES)
    left, top, right, bottom = window_pixels(EYES)
    patch = canvas[top:bottom, left:right, :3].astype(np.float32)
    shade = portrait.shade[top:bottom, left:right]
    half, soft = EYE_HALF * face.eye_size, 1.0 / SCALE
    t = (np.abs(x) - EYE_X) / half  # -1 inner corner, 1 outer corner
    body = np.clip(1 - np.abs(t) ** 2.2, 0, 1)
    base = -face.eye_tilt * half * t + 0.012 * t
    low = base + 0.062 * face.eye_size * body
    high = base - 0.098 * face.eye_size * body**0.8 * np.where(t < 0, 1.0, 1.04)
    edge = high + (low - high) * lid
    within = smoothstep(1 - np.abs(t), -0.02, 0.08)
    ball = smoothstep(y - edge, -soft, soft) * smoothstep(low - y, -soft, soft) * within
    _blend(patch, _eyeball(x, y, edge, gaze, face, shade), ball)
    lash = np.exp(-0.5 * ((y - edge + 0.004) / 0.014) ** 2) * within
    crease = np.exp(-0.5 * ((y - high + 0.05 * (1 - 0.5 * lid)) / 0.014) ** 2) * within * (1 - ball)
    rim = np.exp(-0.5 * ((y - low) / 0.010) ** 2) * within
    patch *= (1 - np.clip(0.78 * lash + 0.28 * crease + 0.25 * rim, 0, 0.9))[..., None]
    canvas[top:bottom, left:right, :3] = np.clip(patch, 0, 255)


def _eyeball(
    x: np.ndarray, y: np.ndarray, edge: np.ndarray, gaze: tuple[float, float], face: Face, shade: np.ndarray
) -> np.ndarray:
    side = np.sign(x)
    radius = np.hypot(x - side * EYE_X - 0.06 * gaze[0], y + 0.012 - 0.03 * gaze[1]) / (0.088 * face.eye_size**0.5)
    white = np.array([222, 216, 210], np.float32) * np.clip(0.72 + 0.25 * shade, 0, 1.05)[..., None]
    spokes = 0.8 + 0.45 * np.clip(radius, 0, 1)
    iris = np.array(face.iris, np.float32) * 255 * (spokes * np.where(radius > 0.85, 0.6, 1.0))[..., None]
    white += (iris - white) * smoothstep(1 - radius, -0.06, 0.06)[..., None]
    white *= (1 - 0.93 * smoothstep(0.42 - radius, -0.05, 0.05))[..., None]
    glint = np.hypot(x - side * EYE_X - 0.06 * gaze[0] + 0.03, y + 0.045) / 0.02
    white += (240 - white) * (0.85 * smoothstep(1 - glint, -0.3, 0.3))[..., None]
    return white * np.clip(0.55 + (y - edge) / 0.09, 0.5, 1)[..., None]  # the upper lid's shadow
