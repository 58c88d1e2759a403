"""Synthetic corpora: grammars, plans without leaks, files that are made once, and the sample clip."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from omni_avsr.data import synthetic
from omni_avsr.data.manifest import by_split, check_splits, read_manifest
from omni_avsr.data.sentences import SENTENCES, from_lines
from omni_avsr.data.synthetic import CorpusSpec, corpus_rows, make_corpus, make_sample, plan_corpus, utterances
from omni_avsr.data.talking_head import render
from omni_avsr.errors import ConfigError, DataError
from omni_avsr.media.reader import read_clip
from omni_avsr.types import SAMPLE_RATE, SAMPLES_PER_FRAME

pytest.importorskip("espeakng_loader")

GRID = re.compile(
    "(bin|lay|place|set) (blue|green|red|white) (at|by|in|with) [a-vx-z] "
    "(zero|one|two|three|four|five|six|seven|eight|nine) (again|now|please|soon)"
)


@pytest.mark.parametrize("name", sorted(SENTENCES))
def test_grammars_give_many_clean_sentences(name: str) -> None:
    grammar = SENTENCES[name]
    sentences = grammar.sample(400, np.random.default_rng(0))
    assert len(set(sentences)) == len(sentences) == 400
    assert all(re.fullmatch("[a-z]+( [a-z]+)+", s) for s in sentences)
    assert sentences == grammar.sample(400, np.random.default_rng(0))
    assert sentences != grammar.sample(400, np.random.default_rng(1))


def test_grid_sentences_are_grids() -> None:
    sentences = SENTENCES["grid"].sample(500, np.random.default_rng(0))
    assert all(GRID.fullmatch(s) for s in sentences)
    assert len({s.split()[3] for s in sentences}) == 25


def test_own_lines_are_said_as_they_stand() -> None:
    assert from_lines(["we {like} braces", " ", "second"]).sample(10, np.random.default_rng(0)) in (
        ["we {like} braces", "second"],
        ["second", "we {like} braces"],
    )
    with pytest.raises(DataError, match="one sentence a line"):
        from_lines(["", " "])


def test_plans_share_neither_speaker_nor_sentence_between_splits() -> None:
    spec = CorpusSpec(utterances=200, speakers=17, splits={"train": 0.8, "dev": 0.1, "test": 0.1})
    plan = plan_corpus(spec)
    assert plan == plan_corpus(spec)
    assert plan != plan_corpus(replace(spec, seed=1))
    assert len({p.id for p in plan}) == 200
    assert {s: sum(p.split == s for p in plan) for s in spec.splits} == {"train": 160, "dev": 20, "test": 20}
    for key in ("speaker", "text"):
        parts = [{getattr(p, key) for p in plan if p.split == s} for s in spec.splits]
        assert sum(len(part) for part in parts) == len(set().union(*parts))
    assert len({p.speaker for p in plan}) == 17


def test_few_sentences_are_shared_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    plan = plan_corpus(CorpusSpec(sentences=["yes", "no"], utterances=30))
    assert {p.split for p in plan} == {"train", "dev", "test"}
    assert "too few" in caplog.text


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("spoken")
    return make_corpus(out, utterances=12, video=False, seed=4)


def test_a_spoken_corpus_reads_as_a_manifest(spoken: Path) -> None:
    rows = read_manifest(spoken)
    assert len(rows) == 12
    check_splits(by_split(rows))
    for row in rows[:4]:
        clip = read_clip(row.media)
        assert clip.audio is not None
        assert clip.frames is None
        assert 1.0 < len(clip.audio) / SAMPLE_RATE < 8
        assert np.abs(clip.audio).max() > 0.01


def test_resuming_makes_only_what_is_missing(spoken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = read_manifest(spoken)
    victim, before = rows[5].media, {r.media: r.media.read_bytes() for r in rows}
    victim.unlink()
    made: list[Path] = []
    replace_file = synthetic.os.replace
    monkeypatch.setattr(synthetic.os, "replace", lambda a, b: (made.append(Path(b)), replace_file(a, b))[1])
    assert make_corpus(spoken.parent, utterances=12, video=False, seed=4) == spoken
    assert [p for p in made if p.suffix == ".flac"] == [spoken.parent / victim.relative_to(spoken.parent.resolve())]
    assert {r.media: r.media.read_bytes() for r in rows} == before
    assert not list(spoken.parent.rglob(".*"))


def test_a_filmed_corpus_holds_sound_and_picture_in_step(tmp_path: Path) -> None:
    rows = read_manifest(
        make_corpus(tmp_path, utterances=3, sentences=["my mum", "two papers", "a boy"], size=(180, 144))
    )
    assert {r.split for r in rows} == {"train", "dev", "test"}
    for row in rows:
        clip = read_clip(row.media)
        assert clip.audio is not None
        assert clip.frames is not None
        assert clip.frames.shape[1:] == (144, 180, 3)
        assert abs(len(clip.audio) - len(clip.frames) * SAMPLES_PER_FRAME) <= 2 * SAMPLES_PER_FRAME


def test_writing_a_clip_keeps_the_sounds_place(tmp_path: Path) -> None:
    """AAC delays by an encoder's frame; the file must say so, and a click stays where it was."""
    audio = np.zeros(SAMPLE_RATE, np.float32)
    audio[8000:8040] = 0.8
    synthetic.write_clip(tmp_path / "a.mp4", np.full((25, 64, 64, 3), 90, np.uint8), audio)
    heard = read_clip(tmp_path / "a.mp4").audio
    assert heard is not None
    assert abs(int(np.abs(heard).argmax()) - 8020) < 60


def test_the_same_clip_is_the_same_bytes(tmp_path: Path) -> None:
    clip = render([], 0.4, seed=0)
    files = set()
    for i in range(6):
        junk = np.full(1000 + 7000 * i, i, np.uint8)  # whatever lies in memory, it must not get into the file
        synthetic.write_clip(tmp_path / "a.mp4", clip.frames, np.zeros(6400, np.float32))
        files.add((tmp_path / "a.mp4").read_bytes())
        del junk
    assert len(files) == 1


def test_endless_utterances_are_shared_without_overlap() -> None:
    series = utterances("digits", seed=3)
    one = [next(series) for _ in range(4)]
    shards = [utterances("digits", seed=3, start=rank, step=2) for rank in (0, 1)]
    for i, whole in enumerate(one):
        part = next(shards[i % 2])
        assert part.text == whole.text
        assert np.array_equal(part.audio, whole.audio)
    assert len({u.text for u in one}) > 1


def test_a_folder_with_a_specification_becomes_rows(tmp_path: Path) -> None:
    (tmp_path / "synthetic.toml").write_text(
        'sentences = "digits"\nutterances = 2\nvideo = false\n[splits]\ntrain = 1\n'
    )
    rows = list(corpus_rows(tmp_path))
    assert [r.split for r in rows] == ["train", "train"]
    assert all(r.media.is_file() for r in rows)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (None, DataError, "described there"),
        ("sentences = ", DataError, "not TOML"),
        ("sentence = 'grid'", ConfigError, "did you mean 'sentences'"),
        ("sentences = 'grit'", ConfigError, "did you mean 'grid'"),
        ("utterances = 0", ConfigError, "at least 1"),
        ("speakers = 2", ConfigError, "each split needs its own"),
        ("size = [99, 100]", ConfigError, "even"),
        ("language = 'xx'", ConfigError, "language = 'xx' has no voices"),
    ],
)
def test_wrong_specifications_are_explained(
    tmp_path: Path, text: str | None, error: type[Exception], message: str
) -> None:
    if text is not None:
        (tmp_path / "synthetic.toml").write_text(text)
    with pytest.raises(error, match=message):
        list(corpus_rows(tmp_path))


def test_the_sample_clip_is_small_and_can_be_made_again(tmp_path: Path) -> None:
    made = make_sample(tmp_path / "sample.mp4")
    clip = read_clip(made)
    assert made.stat().st_size < 400_000
    assert clip.frames is not None
    assert clip.audio is not None
    assert clip.frames.shape == (75, 288, 360, 3)
    packaged = Path(synthetic.__file__).parents[1] / "assets" / "sample.mp4"
    kept = read_clip(packaged)
    assert kept.frames is not None
    assert np.abs(kept.frames.astype(int) - clip.frames).mean() < 4
