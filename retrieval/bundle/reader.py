"""Bundle: the artifact folder, as a reader sees it: one generation, checked, for as long as it is open."""

import contextlib
import fcntl
import json
import os
import weakref
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

from retrieval.bundle.checksums import Checksums, identity
from retrieval.bundle.layout import MANIFEST, PREVIOUS, SCHEMA
from retrieval.bundle.manifest import MAX_BYTES, Manifest
from retrieval.common.errors import BundleError
from retrieval.features.schema import Schema

T = TypeVar("T")
Verify = Literal["remembered", "full", "size"]


class Bundle:
    """One generation of an artifact folder.

    While it is open a shared lock on its manifest keeps the generation's files, even when a writer publishes the
    next one. Reading needs no permission to write.
    """

    def __init__(self, path: Path, manifest: Manifest, *, verify: Verify, pin: int | None) -> None:
        """Use `Bundle.open`."""
        self.path = path
        self.manifest = manifest
        self._verify = verify
        self._checksums = Checksums(path)
        self._unpin = weakref.finalize(self, os.close, pin) if pin is not None else None

    @classmethod
    def open(cls, path: str | Path, *, verify: Verify = "remembered") -> "Bundle":
        """Open the present generation.

        verify: how `file` and `load` check content: "remembered" reads a file for its checksum unless this very file
            was read before; "full" always reads; "size" only compares sizes.
        Raises BundleError, naming the folder or the file, if it is not a bundle or a file is missing.
        """
        path = Path(path)
        manifest, pin = _read_manifest(path)
        bundle = cls(path, manifest, verify=verify, pin=pin)
        for name in manifest.files:
            bundle._candidates(name)
        return bundle

    @property
    def pair_id(self) -> str:
        return self.manifest.pair_id

    @property
    def generation(self) -> int:
        return self.manifest.generation

    @property
    def names(self) -> frozenset[str]:
        """The files of this generation."""
        return frozenset(self.manifest.files)

    @cached_property
    def schema(self) -> Schema:
        """What `schema.json` says. Raises BundleError if it is of another pair."""
        source = str(self.path / SCHEMA)
        schema = Schema.from_json(self.read_json(SCHEMA), source=source)
        if schema.pair_id != self.pair_id:
            raise BundleError(
                f"{source}: belongs to model {schema.pair_id}, the bundle to {self.pair_id}; "
                f'export again with "twotower export {self.path}"'
            )
        return schema

    def has(self, name: str) -> bool:
        return name in self.manifest.files

    def file(self, name: str) -> Path:
        """Where a file of this generation lies now, its content checked.

        A writer may move it at any moment; `load` reads it without that doubt.
        Raises BundleError if it is missing or its content is not what was published.
        """
        return self._resolve(name)[0]

    def load(self, name: str, read: Callable[[Path], T]) -> T:
        """Read a file of this generation: what `read` makes of it.

        If a writer replaces the file between the check and the reading, it is read again from where it lies now.
        """
        for _ in range(3):
            path, before = self._resolve(name)
            try:
                result = read(path)
            except Exception:
                if _identity_or_none(path) == before:
                    raise
                continue
            if _identity_or_none(path) == before:
                return result
        raise BundleError(f"{self.path / name}: changes while it is being read; open the bundle again")

    def read_json(self, name: str) -> Any:
        """The content of a JSON file. Raises BundleError if it is not JSON."""
        try:
            return json.loads(self.load(name, Path.read_bytes))
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{self.path / name}: not JSON ({error})") from error

    def close(self) -> None:
        """Let the generation go; its files may then be collected once it is replaced."""
        if self._unpin is not None:
            self._unpin()

    def __enter__(self) -> "Bundle":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _resolve(self, name: str) -> tuple[Path, tuple[int, ...]]:
        """The place of a file whose content is the manifest's, and what identifies it."""
        entry = self._entry(name)
        looked_at: list[tuple[Path, tuple[int, ...]]] = []
        while True:
            places = [(path, found) for path in self._candidates(name) if (found := _identity_or_none(path))]
            if places == looked_at:
                raise BundleError(
                    f"{self.path / name}: damaged, its content is not what was published; "
                    "restore the file or publish the bundle again"
                )
            for path, found in places:
                if self._verify == "size":
                    return path, found
                with contextlib.suppress(FileNotFoundError):
                    if self._checksums.sha256(path, fresh=self._verify == "full") == entry.sha256:
                        return path, found
            # A writer may have set the file aside meanwhile: look again, until nothing has moved between two looks.
            looked_at = places

    def _entry(self, name: str) -> Any:
        if name not in self.manifest.files:
            raise BundleError(f'{self.path}: the bundle has no "{name}"')
        return self.manifest.files[name]

    def _candidates(self, name: str) -> list[Path]:
        """Where the file may lie, by size alone: in its place, or set aside by a writer that is publishing."""
        entry = self._entry(name)
        places = (self.path / name, self.path / PREVIOUS / entry.sha256)
        sizes = {place: status[2] for place in places if (status := _identity_or_none(place)) is not None}
        fitting = [place for place, size in sizes.items() if size == entry.size]
        if not fitting:
            found = f"{sizes[places[0]]} bytes" if places[0] in sizes else "no such file"
            raise BundleError(
                f"{self.path / name}: damaged, expected {entry.size} bytes, found {found}; "
                "restore the file or publish the bundle again"
            )
        return fitting


def _identity_or_none(path: Path) -> tuple[int, ...] | None:
    """What identifies a file; its change time is left out, since a link made to it is not a change to it."""
    try:
        return identity(path)[:4]
    except (FileNotFoundError, NotADirectoryError):
        return None


def _read_manifest(path: Path) -> tuple[Manifest, int | None]:
    """The manifest in force and a file descriptor that holds a shared lock on it.

    The lock is taken on the file that was opened; if a writer has put another in its place meanwhile, begin again.
    """
    source = path / MANIFEST
    while True:
        try:
            identity(source)
            pin = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            if not path.exists():
                raise BundleError(
                    f'{path}: no such folder; make a bundle with "twotower run CONFIG --out {path}"'
                ) from error
            raise BundleError(
                f'{path}: not a bundle, it has no {MANIFEST}; make one with "twotower run CONFIG --out {path}"'
            ) from error
        try:
            locked = _lock_shared(pin)
            opened, present = os.fstat(pin), source.stat()
            if (opened.st_dev, opened.st_ino) == (present.st_dev, present.st_ino):
                manifest = Manifest.from_bytes(_read_all(pin), source=str(source))
                if locked:
                    return manifest, pin
                os.close(pin)
                return manifest, None
        except FileNotFoundError:
            pass  # removed between the two looks: the next round says so
        except BaseException:
            os.close(pin)
            raise
        os.close(pin)


def _lock_shared(descriptor: int) -> bool:
    """Take a shared lock. Some network file systems have none: then nothing is held, and nothing else changes."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _read_all(descriptor: int) -> bytes:
    """At most one byte more than a manifest may have."""
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read(MAX_BYTES + 1)
