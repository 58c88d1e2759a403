"""Large corpora as tar files: WebDataset's layout, with a manifest that says where in them each utterance lies.

    SHARDS/train-000000.tar    s1/bbaf2n.json, s1/bbaf2n.mkv, …: the row and its mouth file, as WebDataset reads them
    SHARDS/manifest.jsonl      "shard", "offset" and "size" instead of "mouths"

A row is fetched by its place, from a disk or through fsspec from an object store, so sharded corpora are trained on
as any other: the same order by seed and epoch, resumed in the middle of an epoch, divided over processes row by row
without doubles. Readers that know tar files only (WebDataset, tar) see them too.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from omni_avsr.data.intake import file_name
from omni_avsr.data.manifest import MANIFEST, Row, by_split, read_manifest, write_manifest
from omni_avsr.data.mouth_store import SUFFIX
from omni_avsr.errors import DataError

ROWS = 2000  # per shard: 100 MB of clips of three seconds


def write_shards(manifest: str | Path, out: str | Path, rows_per_shard: int = ROWS) -> Path:
    """Packs the mouth files of a manifest into tar files and returns the manifest of those.

    The same manifest gives the same bytes. Shards that are whole are kept, so an interrupted run goes on.

    Raises:
        DataError: a row has no mouth file.
    """
    rows, out = read_manifest(manifest), Path(out)
    bare = next((row for row in rows if row.mouths is None), None)
    if bare is not None:
        raise DataError(f"row '{bare.id}' has no mouth file; shards hold those: omni-avsr prepare ... --mouths")
    out.mkdir(parents=True, exist_ok=True)
    packed = [row for split, some in by_split(rows).items() for row in _split(split, some, out, rows_per_shard)]
    order = {row.id: place for place, row in enumerate(rows)}
    return write_manifest(out / MANIFEST, sorted(packed, key=lambda row: order[row.id]))


def _split(split: str, rows: Sequence[Row], out: Path, size: int) -> Iterator[Row]:
    for number, first in enumerate(range(0, len(rows), size)):
        path = out / f"{split}-{number:06d}.tar"
        some = rows[first : first + size]
        names = [file_name(row.id) for row in some]
        if not path.is_file() or _members(path) != [f"{n}{s}" for n in names for s in (".json", SUFFIX)]:
            _pack(path, some, names)
        yield from _placed(path, some)


def _pack(path: Path, rows: Sequence[Row], names: Sequence[str]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with tarfile.open(beside, "w", format=tarfile.USTAR_FORMAT) as tar:
            for row, name in zip(rows, names, strict=True):
                assert row.mouths is not None
                said = {key: getattr(row, key) for key in ("id", "text", "split", "speaker", "frames")}
                _add(tar, f"{name}.json", json.dumps(said, ensure_ascii=False).encode())
                _add(tar, f"{name}{SUFFIX}", row.mouths.read_bytes())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # no dates and no owners: the same rows give the same bytes
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _members(path: Path) -> list[str]:
    try:
        with tarfile.open(path) as tar:
            return tar.getnames()
    except tarfile.TarError:
        return []


def _placed(path: Path, rows: Sequence[Row]) -> Iterator[Row]:
    with tarfile.open(path) as tar:
        stores = [member for member in tar.getmembers() if member.name.endswith(SUFFIX)]
    for row, member in zip(rows, stores, strict=True):
        media = path / member.name
        yield replace(row, media=media, start=0.0, end=None, mouths=None, audio=None, shard=str(path.absolute()),
                      offset=member.offset_data, size=member.size)  # fmt: skip


def fetch(row: Row) -> io.BytesIO:
    """The bytes of a sharded row's mouth file.

    Raises:
        DataError: the shard cannot be read there, or ends before.
    """
    import fsspec

    try:
        store, path = fsspec.core.url_to_fs(row.shard)
        content: bytes = store.cat_file(path, row.offset, row.offset + row.size)
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"row '{row.id}': shard '{row.shard}' cannot be read: {error}") from None
    if len(content) != row.size:
        got = f"{len(content)} of {row.size} bytes"
        raise DataError(f"row '{row.id}': shard '{row.shard}' gives {got}; it is cut short, pack it again")
    return io.BytesIO(content)
