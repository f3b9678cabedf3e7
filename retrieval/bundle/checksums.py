"""Checksums: the sha256 of a file, remembered as long as the file is the one that was read."""

import contextlib
import hashlib
import json
import os
import stat
import time
from pathlib import Path
from typing import Final

from retrieval.common.errors import BundleError

MEMORY_NAME: Final = ".verified.json"

# A file changed again within the clock's tick of its last change shows the same time stamp, so a file is remembered
# only once it has rested this long (git calls such entries "racily clean").
REST_NS: Final = 100_000_000

Identity = tuple[int, int, int, int, int]


def identity(path: Path) -> Identity:
    """Device, inode, size and times: any ordinary change to the file changes one of them.

    Raises BundleError unless it is a regular file (reading a pipe would wait for ever), FileNotFoundError if it is
    not there.
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
    """What is known of the files of one folder, kept in a file beside them where that can be written."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / MEMORY_NAME
        self._known: dict[str, str] | None = None

    def sha256(self, path: Path, *, fresh: bool = False) -> str:
        """The checksum of a file, from memory if it is the file that was read then.

        fresh: read it in any case.
        """
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
        """Add one entry. A folder that cannot be written is only read again next time."""
        try:
            content = json.loads(self._file.read_bytes())
            content = {old: value for old, value in content.items() if value[0] != name}
        except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
            content = {}
        content[key] = [name, digest]
        self._load()[key] = digest
        draft = self._file.with_name(f"{MEMORY_NAME}-{os.getpid()}-{time.monotonic_ns()}")
        try:
            draft.write_text(json.dumps(content))
            draft.replace(self._file)
        except OSError:
            with contextlib.suppress(OSError):  # on a read-only file system this fails too
                draft.unlink(missing_ok=True)
