"""Get a known public dataset as a dataset folder: its tables as Parquet and a config that works unchanged."""

import hashlib
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import polars as pl

from retrieval.common.console import note, progress
from retrieval.common.errors import DataError, nearest
from train.config.load import CONFIG_NAME
from train.datasets import beauty, movielens
from train.datasets.archive import Source
from train.datasets.dataset_folder import Folder, publish

CONNECT_TIMEOUT_S: Final = 5.0  # of each wait for the network, not of the whole download
PIP_TIMEOUT_S: Final = 120.0
BLOCK_BYTES: Final = 1 << 20


Reader = Callable[[Source], Folder]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A file on the network and what it must be."""

    url: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A package on the Python index that carries a copy of the data."""

    requirement: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A dataset that `fetch` knows by name.

    read: the files -> a dataset folder's content.
    archive: where the publisher keeps it; wheel: a second place; with neither it must be given by --from.
    terms: what to tell whoever fetches it.
    """

    read: Reader
    terms: str
    archive: Remote | None = None
    wheel: Wheel | None = None


_GROUPLENS: Final = "https://files.grouplens.org/datasets/movielens"
_TERMS: Final = (
    "MovieLens data by GroupLens (F. M. Harper and J. A. Konstan, 2015, https://doi.org/10.1145/2827872): "
    "research use, no commercial use without permission"
)


def _movielens(name: str, size_bytes: int, sha256: str, *, wheel: Wheel | None = None) -> Known:
    remote = Remote(url=f"{_GROUPLENS}/{name}.zip", size_bytes=size_bytes, sha256=sha256)
    return Known(read=movielens.READERS[name], archive=remote, wheel=wheel, terms=_TERMS)


# Sizes and sha256 of the archives as published in the checksum list of TensorFlow Datasets.
KNOWN: Final[Mapping[str, Known]] = {
    "ml-100k": _movielens(
        "ml-100k",
        4_924_029,
        "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        wheel=Wheel(
            requirement="recbole==1.2.1", sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
        ),
    ),
    "ml-latest-small": _movielens(
        "ml-latest-small", 978_202, "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436"
    ),
    "ml-1m": _movielens("ml-1m", 5_917_549, "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20"),
    "ml-20m": _movielens("ml-20m", 198_702_078, "96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3"),
    "ml-25m": _movielens("ml-25m", 261_978_986, "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa"),
    "beauty": Known(
        read=beauty.read,
        terms="Amazon reviews 2014, category Beauty, 5-core, as prepared for S3-Rec (CIKM 2020)",
    ),
}


def fetch(name: str, *, to: Path, source: Path | None = None, force: bool = False, read: Reader | None = None) -> Path:
    """Write a known dataset as a dataset folder. Returns the path of its config.

    read: another reading of the same files than the usual one, a subset for example.
    source: an archive or a folder that is on disk already; without it the network is asked.
    A folder that has a config is left as it is, unless `force`.
    Raises DataError in one line: an unknown name, nothing to be had (names the places tried and --from), a file that
    is not what it should be. Nothing half-written stays behind.
    """
    if name not in KNOWN:
        raise DataError(f'no known dataset "{name}"{nearest(name, [*KNOWN, "synthetic"])}')
    if kept(to, force=force):
        return to / CONFIG_NAME
    known = KNOWN[name] if read is None else replace(KNOWN[name], read=read)
    if source is not None:
        content = read_from(known, source)
    else:
        with tempfile.TemporaryDirectory(prefix="twotower-fetch-") as scratch:
            content = _download(name, known, Path(scratch))
    note(known.terms)
    return publish(content, to)


def kept(to: Path, *, force: bool) -> bool:
    """Whether there is a dataset folder already, which is then said. Raises DataError if it is something else."""
    if to.exists() and not to.is_dir():
        raise DataError(f"{to}: is a file, expected a folder to write the dataset to; choose another --to")
    if to.is_dir() and (to / CONFIG_NAME).exists() and not force:
        note(f"{to}: already there, kept as it is; --force writes it anew")
        return True
    if to.is_dir() and any(to.iterdir()) and not (to / CONFIG_NAME).exists():
        raise DataError(f"{to}: holds other files, expected an empty folder or none; choose another --to")
    return False


def read_from(known: Known, path: Path) -> Folder:
    """The dataset from an archive (zip or wheel) or folder on disk. Raises DataError that names the path."""
    if path.is_file() and known.archive is not None and path.stat().st_size == known.archive.size_bytes:
        found = _sha256(path)
        if found != known.archive.sha256:
            note(f"{path}: sha256 is {found}, the published archive has {known.archive.sha256}; read all the same")
    return _read(known, path)


def _read(known: Known, path: Path) -> Folder:
    with Source.open(path) as source:
        try:
            return known.read(source)
        except (zipfile.BadZipFile, EOFError, UnicodeDecodeError, pl.exceptions.PolarsError) as error:
            reason = str(error).strip().split("\n")[0]
            raise DataError(f"{path}: damaged: {reason}") from error


def _download(name: str, known: Known, scratch: Path) -> Folder:
    """From the publisher, else from the wheel. Raises DataError that names both and --from."""
    failures: list[str] = []
    if known.archive is not None:
        try:
            return _read(known, _get(known.archive, scratch / f"{name}.zip"))
        except (OSError, ValueError, DataError) as error:  # the network's errors are OSErrors
            failures.append(f"{known.archive.url}: {_reason(error)}")
            if known.wheel is not None:
                note(f"{failures[-1]}; trying {known.wheel.requirement} from the Python index")
    if known.wheel is not None:
        try:
            return _read(known, _pip_download(known.wheel, scratch))
        except (OSError, subprocess.SubprocessError, DataError) as error:
            failures.append(f"pip download {known.wheel.requirement}: {_reason(error)}")
    tried = "; ".join(failures) or "it is published in no archive that this program can ask for"
    raise DataError(f"{name}: could not be had: {tried}; get it yourself and give the archive or folder by --from")


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        return str(error.reason)
    return str(error) or type(error).__name__


def _get(remote: Remote, path: Path) -> Path:
    """Download a file and check it. Raises OSError or DataError."""
    with urllib.request.urlopen(remote.url, timeout=CONNECT_TIMEOUT_S) as response, path.open("wb") as file:
        blocks = iter(lambda: response.read(BLOCK_BYTES), b"")
        for block in progress(blocks, label=path.name, total=remote.size_bytes, size=BLOCK_BYTES):
            file.write(block)
    _check(path, remote.sha256)
    return path


def _pip_download(wheel: Wheel, folder: Path) -> Path:
    """Let pip fetch a wheel, without what it depends on, and check it. Raises OSError, SubprocessError, DataError."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), wheel.requirement]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if result.returncode or not wheels:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or [result.stderr.strip()]
        raise DataError(lines[-1][:300] or f"pip ended with {result.returncode}")
    _check(wheels[0], wheel.sha256)
    return wheels[0]


def _check(path: Path, sha256: str) -> None:
    found = _sha256(path)
    if found != sha256:
        raise DataError(f"{path.name} has sha256 {found}, expected {sha256}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
