"""Between Arrow, which reads tables, and polars, which training computes with; write a Parquet file."""

from pathlib import Path
from typing import Any

import polars as pl

from retrieval.common.errors import DataError
from retrieval.features import columns


def series(column: Any, name: str = "") -> pl.Series:
    """An Arrow array as a series."""
    return pl.Series(name, pl.from_arrow(column))


def words(column: pl.Series) -> pl.Series:
    """A series as text by the rule of `columns.words`; null where a value is missing or blank."""
    return series(columns.words(column.to_arrow()), column.name)


def write(frame: pl.DataFrame, path: Path) -> None:
    """Write a Parquet file. Raises DataError that names it if it cannot be written: no space, no permission."""
    try:
        frame.write_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:  # polars reports a full disk as an error of its own
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"{path}: cannot be written: {reason}") from error
