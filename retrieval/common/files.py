"""Files that appear whole or not at all."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_write(path: Path, *, prefix: str = ".") -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` when the block ends without an exception.

    Args:
        path: The file to write or replace.
        prefix: Begins the name of the temporary file; the name of `path`, the process and the time follow.
    """
    temporary = path.with_name(f"{prefix}{path.name.lstrip('.')}-{os.getpid()}-{time.monotonic_ns()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # a read-only file system
            temporary.unlink(missing_ok=True)
