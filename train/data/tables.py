"""Table: a table of the user, read as told by its suffix, and written as Parquet."""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from retrieval.common.errors import DataError, nearest
from train.data.column_types import natural

SUFFIXES: Final = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Table:
    """A table as read. `text` says that a file without types wrote it: every column is String, a blank is null."""

    frame: pl.DataFrame
    path: Path
    text: bool

    @property
    def columns(self) -> list[str]:
        return self.frame.columns

    def column(self, name: str, *, what: str) -> pl.Series:
        """A column. Raises DataError that names the file, the column, `what` it is for, and the nearest column."""
        if name not in self.frame.columns:
            raise DataError(f'{self.path}: no column "{name}" ({what}){nearest(name, self.columns)}')
        return self.frame.get_column(name)

    def typed(self, name: str) -> pl.Series:
        """A column with the type its values have: a text file's numbers become numbers."""
        series = self.frame.get_column(name)
        return natural(series) if self.text else series


def read(path: Path) -> Table:
    """Read a table.

    path: .parquet, .csv, .tsv, .jsonl or .ndjson; the text formats also with .gz.
    Raises DataError if the file is missing, damaged, of another format, or has no rows or no columns.
    """
    suffix = _suffix(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        if suffix == ".parquet":
            # Not memory-mapped: the file may be rewritten while its columns are in use.
            table = Table(pl.read_parquet(path, use_statistics=False, memory_map=False, glob=False), path, False)
        elif suffix in (".csv", ".tsv"):
            table = Table(_read_csv(path, tab=suffix == ".tsv"), path, True)
        else:
            table = Table(_read_json_lines(path), path, False)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file ({error})") from None
    except pl.exceptions.PolarsError as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(f"{path}: cannot be read as {suffix[1:]}: {reason}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text in UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    if not table.columns or table.frame.height == 0:
        raise DataError(f"{path}: the table is empty; expected a row or more")
    return table


def write(frame: pl.DataFrame, path: Path) -> None:
    """Write a Parquet file. Raises DataError that names it if it cannot be written: no space, no permission."""
    try:
        frame.write_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:  # polars tells of a full disk as an error of its own
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"{path}: cannot be written: {reason}") from error


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = bool(suffixes) and suffixes[-1] == ".gz"
    suffix = (suffixes[:-1] if zipped else suffixes)[-1:]
    if not suffix or suffix[0] not in SUFFIXES or (zipped and suffix[0] == ".parquet"):
        raise DataError(f"{path}: unknown kind of table; expected {', '.join(SUFFIXES)}, text also with .gz")
    return suffix[0]


def _bytes(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()


def _read_csv(path: Path, *, tab: bool) -> pl.DataFrame:
    data = _bytes(path)
    if not data.strip():
        return pl.DataFrame()
    header = data[:65536].split(b"\n", 1)[0]
    separator = "\t" if tab else max([",", ";", "\t", "|"], key=lambda mark: header.count(mark.encode()))
    try:
        frame = pl.read_csv(io.BytesIO(data), separator=separator, infer_schema=False, glob=False)
    except pl.exceptions.ComputeError as error:
        if "utf-8" in str(error):
            data.decode()  # raises UnicodeDecodeError, which says where
        raise
    twice = [name for name in frame.columns if _SECOND.search(name) and _SECOND.sub("", name) in frame.columns]
    if twice:
        raise pl.exceptions.DuplicateError(f'there are two columns "{_SECOND.sub("", twice[0])}"; rename one')
    return frame.rename({name: name.strip() for name in frame.columns}) if _spaced(frame.columns) else frame


_SECOND: Final = re.compile(r"_duplicated_\d+$")  # what polars puts behind a name that came before


def _spaced(names: Iterable[str]) -> bool:
    names = list(names)
    stripped = [name.strip() for name in names]
    return stripped != names and len(set(stripped)) == len(names)


_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


def _read_json_lines(path: Path) -> pl.DataFrame:
    data = _bytes(path)
    if not data.strip():
        return pl.DataFrame()
    if _SURROGATE.search(data):
        _refuse_lone_surrogates(data, path)
    return pl.read_ndjson(io.BytesIO(data), infer_schema_length=None)


def _refuse_lone_surrogates(data: bytes, path: Path) -> None:
    for number, line in enumerate(data.splitlines(), start=1):
        if _SURROGATE.search(line):
            try:
                json.dumps(json.loads(line), ensure_ascii=False).encode()
            except UnicodeEncodeError:
                raise DataError(f"{path}: line {number} contains a lone surrogate; it is not valid Unicode") from None
            except ValueError:
                return  # not JSON: the reader says so
