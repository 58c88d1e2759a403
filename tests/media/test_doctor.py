"""The doctor: facts of real files, and what follows from facts that are made up."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from omni_avsr.errors import MediaError
from omni_avsr.media.checkup import WHOLE, Checkup, FaceFacts, Timing, _stretches, examine
from omni_avsr.media.doctor import CHECKS, Diagnosis, diagnose, duration
from omni_avsr.media.landmarks import MediaPipeDetector
from omni_avsr.media.sync import Offset
from omni_avsr.types import SAMPLES_PER_FRAME
from tests.clips import SAMPLE, grey, sample, silence, voice
from tests.media.conftest import Writer


@pytest.fixture(scope="module")
def well(mediapipe: MediaPipeDetector) -> Checkup:
    """The packaged clip, which is fine."""
    return examine(SAMPLE, detector=mediapipe)


def severities(diagnosis: Diagnosis) -> dict[str, str]:
    return {finding.check: finding.severity for finding in diagnosis.findings}


# ---- facts -------------------------------------------------------------------------------------


def test_the_packaged_clip_is_fine_in_every_way(well: Checkup) -> None:
    found = diagnose(well)
    assert set(severities(found).values()) == {"fine"}
    assert found.tasks == ("avsr", "asr", "vsr")
    assert found.verdict == "usable by ear and by lips"
    assert (well.looked, len(well.faces), well.remarks) == (3.0, 1, ())
    assert well.timing == Timing(75, pytest.approx(0.04), pytest.approx(0.04), pytest.approx(0.04))
    assert [(s.kind, s.codec, s.used) for s in well.streams] == [("video", "h264", True), ("audio", "aac", True)]
    face = well.faces[0]
    assert (face.share, face.speaks) == (1, pytest.approx(1))
    assert face.strip.shape == (12, 96, 96)
    for scene in well.scenes:
        x, y, w, h = scene.boxes[face.id]
        assert 0 < x < x + w < scene.picture.shape[1]
        assert 0 < y < y + h < scene.picture.shape[0]


def test_what_will_be_repaired_is_named(media: Writer, mediapipe: MediaPipeDetector) -> None:
    clip = sample()
    assert clip.frames is not None
    assert clip.audio is not None
    times = [k / 25 + (0.012 if k % 3 else 0) for k in range(25)]
    turned = [cv2.rotate(f, cv2.ROTATE_90_CLOCKWISE) for f in clip.frames[:25]]
    stereo = np.repeat(clip.audio[12000:28000, None], 2, 1)
    path = media("a.mkv", frames=turned, times=times, rotate=90, audio=stereo, layout="stereo", audio_at=0.2)
    checkup = examine(path, detector=mediapipe)
    repaired = {check for check, severity in severities(diagnose(checkup)).items() if severity == "repaired"}
    assert repaired == {"picture", "frame rate", "sound", "start"}
    assert checkup.lag == pytest.approx(0.2, abs=0.03)
    assert checkup.timing is not None
    assert not checkup.timing.constant
    assert checkup.info.height == 288
    assert len(checkup.faces) == 1


def test_a_shifted_sound_is_found_and_the_cure_is_named(media: Writer, mediapipe: MediaPipeDetector) -> None:
    clip = sample()
    assert clip.frames is not None
    late = np.concatenate([silence(0.24), voice()])[: 75 * SAMPLES_PER_FRAME]
    checkup = examine(media("late.mp4", frames=clip.frames, audio=late[:, None]), detector=mediapipe)
    assert checkup.offset is not None
    assert checkup.offset.seconds == pytest.approx(0.24, abs=0.05)


def test_sound_alone_can_be_heard(media: Writer) -> None:
    found = diagnose(examine(media("a.wav", audio=voice()[:, None], acodec="pcm_s16le")))
    assert found.tasks == ("asr",)
    assert severities(found)["picture"] == "hurts"
    assert found.checkup.faces == ()


def test_a_mute_wall_is_of_no_use(media: Writer, mediapipe: MediaPipeDetector) -> None:
    path = media("wall.mp4", frames=grey(1, 160), audio=silence(1)[:, None])
    found = diagnose(examine(path, detector=mediapipe))
    assert not found.usable
    assert {"voice", "loudness", "faces"} <= {c for c, s in severities(found).items() if s == "hurts"}


def test_damage_is_a_row_and_no_log_line(media: Writer, caplog: pytest.LogCaptureFixture) -> None:
    path = media("a.flac", audio=voice()[:, None], acodec="flac")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with caplog.at_level(logging.WARNING):
        found = diagnose(examine(path))
    assert any(f.check == "reading" and "cut short" in f.measured for f in found.findings)
    assert caplog.text == ""


def test_what_is_no_media_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(MediaError, match="empty"):
        examine(tmp_path / "a.mp4")


def test_a_long_file_is_looked_at_in_stretches() -> None:
    assert _stretches(30.0) == [(0.0, 30.0)]
    spread = _stretches(7200.0)
    assert sum(end - start for start, end in spread) == pytest.approx(WHOLE)
    assert (spread[0][0], spread[-1][1]) == (0.0, 7200.0)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(spread))


# ---- findings ----------------------------------------------------------------------------------

Change = Callable[[Checkup], Checkup]


def hearing(**facts: float) -> Change:
    return lambda c: replace(c, audio=replace(c.audio, **facts))  # type: ignore[type-var]


def sight(**facts: float) -> Change:
    return lambda c: replace(c, faces=(replace(c.faces[0], quality=replace(c.faces[0].quality, **facts)),))


def container(**facts: object) -> Change:
    return lambda c: replace(c, info=replace(c.info, **facts))  # type: ignore[arg-type]


def timed(shortest: float, usual: float, longest: float) -> Change:
    return lambda c: replace(c, timing=Timing(75, shortest, usual, longest))


def other(face: FaceFacts) -> FaceFacts:
    return replace(face, id=1, speaks=0.0)


HURTS: dict[str, Change] = {
    "frame rate": timed(1 / 12, 1 / 12, 1 / 12),
    "colours": lambda c: replace(c, hdr="PQ"),
    "interlaced": lambda c: replace(c, interlaced=True),
    "sound": container(sample_rate=8000),
    "voice": hearing(speech=0.0),
    "loudness": hearing(loudness=-52.0),
    "noise": hearing(snr=-3.0),
    "clipping": hearing(clipped=0.04),
    "faces": lambda c: replace(c, faces=()),
    "speaker's face": lambda c: replace(c, faces=(replace(c.faces[0], share=0.4),)),
    "mouth": sight(mouth=12.0),
    "sharpness": sight(sharpness=0.08),
    "pose": sight(yaw=50.0),
    "light": sight(brightness=0.05),
    "lips and sound": lambda c: replace(c, offset=Offset(0.2, 0.4)),
}
REPAIRED: dict[str, Change] = {
    "start": lambda c: replace(c, lag=0.5),
    "picture": container(rotation=90),
    "frame rate": timed(1 / 30, 1 / 30, 1 / 30),
    "sound": container(channels=6, sample_rate=48000),
    "muted": hearing(muted=0.5),
}


@pytest.mark.parametrize("check", HURTS)
def test_what_hurts_is_said_with_what_to_do(well: Checkup, check: str) -> None:
    found = diagnose(HURTS[check](well))
    (finding,) = [f for f in found.findings if f.check == check]
    assert finding.severity == "hurts"
    assert finding.advice
    assert check in found.verdict


@pytest.mark.parametrize("check", REPAIRED)
def test_what_is_repaired_is_said_with_how(well: Checkup, check: str) -> None:
    (finding,) = [f for f in diagnose(REPAIRED[check](well)).findings if f.check == check]
    assert finding.severity == "repaired"
    assert finding.advice


def test_every_check_can_find_something() -> None:
    assert set(CHECKS) == set(HURTS) | set(REPAIRED) | {"container", "streams"}


def test_the_cure_of_late_sound_moves_it_forward(well: Checkup) -> None:
    late, early = (diagnose(replace(well, offset=Offset(s, 0.4))).findings[-1] for s in (0.2, -0.2))
    assert "late" in late.measured
    assert "-itsoffset -0.20" in late.advice
    assert "early" in early.measured
    assert "-itsoffset 0.20" in early.advice


def test_several_faces_are_no_fault_and_the_choice_is_named(well: Checkup) -> None:
    finding = next(
        f for f in diagnose(replace(well, faces=(*well.faces, other(well.faces[0])))).findings if f.check == "faces"
    )
    assert (finding.severity, finding.measured) == ("fine", "2, of whom 1 speaks")
    assert "--face all" in finding.advice


def test_lips_help_where_the_sound_is_gone(well: Checkup) -> None:
    assert diagnose(hearing(speech=0.0)(well)).tasks == ("vsr",)
    assert diagnose(sight(mouth=5.0)(well)).tasks == ("asr",)
    assert diagnose(hearing(speech=0.0)(sight(mouth=5.0)(well))).tasks == ()


def test_durations_are_written_as_people_do() -> None:
    assert [duration(s) for s in (3.04, 125, 3725)] == ["3.0 s", "2:05 min", "1:02:05 h"]
