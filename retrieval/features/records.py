"""Records and table blocks from outside -> batches: named arrays, exactly as the towers take them.

Missing is NaN for a number, a vector of NaN for a vector, "" for text, an empty list for a list. Lists are padded with
"" at their end. Values are checked here, once; past this line a batch is trusted.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from retrieval.common.errors import QueryError, nearest
from retrieval.features.schema import Feature
from retrieval.features.text import text_of

if TYPE_CHECKING:
    import pyarrow as pa

Record: TypeAlias = Mapping[str, Any]
Batch: TypeAlias = dict[str, npt.NDArray[Any]]

SEPARATOR: Final = "|"  # of a list that a table holds as text, where the config named none: a CSV has no lists
LARGEST: Final = float(np.finfo(np.float32).max)


def batch_of(features: Sequence[Feature], records: Sequence[Record]) -> Batch:
    """One batch from records; a feature that a record leaves out is missing.

    Returns name -> array: float32 (n,) or (n, size), object (n,) or (n, L) of str, L the longest list of the batch.
    Raises QueryError that names the record and the feature: an unknown name, a value of the wrong type.
    """
    known = {feature.name for feature in features}
    for position, record in enumerate(records):
        for name in record:
            if name not in known:
                raise QueryError(f'{_place(position, records)}there is no feature "{name}"{nearest(name, known)}')
    return {feature.name: _column(feature, records) for feature in features}


def _place(position: int, records: Sequence[Record]) -> str:
    """Which record an error speaks of; of a single one nothing need be said."""
    return f"record {position + 1}: " if len(records) > 1 else ""


def _column(feature: Feature, records: Sequence[Record]) -> npt.NDArray[Any]:
    parse = _PARSERS[feature.kind]
    values: list[Any] = []
    for position, record in enumerate(records):
        value = record.get(feature.name)
        try:
            values.append(parse(feature, value))
        except (TypeError, ValueError, OverflowError) as error:
            shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
            raise QueryError(f'{_place(position, records)}feature "{feature.name}": {error} in {shown}') from error
    if feature.is_list:
        return pad(values)
    if feature.is_text:
        column = np.empty(len(values), dtype=object)
        column[:] = values
        return column
    return np.asarray(values, dtype=np.float32).reshape(len(values), *feature.shape[1:])


def pad(lists: Sequence[Sequence[str]]) -> npt.NDArray[np.object_]:
    """Lists of text as one object array (n, L), "" after each end; L is the longest length."""
    if len(lists) == 1:
        return np.array([list(lists[0])], dtype=object).reshape(1, -1)
    width = max(map(len, lists), default=0)
    padded = np.full((len(lists), width), "", dtype=object)
    for row, values in enumerate(lists):
        padded[row, : len(values)] = values
    return padded


def _number(_feature: Feature, value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, (bool, int, float, np.number, np.bool_)):
        return _float32(float(value))
    raise TypeError(f"expected a number, found {type(value).__name__}")


def _float32(value: float) -> float:
    """A float that fits in float32; beyond its range it is infinite, which the towers take for missing."""
    return value if abs(value) <= LARGEST or math.isnan(value) else math.copysign(math.inf, value)


def _text(_feature: Feature, value: Any) -> str:
    text = text_of(value)
    if not text.isascii() or "\0" in text:
        if "\0" in text:
            raise ValueError("a NUL character")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError("a lone surrogate, which is not valid Unicode,") from error
    return text


def _texts(feature: Feature, value: Any) -> list[str]:
    if value is None or (isinstance(value, str) and not value):
        return []
    if isinstance(value, str):
        value = value.split(feature.separator) if feature.separator else [value]
    if not isinstance(value, (Sequence, np.ndarray)):
        raise TypeError(f"expected a list of text, found {type(value).__name__}")
    if isinstance(value, list) and _is_plain(value):
        return value
    return [_text(feature, entry) for entry in value]


def _is_plain(values: list[Any]) -> bool:
    """Whether all are text that needs no second look, found out in one go: a history is the longest part of a query."""
    try:
        whole = "".join(values)
    except TypeError:
        return False
    return whole.isascii() and "\0" not in whole


def _vector(feature: Feature, value: Any) -> list[float]:
    assert feature.size is not None
    if value is None:
        return [math.nan] * feature.size
    if isinstance(value, str) or not isinstance(value, (Sequence, np.ndarray)):
        raise TypeError(f"expected a list of {feature.size} numbers, found {type(value).__name__}")
    if len(value) != feature.size:
        raise ValueError(f"expected {feature.size} numbers, found {len(value)}")
    return [_number(feature, entry) for entry in value]


_PARSERS = {
    "number": _number,
    "category": _text,
    "hash": _text,
    "categories": _texts,
    "history": _texts,
    "vector": _vector,
}


def batch_of_table(features: Sequence[Feature], table: "pa.Table") -> Batch:
    """One batch from a block of a table; a column that the table does not have is missing in every row.

    table: n rows. Returns and raises as batch_of; an error names the column.
    """
    return {feature.name: _table_column(feature, table) for feature in features}


def _table_column(feature: Feature, table: "pa.Table") -> npt.NDArray[Any]:
    rows = table.num_rows
    if feature.name not in table.column_names:
        return batch_of([feature], [{}] * rows)[feature.name]
    column = table.column(feature.name).combine_chunks()
    if feature.kind == "number":
        return _numbers_of(feature, column)
    if feature.kind in ("category", "hash"):
        return _texts_of(feature, column)
    if feature.is_list:
        return _lists_of(feature, column)
    return _column(feature, [{feature.name: value} for value in column.to_pylist()])


def _refuse(feature: Feature, column: Any, expected: str) -> QueryError:
    return QueryError(f'column "{feature.name}": expected {expected}, found {column.type}')


def _numbers_of(feature: Feature, column: Any) -> npt.NDArray[np.float32]:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan, dtype=np.float32)
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not (numeric or pa.types.is_boolean(kind)):
        raise _refuse(feature, column, "numbers")
    wide = column.cast(pa.int8()) if pa.types.is_boolean(kind) else column
    values = wide.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):  # beyond float32 it is infinite, which the towers take for missing
        numbers: npt.NDArray[np.float32] = values.astype(np.float32)
    return numbers


def _texts_of(feature: Feature, column: Any) -> npt.NDArray[np.object_]:
    from retrieval.features.columns import words

    try:
        filled = words(column).fill_null("")
    except TypeError as error:
        raise _refuse(feature, column, "text") from error
    array: npt.NDArray[np.object_] = filled.to_numpy(zero_copy_only=False).astype(object)
    return array


def _lists_of(feature: Feature, column: Any) -> npt.NDArray[np.object_]:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_null(kind):
        return np.full((len(column), 0), "", dtype=object)
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        text = pa.array(_texts_of(feature, column), pa.string())
        parted = pc.split_pattern(text, feature.separator or SEPARATOR)
        column = pc.if_else(pc.equal(text, ""), pa.scalar([], pa.list_(pa.string())), parted)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    values = _texts_of(feature, column.flatten())  # flatten leaves null lists out, as their length of 0 says
    width = int(lengths.max(initial=0))
    padded = np.full((len(column), width), "", dtype=object)
    padded[np.arange(width) < lengths[:, None]] = values
    return padded
