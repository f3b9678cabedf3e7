"""Folder: the content of a dataset folder, published whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import polars as pl

from retrieval.common.errors import DataError
from train.config.load import CONFIG_NAME
from train.data.tables import write

# What the dataset folders of `fetch` call their tables and, where there is nothing else to call them by, their columns.
TABLES: Final = {"interactions": "interactions.parquet", "items": "items.parquet", "users": "users.parquet"}
COLUMNS: Final = {
    **TABLES,
    "user": "user_id",
    "item": "item_id",
    "value": "rating",
    "time": "timestamp",
    "title": "title",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """Tables by name (written as Parquet) and config files by name."""

    tables: Mapping[str, pl.DataFrame]
    configs: Mapping[str, str] = field(default_factory=dict)


def publish(content: Folder, to: Path) -> Path:
    """Write a dataset folder; one that is there is replaced at the end. Returns the path of its `twotower.toml`."""
    with staging(to) as folder:
        for name, table in content.tables.items():
            write(table, folder / TABLES[name])
        for name, text in content.configs.items():
            (folder / name).write_text(text, encoding="utf-8")
    return to / CONFIG_NAME


@contextmanager
def staging(to: Path) -> Iterator[Path]:
    """A folder to write to, which takes the place of `to` at the end of the block; on an exception nothing changes.

    Raises DataError that names `to` if it cannot be written: no space, no permission.
    """
    folder: Path | None = None
    try:
        to.absolute().parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=to.absolute().parent))
        yield folder
        folder.chmod(0o777 & ~_umask())
        replace_folder(folder, to.absolute())
    except BaseException as error:  # an interrupt too: nothing half-written stays
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise DataError(f"{to}: cannot be written: {error.strerror or error}") from error
        raise


def replace_folder(new: Path, to: Path) -> None:
    """Put a folder in the place of another, which may not be there."""
    if to.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{to.name}-old-", dir=to.parent)) / to.name
        to.rename(old)
        new.rename(to)
        shutil.rmtree(old.parent, ignore_errors=True)
    else:
        new.rename(to)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
