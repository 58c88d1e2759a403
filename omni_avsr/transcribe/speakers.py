"""Several faces in one picture: whose lips are read in each window, and who is named as its speaker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from omni_avsr.media.mouth import BLIND, Mouth
from omni_avsr.media.quality import KEEN
from omni_avsr.media.speech import speech_spans
from omni_avsr.media.turns import Turn, turns
from omni_avsr.transcribe.windows import LONGEST, Gaze, Part, speaking

CROWDS = ("active", "all")  # values of `face` that look at everybody

Faces = Mapping[int, Mouth]  # the mouths of one frame by track id; without those that are not found


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
            return [Part(0, [mouth for mouths in shown for mouth in mouths])]
        return [
            Part(turn.start, mouths, None if owner is None else self.name(owner))
            for turn, owner, mouths in zip(found, owners, shown, strict=True)
        ]

    def _mouths(self, frames: Sequence[Faces], owner: int | None) -> list[Mouth]:
        return [BLIND if owner is None else frame.get(owner, BLIND) for frame in frames]


class Crowd(Gaze[Faces]):
    """The mouths of everybody, read forward through a file."""

    def __init__(self, frames: Iterator[Faces], face: str, kept: float = 3 * LONGEST) -> None:
        """`frames` from the beginning of the file; `face` a row of `CROWDS`; `kept` seconds can be looked at again."""
        super().__init__(frames, kept)
        self._cast = Cast(face)

    def parts(self, start: float, end: float, audio: np.ndarray | None) -> list[Part]:
        """As `Cast.parts` of the frames between `start` and `end` seconds."""
        return self._cast.parts(self.look(start, end), audio)

    def is_face(self, seen: Faces) -> bool:
        """Anybody's."""
        return bool(seen)

    def lips(self, seen: Sequence[Faces]) -> np.ndarray:
        """Anybody's."""
        ids = {id for frame in seen for id in frame}
        each = [speaking([frame.get(id, BLIND) for frame in seen]) for id in ids]
        return np.max(each, axis=0) if each else np.zeros(len(seen))
