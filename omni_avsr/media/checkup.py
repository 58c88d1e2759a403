"""What a file is and how well it can be heard and seen: everything `doctor` judges, measured without judging.

A long file is looked at in stretches spread over it, so that the cost does not grow with its length.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import av
import cv2
import numpy as np

from omni_avsr.media.clock import decoded, packets
from omni_avsr.media.face import load_detector
from omni_avsr.media.landmarks import Detector
from omni_avsr.media.mouth import Mouth, all_mouths
from omni_avsr.media.quality import KEEN, audio_quality, video_quality
from omni_avsr.media.reader import MediaFile
from omni_avsr.media.source import Probe, Source, probe
from omni_avsr.media.speech import speech_spans
from omni_avsr.media.sync import BELIEVED, Offset, offset
from omni_avsr.media.turns import turns
from omni_avsr.types import FPS, SAMPLES_PER_FRAME, AudioQuality, MediaInfo, VideoQuality

STRETCH = 10.0  # seconds that are looked at in one piece
WHOLE = 120.0  # seconds up to which a file is looked at as a whole
STRIP = 12  # crops shown of each face
SCENES = 6  # pictures shown
WIDE = 640  # pixels to which they are shrunk
BRIEF = FPS // 2  # frames for which a face must be seen to count
RIVALS = 3  # faces whose lips are laid against the sound
HDR = {16: "PQ", 18: "HLG"}  # transfer curves of ITU-T H.273


@dataclass(frozen=True)
class StreamFacts:
    """One stream of the container."""

    kind: str  # audio, video, subtitle, …
    codec: str
    language: str  # as the file says; '' where it does not
    used: bool


@dataclass(frozen=True)
class Timing:
    """When pictures are shown, by the packets' timestamps."""

    frames: int
    shortest: float  # seconds between two pictures
    usual: float
    longest: float

    @property
    def constant(self) -> bool:
        """Evenly spaced, up to the milliseconds to which many containers round."""
        slack = max(0.0021, 0.05 * self.usual)
        return self.longest - self.usual <= slack and self.usual - self.shortest <= slack


@dataclass(frozen=True)
class FaceFacts:
    """One person in the picture."""

    id: int
    share: float  # of the frames looked at
    speaks: float  # share of the time with a voice in which it is this one's
    quality: VideoQuality
    strip: np.ndarray  # (n, 96, 96) uint8, n <= STRIP: what the model sees


@dataclass(frozen=True)
class Scene:
    """A picture, small, with its faces."""

    time: float  # seconds
    picture: np.ndarray  # (h, w, 3) uint8 RGB
    boxes: dict[int, np.ndarray]  # (4,) x, y, width, height in it, by face id


@dataclass(frozen=True)
class Checkup:
    """Everything that was measured."""

    info: MediaInfo
    streams: tuple[StreamFacts, ...]
    lag: float  # seconds by which the first sound comes after the first picture
    timing: Timing | None  # None without picture
    hdr: str  # '' or the name of the curve
    interlaced: bool
    looked: float  # seconds that were looked at
    audio: AudioQuality | None
    faces: tuple[FaceFacts, ...]  # the one who speaks most first
    offset: Offset | None  # of the sound against the lips of the one who speaks most
    scenes: tuple[Scene, ...]
    remarks: tuple[str, ...]  # what the reader said


def examine(path: str | Path, *, detector: Detector | None = None, offline: bool = False) -> Checkup:
    """Measures a file.

    Args:
        path: of the file.
        detector: a loaded face detector; None = the default one.
        offline: never fetch the face networks.

    Raises:
        MediaError: it is no media, or nothing in it decodes.
        AssetError: the face networks are missing and may not or cannot be fetched.
    """
    with _remarks() as remarks:
        source = Source(path)
        found = probe(source)
        streams, timing = _streams(source, found), _timing(source, found)
        spans = _stretches(found.info.duration)
        with MediaFile(source, found) as media:
            sight = _look(media, spans, detector or load_detector(offline=offline)) if found.video else None
            audio = _listen(media, spans, sight) if found.audio else None
        hdr, interlaced = _picture(source, found)
        shift = None if sight is None or audio is None else _offset(sight, audio)
    return Checkup(
        info=found.info,
        streams=streams,
        lag=float(found.audio.first - found.video.first) if found.audio and found.video else 0.0,
        timing=timing,
        hdr=hdr,
        interlaced=interlaced,
        looked=sum(end - start for start, end in spans),
        audio=None if audio is None else audio_quality(audio),
        faces=() if sight is None else _faces(sight, audio, shift),
        offset=shift,
        scenes=() if sight is None else _scenes(sight),
        remarks=tuple(dict.fromkeys(remarks)),
    )


@contextmanager
def _remarks() -> Iterator[list[str]]:
    """The warnings of this room while it reads; they become rows of the result, and are not logged as well."""
    said: list[str] = []
    room = logging.getLogger("omni_avsr.media")

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                said.append(record.getMessage())
            elif room.parent is not None:
                room.parent.handle(record)

    ear, passed_on = Ear(), room.propagate
    room.addHandler(ear)
    room.propagate = False
    try:
        yield said
    finally:
        room.removeHandler(ear)
        room.propagate = passed_on


# ---- the container -----------------------------------------------------------------------------


def _streams(source: Source, found: Probe) -> tuple[StreamFacts, ...]:
    used = {track.index for track in (found.audio, found.video) if track is not None}
    with source.open() as container:
        return tuple(
            StreamFacts(
                kind=stream.type,
                codec=stream.codec_context.name if stream.codec_context else "unknown",
                language=(stream.language or "").replace("und", ""),
                used=stream.index in used,
            )
            for stream in container.streams
        )


def _timing(source: Source, found: Probe) -> Timing | None:
    """By the packets' timestamps: nothing is decoded."""
    if found.video is None:
        return None
    times = []
    with source.open() as container:
        try:
            for packet in packets(container, [container.streams[found.video.index]]):  # type: ignore[list-item]
                if packet.pts is not None and packet.time_base is not None:
                    times.append(float(packet.pts * packet.time_base))
        except av.FFmpegError:
            pass  # cut short; the reader says so
    steps = np.diff(np.unique(np.round(times, 6)))
    if not len(steps):
        return Timing(len(times), 0.0, 0.0, 0.0)
    return Timing(len(times), float(steps.min()), float(np.median(steps)), float(steps.max()))


def _picture(source: Source, found: Probe) -> tuple[str, bool]:
    """The HDR curve of the first picture, '' for none, and whether it is interlaced."""
    if found.video is None:
        return "", False
    with source.open() as container:
        stream = container.streams.video[[s.index for s in container.streams.video].index(found.video.index)]
        first = next((f for f in decoded(container, [stream], source.name) if isinstance(f, av.VideoFrame)), None)
    return ("", False) if first is None else (HDR.get(int(first.color_trc), ""), bool(first.interlaced_frame))


def _stretches(duration: float) -> list[tuple[float, float]]:
    """The whole file, or stretches spread evenly over a long one, `WHOLE` seconds together."""
    if duration <= WHOLE:
        return [(0.0, max(duration, 1 / FPS))]
    count = round(WHOLE / STRETCH)
    starts = np.linspace(0, duration - STRETCH, count)
    return [(float(start), float(start) + STRETCH) for start in starts]


# ---- what is seen and heard --------------------------------------------------------------------


@dataclass(frozen=True)
class _Sight:
    """The stretches, seen; frames of all of them are counted through."""

    frames: list[int]  # of each stretch
    times: list[float]  # of each frame, seconds
    mouths: list[dict[int, Mouth]]  # of each frame
    pictures: dict[int, np.ndarray]  # frame -> the whole picture, small
    scale: float  # of those pictures

    def openings(self, ids: Sequence[int]) -> np.ndarray:
        """(K, T) of the mouths; NaN where a face is not seen."""
        return np.array([[frame[i].opening if i in frame else np.nan for frame in self.mouths] for i in ids], float)

    def ids(self) -> list[int]:
        """Faces that are seen for more than a moment, most often seen first."""
        counts = Counter(id for frame in self.mouths for id in frame)
        return [id for id, count in counts.most_common() if count >= min(BRIEF, len(self.mouths))]


def _look(media: MediaFile, spans: Sequence[tuple[float, float]], detector: Detector) -> _Sight:
    total = sum(round((end - start) * FPS) for start, end in spans)
    wanted = {int((number + 0.5) * total / SCENES) for number in range(SCENES)}
    scale = min(1.0, WIDE / (media.info.width or WIDE))
    sight = _Sight([], [], [], {}, scale)

    def pictures() -> Iterator[np.ndarray]:
        for start, end in spans:
            sight.frames.append(0)
            for number, picture in enumerate(media.frames(start, end)):
                if len(sight.times) in wanted:
                    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
                    sight.pictures[len(sight.times)] = small
                sight.times.append(start + number / FPS)
                sight.frames[-1] += 1
                yield picture

    sight.mouths.extend(all_mouths(pictures(), detector=detector))
    return sight


def _listen(media: MediaFile, spans: Sequence[tuple[float, float]], sight: _Sight | None) -> np.ndarray:
    """(S,) the sound of all stretches; as long as the picture of each, where there is one."""
    parts = []
    for number, (start, end) in enumerate(spans):
        blocks = list(media.audio_blocks(start, end))
        sound = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
        samples = sight.frames[number] * SAMPLES_PER_FRAME if sight and sum(sight.frames) else len(sound)
        parts.append(np.pad(sound[:samples], (0, max(0, samples - len(sound)))))
    return np.concatenate(parts)


def _offset(sight: _Sight, audio: np.ndarray) -> Offset | None:
    """Of the face, or of all together, that fit the sound best at any offset."""
    openings = sight.openings(sight.ids()[:RIVALS])
    found = [offset(some, audio) for some in (openings, *openings[:, None])] if len(openings) else []
    return max((one for one in found if one is not None), key=lambda one: one.confidence, default=None)


def _faces(sight: _Sight, audio: np.ndarray | None, shift: Offset | None) -> tuple[FaceFacts, ...]:
    ids = sight.ids()
    speaks = dict.fromkeys(ids, 0.0)
    if audio is not None and ids:
        late = round(shift.seconds * FPS) if shift is not None and shift.confidence >= BELIEVED else 0
        audio = np.roll(audio, -late * SAMPLES_PER_FRAME)
        spans = speech_spans(audio, KEEN)
        voiced = sum(span.end - span.start for span in spans) * FPS
        for turn in turns(sight.openings(ids), audio, spans):
            if turn.speaker is not None:
                inside = sum(
                    max(0.0, min(turn.end, span.end * FPS) - max(turn.start, span.start * FPS)) for span in spans
                )
                speaks[ids[turn.speaker]] += inside / voiced
    return tuple(_face(sight, id, speaks[id]) for id in sorted(ids, key=lambda id: -speaks[id]))


def _face(sight: _Sight, id: int, speaks: float) -> FaceFacts:
    mouths = [frame[id] for frame in sight.mouths if id in frame]
    share = len(mouths) / len(sight.mouths)
    shown = mouths[:: max(1, len(mouths) // STRIP)][:STRIP]
    quality = replace(video_quality(mouths), face=share)
    return FaceFacts(id, share, speaks, quality, np.stack([mouth.crop for mouth in shown]))


def _scenes(sight: _Sight) -> tuple[Scene, ...]:
    shown = set(sight.ids())
    return tuple(
        Scene(
            time=sight.times[number],
            picture=picture,
            boxes={id: mouth.box * sight.scale for id, mouth in sight.mouths[number].items() if id in shown},
        )
        for number, picture in sorted(sight.pictures.items())
        if number < len(sight.mouths)
    )
