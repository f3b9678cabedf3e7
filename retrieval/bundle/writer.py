"""Publishing: how a bundle changes. One writer at a time; readers see the old generation or the new one.

A change is staged in `.next-*` inside the folder. What it replaces is kept under `.previous/<sha256>`, then the new
files are renamed to their names, then the manifest: that rename is the one moment of change. Before it a reader finds
the old content by its checksum, in place or set aside. A writer that dies leaves its staging folder, and the next
writer puts back whatever is not of the manifest in force.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from retrieval.bundle.checksums import Checksums, sha256_of
from retrieval.bundle.layout import (
    ADDED_VECTORS,
    CHECKSUMS,
    INDEX,
    INDEX_FACTS,
    LOCK,
    MANIFEST,
    METRICS,
    MODEL_CARD,
    PREVIOUS,
    REPORT,
    SCHEMA,
    STAGING_PREFIX,
)
from retrieval.bundle.manifest import FileEntry, Manifest, is_plain_name, json_bytes
from retrieval.bundle.reader import Bundle
from retrieval.common.console import note
from retrieval.common.errors import BundleError
from retrieval.common.files import atomic_write
from retrieval.features.schema import Schema

T = TypeVar("T")

POLL_S: Final = 0.02

# Made from the vectors of one pair of towers: worthless beside another pair.
VECTOR_FILES: Final = (INDEX, INDEX_FACTS, ADDED_VECTORS, METRICS, REPORT, MODEL_CARD)


class Draft:
    """The next generation of a bundle while it is being made; `publishing` gives one."""

    def __init__(self, folder: Path, staging: Path, base: Bundle | None, *, clear: bool) -> None:
        self.folder = folder
        self.base = base
        self._staging = staging
        self._carried = set() if clear or base is None else set(base.names)

    def path(self, name: str) -> Path:
        """Where to write a file of the next generation."""
        if not is_plain_name(name):
            raise ValueError(f"{name!r} cannot be the name of a file in a bundle")
        return self._staging / name

    def write_bytes(self, name: str, content: bytes) -> None:
        self.path(name).write_bytes(content)

    def write_json(self, name: str, content: object) -> None:
        """Write JSON. Raises ValueError on NaN, which JSON does not have."""
        self.write_bytes(name, json_bytes(content))

    def remove(self, name: str) -> None:
        """Leave a file out of the next generation, if it is there."""
        self._carried.discard(name)
        self.path(name).unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        """Whether the next generation holds the file, as it stands now."""
        return self.path(name).exists() or name in self._carried

    def file(self, name: str) -> Path:
        """The file as the next generation will hold it: staged, or carried over (and checked)."""
        if self.path(name).exists():
            return self.path(name)
        if name in self._carried:
            assert self.base is not None
            return self.base.file(name)
        raise BundleError(f'{self.folder}: the bundle has no "{name}"')

    def load(self, name: str, read: Callable[[Path], T]) -> T:
        """Read a file of the next generation, as `Bundle.load` does."""
        return read(self.file(name))

    def read_json(self, name: str) -> Any:
        """The content of a JSON file, staged or carried over."""
        import json

        if self.path(name).exists():
            return json.loads(self.path(name).read_bytes())
        if name in self._carried:
            assert self.base is not None
            return self.base.read_json(name)
        raise BundleError(f'{self.folder}: the bundle has no "{name}"')

    @property
    def schema(self) -> Schema:
        """The towers of the next generation. Raises BundleError if it has none."""
        if not self.has(SCHEMA):
            raise BundleError(f'{self.folder}: holds no towers; write them with "twotower export {self.folder}"')
        return Schema.from_json(self.read_json(SCHEMA), source=str(self.folder / SCHEMA))

    @property
    def pair_id(self) -> str:
        return self.schema.pair_id

    def _staged(self) -> list[str]:
        return sorted(entry.name for entry in self._staging.iterdir() if is_plain_name(entry.name))

    def _drop_foreign_vectors(self) -> None:
        """Carry no vectors of another pair of towers into this generation."""
        if self.base is None or not self.path(SCHEMA).exists() or self.pair_id == self.base.pair_id:
            return
        dropped = [name for name in VECTOR_FILES if name in self._carried and not self.path(name).exists()]
        self._carried.difference_update(dropped)
        if INDEX in dropped:
            note(
                f"{self.folder}: the index held vectors of model {self.base.pair_id} and is gone; "
                f'make one for {self.pair_id} with "twotower index build {self.folder}"'
            )


@contextlib.contextmanager
def publishing(path: str | Path, *, clear: bool = False, wait_s: float = 10.0) -> Iterator[Draft]:
    """Make the next generation of a bundle: all of it is published when the block ends, or nothing if it raises.

    clear: begin with no files instead of those of the present generation.
    wait_s: how long to wait for another writer.
    Raises BundleError if another writer keeps the folder, if the present generation is damaged, or if the folder
    cannot be written.
    """
    folder = Path(path)
    with _writable(folder), _locked(folder, wait_s=wait_s):
        _recover(folder)
        base = Bundle.open(folder) if (folder / MANIFEST).exists() else None
        staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=folder))
        try:
            draft = Draft(folder, staging, base, clear=clear)
            yield draft
            _publish(draft)
        finally:
            if base is not None:
                base.close()
            with contextlib.suppress(OSError):
                _recover(folder)


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Make the folder; take it away again if nothing was put into it. Turn refusals of the system into ours."""
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        reason = "no space left" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
        raise BundleError(f"{folder}: cannot be written ({reason}); what was published before is intact") from error
    finally:
        if new:
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def _locked(folder: Path, *, wait_s: float) -> Iterator[None]:
    """Hold the folder's one writer lock; the system lets go of it when the process dies.

    The lock file is removed with the lock, so that a folder holds nothing but its bundle; a lock taken on a file that
    was just removed is no lock, and is tried again.
    """
    place = folder / LOCK
    deadline = time.monotonic() + wait_s
    while True:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if place.exists() and place.stat().st_ino == os.fstat(descriptor).st_ino:
                break
        except BlockingIOError:
            if time.monotonic() > deadline:
                writer = os.read(descriptor, 20).decode(errors="replace").strip()
                os.close(descriptor)
                raise BundleError(
                    f"{folder}: process {writer or '(unknown)'} is writing to it; try again when that has ended"
                ) from None
            time.sleep(POLL_S)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        try:
            with contextlib.suppress(OSError):
                place.unlink()
        finally:
            os.close(descriptor)


def _publish(draft: Draft) -> None:
    """Put the staged files in place and make them the present generation."""
    folder, staging, base = draft.folder, draft._staging, draft.base
    draft._drop_foreign_vectors()
    old = dict(base.manifest.files) if base is not None else {}
    files = {name: old[name] for name in draft._carried}
    changed = []
    for name in draft._staged():
        entry = FileEntry(draft.path(name).stat().st_size, sha256_of(draft.path(name)))
        files[name] = entry
        if old.get(name) != entry:
            changed.append(name)
            _sync(draft.path(name))
    if not changed and files.keys() == old.keys():
        return
    for name in changed:
        if name not in old and (folder / name).exists():
            raise BundleError(
                f"{folder / name}: is in the way and is not of a bundle; move it, or choose another folder"
            )
    manifest = Manifest.make(
        pair_id=draft.pair_id, generation=1 + (base.generation if base is not None else 0), files=files
    )
    # In the staging folder the manifest is also the list of what a writer that dies from here on may leave behind.
    (staging / MANIFEST).write_bytes(manifest.to_bytes())
    _sync(staging / MANIFEST)
    _sync(staging)
    if base is not None:
        gone = [name for name in old if files.get(name) != old[name]]
        _set_aside(folder, base, gone)
    for name in changed:
        (staging / name).replace(folder / name)
    _sync(folder)
    (staging / MANIFEST).replace(folder / MANIFEST)
    _sync(folder)


def _set_aside(folder: Path, base: Bundle, names: list[str]) -> None:
    """Keep the files that are about to be replaced, and the manifest that readers of them have locked."""
    previous = folder / PREVIOUS
    previous.mkdir(exist_ok=True)
    for name in names:
        _link(folder / name, previous / base.manifest.files[name].sha256)
    _link(folder / MANIFEST, previous / f"{base.generation}.json")
    _sync(previous)


def _link(source: Path, target: Path) -> None:
    """A second name for a file; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV):
            raise
        with atomic_write(target) as draft:
            shutil.copy2(source, draft)


def _recover(folder: Path) -> None:
    """Bring the folder back to its manifest: undo what a writer left half done, collect what nobody reads.

    Called with the lock held. Costs a few look-ups when the last writer ended well.
    """
    stages = list(folder.glob(f"{STAGING_PREFIX}*"))
    previous = folder / PREVIOUS
    if not stages and not previous.exists():
        return
    place = folder / MANIFEST
    present = Manifest.from_bytes(place.read_bytes(), source=str(place)) if place.exists() else None
    files = dict(present.files) if present is not None else {}
    if any((stage / MANIFEST).exists() for stage in stages):
        _restore(folder, files)
    for stage in stages:
        _remove_unlisted(folder, stage / MANIFEST, files)
        if stage.is_dir():
            shutil.rmtree(stage, ignore_errors=True)
        else:
            stage.unlink()
    if previous.exists():
        _collect(folder, files)
    for stray in folder.glob(f"{CHECKSUMS}-*"):
        stray.unlink(missing_ok=True)


def _restore(folder: Path, files: dict[str, FileEntry]) -> None:
    """Put the files of the manifest back where a writer that died had already put its own."""
    checksums = Checksums(folder)
    for name, entry in files.items():
        kept = folder / PREVIOUS / entry.sha256
        if kept.exists() and not ((folder / name).exists() and checksums.sha256(folder / name) == entry.sha256):
            spare = folder / f"{STAGING_PREFIX}{name}"
            spare.unlink(missing_ok=True)
            _link(kept, spare)
            spare.replace(folder / name)


def _remove_unlisted(folder: Path, listing: Path, files: dict[str, FileEntry]) -> None:
    """Remove files that another manifest lists and the present one does not, if their content is that manifest's."""
    try:
        other = Manifest.from_bytes(listing.read_bytes(), source=str(listing))
    except (OSError, BundleError):
        return
    for name, entry in other.files.items():
        place = folder / name
        if name not in files and place.is_file() and sha256_of(place) == entry.sha256:
            place.unlink()


def _collect(folder: Path, files: dict[str, FileEntry]) -> None:
    """Remove the generations that no reader holds, and the files that no generation needs."""
    previous = folder / PREVIOUS
    needed: set[str] = set()
    for listing in list(previous.glob("*.json")):
        _remove_unlisted(folder, listing, files)
        if _is_read(listing, folder / MANIFEST):
            with contextlib.suppress(BundleError):
                held = Manifest.from_bytes(listing.read_bytes(), source=str(listing))
                needed.update(entry.sha256 for name, entry in held.files.items() if files.get(name) != entry)
                needed.add(listing.name)
    for entry_path in list(previous.iterdir()):
        if entry_path.name not in needed:
            entry_path.unlink(missing_ok=True)
    if not needed:
        previous.rmdir()


def _is_read(listing: Path, present: Path) -> bool:
    """Whether a reader holds the generation of an old manifest. The present one needs no keeping."""
    if present.exists() and present.samefile(listing):
        return False
    descriptor = os.open(listing, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _sync(path: Path) -> None:
    """Have the system put a file or a folder on the disk before anything that follows."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
