"""Several faces in one picture: whose lips are read in each window, and who is named as its speaker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from omni_avsr.media.mouth import BLIND, Mouth
from omni_avsr.media.quality import KEEN
from omni_avsr.media.speech import speech_spans
from omni_avsr.media.turns import Turn, turns

CROWDS = ("active", "all")  # values of `face` that look at everybody

Faces = Mapping[int, Mouth]  # the mouths of one frame by track id; without those that are not found


@dataclass(frozen=True)
class Part:
    """A part of a window with one mouth to read."""

    start: int  # frames from the window's beginning
    end: int  # exclusive
    mouths: tuple[Mouth, ...]
    speaker: str | None = None


@dataclass
class Cast:
    """Who has spoken so far; names are given in the order of speaking and stay."""

    face: str  # row of `CROWDS`
    _names: dict[int, str] = field(default_factory=dict)

    def name(self, id: int) -> str:
        """'SPEAKER_00' for the first track that speaks, and so on, as whisperX names them."""
        return self._names.setdefault(id, f"SPEAKER_{len(self._names):02d}")

    def parts(self, frames: Sequence[Faces], audio: np.ndarray | None) -> list[Part]:
        """A window as the mouths to be read in it.

        Args:
            frames: everybody who is seen, frame by frame.
            audio: (S,) float32, 16 kHz, of the same frames; None = nothing was recorded.

        Returns:
            'active': one part, in which the mouth is that of whoever speaks at the moment.
            'all': one part per turn, with its speaker; None where nobody who is seen speaks.
        """
        ids = sorted({id for frame in frames for id in frame})
        openings = np.full((len(ids), len(frames)), np.nan)
        for row, id in enumerate(ids):
            openings[row] = [frame[id].opening if id in frame else np.nan for frame in frames]
        spans = None if audio is None else speech_spans(audio, KEEN)
        found = turns(openings, audio, spans) or [Turn(None, 0, 0)]
        owners = [None if turn.speaker is None else ids[turn.speaker] for turn in found]
        shown = [self._mouths(frames[t.start : t.end], owner) for t, owner in zip(found, owners, strict=True)]
        if self.face == "active":
            return [Part(0, len(frames), tuple(mouth for mouths in shown for mouth in mouths))]
        return [
            Part(turn.start, turn.end, mouths, None if owner is None else self.name(owner))
            for turn, owner, mouths in zip(found, owners, shown, strict=True)
        ]

    def _mouths(self, frames: Sequence[Faces], owner: int | None) -> tuple[Mouth, ...]:
        return tuple(BLIND if owner is None else frame.get(owner, BLIND) for frame in frames)
