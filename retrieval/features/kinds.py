"""Feature kinds: what a value of a feature may be, and how records and table columns become arrays.

One object describes a kind for serving. Its twin for training and export, with the same name, stands in
`train.features.kinds`. Both are found by their name in the config, so a new kind needs no other change.
"""

import datetime as dt
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from retrieval.common.errors import DataError, QueryError
from retrieval.features.text import text_of

if TYPE_CHECKING:
    from retrieval.features.schema import Feature

Array: TypeAlias = npt.NDArray[Any]
Dtype = Literal["float32", "float64", "string"]

SEPARATOR: Final = "|"  # of a list that a table holds as text, where the config named none: a CSV has no lists
LARGEST: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a feature beside its kind, such as the size of a vector.

    low: The lowest number that it may be; None for an option that is text.
    example: Where the option has to be set, a value for the error that says so.
    """

    low: int | None
    example: int | None = None


class FeatureKind(ABC):
    """A kind of feature.

    name: In the config and in schema.json.
    dtype: Of the array that the graph takes.
    is_list: Whether a value is a list of any length, shape (N, L).
    options: By name; `Feature` has a field for each.
    item: Whether an item may have a feature of this kind.
    """

    name: ClassVar[str]
    dtype: ClassVar[Dtype] = "string"
    is_list: ClassVar[bool] = False
    options: ClassVar[Mapping[str, Option]] = {}
    item: ClassVar[bool] = True

    def shape(self, feature: "Feature") -> tuple[str | int, ...]:  # noqa: ARG002  (a vector's is its own)
        """Symbolic shape of the input: N rows, L entries of a list."""
        return ("N", "L") if self.is_list else ("N",)

    @abstractmethod
    def parse(self, feature: "Feature", value: Any) -> Any:
        """One value of a record, checked. Raises TypeError, ValueError or OverflowError that says what is wrong."""

    @abstractmethod
    def convert(self, feature: "Feature", column: Any, *, where: str, offset: int = 0) -> Any:
        """A column of a user's table with the type that its values have, the same for training and for serving.

        Args:
            feature: With the options of the kind.
            column: A pyarrow array, as it was read.
            where: File and column, for errors.
            offset: Rows of the table before this column.

        Returns:
            A pyarrow array, which `parse_column` takes.

        Raises:
            DataError: on a value or a type that the kind does not take; it names the row.
        """

    @abstractmethod
    def parse_column(self, feature: "Feature", column: Any) -> Array:
        """A column of a table. column: a pyarrow array. Returns the array that the graph takes; raises QueryError."""

    def stack(self, feature: "Feature", values: Sequence[Any]) -> Array:
        """Parsed values of several records as one array."""
        dtype = np.float64 if self.dtype == "float64" else np.float32
        return np.asarray(values, dtype=dtype).reshape(len(values), *feature.shape[1:])

    def missing(self, feature: "Feature", rows: int) -> Array:
        """The array of `rows` missing values."""
        return self.stack(feature, [self.parse(feature, None)] * rows)


class Number(FeatureKind):
    """A number; NaN where it is missing. Beyond float32 it is infinite, which the towers take for missing."""

    name = "number"
    dtype = "float32"

    def parse(self, feature: "Feature", value: Any) -> float:  # noqa: ARG002
        if value is None:
            return math.nan
        if isinstance(value, (bool, int, float, np.number, np.bool_)):
            number = float(value)
            return number if abs(number) <= LARGEST or math.isnan(number) else math.copysign(math.inf, number)
        raise TypeError(f"expected a number, found {type(value).__name__}")

    def convert(self, feature: "Feature", column: Any, *, where: str, offset: int = 0) -> Any:  # noqa: ARG002
        """Int64 if all values are whole numbers, else float64."""
        import pyarrow as pa

        from retrieval.features import columns

        column = columns.natural(column)
        return column if pa.types.is_integer(column.type) else columns.numbers(column, where=where, offset=offset)

    def parse_column(self, feature: "Feature", column: Any) -> Array:
        import pyarrow as pa

        kind = column.type
        if pa.types.is_null(kind):
            return np.full(len(column), np.nan, dtype=np.float32)
        numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        if not (numeric or pa.types.is_boolean(kind)):
            raise _wrong_type(feature, column, "numbers")
        wide = column.cast(pa.int8()) if pa.types.is_boolean(kind) else column
        values = wide.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        with np.errstate(over="ignore"):
            numbers: npt.NDArray[np.float32] = values.astype(np.float32)
        return numbers


class Category(FeatureKind):
    """A text that names a category; "" where it is missing."""

    name = "category"

    def parse(self, feature: "Feature", value: Any) -> str:  # noqa: ARG002
        return checked_text(value)

    def convert(self, feature: "Feature", column: Any, *, where: str, offset: int = 0) -> Any:  # noqa: ARG002
        """Text."""
        from retrieval.features import columns

        found = columns.type_name(column.type)
        if columns.is_list(column.type):
            raise DataError(f'{where}: the column holds {found}; a list is kind "categories" or "vector"')
        if not columns.is_word(column.type):
            raise DataError(f"{where}: the column holds {found}, expected text or whole numbers")
        return columns.words(column)

    def parse_column(self, feature: "Feature", column: Any) -> Array:
        return _text_array(feature, column)

    def stack(self, feature: "Feature", values: Sequence[Any]) -> Array:  # noqa: ARG002
        column = np.empty(len(values), dtype=object)
        column[:] = values
        return column


class Hash(Category):
    """A category of a feature with too many values for a vocabulary: its hash chooses one of `buckets` rows."""

    name = "hash"
    options: ClassVar[Mapping[str, Option]] = {"buckets": Option(low=2, example=100_000)}


class Categories(FeatureKind):
    """A list of categories."""

    name = "categories"
    is_list = True
    options: ClassVar[Mapping[str, Option]] = {"separator": Option(low=None)}

    def parse(self, feature: "Feature", value: Any) -> list[str]:
        if value is None or (isinstance(value, str) and not value):
            return []
        if isinstance(value, str):
            value = value.split(feature.separator) if feature.separator else [value]
        if not isinstance(value, (Sequence, np.ndarray)):
            raise TypeError(f"expected a list of text, found {type(value).__name__}")
        if isinstance(value, list) and _is_plain(value):
            return value
        return [checked_text(entry) for entry in value]

    def convert(self, feature: "Feature", column: Any, *, where: str, offset: int = 0) -> Any:  # noqa: ARG002
        """Lists of text."""
        from retrieval.features import columns

        return columns.lists(column, separator=feature.separator, where=where)

    def parse_column(self, feature: "Feature", column: Any) -> Array:
        import pyarrow as pa
        import pyarrow.compute as pc

        kind = column.type
        if pa.types.is_null(kind):
            return np.full((len(column), 0), "", dtype=object)
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
            text = pa.array(_text_array(feature, column), pa.string())
            parts = pc.split_pattern(text, feature.separator or SEPARATOR)
            column = pc.if_else(pc.equal(text, ""), pa.scalar([], pa.list_(pa.string())), parts)
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        values = _text_array(feature, column.flatten())  # flatten leaves null lists out, as their length of 0 says
        padded = np.full((len(column), int(lengths.max(initial=0))), "", dtype=object)
        padded[np.arange(padded.shape[1]) < lengths[:, None]] = values
        return padded

    def stack(self, feature: "Feature", values: Sequence[Any]) -> Array:  # noqa: ARG002
        return pad(values)


class History(Categories):
    """A list of item ids, oldest first: the user's own past items."""

    name = "history"
    options: ClassVar[Mapping[str, Option]] = {"max_length": Option(low=1)}
    item = False


class Vector(FeatureKind):
    """A list of `size` numbers, such as a text or image embedding; NaN where it is missing."""

    name = "vector"
    dtype = "float32"
    options: ClassVar[Mapping[str, Option]] = {"size": Option(low=1, example=384)}

    def shape(self, feature: "Feature") -> tuple[str | int, ...]:
        assert feature.size is not None
        return ("N", feature.size)

    def parse(self, feature: "Feature", value: Any) -> list[float]:
        assert feature.size is not None
        if value is None:
            return [math.nan] * feature.size
        if isinstance(value, str) or not isinstance(value, (Sequence, np.ndarray)):
            raise TypeError(f"expected a list of {feature.size} numbers, found {type(value).__name__}")
        if len(value) != feature.size:
            raise ValueError(f"expected {feature.size} numbers, found {len(value)}")
        return [NUMBER.parse(feature, entry) for entry in value]

    def convert(self, feature: "Feature", column: Any, *, where: str, offset: int = 0) -> Any:
        """Lists of float32 of one size."""
        from retrieval.features import columns

        assert feature.size is not None
        return columns.vectors(column, size=feature.size, where=where, offset=offset)

    def parse_column(self, feature: "Feature", column: Any) -> Array:
        values = []
        for value in column.to_pylist():
            try:
                values.append(self.parse(feature, value))
            except (TypeError, ValueError, OverflowError) as error:
                raise QueryError(f'column "{feature.name}": {error}') from error
        return self.stack(feature, values)


class Time(FeatureKind):
    """A moment: seconds since 1970 in UTC, NaN where it is missing. Float32 cannot tell seconds of today apart."""

    name = "time"
    dtype = "float64"

    def parse(self, feature: "Feature", value: Any) -> float:
        """value: Seconds, an ISO 8601 date or time (in UTC unless it has a zone), or a date or datetime object."""
        if value is None:
            return math.nan
        if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, (str, dt.date)):
            import pyarrow as pa

            seconds: float = self.parse_column(feature, pa.array([value]))[0]
            return seconds
        raise TypeError(f"expected a time, found {type(value).__name__}")

    def convert(self, feature: "Feature", column: Any, *, where: str, offset: int = 0) -> Any:  # noqa: ARG002
        """Numbers, dates and timestamps as they are; text as numbers or timestamps."""
        import pyarrow as pa

        from retrieval.features import columns

        column = columns.natural(column)
        if columns.is_text(column.type):
            return columns.times(column, where=where, offset=offset).cast(pa.timestamp("s"))
        if columns.is_number(column.type) or pa.types.is_temporal(column.type) or pa.types.is_null(column.type):
            return column
        raise DataError(f"{where}: the column holds {columns.type_name(column.type)}, expected times")

    def parse_column(self, feature: "Feature", column: Any) -> Array:
        import pyarrow as pa

        try:
            column = self.convert(feature, column, where=f'column "{feature.name}"')
        except DataError as error:
            raise QueryError(str(error)) from error
        scale = 1.0
        if pa.types.is_temporal(column.type):
            column, scale = column.cast(pa.timestamp("us")).cast(pa.int64()), 1e6
        seconds: npt.NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) / scale
        return seconds


NUMBER: Final = Number()
KINDS: Final[Mapping[str, FeatureKind]] = {
    kind.name: kind for kind in (NUMBER, Category(), Categories(), History(), Vector(), Hash(), Time())
}
OPTIONS: Final = tuple(dict.fromkeys(name for kind in KINDS.values() for name in kind.options))


def checked_text(value: Any) -> str:
    """`text_of`, which also raises ValueError on text that no graph can take."""
    text = text_of(value)
    if not text.isascii() or "\0" in text:
        if "\0" in text:
            raise ValueError("a NUL character")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError("a lone surrogate, which is not valid Unicode,") from error
    return text


def pad(lists: Sequence[Sequence[str]]) -> npt.NDArray[np.object_]:
    """Lists of text as one object array (n, L), "" after each end; L is the longest length."""
    if len(lists) == 1:
        return np.array([list(lists[0])], dtype=object).reshape(1, -1)
    width = max(map(len, lists), default=0)
    padded = np.full((len(lists), width), "", dtype=object)
    for row, values in enumerate(lists):
        padded[row, : len(values)] = values
    return padded


def _is_plain(values: list[Any]) -> bool:
    """Whether all are text that needs no check, found in one pass: a history is the longest part of a query."""
    try:
        whole = "".join(values)
    except TypeError:
        return False
    return whole.isascii() and "\0" not in whole


def _text_array(feature: "Feature", column: Any) -> npt.NDArray[np.object_]:
    from retrieval.features.columns import words

    try:
        filled = words(column).fill_null("")
    except TypeError as error:
        raise _wrong_type(feature, column, "text") from error
    array: npt.NDArray[np.object_] = filled.to_numpy(zero_copy_only=False).astype(object)
    return array


def _wrong_type(feature: "Feature", column: Any, expected: str) -> QueryError:
    return QueryError(f'column "{feature.name}": expected {expected}, found {column.type}')
