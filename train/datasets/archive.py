"""Source: the files of a dataset, in a folder or in a zip, found by the end of their path."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from retrieval.common.errors import DataError


@dataclass(frozen=True, slots=True)
class Source:
    """path: the folder or archive, for errors. names: every file in it, "/" between folders."""

    path: Path
    names: tuple[str, ...]
    _archive: zipfile.ZipFile | None

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator["Source"]:
        """Open a folder, a zip or a wheel. Raises DataError if it is missing or neither."""
        if path.is_dir():
            files = (file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
            yield cls(path, tuple(sorted(files)), None)
            return
        if not path.is_file():
            raise DataError(f"{path}: no such file or folder")
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise DataError(f"{path}: neither a folder nor a whole zip archive ({error})") from None
        with archive:
            yield cls(path, tuple(archive.namelist()), archive)

    def has(self, name: str) -> bool:
        return self._find(name) is not None

    def read(self, name: str) -> bytes:
        """Content of the file whose path ends in `name`. Raises DataError that names it if it is not there."""
        found = self._find(name)
        if found is None:
            raise DataError(f"{self.path}: has no {name}; expected the dataset's archive or its unpacked folder")
        if self._archive is not None:
            return self._archive.read(found)
        return (self.path / found).read_bytes()

    def _find(self, name: str) -> str | None:
        """The shortest path that ends in the file name: an archive may hold a folder, and that another."""
        found = [path for path in self.names if path == name or path.endswith("/" + name)]
        return min(found, key=len) if found else None
