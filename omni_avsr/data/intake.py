"""One utterance of a corpus: measured, its mouth cut out and stored, or dropped for a reason."""

from __future__ import annotations

import contextlib
import errno
import logging
import multiprocessing
import re
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from omni_avsr.data.corpora import Dropped
from omni_avsr.data.manifest import Row
from omni_avsr.data.mouth_store import SUFFIX, read_note, write_store
from omni_avsr.errors import DataError, InputError, NoFaceError, OmniAVSRError
from omni_avsr.media.face import load_detector
from omni_avsr.media.landmarks import Detector
from omni_avsr.media.mouth import mouths, ready_mouths
from omni_avsr.media.reader import MediaFile, open_media
from omni_avsr.media.sync import curve
from omni_avsr.media.template import TEMPLATE
from omni_avsr.types import FPS, MOUTH_SIZE, SAMPLES_PER_FRAME, MediaInfo

logger = logging.getLogger(__name__)

STORES = "mouths"  # folder of the mouth files, beside the manifest
MOUTH_PER_FACE = 0.38  # width of a mouth at rest over that of the detector's box, measured on GRID


class _TooLong(DataError):
    """An utterance longer than wanted."""


@dataclass(frozen=True)
class PrepareOptions:
    """How a corpus is prepared; every field is an option of `omni-avsr prepare`."""

    mouths: bool = False  # cut the mouths out now, once, instead of in every epoch
    face: str = "largest"  # which of several faces (media.face.POLICIES)
    min_face: float = 0.8  # smallest share of frames with a face
    faceless: Literal["drop", "audio"] = "drop"  # what becomes of a video with less: nothing, or a row to listen to
    min_mouth: float = 0.0  # pixels; smallest width of the mouth in the video
    max_offset: float = 0.2  # seconds that lips and sound may be apart, judged file by file; 0 = any
    max_wer: float = 1.0  # between a transcript and what a listener hears; 1 = any
    max_seconds: float = 30.0  # longer utterances are dropped; subtitles would cut them into sentences
    dev_share: float = 0.05  # of the rows that come without a split
    test_share: float = 0.0
    split_by: str = "auto"  # what stays together: speaker, file, row (corpora.SPLIT_UNITS)
    codec: str = "h264"  # of the mouth files: h264 (small) or ffv1 (lossless)
    workers: int | None = None  # processes; None = one per core, 0 = this one
    offline: bool = False  # never fetch the face networks
    progress: bool = False  # a bar on standard error


@dataclass(frozen=True)
class Outcome:
    """What became of one utterance: a row, or the reason why not."""

    id: str
    row: Row | None = None
    dropped: Dropped | None = None
    share: float | None = None  # of frames with a face
    mouth: float | None = None  # pixels: its width in the video, half of the frames have more
    sync: tuple[float, ...] = ()  # media.sync.curve of the row
    warnings: tuple[str, ...] = field(default=())


def finish(row: Row, out: Path, options: PrepareOptions) -> Outcome:
    """Measures one utterance and, if asked, stores its mouths; whatever is wrong with it becomes a reason."""
    try:
        with open_media(row.media) as media:
            seconds = _seconds(row, media.info.duration, options)
            if media.info.has_video and (options.mouths or _is_mouth(media.info)):
                return _with_mouths(row, media, out, options)
            return Outcome(row.id, replace(row, frames=max(1, round(seconds * FPS))))
    except _TooLong as error:
        return drop(row, str(error), "length")
    except NoFaceError as error:
        return drop(row, str(error), "face")
    except (InputError, DataError) as error:
        return drop(row, str(error))
    except OmniAVSRError:
        raise  # the set-up is wrong, not this row
    except Exception as error:  # one odd file must not end a run of hours
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise OmniAVSRError(f"no space left for '{out}'; make room and run prepare again: it goes on") from None
        logger.exception("row '%s'", row.id)
        return drop(row, f"unexpected {type(error).__name__}: {error}")


def resumed(row: Row, out: Path, options: PrepareOptions) -> Outcome | None:
    """The outcome of a row whose mouth file is there, made from the same source with the same options."""
    target = _store_of(row, out)
    note = read_note(target)
    if note is None or not (options.mouths or note.get("ready")) or not row.media.is_file():
        return None
    return _outcome(row, target, note) if note.get("made_from") == _made_from(row, options) else None


def _with_mouths(row: Row, media: MediaFile, out: Path, options: PrepareOptions) -> Outcome:
    pictures, ready = media.frames(row.start, row.end), _is_mouth(media.info)
    if ready:
        seen = ready_mouths(pictures)
    else:
        seen = mouths(pictures, face=options.face, detector=shared_detector(options.offline))
    crops, found, audio, lost = _level(seen.crops, seen.found, sound_of(row, media))
    share = float(found.mean()) if len(found) else 0.0
    visible = share >= options.min_face
    if not visible and (options.faceless == "drop" or audio is None):
        wanted = f"at least {options.min_face:.0%} is wanted (--min_face)"
        raise NoFaceError(f"a face is in {share:.0%} of {len(found)} frames; {wanted}")
    frames = len(crops) or -(-len(audio if audio is not None else ()) // SAMPLES_PER_FRAME)
    note = {"made_from": _made_from(row, options), "frames": frames, "share": round(share, 4), "lost_frames": lost}
    note |= {"ready": True} if ready else {}
    if visible:
        note |= _seen(seen.boxes[: len(crops)], seen.openings[: len(crops)], audio)
    target = _store_of(row, out)
    write_store(target, crops if visible else None, audio, found if visible else None, note, options.codec)
    return _outcome(row, target, note)


def _is_mouth(info: MediaInfo) -> bool:
    """Whether a video is a mouth already, as the official code prepares LRS2 and LRS3; its store costs no search."""
    return info.width == info.height == MOUTH_SIZE


def sound_of(row: Row, media: MediaFile) -> np.ndarray | None:
    """(S,) float32, the row's sound: of its audio file, of its open media, or of a .wav beside a silent video."""
    own = media.info.has_audio and row.audio is None
    other = row.audio or row.media.with_suffix(".wav")
    with contextlib.nullcontext(media) if own or not other.is_file() else open_media(other) as heard:
        blocks = list(heard.audio_blocks(row.start, row.end))
    return np.concatenate(blocks) if blocks else None


def _outcome(row: Row, store: Path, note: dict[str, Any]) -> Outcome:
    warnings = []
    if note["lost_frames"] > FPS // 2:
        seconds = note["lost_frames"] / FPS
        warnings.append(f"{row.id}: one stream is {seconds:.1f} s longer than the other; cut to the shorter")
    return Outcome(
        row.id,
        replace(row, mouths=store, frames=note["frames"]),
        share=note["share"],
        mouth=note.get("mouth"),
        sync=tuple(note.get("lags", ())),
        warnings=tuple(warnings),
    )


def _seen(boxes: np.ndarray, openings: np.ndarray, audio: np.ndarray | None) -> dict[str, Any]:
    """What the filters ask of a picture."""
    widths = boxes[np.isfinite(boxes[:, 2]), 2]
    out: dict[str, Any] = {"mouth": round(float(np.median(widths)) * MOUTH_PER_FACE, 1)} if len(widths) else {}
    if audio is not None:
        out["lags"] = np.round(curve(openings[None], audio), 3).tolist()
    return out


def drop(row: Row, reason: str, filter: str = "unusable") -> Outcome:
    """The outcome of a row that cannot be used."""
    return Outcome(row.id, dropped=Dropped(row.id, str(row.media), reason, filter))


def _level(
    crops: np.ndarray, found: np.ndarray, audio: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, int]:
    """Both streams cut to the shorter, and how many frames the longer lost; within one frame nothing is cut."""
    if audio is None or not len(crops):
        return crops, found, audio, 0
    heard = -(-len(audio) // SAMPLES_PER_FRAME)
    frames = min(len(crops), heard)
    return crops[:frames], found[:frames], audio[: frames * SAMPLES_PER_FRAME], max(len(crops), heard) - frames


def _seconds(row: Row, duration: float, options: PrepareOptions) -> float:
    """Length of the row in a file of `duration` seconds."""
    seconds = min(duration, float("inf") if row.end is None else row.end) - row.start
    if seconds <= 0:
        raise DataError(f"the row is {row.start} to {row.end} s, but the file lasts {duration:.2f} s")
    if seconds > options.max_seconds:
        raise _TooLong(
            f"{seconds:.1f} s long; at most {options.max_seconds:g} s is wanted (--max_seconds): "
            "subtitles beside the file (srt, vtt, json) would cut it into sentences"
        )
    return seconds


def _made_from(row: Row, options: PrepareOptions) -> dict[str, Any]:
    """What decides a store's content; the file's size stands for its bytes."""
    source = {"media": row.media.name, "bytes": row.media.stat().st_size, "start": row.start, "end": row.end}
    if row.audio is not None:
        source |= {"audio": row.audio.name, "audio_bytes": row.audio.stat().st_size}
    knobs = {name: getattr(options, name) for name in ("face", "codec", "min_face", "faceless")}
    return source | knobs | {"template": TEMPLATE}


def _store_of(row: Row, out: Path) -> Path:
    return out / STORES / f"{file_name(row.id)}{SUFFIX}"


def file_name(row_id: str) -> str:
    """An id as a path below the stores' folder; folders stay, all else odd is replaced."""
    parts = (re.sub(r"[^\w.\-]", "_", part).lstrip(".") for part in row_id.replace("\\", "/").split("/"))
    return "/".join(part for part in parts if part) or "_"


@cache
def shared_detector(offline: bool) -> Detector:
    """The face networks, loaded once in this process.

    Raises:
        AssetError: they are missing and cannot, or may not, be fetched.
    """
    if multiprocessing.parent_process() is not None:
        cv2.setNumThreads(1)  # a worker: its siblings have the other cores
    return load_detector(offline=offline)
