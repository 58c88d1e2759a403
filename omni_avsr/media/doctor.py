"""What a checkup means: for each thing measured, whether it is fine, is repaired, or hurts, and what to do about it.

To add a check, write a function that returns a `Finding`, or None where there is nothing to say, and add its row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from omni_avsr.media.checkup import Checkup, FaceFacts
from omni_avsr.media.sync import BELIEVED
from omni_avsr.types import FPS, SAMPLE_RATE

Severity = Literal["fine", "repaired", "hurts"]

SLOW = 20.0  # pictures per second; fewer miss closures of the lips
STANDSTILL = 0.5  # seconds for which one picture stands before words are lost
IN_STEP = 0.06  # seconds; less is not noticed by people either
LOUD = (-40.0, -8.0)  # LUFS between which models are trained
NOISY, DROWNED = 15.0, 5.0  # dB
CLIPPED = 0.005  # share of samples
MUTED = 0.3  # share of the time
SPOKEN = 0.02  # share of the time with a voice that is more than a false alarm
SEEN = 0.3  # share of the frames with the face from which its lips are read
SMALL, TINY = 24.0, 10.0  # pixels of the mouth; half, and less than half, of what the crop could show
BLURRED = 0.12  # of `VideoQuality.sharpness`
SIDEWAYS = 35.0  # degrees
DARK, BLEACHED = 0.15, 0.9  # mean grey of the crops


@dataclass(frozen=True)
class Finding:
    """One row of the report."""

    measured: str
    severity: Severity
    advice: str = ""  # what is done about it, or what to do; '' where nothing needs doing
    check: str = ""  # name of the row in `CHECKS`


@dataclass(frozen=True)
class Diagnosis:
    """All findings, and what the file can be used for."""

    checkup: Checkup
    findings: tuple[Finding, ...]
    tasks: tuple[str, ...]  # those worth trying, best first

    @property
    def usable(self) -> bool:
        """Is there somebody to be heard or seen?"""
        return bool(self.tasks)

    @property
    def verdict(self) -> str:
        """One sentence."""
        if not self.usable:
            return "not usable: no voice is heard and no mouth can be read"
        way = {"avsr": "by ear and by lips", "asr": "by ear alone", "vsr": "by lips alone"}[self.tasks[0]]
        hurts = [finding.check for finding in self.findings if finding.severity == "hurts"]
        return f"usable {way}" + (f"; what hurts: {', '.join(dict.fromkeys(hurts))}" if hurts else "")


def diagnose(checkup: Checkup) -> Diagnosis:
    """Runs every row of `CHECKS`."""
    found = [(name, check(checkup)) for name, check in CHECKS.items()]
    findings = [Finding(f.measured, f.severity, f.advice, name) for name, f in found if f is not None]
    findings += [Finding(remark, "repaired", "", "reading") for remark in checkup.remarks]
    heard = checkup.audio is not None and checkup.audio.speech >= SPOKEN
    read = any(face.share >= SEEN and face.quality.mouth >= TINY for face in checkup.faces)
    tasks = {(True, True): ("avsr", "asr", "vsr"), (True, False): ("asr",), (False, True): ("vsr",)}
    return Diagnosis(checkup, tuple(findings), tasks.get((heard, read), ()))


# ---- the container -----------------------------------------------------------------------------


def _container(c: Checkup) -> Finding:
    part = "" if c.looked >= c.info.duration - 1 else f"; {c.looked:.0f} s of it, spread over the file, were looked at"
    return Finding(f"{c.info.container.partition(',')[0]}, {duration(c.info.duration)}{part}", "fine")


def _streams(c: Checkup) -> Finding:
    names = [
        f"{s.kind} {s.codec}{f' ({s.language})' if s.language else ''}{'' if s.used else ' unused'}" for s in c.streams
    ]
    rivals = [s for s in c.streams if s.kind == "audio" and not s.used]
    advice = "only one sound track is heard; for another: ffmpeg -i FILE -map 0:v -map 0:a:1 -c copy OUT"
    return Finding(", ".join(names), "fine", advice if rivals else "")


def _start(c: Checkup) -> Finding | None:
    if abs(c.lag) <= 1 / FPS:
        return None
    first, later = ("picture", "sound") if c.lag > 0 else ("sound", "picture")
    return Finding(
        f"the {later} begins {abs(c.lag):.2f} s after the {first}", "repaired", "filled, so both stay in step"
    )


# ---- the picture -------------------------------------------------------------------------------


def _picture(c: Checkup) -> Finding:
    if not c.info.has_video:
        return Finding("none", "hurts", "only the sound can be used; lips help most where it is noisy")
    size = f"{c.info.width} x {c.info.height}"
    if c.info.rotation:
        return Finding(f"{size}, lying on its side ({c.info.rotation}°)", "repaired", "turned upright")
    return Finding(size, "fine")


def _frame_rate(c: Checkup) -> Finding | None:
    if c.timing is None or not c.timing.usual:
        return None
    rate, t = 1 / c.timing.usual, c.timing
    if t.longest > STANDSTILL:
        return Finding(
            f"a picture stands for {t.longest:.1f} s", "hurts", "words are unseen there; record without gaps"
        )
    if rate < SLOW:
        return Finding(f"{rate:.3g} pictures a second", "hurts", "lips close unseen; record at 25 or more")
    if not t.constant:
        spread = f"{1 / t.longest:.3g} to {1 / t.shortest:.3g}"
        return Finding(f"variable, {spread} pictures a second", "repaired", f"resampled to {FPS} by time stamps")
    if abs(rate - FPS) > 0.01:
        return Finding(f"{rate:.4g} pictures a second, constant", "repaired", f"resampled to {FPS} by time stamps")
    return Finding(f"{FPS} pictures a second, constant", "fine")


def _colours(c: Checkup) -> Finding | None:
    if not c.hdr:
        return None
    advice = (
        "faces look flat; convert: ffmpeg -i FILE -vf zscale=t=linear,tonemap=hable,zscale=t=bt709,format=yuv420p OUT"
    )
    return Finding(f"HDR ({c.hdr})", "hurts", advice)


def _interlaced(c: Checkup) -> Finding | None:
    return Finding("yes", "hurts", "lips look combed; convert: ffmpeg -i FILE -vf bwdif OUT") if c.interlaced else None


# ---- the sound ---------------------------------------------------------------------------------


def _sound(c: Checkup) -> Finding:
    if not c.info.has_audio:
        return Finding("none", "hurts", "only the lips can be read, which is much harder than hearing")
    rate, channels = c.info.sample_rate or 0, c.info.channels or 1
    measured = f"{rate / 1000:g} kHz, {channels} channel{'s' if channels > 1 else ''}"
    if rate < SAMPLE_RATE:
        return Finding(measured, "hurts", f"consonants lie above {rate / 2000:g} kHz; record at 16 kHz or more")
    if rate == SAMPLE_RATE and channels == 1:
        return Finding(measured, "fine")
    return Finding(measured, "repaired", "mixed and resampled to 16 kHz" if channels > 1 else "resampled to 16 kHz")


def _voice(c: Checkup) -> Finding | None:
    if c.audio is None:
        return None
    if c.audio.speech < SPOKEN:
        return Finding("nobody is heard", "hurts", "is the microphone on, and the right sound track in use?")
    return Finding(f"{c.audio.speech:.0%} of the time", "fine")


def _loudness(c: Checkup) -> Finding | None:
    if c.audio is None:
        return None
    low, high = LOUD
    measured = f"{c.audio.loudness:.0f} LUFS, peaks at {c.audio.peak:.0f} dBFS"
    if c.audio.muted == 1:
        return Finding("digital silence", "hurts", "nothing was recorded; check the microphone")
    if low <= c.audio.loudness <= high:
        return Finding(measured, "fine")
    level = "too quiet" if c.audio.loudness < low else "too loud"
    return Finding(f"{measured}: {level}", "hurts", "even it out: ffmpeg -i FILE -af loudnorm -c:v copy OUT")


def _noise(c: Checkup) -> Finding | None:
    if c.audio is None or c.audio.snr is None or c.audio.speech < SPOKEN:
        return None
    measured = (
        f"the voice is {c.audio.snr:.0f} dB over it" if c.audio.snr >= 0 else f"{-c.audio.snr:.0f} dB over the voice"
    )
    if c.audio.snr >= NOISY:
        return Finding(measured, "fine")
    lips = "lips help: keep the face in the picture" if c.faces else "come closer to the microphone, or show the face"
    return Finding(measured, "hurts", lips if c.audio.snr >= DROWNED else f"hard to hear; {lips}")


def _clipping(c: Checkup) -> Finding | None:
    if c.audio is None or c.audio.clipped < CLIPPED or c.audio.speech < SPOKEN:
        return None
    return Finding(
        f"{c.audio.clipped:.1%} of the samples are cut off", "hurts", "cannot be undone; record at a lower level"
    )


def _muted(c: Checkup) -> Finding | None:
    if c.audio is None or not MUTED <= c.audio.muted < 1:
        return None
    measured = f"{c.audio.muted:.0%} of the time"
    return (
        Finding(measured, "repaired", "lips are read there")
        if c.faces
        else Finding(measured, "hurts", "words are lost")
    )


# ---- faces -------------------------------------------------------------------------------------


def _faces(c: Checkup) -> Finding | None:
    if not c.info.has_video:
        return None
    if not c.faces:
        return Finding("none", "hurts", "lips cannot be read; film the face from the front, well lit")
    if len(c.faces) == 1:
        return Finding("1", "fine")
    speakers = sum(face.speaks > SPOKEN for face in c.faces)
    measured = f"{len(c.faces)}, of whom {speakers} speak{'s' if speakers == 1 else ''}"
    return Finding(measured, "fine", "the largest is followed; --face active: who speaks, --face all: each by name")


def _of_speaker(judge: Callable[[FaceFacts], Finding]) -> Callable[[Checkup], Finding | None]:
    return lambda c: judge(c.faces[0]) if c.faces else None


def _presence(face: FaceFacts) -> Finding:
    measured = f"seen {face.share:.0%} of the time"
    return (
        Finding(measured, "fine") if face.share >= 0.8 else Finding(measured, "hurts", "only heard while out of sight")
    )


def _mouth(face: FaceFacts) -> Finding:
    measured = f"{face.quality.mouth:.0f} pixels wide"
    if face.quality.mouth >= SMALL:
        return Finding(measured, "fine")
    lost = "too small to be read" if face.quality.mouth < TINY else "details are lost"
    return Finding(measured, "hurts", f"{lost}; come closer, or film with more pixels")


def _sharpness(face: FaceFacts) -> Finding:
    measured = f"{face.quality.sharpness:.3f} (blurred below {BLURRED})"
    if face.quality.sharpness >= BLURRED:
        return Finding(measured, "fine")
    return Finding(measured, "hurts", "focus, clean the lens, or compress less")


def _pose(face: FaceFacts) -> Finding:
    measured = f"turned by {face.quality.yaw:.0f}°"
    return (
        Finding(measured, "fine") if face.quality.yaw <= SIDEWAYS else Finding(measured, "hurts", "look to the camera")
    )


def _light(face: FaceFacts) -> Finding:
    measured = f"{face.quality.brightness:.0%} grey"
    if DARK <= face.quality.brightness <= BLEACHED:
        return Finding(measured, "fine")
    return Finding(measured, "hurts", "put a lamp in front of the face, not behind it")


def _in_step(c: Checkup) -> Finding | None:
    if c.audio is None or not c.faces or c.audio.speech < SPOKEN:
        return None
    if c.offset is None or c.offset.confidence < BELIEVED:
        return Finding("cannot be told from this", "fine")
    late = c.offset.seconds
    measured = f"sound {abs(late):.2f} s {'late' if late > 0 else 'early'} (confidence {c.offset.confidence:.2f})"
    if abs(late) <= IN_STEP:
        return Finding(measured, "fine")
    command = f"ffmpeg -i FILE -itsoffset {-late:.2f} -i FILE -map 0:v -map 1:a -c copy OUT"
    return Finding(measured, "hurts", f"lips and voice disagree; shift it: {command}")


CHECKS: dict[str, Callable[[Checkup], Finding | None]] = {
    "container": _container,
    "streams": _streams,
    "start": _start,
    "picture": _picture,
    "frame rate": _frame_rate,
    "colours": _colours,
    "interlaced": _interlaced,
    "sound": _sound,
    "voice": _voice,
    "loudness": _loudness,
    "noise": _noise,
    "clipping": _clipping,
    "muted": _muted,
    "faces": _faces,
    "speaker's face": _of_speaker(_presence),
    "mouth": _of_speaker(_mouth),
    "sharpness": _of_speaker(_sharpness),
    "pose": _of_speaker(_pose),
    "light": _of_speaker(_light),
    "lips and sound": _in_step,
}


def duration(seconds: float) -> str:
    """'3.0 s', '2:05 min' or '1:02:05 h'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h"
