"""The whole way from an input to segments, on a tiny random model."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import omni_avsr
from omni_avsr.config import ModelConfig
from omni_avsr.data.mouth_store import read_store
from omni_avsr.errors import ConfigError, MediaError, NoAudioError, NoFaceError, NoVideoError, RateError
from omni_avsr.media.assets import ensure_face_models
from omni_avsr.model.decode import decode
from omni_avsr.model.omni import OmniAVSR, build_model
from omni_avsr.transcribe import recognition as module
from omni_avsr.transcribe.transcriber import Transcriber
from omni_avsr.types import Batch, Hypothesis, Segment, TranscriptionInfo
from tests.clips import SAMPLE, grey, sample, silence, video, voice, wav

Faces = Callable[[Callable[[int], bool]], None]


@pytest.fixture
def transcriber(tiny_model: OmniAVSR) -> Transcriber:
    return Transcriber(tiny_model)


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """The batches that are decoded; each row says its task and rates."""
    batches: list[Batch] = []

    def fake(
        model: OmniAVSR, batch: Batch, tasks: Sequence[str], rates: Sequence[dict[str, int]], *_: object
    ) -> list[Hypothesis]:
        batches.append(batch)
        texts = (f" {t}  {'/'.join(map(str, r.values()))} " for t, r in zip(tasks, rates, strict=True))
        return [Hypothesis(text, (1, 2), (-0.1, -0.2), -0.15) for text in texts]

    monkeypatch.setattr(module, "decode", fake)
    return batches


def run(transcriber: Transcriber, *arguments: object, **options: object) -> tuple[list[Segment], TranscriptionInfo]:
    segments, info = transcriber.transcribe(*arguments, **options)  # type: ignore[arg-type]
    return list(segments), info


# ---- forms of input --------------------------------------------------------------------------


def test_every_form_of_one_clip_gives_the_same_text(model_folder: Path) -> None:
    try:
        ensure_face_models(offline=True)
    except omni_avsr.errors.AssetError:
        pytest.skip("the face networks are not on this machine")
    transcriber = Transcriber(model_folder, device="cpu", offline=True)
    clip = sample()
    forms: list[dict[str, object]] = [
        {"source": io.BytesIO(SAMPLE.read_bytes())},
        {"audio": clip.audio, "video": clip.frames, "fps": 25},
    ]
    texts = set()
    for form in forms:
        segments, info = run(transcriber, **form, beam_size=1)
        (segment,) = segments
        assert (info.task, info.audio_rate, info.video_rate) == ("avsr", 4, 2)
        assert segment.av["window"] == [0.0, pytest.approx(3.0, abs=0.04)]
        assert 0.0 <= segment.start < segment.end <= 3.0
        assert segment.av["face_share"] > 0.95
        texts.add(segment.text)
    assert len(texts) == 1


def test_the_public_name() -> None:
    assert omni_avsr.Transcriber is Transcriber


def test_a_segment_carries_what_was_done(transcriber: Transcriber, spoken: list[Batch], faces: Faces) -> None:
    faces(lambda frame: frame < 60)
    segments, info = run(transcriber, sample(), audio_rate=16, video_rate=5)
    (segment,) = segments
    assert segment.text == "avsr 16/5"
    assert (segment.id, segment.tokens, segment.avg_logprob) == (0, (1, 2), -0.15)
    assert segment.av["task"] == "avsr"
    assert (segment.av["audio_rate"], segment.av["audio_tokens"]) == (16, 150 // 16)
    assert (segment.av["video_rate"], segment.av["video_tokens"]) == (5, 75 // 5)
    assert segment.av["face_share"] == segment.av["video"]["face"] == pytest.approx(0.8, abs=0.02)
    assert segment.av["video"]["mouth"] == 40.0
    assert segment.av["audio"]["snr"] > 10
    assert (segment.av["agreement"], segment.av["flags"]) == (None, [])
    assert json.dumps(segment.av)
    assert 0 < segment.no_speech_prob < 0.6
    assert info.media is not None
    assert info.media.has_video


# ---- tasks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "said"), [("asr", "asr 4"), ("vsr", "vsr 2"), ("avsr", "avsr 4/2"), ("auto", "avsr 4/2")]
)
def test_each_task(transcriber: Transcriber, spoken: list[Batch], faces: Faces, task: str, said: str) -> None:
    faces(lambda frame: True)
    segments, info = run(transcriber, sample(), task=task)
    assert [s.text for s in segments] == [said]
    assert info.task == segments[0].av["task"]


def test_sound_without_picture_is_heard(transcriber: Transcriber, spoken: list[Batch], tmp_path: Path) -> None:
    segments, info = run(transcriber, wav(tmp_path / "a.wav", voice()))
    assert [s.text for s in segments] == ["asr 4"]
    assert (info.task, info.audio_rate, info.video_rate) == ("asr", 4, None)
    assert spoken[0].video is None


def test_picture_without_sound_is_read(transcriber: Transcriber, spoken: list[Batch], faces: Faces) -> None:
    faces(lambda frame: True)
    for audio in (None, silence(3)):
        segments, info = run(transcriber, audio=audio, video=grey(3), fps=25)
        assert [s.text for s in segments] == ["vsr 2"]
        assert info.task == "vsr"


def test_silence_gives_no_words(transcriber: Transcriber, spoken: list[Batch]) -> None:
    hiss = np.random.default_rng(0).standard_normal(48_000).astype(np.float32) * 0.01
    for audio in (silence(3), hiss, silence(17)):
        for task in ("auto", "asr"):
            segments, info = run(transcriber, audio, task=task)
            assert segments == []
            assert info.task == "asr"
    assert spoken == []


def test_auto_without_a_face_warns_and_listens(
    transcriber: Transcriber, spoken: list[Batch], faces: Faces, caplog: pytest.LogCaptureFixture
) -> None:
    faces(lambda frame: False)
    with caplog.at_level(logging.WARNING):
        segments, _ = run(transcriber, sample())
    assert [s.text for s in segments] == ["asr 4"]
    assert "no face was found" in caplog.text


# ---- long files ------------------------------------------------------------------------------


def talks(count: int) -> np.ndarray:
    return np.concatenate([part for _ in range(count) for part in (voice(), silence(2))])


def test_a_long_file_comes_in_segments_at_their_times(transcriber: Transcriber, spoken: list[Batch]) -> None:
    segments, info = run(transcriber, talks(5), batch_size=2)
    assert [s.id for s in segments] == [0, 1, 2, 3, 4]
    assert [len(batch) for batch in spoken] == [2, 2, 1]
    assert info.duration == 25.0
    for number, segment in enumerate(segments):
        assert abs(segment.start - (5 * number + 0.3)) < 0.3


def test_segments_are_made_when_they_are_asked_for(transcriber: Transcriber, spoken: list[Batch]) -> None:
    segments, _ = transcriber.transcribe(talks(5), batch_size=1)
    assert spoken == []
    next(segments)
    assert len(spoken) == 1


def test_the_batch_size_changes_no_word(transcriber: Transcriber) -> None:
    one, _ = run(transcriber, talks(3), batch_size=1, beam_size=2)
    all_at_once, _ = run(transcriber, talks(3), batch_size=8, beam_size=2)
    assert [(s.start, s.text, s.tokens) for s in one] == [(s.start, s.text, s.tokens) for s in all_at_once]
    assert [s.avg_logprob for s in one] == pytest.approx([s.avg_logprob for s in all_at_once], abs=1e-4)


def test_a_face_lost_midway_is_heard(transcriber: Transcriber, spoken: list[Batch], faces: Faces) -> None:
    faces(lambda frame: frame < 240 and frame % 125 < 75)  # it is turned away while it is silent
    segments, _ = run(transcriber, audio=talks(4), video=grey(20), fps=25)
    assert [s.text for s in segments] == ["avsr 4/2", "avsr 4/2", "asr 4", "asr 4"]


# ---- extras ----------------------------------------------------------------------------------


def test_words_lie_inside_their_segment(
    transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch, faces: Faces
) -> None:
    faces(lambda frame: True)

    def fake(model: OmniAVSR, batch: Batch, *_: object) -> list[Hypothesis]:
        return [Hypothesis("bin blue now", (), (), 0.0)] * len(batch)

    monkeypatch.setattr(module, "decode", fake)
    for task in ("asr", "vsr", "avsr"):
        segments, _ = run(transcriber, sample(), task=task, word_timestamps=True)
        (segment,) = segments
        assert segment.words is not None
        assert "".join(w.word for w in segment.words) == " bin blue now"
        times = [t for w in segment.words for t in (w.start, w.end)]
        assert times == sorted(times)
        assert segment.start <= times[0]
        assert times[-1] <= segment.end
        assert all(0 < w.probability <= 1 for w in segment.words)


def test_a_text_too_long_for_its_sound_has_its_words_spread_and_is_flagged(
    transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "decode", lambda *_: [Hypothesis("bin " * 200, (), (), 0.0)])
    ((segment,), _) = run(transcriber, voice(), word_timestamps=True, agreement=False)
    assert segment.words is not None
    assert len(segment.words) == 200
    assert (segment.start, segment.end) == (0.0, 3.0)
    assert segment.av["flags"] == ["loop"]


def test_what_was_seen_and_heard_can_be_kept(
    transcriber: Transcriber, spoken: list[Batch], faces: Faces, tmp_path: Path
) -> None:
    faces(lambda frame: True)
    run(transcriber, sample(), save_crops=tmp_path / "crops")
    stored = read_store(tmp_path / "crops" / "00000000.mkv")
    assert stored.crops is not None
    assert stored.audio is not None
    assert (len(stored.crops), len(stored.audio)) == (75, pytest.approx(48_000, abs=640))


# ---- bad input -------------------------------------------------------------------------------


def test_streams_that_are_missing(transcriber: Transcriber, faces: Faces, tmp_path: Path) -> None:
    faces(lambda frame: False)
    with pytest.raises(NoAudioError, match="has no sound"):
        transcriber.transcribe(video=grey(2), fps=25, task="asr")
    with pytest.raises(NoVideoError, match="has no picture"):
        transcriber.transcribe(wav(tmp_path / "a.wav", voice()), task="vsr")
    for task in ("vsr", "avsr"):
        with pytest.raises(NoFaceError, match="no face was found"):
            transcriber.transcribe(video(tmp_path / "b.mkv", grey(3), voice()), task=task)


def test_a_rate_that_was_not_trained_lists_those_that_were(transcriber: Transcriber) -> None:
    with pytest.raises(RateError, match=r"audio_rate = 7.*4, 16"):
        transcriber.transcribe(voice(), audio_rate=7)
    with pytest.raises(RateError, match=r"video_rate = 0.*2, 5"):
        transcriber.transcribe(voice(), task="vsr", video_rate=0)


@pytest.mark.parametrize("content", [b"", b"this is not media" * 50])
def test_no_media(transcriber: Transcriber, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"broken\.mp4"):
        transcriber.transcribe(path)


def test_a_file_cut_short_gives_what_is_there(transcriber: Transcriber, spoken: list[Batch], tmp_path: Path) -> None:
    whole = wav(tmp_path / "whole.wav", voice()).read_bytes()
    cut = tmp_path / "cut.wav"
    cut.write_bytes(whole[: len(whole) // 2])
    segments, _ = run(transcriber, cut)
    assert 1.0 < segments[0].end < 2.0


def test_a_film_that_lost_its_index_is_refused(transcriber: Transcriber, tmp_path: Path) -> None:
    whole = video(tmp_path / "whole.mp4", grey(2), container="mp4").read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) * 2 // 3])  # an mp4 carries its index at its end
    with pytest.raises(MediaError, match=r"cut\.mp4.*(complete|cut short)"):
        transcriber.transcribe(cut)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "aser"}, "did you mean 'asr'"),
        ({"face": "biggest"}, "face = 'biggest'"),
        ({"beam_size": 0}, "beam_size = 0"),
        ({"batch_size": 0}, "batch_size = 0"),
    ],
)
def test_options_that_cannot_be(transcriber: Transcriber, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        transcriber.transcribe(voice(), **options)  # type: ignore[arg-type]


def test_word_times_need_no_ctc_head(tiny_config: Callable[..., ModelConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    headless = Transcriber(build_model(tiny_config(ctc={"units": "none"}), ("bin blue",)))
    monkeypatch.setattr(module, "decode", lambda *_: [Hypothesis("place blue", (), (), -0.1)])
    ((segment,), _) = run(headless, voice(), word_timestamps=True, agreement=False)
    assert segment.words is not None
    assert [word.word for word in segment.words] == [" place", " blue"]


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="device 'gpu' cannot be used"):
        Transcriber("default", device="gpu")


def test_a_lent_model_stays_as_it_was(tiny_model: OmniAVSR) -> None:
    before = {name: p.clone() for name, p in tiny_model.named_parameters()}
    run(Transcriber(tiny_model), voice(), beam_size=1)
    assert all(torch.equal(p, before[name]) for name, p in tiny_model.named_parameters())
    assert decode is module.decode
