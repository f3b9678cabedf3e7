"""Catalog: the items of a bundle by row: their ids, their columns, and which pass a filter.

Rows are those of the index: first the items it was built over, then those added since. An id stands for one row: of an
item that was replaced, the later one.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from retrieval.bundle.layout import ADDED, ADDED_LOOKUP, ITEMS, ITEMS_LOOKUP, REMOVED
from retrieval.bundle.reader import Bundle
from retrieval.catalog.record_store import RecordStore
from retrieval.common.arrays import Mask, Rows
from retrieval.features.text import text_of

if TYPE_CHECKING:
    import pyarrow as pa


def read_array(path: Path) -> npt.NDArray[Any]:
    """A .npy file; nothing in it is ever unpickled."""
    array: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    return array


class Catalog:
    """The items of one generation. Safe to share between threads; tables are read when a filter asks for them."""

    def __init__(self, bundle: Bundle) -> None:
        """Open the items of a bundle, which has to stay open. Raises BundleError where a file is damaged."""
        self._bundle = bundle
        self._base = bundle.load(ITEMS_LOOKUP, RecordStore.open)
        self._added = bundle.load(ADDED_LOOKUP, RecordStore.open) if bundle.has(ADDED_LOOKUP) else None
        self.removed: Rows = bundle.load(REMOVED, read_array) if bundle.has(REMOVED) else np.empty(0, dtype=np.int64)
        self._columns: dict[str, pa.ChunkedArray] = {}

    @property
    def height(self) -> int:
        """The number of rows, removed ones included."""
        return len(self._base) + (len(self._added) if self._added is not None else 0)

    def id(self, row: int) -> str:
        """The id at a row."""
        if row < len(self._base):
            return self._base.id(row)
        assert self._added is not None
        return self._added.id(row - len(self._base))

    def record(self, row: int) -> dict[str, Any]:
        """The columns at a row, without the id; null where missing."""
        if row < len(self._base):
            return self._base.record(row)
        assert self._added is not None
        return self._added.record(row - len(self._base))

    def row(self, wanted: str) -> int | None:
        """The row of an id that can be found, or None; spaces around an id are ignored."""
        row = self._exact_row(wanted)
        return self._exact_row(text_of(wanted)) if row is None else row

    def _exact_row(self, wanted: str) -> int | None:
        if self._added is not None:
            late = self._added.row(wanted)
            if late is not None:
                return len(self._base) + late
        row = self._base.row(wanted)
        if row is None or len(self.removed) == 0:
            return row
        at = int(np.searchsorted(self.removed, row))
        return None if at < len(self.removed) and self.removed[at] == row else row

    def rows(self, wanted: Iterable[str]) -> Rows:
        """Rows of those ids that are there, in their order: (r,) int64, r at most the number of ids."""
        is_plain = self._added is None and len(self.removed) == 0
        found = [row for row in map(self._base.row if is_plain else self.row, wanted) if row is not None]
        return np.array(found, dtype=np.int64)

    def where(self, text: str) -> Mask:
        """Which rows pass a filter; removed rows may be among them. Returns (height,) bool. Raises QueryError."""
        from retrieval.catalog import where

        parsed = where.parse(text, self._schema())
        return parsed.mask(self._table(parsed.columns))

    def _schema(self) -> "pa.Schema":
        import pyarrow.parquet as pq

        schema: pa.Schema = self._bundle.load(ITEMS, pq.read_schema)
        return schema

    def _table(self, columns: Sequence[str]) -> "pa.Table":
        """Columns of all rows; what was read is kept."""
        import pyarrow as pa

        for name in columns:
            if name not in self._columns:
                self._columns[name] = self._read_column(name)
        if not columns:
            return pa.table({"": pa.nulls(self.height)})
        return pa.table({name: self._columns[name] for name in columns})

    def _read_column(self, name: str) -> "pa.ChunkedArray":
        import pyarrow as pa
        import pyarrow.parquet as pq

        def read(path: Path) -> pa.ChunkedArray:
            return pq.read_table(path, columns=[name], memory_map=True).column(0)

        column = self._bundle.load(ITEMS, read)
        if self._added is None:
            return column
        added = self._bundle.load(ADDED, read)
        return pa.chunked_array([*column.chunks, *added.cast(column.type).chunks], type=column.type)


def json_lines(table: "pa.Table", *, leave_out: Sequence[str] = ()) -> Iterator[bytes]:
    """Each row of a table as a JSON object, for `lookup.write`: dates in ISO form, null for NaN and infinity.

    Vectors (lists of fractions) are left out: nobody reads them.
    """
    names = [field.name for field in table.schema if field.name not in leave_out and not _is_vector(field.type)]
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain).encode
    for start in range(0, table.num_rows, 8192):
        rows = table.slice(start, 8192)
        columns = [rows.column(name).to_pylist() for name in names]
        for values in zip(*columns, strict=True) if names else [()] * rows.num_rows:
            record = dict(zip(names, values, strict=True))
            try:
                yield encode(record).encode()
            except ValueError:
                yield encode(_finite(record)).encode()


def _is_vector(kind: Any) -> bool:
    return hasattr(kind, "value_type") and str(kind.value_type) in ("float", "double", "halffloat")


def _finite(value: Any) -> Any:
    """The same without NaN and infinity, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """What JSON has no form for: decimals as numbers, dates and times in ISO form, bytes as hex, the rest as text."""
    if isinstance(value, Decimal):
        return float(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else str(value)
