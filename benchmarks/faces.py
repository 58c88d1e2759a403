"""The face stage: its cost at 640 x 480 on one core, and on real clips how well it tells speakers and delays.

    python benchmarks/faces.py [GRID_MANIFEST]

Cost is processor time over media time, of one thread, decoding apart. The clips are the manifest's split `dev`: pairs
of them side by side, both with moving lips and one with its sound, as pictures and then as measured lips in all
combinations; and each with its sound moved by a known time.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from omni_avsr.data.manifest import read_manifest
from omni_avsr.data.talking_head import render_group
from omni_avsr.media.landmarks import MediaPipeDetector
from omni_avsr.media.mouth import all_mouths, mouth_stream
from omni_avsr.media.quality import KEEN
from omni_avsr.media.reader import read_clip
from omni_avsr.media.speech import speech_spans
from omni_avsr.media.sync import activity, offset
from omni_avsr.media.turns import turns
from omni_avsr.types import FPS, SAMPLES_PER_FRAME, Clip

SIZE = (640, 480)
SECONDS = 4.0
CLIPS, COMPOSED, RIVALS, JOINED = 50, 12, 8, 3


def cost(detector: MediaPipeDetector) -> dict[str, float]:
    """Processor time over media time."""
    out = {}
    for people in (1, 2, 3):
        frames = render_group([([], None)] * people, SECONDS, seed=people, size=SIZE)[0].frames
        stages: dict[str, Iterable[Any]] = {"all": all_mouths(frames, detector=detector)}
        if people == 1:
            stages["largest"] = mouth_stream(frames, detector=detector)
        for name, stage in stages.items():
            before = time.process_time()
            assert sum(1 for _ in stage) == len(frames)
            out[f"{name}, {people} face{'s' if people > 1 else ''}"] = (time.process_time() - before) / SECONDS
    return out


def composed(clips: list[Clip], detector: MediaPipeDetector) -> float:
    """Share of the frames in which the right one of two clips side by side is named."""
    right = []
    for number in range(COMPOSED):
        pair = [clips[number], clips[number + len(clips) // 2]]  # neighbours of the manifest say almost the same
        frames = min(len(clip.frames) for clip in pair if clip.frames is not None)
        beside = np.concatenate([clip.frames[:frames] for clip in pair if clip.frames is not None], axis=2)
        speaker = number % 2
        audio = pair[speaker].audio
        assert audio is not None
        seen = list(all_mouths(beside, detector=detector))
        ids = sorted(seen[0], key=lambda id: seen[0][id].box[0])
        openings = np.array([[frame[id].opening if id in frame else np.nan for frame in seen] for id in ids])
        sound = audio[: frames * SAMPLES_PER_FRAME]
        found = turns(openings, sound, speech_spans(sound, KEEN))
        right.append(sum(turn.end - turn.start for turn in found if turn.speaker == speaker) / frames)
    return float(np.mean(right))


def told_apart(lips: list[np.ndarray], sounds: list[np.ndarray]) -> float:
    """Share of pairs in which the lips that belong to the sound fit it better than those of another sentence."""
    rng, right = np.random.default_rng(0), []
    for own, sound in enumerate(sounds):
        for other in rng.choice([n for n in range(len(lips)) if n != own], RIVALS, replace=False):
            frames = min(len(lips[own]), len(lips[other]))
            both = np.stack([lips[own][:frames], lips[other][:frames]])
            fit = activity(both, sound[: frames * SAMPLES_PER_FRAME]).mean(1)
            right.append(fit[0] > fit[1])
    return float(np.mean(right))


def delays(lips: list[np.ndarray], sounds: list[np.ndarray]) -> dict[str, float]:
    """Error of measured delays: of single clips, and of `JOINED` in a row, whose sound is moved by up to 0.6 s."""
    rng, out = np.random.default_rng(1), {}
    for count in (1, JOINED):
        errors = []
        for first in range(0, len(lips) - count + 1, count):
            shown = np.concatenate(lips[first : first + count])
            sound = np.concatenate(sounds[first : first + count])
            moved = int(rng.integers(-15, 16))
            found = offset(shown[None], np.roll(sound, moved * SAMPLES_PER_FRAME))
            errors.append(abs(found.seconds - moved / FPS) if found else 1.0)
        name = f"{count * 3} s"
        out[f"{name}: median error, ms"] = 1000 * float(np.median(errors))
        out[f"{name}: within 60 ms"] = float(np.mean(np.array(errors) < 0.06))
    return out


def main(manifest: Path | None) -> None:
    """Prints one JSON object."""
    cv2.setNumThreads(1)
    detector = MediaPipeDetector()
    found: dict[str, Any] = {"processor time over media time": cost(detector)}
    if manifest is not None:
        rows = islice((row for row in read_manifest(manifest) if row.split == "dev"), CLIPS)
        clips = [read_clip(row.media) for row in rows]
        lips, sounds = [], []
        for clip in clips:
            opening = np.array([mouth.opening for mouth in mouth_stream(clip.frames, detector=detector)])
            assert clip.audio is not None
            samples = len(opening) * SAMPLES_PER_FRAME
            lips.append(opening)
            sounds.append(np.pad(clip.audio, (0, max(0, samples - len(clip.audio))))[:samples])
        found["two clips side by side, right speaker (share of frames)"] = composed(clips, detector)
        found["two moving mouths, right one (share of pairs)"] = told_apart(lips, sounds)
        found["delay of sound"] = delays(lips, sounds)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
