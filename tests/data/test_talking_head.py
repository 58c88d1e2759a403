"""The talking head: articulation follows the phonemes, the picture follows the articulation, both follow the sound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from omni_avsr.data.casting import random_face, random_scene
from omni_avsr.data.portrait import GLASSES, HAIR, Face
from omni_avsr.data.speech_synthesis import Phoneme, Voice, synthesize
from omni_avsr.data.stage import BACKGROUNDS, Scene
from omni_avsr.data.talking_head import Rendered, render, render_group
from omni_avsr.data.visemes import ARTICULATORS, SOUNDS, VISEMES, VOWELS, articulate
from omni_avsr.errors import AssetError
from omni_avsr.types import FPS, SAMPLES_PER_FRAME

QUIET = Scene(noise=0.0, flicker=0.0, liveliness=0.0, blur=0.0)


def sounds(*names: str, each: float = 0.12) -> list[Phoneme]:
    return [Phoneme(i * each, (i + 1) * each, name) for i, name in enumerate(names)]


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


# ---- articulation ----------------------------------------------------------------------------


@pytest.mark.parametrize("stop", ["p", "b", "m"])
@pytest.mark.parametrize("vowel", ["a", "iː", "uː", "ɛ", "ɔ"])
def test_bilabials_close_the_lips_between_any_vowels(stop: str, vowel: str) -> None:
    mouth = articulate(sounds("", vowel, stop, vowel, each=0.12), 15)
    assert mouth.open[7] < 0.03  # 0.28 s, in the middle of the stop
    assert mouth.close[7] > 0.85
    assert mouth.open[4] > 0.15
    assert mouth.open[10] > 0.15


def test_a_short_closure_between_open_vowels_is_seen() -> None:
    phonemes = [Phoneme(0, 0.3, "ˈa"), Phoneme(0.3, 0.32, "b"), Phoneme(0.32, 0.6, "ˈa")]
    for shift in (0.0, 0.01, 0.02, 0.03):  # wherever the frame falls
        mouth = articulate([replace(p, start=p.start + shift, end=p.end + shift) for p in phonemes], 15)
        assert mouth.open.min() < 0.35 * mouth.open[4]


def test_lips_round_before_the_vowel_is_heard() -> None:
    spread, rounded = (articulate(sounds("", "l", vowel), 12) for vowel in ("iː", "uː"))
    during_l = 4  # 0.16 s
    assert rounded.round[during_l] > spread.round[during_l] + 0.15
    assert rounded.spread[8] < -0.7
    assert spread.spread[8] > 0.5


def test_labiodentals_tuck_and_dentals_show_the_tongue() -> None:
    mouth = articulate(sounds("a", "f", "a", "θ", "a"), 15)
    assert mouth.tuck[4] > 0.7
    assert mouth.tuck[1] < 0.2
    assert mouth.tongue[10] > 0.8


def test_open_vowels_open_wider_than_close_ones() -> None:
    jaws = {v: float(articulate(sounds("", "t", v, "t", each=0.15), 15).jaw.max()) for v in ("a", "ɛ", "iː", "uː")}
    assert jaws["a"] > jaws["ɛ"] > jaws["iː"]
    assert jaws["ɛ"] > jaws["uː"]


def test_the_mouth_rests_in_silence_and_moves_smoothly() -> None:
    mouth = articulate(sounds("", "", "ˈa", "s", "ˈaɪ", "", "", ""), 30)
    assert max(mouth.open[0], mouth.open[-1]) < 0.1
    assert np.abs(np.diff(mouth.jaw)).max() < 0.6
    assert all(np.isfinite(getattr(mouth, name)).all() for name in ARTICULATORS)


def test_every_sound_has_a_viseme_and_strange_ones_rest() -> None:
    assert set(SOUNDS.values()) == set(VISEMES) - {"rest"}
    assert set(VISEMES) > VOWELS
    strange, silence = articulate(sounds("", "☃", "☃"), 9), articulate(sounds("", "", ""), 9)
    assert np.allclose(strange.open, silence.open)


# ---- picture ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip() -> Rendered:
    return render(sounds("", "ˈa", "m", "ˈa", "uː", "ˈiː", "p", "", each=0.2), 1.6, seed=1, face=Face(), scene=QUIET)


def test_same_arguments_same_pixels() -> None:
    phonemes = sounds("m", "ˈa", "")
    one, same, other = (render(phonemes, 0.3, seed=seed, size=(180, 144)) for seed in (5, 5, 6))
    assert np.array_equal(one.frames, same.frames)
    assert np.array_equal(one.landmarks, same.landmarks)
    assert not np.array_equal(one.frames, other.frames)


def test_shapes_and_truth(clip: Rendered) -> None:
    assert clip.frames.shape == (40, 288, 360, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.landmarks.shape == (40, 4, 2)
    left, right, upper, lower = clip.landmarks.transpose(1, 0, 2)
    assert (left[:, 0] < upper[:, 0]).all()
    assert (upper[:, 0] < right[:, 0]).all()
    assert (lower[:, 1] - upper[:, 1] >= -1e-3).all()
    assert clip.opening[7] > 0.25  # /a/
    assert clip.opening[12] < 0.03  # /m/
    width = right[:, 0] - left[:, 0]
    assert width[27] > 1.25 * width[22]  # /iː/ against /uː/


def test_pixels_between_the_lips_follow_the_truth(clip: Rendered) -> None:
    """Between open lips is the inside of the mouth: the column under the nose changes as far as they part."""
    at_rest = clip.frames[0].astype(int)
    x = int(clip.landmarks[:, 2, 0].mean())
    rows = slice(int(clip.landmarks[0, 2, 1]) - 14, int(clip.landmarks[0, 2, 1]) + 30)
    changed = [(np.abs(frame[rows, x - 2 : x + 3].astype(int) - at_rest[rows, x - 2 : x + 3]).max(2) > 25).mean()
               for frame in clip.frames]  # fmt: skip
    assert correlation(np.array(changed), clip.opening) > 0.6


def test_nothing_moves_above_the_mouth_but_the_eyes(clip: Rendered) -> None:
    nose = int(clip.landmarks[0, 2, 1]) - 60
    assert np.abs(clip.frames[7, :nose, :].astype(int) - clip.frames[12, :nose, :]).mean() < 1.0


@pytest.mark.parametrize("hair", sorted(HAIR))
@pytest.mark.parametrize("glasses", ["", *sorted(GLASSES)])
def test_every_look_is_drawn(hair: str, glasses: str) -> None:
    plain, styled = (
        render([], 0.04, seed=0, size=(180, 144), face=face, scene=replace(QUIET, scale=26)).frames[0].astype(int)
        for face in (Face(hair="bald"), Face(hair=hair, glasses=glasses, beard=0.5))
    )
    assert np.abs(plain - styled).max() > 40


@pytest.mark.parametrize("background", sorted(BACKGROUNDS))
def test_every_background_is_drawn(background: str) -> None:
    frame = render([], 0.04, seed=0, size=(120, 96), scene=replace(QUIET, scale=14, background=background)).frames[0]
    assert frame[:20].std() > 1.0


def test_several_faces_share_a_scene_and_speak_for_themselves() -> None:
    first, second = render_group([(sounds("", "ˈa", ""), None), (sounds("m", "m", "m"), None)], 0.36, seed=2)
    assert first.frames is second.frames
    assert first.landmarks[:, 1, 0].max() < second.landmarks[:, 0, 0].min()
    assert first.opening.max() > 3 * second.opening.max()


def test_random_people_and_places_repeat_by_seed() -> None:
    faces, again = ([random_face(np.random.default_rng(seed)) for seed in range(30)] for _ in range(2))
    assert faces == again
    assert len(set(faces)) == 30
    assert random_scene(np.random.default_rng(1)) == random_scene(np.random.default_rng(1))


# ---- with sound, and through the project's own face stage ------------------------------------


def test_the_mouth_opens_when_the_voice_sounds() -> None:
    """The opening correlates with the loudness, and best where sound and picture are in step."""
    pytest.importorskip("espeakng_loader")
    text = "papa bought a map of a farm by my house"
    speech = synthesize(text, Voice("en-us", rate=130), silence=(0.3, 0.3))
    frames = round(speech.duration * FPS)
    mouth = articulate(speech.phonemes, frames)
    padded = np.pad(speech.audio, (0, SAMPLES_PER_FRAME))[: frames * SAMPLES_PER_FRAME]
    loudness = np.sqrt(np.mean(padded.reshape(frames, -1) ** 2, 1))
    lags = {lag: correlation(np.roll(loudness, lag)[5:-5], mouth.open[5:-5]) for lag in range(-8, 9)}
    assert lags[0] > 0.5
    assert max(lags, key=lambda lag: lags[lag]) in (-2, -1, 0, 1)


def test_the_projects_face_stage_finds_face_and_mouth() -> None:
    """In random faces and scenes a face is seen in every frame, and the mesh sees the lips part when they do."""
    face_stage = pytest.importorskip("omni_avsr.media.face")
    try:
        detector = face_stage.load_detector(offline=True)
    except AssetError as error:
        pytest.skip(str(error))
    from omni_avsr.media.mouth import mouths

    phonemes = sounds("", "ˈa", "m", "ˈaɪ", "p", "ˈɔ", "", each=0.16)
    shares, likeness = [], []
    for seed in range(4):
        clip = render(phonemes, 1.1, seed=seed)
        seen = mouths(clip.frames, detector=detector)
        shares.append(seen.share)
        centre = seen.crops[:, 40:68, 40:56].astype(float)
        change = np.abs(centre - centre[0]).mean((1, 2))  # frame 0 is closed
        likeness.append(correlation(change, clip.opening))
    assert min(shares) > 0.98
    assert np.mean(likeness) > 0.5
