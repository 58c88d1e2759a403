"""From phonemes to the movement of a mouth: visemes with dominance over their neighbours.

Each sound has a target for each articulator and a strength with which it insists on it. Where sounds overlap, the mouth
is the average of their targets weighted by dominance (Cohen and Massaro, 1993): /p/ insists on closed lips and leaves
their rounding to its neighbours; /u/ rounds the lips before it is heard.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from omni_avsr.data.speech_synthesis import Phoneme
from omni_avsr.data.spoken import STRESS
from omni_avsr.types import FPS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Articulation:
    """The state of a mouth. As a viseme's target each field is a number; as a movement, (T,) float32."""

    jaw: float | np.ndarray  # 0 teeth together, 1 wide open
    open: float | np.ndarray  # 0 lips touch, 1 lips as far apart as they go
    spread: float | np.ndarray  # -1 corners drawn in, 0 rest, 1 drawn out
    round: float | np.ndarray  # 0 flat, 1 lips pushed forward
    close: float | np.ndarray  # 1 lips pressed together, whatever the jaw does
    tuck: float | np.ndarray  # 1 lower lip under the upper teeth
    tongue: float | np.ndarray  # 0 at rest, 0.6 tip behind the upper teeth, 1 between the teeth


ARTICULATORS = tuple(field.name for field in fields(Articulation))


@dataclass(frozen=True)
class Viseme:
    """Targets of a sound, how strongly it insists on each, and how far before and after it is felt."""

    target: Articulation
    strength: Articulation
    reach: float = 0.05  # seconds after which dominance has fallen to 1/e


def _viseme(
    jaw: float, open: float, spread: float, round: float, close: float = 0, tuck: float = 0, tongue: float = 0, *,
    firm: float = 1.0, reach: float = 0.05, but: Mapping[str, float] | None = None,
) -> Viseme:  # fmt: skip
    insist = {name: (but or {}).get(name, firm) for name in ARTICULATORS}
    return Viseme(Articulation(jaw, open, spread, round, close, tuck, tongue), Articulation(**insist), reach)


#                        jaw   open  spread round close tuck tongue
VISEMES: dict[str, Viseme] = {
    "rest":      _viseme(0.04, 0.04, 0.0, 0.0, firm=0.5, reach=0.07),
    "bilabial":  _viseme(0.10, 0.00, 0.0, 0.0, 1, firm=0.3, reach=0.016, but={"open": 4, "close": 8, "tuck": 5}),
    "labiodental": _viseme(0.12, 0.22, 0.1, 0.0, 0, 1, firm=0.4, reach=0.025, but={"open": 4, "close": 4, "tuck": 6}),
    "dental":    _viseme(0.20, 0.40, 0.1, 0.0, 0, 0, 1, firm=0.5, reach=0.04, but={"tongue": 8, "open": 1.5}),
    "alveolar":  _viseme(0.15, 0.32, 0.1, 0.0, 0, 0, 0.6, firm=0.5, reach=0.035, but={"jaw": 1.2, "tongue": 3}),
    "lateral":   _viseme(0.28, 0.45, 0.1, 0.0, 0, 0, 0.75, firm=0.4, reach=0.045, but={"tongue": 5}),
    "sibilant":  _viseme(0.05, 0.36, 0.4, 0.0, 0, 0, 0.2, firm=0.8, reach=0.045, but={"jaw": 4, "open": 2}),
    "postalveolar": _viseme(0.08, 0.48, -0.5, 0.65, firm=1.2, reach=0.055, but={"jaw": 3, "round": 3, "spread": 3}),
    "approximant_r": _viseme(0.20, 0.35, -0.4, 0.45, firm=0.7, reach=0.06, but={"round": 1.5, "spread": 1.5}),
    "approximant_w": _viseme(0.12, 0.16, -1.0, 1.0, firm=1.0, reach=0.07, but={"round": 5, "spread": 5, "open": 3}),
    "palatal":   _viseme(0.15, 0.35, 0.6, 0.0, firm=0.6, reach=0.05),
    "velar":     _viseme(0.25, 0.38, 0.0, 0.0, firm=0.25, reach=0.04),
    "open":      _viseme(1.00, 1.00, 0.1, 0.0, reach=0.06),
    "open_front": _viseme(0.85, 0.95, 0.4, 0.0, reach=0.06),
    "mid_front": _viseme(0.55, 0.70, 0.5, 0.0, reach=0.055),
    "close_front": _viseme(0.18, 0.42, 0.9, 0.0, firm=1.1, reach=0.055),
    "lax_front": _viseme(0.30, 0.48, 0.4, 0.0, firm=0.8, reach=0.05),
    "central":   _viseme(0.38, 0.48, 0.0, 0.1, firm=0.5, reach=0.05),
    "mid_central": _viseme(0.62, 0.75, 0.0, 0.05, reach=0.055),
    "open_round": _viseme(0.75, 0.75, -0.4, 0.5, reach=0.065),
    "mid_round": _viseme(0.45, 0.48, -0.75, 0.85, firm=1.1, reach=0.07, but={"round": 2, "spread": 2}),
    "close_round": _viseme(0.18, 0.24, -1.0, 1.0, firm=1.2, reach=0.075, but={"round": 3, "spread": 3, "open": 2}),
    "front_round": _viseme(0.22, 0.28, -0.8, 0.95, firm=1.2, reach=0.07, but={"round": 3, "spread": 3}),
    "lax_round": _viseme(0.28, 0.34, -0.5, 0.6, firm=0.9, reach=0.06, but={"round": 1.5, "spread": 1.5}),
}  # fmt: skip

SOUNDS: dict[str, str] = {  # IPA symbol -> viseme
    symbol: viseme
    for viseme, symbols in {
        "bilabial": "p b m ɓ ʙ ɸ β",
        "labiodental": "f v ʋ ɱ",
        "dental": "θ ð",
        "alveolar": "t d n r ɾ ɗ ʈ ɖ ɳ",
        "lateral": "l ɫ ɭ ʎ ɬ ɮ",
        "sibilant": "s z ɕ ʑ",
        "postalveolar": "ʃ ʒ ʂ ʐ",
        "approximant_r": "ɹ ɻ ɚ ɝ",
        "approximant_w": "w ʍ ɥ",
        "palatal": "j ç ʝ ɟ c ɲ",
        "velar": "k g ɡ ŋ x ɣ χ ʁ q ɢ h ɦ ʔ ħ ʕ",
        "open": "a ɑ ɶ",
        "open_front": "æ",
        "mid_front": "e ɛ",
        "close_front": "i",
        "lax_front": "ɪ ɨ",
        "central": "ə ɘ ɵ ɤ ɯ",
        "mid_central": "ʌ ɐ ɜ ɞ",
        "open_round": "ɒ ɔ",
        "mid_round": "o",
        "close_round": "u",
        "front_round": "y ø œ",
        "lax_round": "ʊ ʉ ʏ",
    }.items()
    for symbol in symbols.split()
}
VOWELS = frozenset(
    name for name in VISEMES if name.split("_")[0] in ("open", "mid", "close", "lax", "front", "central")
)
_SUBFRAMES = 4  # the mouth is computed at 100 Hz; a frame shows the mean, as a shutter does


@dataclass(frozen=True)
class _Gesture:
    start: float
    end: float
    viseme: Viseme
    effort: float  # of the opening: stressed vowels are larger


def articulate(phonemes: Sequence[Phoneme], frames: int) -> Articulation:
    """The movement of the mouth: each field (frames,) float32 at 25 fps; frame i shows the time i / 25 s."""
    gestures = _gestures(phonemes)
    times = (np.arange(frames * _SUBFRAMES) - (_SUBFRAMES - 1) / 2) / (FPS * _SUBFRAMES)  # (U,)
    starts, ends, reach = (np.array([v]).T for v in _columns(gestures))
    outside = np.maximum(np.maximum(starts - times, times - ends), 0.0)  # (G, U) seconds to the nearer edge
    falling = np.exp(-((outside / reach) ** 2))
    tracks = {}
    for name in ARTICULATORS:
        strength = np.array([[getattr(g.viseme.strength, name)] for g in gestures])
        effort = np.array([[g.effort if name in ("jaw", "open") else 1.0] for g in gestures])
        target = np.array([[getattr(g.viseme.target, name)] for g in gestures]) * effort
        dominance = strength * falling + 1e-9
        track = (dominance * target).sum(0) / dominance.sum(0)
        tracks[name] = track.reshape(frames, _SUBFRAMES).mean(1).astype(np.float32)
    tracks["open"] = tracks["open"] * (1 - tracks["close"])
    return Articulation(**tracks)


def _columns(gestures: Sequence[_Gesture]) -> tuple[list[float], list[float], list[float]]:
    return [g.start for g in gestures], [g.end for g in gestures], [g.viseme.reach for g in gestures]


def _gestures(phonemes: Sequence[Phoneme]) -> list[_Gesture]:
    """One gesture for each symbol of a phoneme: a diphthong is two, an affricate is two, a pause is rest."""
    gestures = [_Gesture(-10.0, -1.0, VISEMES["rest"], 1.0)]
    for phoneme in phonemes:
        names = [SOUNDS[symbol] for symbol in phoneme.name if symbol in SOUNDS]
        if not names:
            if phoneme.name:
                logger.debug("no viseme for the sound %r; the mouth rests", phoneme.name)
            names = ["rest"]
        effort = 1.12 if phoneme.name[:1] in STRESS and phoneme.name else 0.92
        edges = np.linspace(phoneme.start, phoneme.end, len(names) + 1)
        for name, start, end in zip(names, edges[:-1], edges[1:], strict=True):
            gestures.append(_Gesture(float(start), float(end), VISEMES[name], effort if name in VOWELS else 1.0))
    last = gestures[-1].end
    gestures.append(_Gesture(max(last, 0.0) + 0.05, last + 10.0, VISEMES["rest"], 1.0))
    return gestures
