"""`omni-avsr cache`: what is kept on this machine, where, and what to fetch before the network is gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from omni_avsr.cli.options import Offline


def cache(
    fetch: Annotated[
        list[str] | None, typer.Option("--fetch", metavar="MODEL...", help="Fetch these now, and the face networks.")
    ] = None,
    offline: Offline = False,
) -> None:
    """Name the files that were fetched: face networks, and models by hub id. OMNI_AVSR_CACHE and HF_HOME move them."""
    for model in fetch or ():
        for folder in fetched(model, offline):
            typer.echo(f"here: {folder}", err=True)
    for name, size, path in kept():
        typer.echo(f"{name:<40} {size / 1e6:9.1f} MB  {path}")


def fetched(model: str, offline: bool = False) -> Iterator[Path]:
    """Folders of all that `model` needs: the face networks, its own, and those of the hub models it refers to.

    Raises:
        AssetError, CheckpointError: something is neither here nor to be had.
    """
    from omni_avsr.checkpoints import folder as files
    from omni_avsr.checkpoints.native import read_config
    from omni_avsr.media.assets import ensure_face_models

    yield ensure_face_models(offline)
    folder = files.locate(model, offline)
    yield folder
    config = read_config(folder)
    for source in {config.llm.source, config.audio_encoder.source, config.video_encoder.source} - {""}:
        yield Path(source) if Path(source).expanduser().exists() else files.fetch(source, offline)


def kept() -> Iterator[tuple[str, int, Path]]:
    """(name, bytes, folder) of everything in the caches."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    from omni_avsr.media.assets import cache_dir

    faces = cache_dir() / "faces"
    if faces.is_dir():
        yield "face networks", sum(path.stat().st_size for path in faces.iterdir()), faces
    try:
        found = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return
    for repo in sorted(found, key=lambda repo: repo.repo_id):
        if repo.repo_type == "model":
            yield repo.repo_id, repo.size_on_disk, repo.repo_path
