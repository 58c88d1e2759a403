"""What a path or file object is, before it is read: opening, probing, and describing a container."""

from __future__ import annotations

import io
import logging
import re
import shutil
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from omni_avsr.errors import MediaError
from omni_avsr.media.clock import MAX_GAP, Painter, decoded, packets, timestamp
from omni_avsr.types import MediaInfo

logger = logging.getLogger(__name__)

Stream = AudioStream | VideoStream
MAX_PIXELS = 2**26  # of one picture, twice those of 8K video; ffmpeg allocates nothing larger
PICTURES = ("image2", "gif", "tty", "apng")  # containers that ffmpeg opens as video and that are none


@dataclass(frozen=True)
class Track:
    """One stream of a container, to be used."""

    index: int
    first: Fraction  # seconds, on the container's own clock, of the first decoded frame
    announced: float  # seconds that the header says it lasts; 0 = it does not say


@dataclass(frozen=True)
class Probe:
    """What is in a file: at least one of the tracks."""

    audio: Track | None
    video: Track | None
    info: MediaInfo

    def origin(self, track: Track) -> Fraction:
        """Seconds on the container's own clock at which ours begins for `track`.

        The earlier of the two first frames; where these are too far apart to be true, the track's own.
        """
        firsts = [t.first for t in (self.audio, self.video) if t is not None]
        return min(firsts) if max(firsts) - min(firsts) <= MAX_GAP else track.first


class Source:
    """A path or a binary file object that can be opened several times, side by side.

    Attributes:
        name: for messages.
    """

    def __init__(self, source: str | Path | BinaryIO) -> None:
        """Raises MediaError where `source` does not exist or is empty. One that cannot seek is spooled to disk."""
        self.name = str(source) if isinstance(source, (str, Path)) else _file_name(source)
        self._spool: BinaryIO | None = None
        if isinstance(source, (str, Path)):
            self._file: str | BinaryIO = str(source)
            size = self._size_of(Path(source))
        else:
            if not _can_seek(source):
                self._spool = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - closed by close()
                shutil.copyfileobj(source, self._spool)
                source = self._spool
            self._file = source
            size = source.seek(0, io.SEEK_END)
        if size == 0:
            self.close()
            raise MediaError(f"'{self.name}' is empty (0 bytes); expected an audio or video file.")

    def _size_of(self, path: Path) -> int:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise MediaError(f"'{self.name}' {what}; expected an audio or video file.")
        return path.stat().st_size

    def close(self) -> None:
        """Drop the spooled copy, if there is one. A file object stays open: it belongs to the caller."""
        if self._spool is not None:
            self._spool.close()

    def open(self) -> InputContainer:
        """A container of its own, with a position of its own. Raises MediaError where it is no media.

        A file object is read by itself: a playlist in it cannot name files or addresses of this machine.
        """
        alone = not isinstance(self._file, str)
        file = _View(cast(BinaryIO, self._file)) if alone else self._file
        protocols = {"protocol_whitelist": "none"} if alone else {}
        sizes = {"max_pixels": str(MAX_PIXELS)}
        try:
            container = av.open(file, "r", metadata_errors="replace", options=sizes, container_options=protocols)
        except (av.FFmpegError, ValueError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise MediaError(
                f"'{self.name}' cannot be read as media ({reason}); expected an audio or video file, complete."
            ) from error
        for stream in container.streams.video:
            if stream.codec_context is not None:
                stream.codec_context.options = sizes
        return container


def probe(source: Source) -> Probe:
    """What `source` holds, by its header and the first decoded frame of each stream.

    Raises:
        MediaError: it is no media, or nothing in it decodes.
    """
    with source.open() as container:
        kind = container.format.name
        if kind.endswith("_pipe") or kind in PICTURES:
            raise MediaError(f"'{source.name}' is a picture or a text; expected an audio or video file.")
        audio, video = _best(container, "audio"), _best(container, "video")
        sound, picture = _first_frames(container, [s for s in (audio, video) if s is not None], source.name)
        if sound is None and picture is None:
            raise MediaError(
                f"'{source.name}' ({kind}) has nothing that decodes as sound or picture; "
                "it may be cut short, or no media at all."
            )
        duration = container.duration / av.time_base if container.duration else _measured(source)
        info = MediaInfo(
            name=source.name,
            container=kind,
            duration=float(duration),
            has_audio=sound is not None,
            has_video=picture is not None,
            **_sound_facts(sound),
            **_picture_facts(cast(VideoStream, video), picture),
        )
        return Probe(_track(audio, sound), _track(video, picture), info)


def _sound_facts(frame: av.AudioFrame | None) -> dict[str, Any]:
    return {} if frame is None else {"sample_rate": frame.sample_rate, "channels": len(frame.layout.channels)}


def _picture_facts(stream: VideoStream, frame: av.VideoFrame | None) -> dict[str, Any]:
    if frame is None:
        return {}
    width, height, rotation = Painter(stream.sample_aspect_ratio).describe(frame)
    rate = stream.average_rate or stream.guessed_rate
    return {"fps": float(rate) if rate else None, "width": width, "height": height, "rotation": rotation}


def _track(stream: Stream | None, frame: av.AudioFrame | av.VideoFrame | None) -> Track | None:
    if stream is None or frame is None:
        return None
    return Track(stream.index, timestamp(frame) or Fraction(0), _announced(stream))


def _announced(stream: Stream) -> float:
    """Seconds that the header gives a stream; Matroska has them in a tag. 0 = it does not say."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", "").strip("\0 "))
    return 0.0 if tag is None else 3600.0 * int(tag[1]) + 60.0 * int(tag[2]) + float(tag[3])


def _best(container: InputContainer, kind: str) -> Stream | None:
    """ffmpeg's choice of stream, but never a cover picture, nor one without a decoder."""
    every: list[Stream] = [*container.streams.audio] if kind == "audio" else [*container.streams.video]
    usable = [s for s in every if s.codec_context is not None and not s.disposition & Disposition.attached_pic]
    best = container.streams.best("audio" if kind == "audio" else "video")
    return next((stream for stream in usable if stream is best), next(iter(usable), None))


def _first_frames(
    container: InputContainer, streams: list[Stream], name: str
) -> tuple[av.AudioFrame | None, av.VideoFrame | None]:
    """The first decoded frame of each stream; None where nothing of it decodes."""
    sound: av.AudioFrame | None = None
    picture: av.VideoFrame | None = None
    for frame in decoded(container, streams, name) if streams else ():
        if isinstance(frame, av.AudioFrame):
            sound = sound or frame
        else:
            picture = picture or frame
        if len(streams) == (sound is not None) + (picture is not None):
            break
    for stream in streams:
        if (sound if stream.type == "audio" else picture) is None:
            logger.warning("'%s' announces a stream of %s, but none of it decodes", name, stream.type)
    return sound, picture


def _measured(source: Source) -> float:
    """Seconds by the packets' timestamps: browsers' recordings and raw streams have none in the header."""
    first: dict[int, Fraction] = {}
    last: dict[int, Fraction] = {}
    with source.open() as container:
        try:
            for packet in packets(container):
                if packet.pts is not None and packet.time_base is not None:
                    first.setdefault(packet.stream_index, packet.pts * packet.time_base)
                    last[packet.stream_index] = (packet.pts + (packet.duration or 0)) * packet.time_base
        except av.FFmpegError as error:
            logger.debug("'%s' ends in an error (%s); it lasts as long as what was counted", source.name, error)
    return float(max(last.values()) - min(first.values())) if last else 0.0


class _View(io.RawIOBase):
    """A reader of a shared file object with a position of its own: sound and picture are read side by side."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self._file.seek(self._position)
        data = self._file.read(size)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}
        self._position = base[whence] + offset if whence in base else self._file.seek(offset, whence)
        return self._position

    def tell(self) -> int:
        return self._position


def _can_seek(file: BinaryIO) -> bool:
    try:
        return file.seekable()
    except (AttributeError, OSError):
        return False


def _file_name(file: BinaryIO) -> str:
    name = getattr(file, "name", None)
    return name if isinstance(name, str) else "the given file object"
