"""Chance meets people and places: random faces and scenes for `talking_head`."""

from __future__ import annotations

import numpy as np

from omni_avsr.data.portrait import GLASSES, HAIR, Colour, Face, Light
from omni_avsr.data.stage import BACKGROUNDS, Scene

SKINS: tuple[Colour, ...] = (
    (0.93, 0.77, 0.68), (0.88, 0.70, 0.60), (0.82, 0.64, 0.52), (0.74, 0.55, 0.42),
    (0.64, 0.46, 0.35), (0.54, 0.37, 0.28), (0.44, 0.30, 0.22),
)  # fmt: skip
HAIR_COLOURS: tuple[Colour, ...] = (
    (0.07, 0.06, 0.06), (0.16, 0.11, 0.08), (0.28, 0.19, 0.12), (0.45, 0.30, 0.17),
    (0.66, 0.50, 0.28), (0.50, 0.22, 0.10), (0.55, 0.54, 0.53), (0.80, 0.78, 0.76),
)  # fmt: skip
IRISES: tuple[Colour, ...] = ((0.25, 0.16, 0.10), (0.36, 0.25, 0.14), (0.35, 0.45, 0.55), (0.35, 0.42, 0.30))


def _vary(rng: np.random.Generator, colour: Colour, bright: float, tint: float) -> Colour:
    """`colour` with its brightness and its tint changed by factors of those standard deviations (of their ln)."""
    r, g, b = np.clip(np.array(colour) * np.exp(rng.normal(0, bright) + rng.normal(0, tint, 3)), 0.02, 0.98)
    return float(r), float(g), float(b)


def random_face(rng: np.random.Generator) -> Face:
    """A person drawn at random; beards grow where a coin says so, dark skin goes with dark hair."""
    tone = int(rng.integers(len(SKINS)))
    skin = _vary(rng, SKINS[tone], 0.05, 0.015)
    hair = HAIR_COLOURS[int(rng.integers(2 if tone > 3 else len(HAIR_COLOURS)))]
    redness = rng.uniform(0.75, 0.95)
    lips = _vary(rng, (skin[0] * redness, skin[1] * redness * 0.66, skin[2] * redness * 0.74), 0.05, 0.03)
    beard = float(rng.choice([0.0, 0.25, 0.7, 0.95], p=[0.65, 0.17, 0.1, 0.08]))
    style = str(rng.choice(sorted(HAIR)))
    return Face(
        skin=skin,
        length=rng.uniform(0.94, 1.06),
        jaw=rng.uniform(0.76, 0.95),
        cheeks=rng.uniform(0.1, 1.0),
        nose_width=rng.uniform(0.85, 1.3),
        nose_height=rng.uniform(0.75, 1.15),
        eye_size=rng.uniform(0.9, 1.12),
        eye_tilt=rng.normal(0.02, 0.06),
        iris=_vary(rng, IRISES[int(rng.integers(2 if tone > 2 else len(IRISES)))], 0.1, 0.05),
        brow=rng.uniform(0.6, 1.4),
        brow_height=rng.uniform(0.26, 0.34),
        lips=lips,
        upper_lip=rng.uniform(0.65, 1.35),
        lower_lip=rng.uniform(0.75, 1.3),
        mouth_width=rng.uniform(0.88, 1.14),
        hair=style,
        hair_colour=_vary(rng, hair, 0.1, 0.04),
        volume=rng.uniform(0.05, 0.22),
        beard=beard,
        moustache=beard if rng.random() < 0.8 else float(rng.random() < 0.1),
        glasses=str(rng.choice(sorted(GLASSES))) if rng.random() < 0.2 else "",
        age=rng.uniform(0, 1),
        articulation=rng.uniform(0.75, 1.2),
        asymmetry=rng.normal(0, 0.012),
        seed=int(rng.integers(2**31)),
    )


def random_scene(rng: np.random.Generator, people: int = 1, size: tuple[int, int] = (360, 288)) -> Scene:
    """A place, a light and a camera drawn at random for `people` side by side in a frame of `size` pixels."""
    light = Light(
        direction=(rng.uniform(-0.7, 0.7), rng.uniform(-0.7, -0.1), rng.uniform(0.6, 1.0)),
        ambient=rng.uniform(0.35, 0.65),
        colour=_vary(rng, (1.0, 0.98, 0.95), 0.03, 0.025),
    )
    fits = min(size[1] / 288, size[0] / 250 / people)  # the head, 3.5 units high and 2.6 wide, stays in the frame
    return Scene(
        scale=fits * rng.uniform(40, 60),
        centre=(0.5 + (rng.uniform(-0.1, 0.1) if people == 1 else 0.0), rng.uniform(0.50, 0.58)),
        light=light,
        yaw=rng.normal(0, 0.09),
        pitch=rng.normal(0, 0.05),
        roll=rng.normal(0, 0.04),
        liveliness=rng.uniform(0.3, 1.5),
        background=str(rng.choice(sorted(BACKGROUNDS), p=[0.15, 0.1, 0.25, 0.5])),
        wall=_vary(rng, (0.5, 0.5, 0.5), 0.35, 0.18),
        clothes=_vary(rng, (0.3, 0.3, 0.32), 0.5, 0.22),
        neckline=rng.uniform(0.0, 0.45),
        blur=rng.uniform(0.3, 1.0),
        noise=rng.uniform(0.5, 5.0),
        flicker=rng.uniform(0.0, 0.015),
        quality=int(rng.integers(35, 95)) if rng.random() < 0.5 else 0,
    )
