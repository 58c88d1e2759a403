"""Shards: what goes in comes out, wherever they lie; the same order, no doubles, and others can read them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest

from omni_avsr.config import ModelConfig
from omni_avsr.data.dataset import SpeechDataset, load_sample
from omni_avsr.data.manifest import Row, read_manifest, write_manifest
from omni_avsr.data.mouth_store import read_store, write_store
from omni_avsr.data.sampler import FrameBudgetSampler
from omni_avsr.data.shards import fetch, write_shards
from omni_avsr.errors import DataError


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven rows of train, three of dev."""
    folder = tmp_path_factory.mktemp("stores")
    random = np.random.default_rng(0)
    rows = []
    for number in range(10):
        frames = 12 + number
        crops = random.integers(0, 256, (frames, 96, 96), dtype=np.uint8)
        audio = random.uniform(-0.5, 0.5, frames * 640).astype(np.float32)
        store = write_store(folder / f"{number}.mkv", crops, audio, codec="ffv1")
        split = "train" if number < 7 else "dev"
        rows.append(Row(f"s{number % 3}/u{number}", store, f"слово {number}", split, f"s{number % 3}",
                        mouths=store, frames=frames))  # fmt: skip
    return write_manifest(folder / "manifest.jsonl", rows)


@pytest.fixture(scope="module")
def sharded(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(manifest, tmp_path_factory.mktemp("shards"), rows_per_shard=3)


def test_the_same_rows_in_the_same_order_with_the_same_signals(manifest: Path, sharded: Path) -> None:
    assert sorted(p.name for p in sharded.parent.glob("*.tar")) == [
        "dev-000000.tar", "train-000000.tar", "train-000001.tar", "train-000002.tar",
    ]  # fmt: skip
    config = ModelConfig(preprocess={"audio_window": 0})
    whole, packed = (SpeechDataset(path, "train", config) for path in (manifest, sharded))
    assert (packed.texts, packed.frames) == (whole.texts, whole.frames)
    for index in range(len(whole)):
        one, other = load_sample(whole.rows[index]), load_sample(packed.rows[index])
        assert one.id == other.id
        assert np.array_equal(one.audio, other.audio)  # type: ignore[arg-type]
        assert np.array_equal(one.mouths, other.mouths)  # type: ignore[arg-type]


def test_packing_again_makes_the_same_bytes_and_only_what_is_missing(manifest: Path, sharded: Path) -> None:
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in sharded.parent.iterdir()}
    broken, whole = sharded.parent / "train-000001.tar", sharded.parent / "train-000000.tar"
    broken.write_bytes(b"half a shard")
    write_shards(manifest, sharded.parent, rows_per_shard=3)
    assert {p: p.read_bytes() for p in sharded.parent.iterdir()} == {p: b for p, (b, _) in before.items()}
    assert whole.stat().st_mtime_ns == before[whole][1]


def test_an_object_store_serves_as_a_disk(sharded: Path) -> None:
    """fsspec's memory stands for s3://: a manifest by URL, its shards beside it."""
    store = fsspec.filesystem("memory")
    for path in sharded.parent.iterdir():
        store.pipe(f"/corpus/{path.name}", path.read_bytes())
    rows = read_manifest("memory://corpus/manifest.jsonl")
    assert [r.id for r in rows] == [r.id for r in read_manifest(sharded)]
    for row, near in zip(rows, read_manifest(sharded), strict=True):
        assert fetch(row).getvalue() == fetch(near).getvalue()
    store.pipe("/corpus/dev-000000.tar", b"cut short")
    with pytest.raises(DataError, match=r"shard 'memory://corpus/dev-000000\.tar'"):
        fetch(next(row for row in rows if row.split == "dev"))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_the_rows_without_doubles_and_resume_in_mid_epoch(sharded: Path, world: int) -> None:
    frames = SpeechDataset(sharded, "train", ModelConfig(preprocess={"audio_window": 0})).frames
    seen: list[int] = []
    for rank in range(world):
        sampler = FrameBudgetSampler(frames, 30, seed=1, rank=rank, world_size=world)
        sampler.set_epoch(4)
        batches = list(sampler)
        seen += [row for batch in batches for row in batch]
        sampler.set_epoch(4, 1)
        assert list(sampler) == batches[1:]
    assert len(seen) == len(set(seen))
    assert set(seen) == set(range(len(frames))) or len(frames) - len(seen) < world


def test_tar_and_webdataset_read_them(sharded: Path) -> None:
    with tarfile.open(sharded.parent / "train-000000.tar") as tar:
        said = json.load(tar.extractfile("s0/u0.json"))  # type: ignore[arg-type]
    assert (said["id"], said["text"]) == ("s0/u0", "слово 0")
    webdataset = pytest.importorskip("webdataset")
    shards = sorted(map(str, sharded.parent.glob("train-*.tar")))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert [json.loads(s["json"])["id"] for s in samples] == [
        r.id for r in read_manifest(sharded) if r.split == "train"
    ]
    assert len(read_store(io.BytesIO(samples[0]["mkv"])).crops) == 12  # type: ignore[arg-type]


def test_rows_without_mouth_files_are_refused(tmp_path: Path, manifest: Path) -> None:
    (row, *_) = read_manifest(manifest)
    bare = write_manifest(tmp_path / "m.jsonl", [Row("a", row.media, "x", "train")])
    with pytest.raises(DataError, match="row 'a' has no mouth file"):
        write_shards(bare, tmp_path / "out")
