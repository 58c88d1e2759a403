"""A Ray cluster of this machine's own, with a tiny model."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from omni_avsr.checkpoints import save_model
from omni_avsr.model.omni import OmniAVSR
from tests.clips import voice, wav


@pytest.fixture(scope="session")
def model_folder(tiny_model: Callable[..., OmniAVSR], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tiny_model(), tmp_path_factory.mktemp("models") / "tiny", origin={"made_by": "a test"})


@pytest.fixture(scope="session")
def cluster(model_folder: Path) -> Iterator[None]:
    """Four processors on paper; the environment reaches every worker."""
    import ray

    told = {"OMNI_AVSR_MODEL": str(model_folder), "OMNI_AVSR_NAMES": "tiny", "OMNI_AVSR_OFFLINE": "1"}
    told |= {"OMNI_AVSR_REPLICAS": "2 2", "OMNI_AVSR_BEAM_SIZE": "1", "OMNI_AVSR_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    before = dict(os.environ)
    os.environ.update(told, RAY_USAGE_STATS_ENABLED="0")
    for last in (False, False, True):
        try:
            ray.init(num_cpus=4, include_dashboard=False, object_store_memory=200 * 2**20, log_to_driver=False)
            break
        except Exception:  # Ray waits 30 s for its own processes, which a busy machine can exceed
            ray.shutdown()
            if last:
                raise
    yield
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty short clips, and one file that is none."""
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(20):
        wav(folder / f"clip{number:02d}.wav", voice()[800 * number : 800 * number + 24_000])
    (folder / "broken.wav").write_bytes(b"not media" * 100)
    return folder


def workers(name: str) -> list[int]:
    """Processes of Ray whose title holds `name`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if title.startswith("ray::") and name in title:
                found.append(int(entry.name))
    return found


def kill(process: int) -> None:
    """As the kernel does when memory is short."""
    os.kill(process, signal.SIGKILL)
