"""Generations of a bundle: serve the present one, watch for the next one, replace without a gap."""

import logging
import os
import threading
import time
from pathlib import Path
from typing import Final

from retrieval.bundle.layout import MANIFEST
from retrieval.bundle.reader import Bundle
from retrieval.common.errors import BundleError
from retrieval.server.snapshot import Snapshot

POLL_S: Final = 1.0  # between two looks at the manifest
RETRY_S: Final = 15.0  # between two attempts to open a broken generation

log: Final = logging.getLogger("twotower.server")


class Generations:
    """The present generation of a bundle, replaced when another one is published.

    The next generation is opened and tried while the present one answers; then one assignment replaces it. Requests in
    flight keep their snapshot, which is freed with the last of them.

    Attributes:
        trouble: Why the published generation cannot be served, if it cannot.
        opened: Number of generations opened since the start.
    """

    def __init__(self, folder: Path) -> None:
        """Open the present generation. Raises BundleError if there is none or it is broken."""
        self.folder = folder
        self.trouble: str | None = None
        self.opened = 1
        self._seen = self._identity()
        self._present = Snapshot.open(folder)
        self._changing = threading.Lock()
        self._stop = threading.Event()
        self._retry_at = 0.0
        self._watcher: threading.Thread | None = None

    @property
    def present(self) -> Snapshot:
        """The snapshot for a new request; take it once for each request."""
        return self._present

    def watch(self, *, every_s: float = POLL_S) -> None:
        """Watch for new generations in a thread, until `close`."""
        self._watcher = threading.Thread(target=self._watch, args=(every_s,), name="generations", daemon=True)
        self._watcher.start()

    def refresh(self) -> None:
        """Serve the published generation if it is new and opens; otherwise set `trouble`."""
        with self._changing:
            identity = self._identity()
            if identity == self._seen and (self.trouble is None or time.monotonic() < self._retry_at):
                return
            self._seen = identity
            try:
                self._replace()
            except (BundleError, OSError) as error:
                self._stay(str(error))
            except Exception as error:
                log.exception("%s: the next generation could not be opened", self.folder)
                self._stay(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join()

    def _replace(self) -> None:
        bundle = Bundle.open(self.folder)
        if bundle.manifest == self._present.bundle.manifest:
            bundle.close()
            if self.trouble is not None:
                log.warning("%s: generation %d is readable again", self.folder, self._present.bundle.generation)
        else:
            self._present = Snapshot(bundle)
            self.opened += 1
            present = self._present
            log.warning("%s: generation %d, %d items", self.folder, bundle.generation, present.count)
        self.trouble = None

    def _stay(self, trouble: str) -> None:
        self._retry_at = time.monotonic() + RETRY_S
        if trouble != self.trouble:
            log.error("%s (still serving generation %d)", trouble, self._present.bundle.generation)
        self.trouble = trouble

    def _identity(self) -> tuple[int, ...] | None:
        """Identifies the manifest on disk; None if there is none."""
        try:
            status = os.stat(self.folder / MANIFEST)  # noqa: PTH116  (runs every second)
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size

    def _watch(self, every_s: float) -> None:
        while not self._stop.wait(every_s):
            self.refresh()
