"""Datasets: the same (seed, epoch, index) the same features, in any process and with any cache."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from omni_avsr.config import AugmentConfig, ModelConfig
from omni_avsr.data import dataset as module
from omni_avsr.data.dataset import SpeechDataset, Voices, load_sample
from omni_avsr.data.manifest import Row, write_manifest
from omni_avsr.data.mouth_store import write_store
from omni_avsr.errors import ConfigError, DataError
from omni_avsr.types import SAMPLE_RATE, SAMPLES_PER_FRAME, Features, Mouths, Sample

Config = Callable[..., ModelConfig]
AUGMENT = AugmentConfig(noise=("babble", "white"), flip=0.5, video_corruption=0.5, audio_corruption=0.5)
FRAMES = (12, 20, 31)


@pytest.fixture
def manifest(tmp_path: Path, write_wav: Callable[[Path, np.ndarray], Path]) -> Path:
    """Three rows with mouths and sound, one with sound alone, one mute, one without words, one of 'dev'."""
    rng = np.random.default_rng(0)
    rows = []
    for number, frames in enumerate(FRAMES):
        crops = np.repeat(rng.integers(0, 256, (frames, 12, 12)), 8, 1).repeat(8, 2).astype(np.uint8)
        audio = rng.normal(0, 0.1, frames * SAMPLES_PER_FRAME).astype(np.float32)
        store = write_store(tmp_path / f"{number}.mkv", crops, audio)
        rows.append(Row(f"row{number}", Path("/gone.mp4"), f"Text, {number}!", "train", "s", 0, None, store, frames))
    voice = write_wav(tmp_path / "voice.wav", rng.normal(0, 0.1, SAMPLE_RATE).clip(-1, 1))
    mute = write_store(tmp_path / "mute.mkv", np.zeros((9, 96, 96), np.uint8), None)
    rows.append(Row("voice", voice, "only sound", "train", "t", 0.2, 0.8))
    rows.append(Row("mute", Path("/gone.mp4"), "only lips", "train", "t", 3.0, 5.0, mute))
    rows.append(Row("wordless", voice, " ... ", "train", "t"))
    rows.append(replace(rows[0], id="dev0", split="dev"))
    return write_manifest(tmp_path / "manifest.jsonl", rows)


def equal(one: tuple[Features, str], other: tuple[Features, str]) -> bool:
    def same(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
        return (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))

    return one[1] == other[1] and same(one[0].mel, other[0].mel) and same(one[0].video, other[0].video)


def identity(batch: list[tuple[Features, str]]) -> list[tuple[Features, str]]:
    return batch


def test_rows_lengths_and_texts(manifest: Path, tiny_config: Config, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        data = SpeechDataset([manifest], "train", tiny_config())
    assert [row.id for row in data.rows] == ["row0", "row1", "row2", "voice", "mute"]
    assert data.frames == [*FRAMES, 15, 9]  # sound alone: 0.6 s; mute: measured in its mouth file
    assert data.texts == ["text 0", "text 1", "text 2", "only sound", "only lips"]
    assert "1 row(s) of split 'train' have no transcript" in caplog.text
    assert len(SpeechDataset(manifest, "dev", tiny_config())) == 1


def test_features_have_the_contract_shapes(manifest: Path, tiny_config: Config) -> None:
    data = SpeechDataset(manifest, "train", tiny_config())
    for (features, text), frames in zip((data[i] for i in range(3)), FRAMES, strict=True):
        assert features.video is not None
        assert features.video.shape == (frames, 88, 88)
        assert features.audio_frames == max(2 * frames, 25)
        assert text.startswith("text")
    voice, mute = data[3][0], data[4][0]
    assert voice.video is None
    assert voice.audio_frames == 30
    assert mute.mel is None
    assert mute.audio_frames == 0
    assert mute.video_frames == 9


def test_a_model_that_only_listens_or_looks_gets_only_that(manifest: Path, tiny_config: Config) -> None:
    ears = SpeechDataset(manifest, "train", tiny_config(tasks=("asr",)))[0][0]
    eyes = SpeechDataset(manifest, "train", tiny_config(tasks=("vsr",)))[0][0]
    assert ears.video is None
    assert ears.mel is not None
    assert eyes.mel is None
    assert eyes.video is not None


def test_samples_repeat_by_seed_epoch_and_index(manifest: Path, tiny_config: Config) -> None:
    def items(seed: int, epoch: int, cache_bytes: int, order: list[int]) -> dict[int, tuple[Features, str]]:
        data = SpeechDataset(manifest, "train", tiny_config(), AUGMENT, seed, cache_bytes)
        data.set_epoch(epoch)
        return {i: data[i] for i in order}

    first = items(1, 2, 1 << 20, [0, 1, 2, 3, 4])
    for cache_bytes in (0, 250_000, 1 << 30):  # none, some, all
        again = items(1, 2, cache_bytes, [4, 2, 2, 0, 3, 1, 0])
        assert all(equal(first[i], again[i]) for i in range(5))
    for other in (items(1, 3, 0, [0, 1, 2]), items(2, 2, 0, [0, 1, 2])):
        assert not any(equal(first[i], other[i]) for i in range(3))


def test_loader_processes_change_nothing_even_if_they_outlive_an_epoch(manifest: Path, tiny_config: Config) -> None:
    data = SpeechDataset(manifest, "train", tiny_config(), AUGMENT, 5)
    loader = DataLoader(data, batch_size=2, num_workers=1, persistent_workers=True, collate_fn=identity, timeout=60)
    for epoch in (0, 3):
        data.set_epoch(epoch)
        loaded = [item for batch in loader for item in batch]
        assert all(equal(loaded[i], data[i]) for i in range(5))


def test_without_augmentation_epochs_are_alike(manifest: Path, tiny_config: Config) -> None:
    data = SpeechDataset(manifest, "train", tiny_config(), seed=1)
    before = data[1]
    data.set_epoch(9)
    assert equal(before, data[1])


def test_the_cache_stays_under_its_limit(manifest: Path, tiny_config: Config) -> None:
    data = SpeechDataset(manifest, "train", tiny_config(), cache_bytes=400_000)
    for index in range(5):
        data[index]
    kept = sum(a.nbytes for pair in data._cache.values() for a in pair if a is not None)
    assert 250_000 < kept <= 400_000


def test_voices_are_other_utterances(manifest: Path, tiny_config: Config) -> None:
    data = SpeechDataset(manifest, "train", tiny_config())
    sounds = {row.id: load_sample(row).audio for row in data.rows}
    draw = Voices(data.rows).besides("row1")
    heard = [voice for seed in range(10) for voice in draw(3, np.random.default_rng(seed))]
    assert all(any(np.array_equal(v, s) for n, s in sounds.items() if s is not None and n != "row1") for v in heard)
    assert {len(v) for v in heard} == {len(s) for n, s in sounds.items() if s is not None and n != "row1"}
    assert len(draw(9, np.random.default_rng(0))) > 4  # more than there are: some twice
    assert Voices(data.rows[:1]).besides("row0")(4, np.random.default_rng(0)) == []
    strangers = Voices(data.rows).besides("row1", "s")(6, np.random.default_rng(0))
    assert {len(voice) for voice in strangers} == {len(sounds["voice"])}  # the only one with sound who is not "s"
    alone = Voices(data.rows[:3]).besides("row1", "s")(6, np.random.default_rng(0))
    assert len(alone) == 6  # nobody else: the speaker's own will do
    nameless = [replace(row, speaker="") if row.id == "voice" else row for row in data.rows]
    known = Voices(nameless).besides("row1", "s")(6, np.random.default_rng(0))
    assert known  # the stranger is mute, and who is not named may be the same: the others will do


def test_media_without_mouth_files_are_looked_at_and_warned_of(
    tmp_path: Path, tiny_config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from omni_avsr.data.synthetic import write_clip

    write_clip(tmp_path / "a.mp4", np.zeros((30, 96, 96, 3), np.uint8), np.zeros(30 * 640, np.float32))
    path = write_manifest(tmp_path / "m.jsonl", [Row("a", tmp_path / "a.mp4", "hi", "train", "", 0.4, 0.8)])

    def found(frames: object) -> Mouths:
        count = len(list(frames))  # type: ignore[call-overload]
        nothing = np.zeros((count, 4), np.float32)
        return Mouths(np.full((count, 96, 96), 9, np.uint8), np.ones(count, bool), nothing, nothing[:, 0])

    monkeypatch.setattr(module, "mouths", found)
    with caplog.at_level(logging.WARNING):
        data = SpeechDataset(path, "train", tiny_config())
    assert "1 row(s) have no mouth files" in caplog.text
    assert data.frames == [10]
    assert data[0][0].video_frames == 10


def test_what_cannot_be_used_is_named(manifest: Path, tiny_config: Config, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no usable rows of split 'test'; they have: dev, train"):
        SpeechDataset(manifest, "test", tiny_config())
    with pytest.raises(ConfigError, match="did you mean 'babble'"):
        SpeechDataset(manifest, "train", tiny_config(), AugmentConfig(noise=("babbel",)))
    with pytest.raises(ConfigError, match="did you mean 'basic'"):
        SpeechDataset(manifest, "train", tiny_config(preprocess={"normalizer": "basc"}))
    data = SpeechDataset(manifest, "train", tiny_config())
    (tmp_path / "0.mkv").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"0\.mkv"):
        data[0]
    (tmp_path / "voice.wav").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"row 'voice' cannot be used: .*voice\.wav"):
        data[3]


def test_crossed_rows_bring_their_own_text(manifest: Path, tiny_config: Config) -> None:
    def edges(sample: Sample) -> np.ndarray:
        return np.linspace(0, len(sample.mouths), len(sample.text.split()) + 1).astype(int)

    crossed = AugmentConfig(crossover=1.0, noise_probability=0)
    data = SpeechDataset(manifest, "train", tiny_config(), crossed, edges=edges)
    texts, lengths = set(), set()
    for epoch in range(20):
        data.set_epoch(epoch)
        features, text = data[0]
        assert equal((features, text), data[0])
        texts.add(text)
        lengths.add(features.video_frames)
    assert texts == {"text 0", "text 1", "text 2"}
    assert len(lengths) > 2
    assert SpeechDataset(manifest, "train", tiny_config(), crossed)[0][1] == "text 0"  # nobody tells the edges


def test_false_lips_are_another_row_s_and_said_to_be(manifest: Path, tiny_config: Config) -> None:
    plain = SpeechDataset(manifest, "train", tiny_config(), AugmentConfig(noise_probability=0, random_crop=False))
    false = SpeechDataset(
        manifest, "train", tiny_config(), AugmentConfig(noise_probability=0, random_crop=False, false_lips=1.0)
    )
    for index, row in enumerate(false.rows):
        (own, text), (shown, said) = plain[index], false[index]
        assert said == text
        assert shown.false_lips == (own.video is not None and own.mel is not None), row.id
        assert shown.video_frames == own.video_frames
        assert shown.mel is None or torch.equal(shown.mel, own.mel)
