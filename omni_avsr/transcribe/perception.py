"""Which task each window gets: hear it, read it, do both, or pass it over."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from omni_avsr.errors import ConfigError, NoAudioError, NoFaceError, NoVideoError, nearest
from omni_avsr.tasks import TASKS
from omni_avsr.transcribe.windows import Window
from omni_avsr.types import MediaInfo, VideoQuality

AUTO = "auto"
MIN_FACE = 0.3  # share of a window's frames with a face from which the lips are worth reading
MIN_MOUTH = 10.0  # pixels of a mouth's width below which there is nothing to read
MIN_SHARP = 0.06  # of `VideoQuality.sharpness`; half of what counts as blurred
MAX_YAW = 60.0  # degrees from which one sees a cheek and half a mouth
DROWNED = 1e-2  # root mean square of full scale; louder than a quiet room
PATIENCE = 60.0  # seconds for which a task that needs a face waits for the first one before it only listens

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Planned:
    """A window and what is done with it."""

    window: Window
    task: str


def wanted_tasks(task: str, able: Sequence[str]) -> tuple[str, ...]:
    """The tasks of a model that `task` may become, the preferred one first.

    Args:
        task: a row of `TASKS`, or 'auto'.
        able: the tasks of the model.

    Raises:
        ConfigError: an unknown task, or one that the model does not perform.
    """
    if task not in (*TASKS, AUTO):
        raise ConfigError(f"task = '{task}' is unknown; {nearest(task, (*TASKS, AUTO))}")
    if task != AUTO and task not in able:
        raise ConfigError(f"this model does not perform '{task}'; {nearest(task, able)}")
    # the more a task perceives, the better it recognises; the ear is better than the eye
    return tuple(t for t in ("avsr", "asr", "vsr") if t in able) if task == AUTO else (task,)


def allowed(task: str, able: Sequence[str], info: MediaInfo) -> tuple[str, ...]:
    """Those of `wanted_tasks` whose streams this input has.

    Raises:
        ConfigError: as `wanted_tasks`.
        NoAudioError, NoVideoError: the task, or every task of the model, needs a stream that is not there.
    """
    wanted = wanted_tasks(task, able)
    streams = {"audio": info.has_audio, "video": info.has_video}
    there = tuple(t for t in wanted if all(streams[m] for m in TASKS[t].modalities))
    if there:
        # speech whose face is lost for a while is still heard
        return (*there, "asr") if task == "avsr" and "asr" in able else there
    if not info.has_audio and "audio" in TASKS[wanted[0]].modalities:
        raise NoAudioError(f"'{info.name}' has no sound, which the task '{wanted[0]}' needs; use --task vsr or auto")
    raise NoVideoError(f"'{info.name}' has no picture, which the task '{wanted[0]}' needs; use --task asr or auto")


def choose(window: Window, tasks: Sequence[str], sure: bool) -> str | None:
    """The first of `tasks` that suits what is to be heard and seen in `window`; None = nobody speaks here.

    Args:
        sure: the first task was asked for by name: where the face is, the lips are read whatever is heard.
    """
    face = window.crops is not None and window.face_share >= MIN_FACE and (sure or readable(window.sight))
    voice = window.voice_share > 0
    # sound that is loud, and no voice in it: the voice may be drowned, and the lips still tell
    both = face and window.audio is not None and (voice or sure or window.level > DROWNED)
    suits = {"avsr": both, "asr": voice, "vsr": face and (sure or window.by_lips)}
    return next((task for task in tasks if suits[task]), None)


def readable(sight: VideoQuality | None) -> bool:
    """Are these lips large, sharp and frontal enough to tell more than they mislead?"""
    if sight is None:
        return False
    # what could not be measured (mouths from elsewhere) is no reason against them
    return not (sight.mouth < MIN_MOUTH or 0 < sight.sharpness < MIN_SHARP or sight.yaw > MAX_YAW)


def plan(windows: Iterator[Window], task: str, tasks: Sequence[str], name: str) -> Iterator[Planned]:
    """The windows in which somebody speaks, each with its task.

    Args:
        windows: in order.
        task: as asked for.
        tasks: of `allowed`.
        name: of the input, for messages.

    Raises:
        NoFaceError: the lips were to be read and there is no face. A task that also listens waits a minute for
            the first face; then it listens, with a warning.
    """
    by_name = task != AUTO
    needs_face = tasks[0] == "vsr" or (by_name and tasks[0] == "avsr")
    waiting: list[Planned] = []
    met = spoken = False
    for window in windows:
        met = met or window.face_share >= MIN_FACE
        chosen = choose(window, tasks, by_name)
        waiting += [Planned(window, chosen)] if chosen else []
        if met or not needs_face or window.end > PATIENCE:
            spoken = spoken or bool(waiting)
            yield from waiting
            waiting = []
    if met or "video" not in TASKS[tasks[0]].modalities:
        return
    if needs_face and not spoken:
        raise NoFaceError(f"no face was found in '{name}'; use --task asr, or --face x,y,w,h to say where it is")
    log.warning("'%s': no face was found, so it was only listened to", name)
