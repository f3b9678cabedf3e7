"""Checksums: the sha256 of a file, cached while the file is unchanged."""

import contextlib
import hashlib
import json
import stat
import time
from pathlib import Path
from typing import Final

from retrieval.bundle.layout import CHECKSUMS
from retrieval.common.errors import BundleError
from retrieval.common.files import atomic_write

# Two changes within one tick of the clock leave the same time stamp. So a checksum is cached only if the last change is
# this old (git calls other entries "racily clean").
REST_NS: Final = 100_000_000

Identity = tuple[int, int, int, int, int]


def identity(path: Path) -> Identity:
    """Device, inode, size and times of a file; any ordinary change of the file changes one of them.

    Raises:
        BundleError: if it is not a regular file (reading a pipe would block).
        FileNotFoundError: if it does not exist.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{path}: not a regular file")
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's content."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Checksums:
    """Checksums of the files in a folder, cached in a file there if the folder can be written."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / CHECKSUMS
        self._known: dict[str, str] | None = None

    def sha256(self, path: Path, *, fresh: bool = False) -> str:
        """The sha256 of a file, from the cache if the file is unchanged; `fresh` reads it in any case."""
        before = identity(path)
        key = ":".join(map(str, before))
        if not fresh:
            known = self._load().get(key)
            if known is not None:
                return known
        started = time.time_ns()
        digest = sha256_of(path)
        if max(before[3], before[4]) + REST_NS < started and identity(path) == before:
            self._remember(path.name, key, digest)
        return digest

    def _load(self) -> dict[str, str]:
        if self._known is None:
            try:
                content = json.loads(self._file.read_bytes())
                self._known = {str(key): str(value[1]) for key, value in content.items()}
            except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
                self._known = {}
        return self._known

    def _remember(self, name: str, key: str, digest: str) -> None:
        """Cache one checksum. In a folder that cannot be written, files are read again next time."""
        try:
            content = json.loads(self._file.read_bytes())
            content = {old: value for old, value in content.items() if value[0] != name}
        except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
            content = {}
        content[key] = [name, digest]
        self._load()[key] = digest
        with contextlib.suppress(OSError), atomic_write(self._file) as draft:
            draft.write_text(json.dumps(content))
