"""Generations: the one that answers, and the look-out for the next."""

import logging
import os
import threading
import time
from pathlib import Path
from typing import Final

from retrieval.bundle.layout import MANIFEST
from retrieval.bundle.reader import Bundle
from retrieval.common.errors import BundleError
from retrieval.server.snapshot import Serving

POLL_S: Final = 1.0
RETRY_S: Final = 15.0  # between two looks at a generation that could not be opened

log: Final = logging.getLogger("twotower.server")


class Generations:
    """The present generation of a bundle, replaced when another is published.

    The next one is opened and tried beside the present one; then one assignment changes which of them new requests
    get. Requests under way keep theirs, and it is let go with the last of them.
    """

    def __init__(self, folder: Path) -> None:
        """Raises BundleError if there is nothing to serve."""
        self.folder = folder
        self.trouble: str | None = None
        self.opened = 1  # generations since the start
        self._seen = self._identity()
        self._present = Serving.open(folder)
        self._changing = threading.Lock()
        self._stop = threading.Event()
        self._retry_at = 0.0
        self._watcher: threading.Thread | None = None

    @property
    def present(self) -> Serving:
        """The generation for a new request; take it once a request."""
        return self._present

    def watch(self, *, every_s: float = POLL_S) -> None:
        """Look for a new generation in a thread, until `close`."""
        self._watcher = threading.Thread(target=self._watch, args=(every_s,), name="generations", daemon=True)
        self._watcher.start()

    def refresh(self) -> None:
        """Serve what is published now, if it is another generation and can be served; else say what is wrong."""
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
                log.warning("%s: generation %d is there again", self.folder, self._present.bundle.generation)
        else:
            self._present = Serving(bundle)
            self.opened += 1
            present = self._present
            log.warning("%s: generation %d, %d items", self.folder, bundle.generation, present.count)
        self.trouble = None

    def _stay(self, trouble: str) -> None:
        self._retry_at = time.monotonic() + RETRY_S
        if trouble != self.trouble:
            log.error("%s (generation %d goes on answering)", trouble, self._present.bundle.generation)
        self.trouble = trouble

    def _identity(self) -> tuple[int, ...] | None:
        """What tells one manifest from the next."""
        try:
            status = os.stat(self.folder / MANIFEST)  # noqa: PTH116  (a Path is not made every second)
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size

    def _watch(self, every_s: float) -> None:
        while not self._stop.wait(every_s):
            self.refresh()
