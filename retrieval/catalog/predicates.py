"""Conditions: what an expression asks of a table's columns, checked against their types before it is asked."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.common.errors import QueryError

Evaluate = Callable[[pa.Table], Any]  # a table -> a boolean array, null where not known

COMPARISONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "=": pc.equal,
    "==": pc.equal,
    "!=": pc.not_equal,
    "<>": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True)
class Column:
    """A column of the items, and where the expression names it."""

    name: str
    type: Any
    position: int

    @property
    def is_list(self) -> bool:
        return bool(pa.types.is_list(self.type) or pa.types.is_large_list(self.type))

    @property
    def holds(self) -> str:
        """What its values are: text, numbers, ..."""
        return _holds(self.type.value_type if self.is_list else self.type)

    def read(self, table: pa.Table) -> Any:
        """Its values as they are compared: plain types, NaN as missing."""
        values = table.column(self.name)
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        if pa.types.is_floating(values.type):
            values = values.cast(pa.float64())
            return pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
        if pa.types.is_decimal(values.type) or values.type == pa.uint64():
            return values.cast(pa.float64(), safe=False)
        return values


def _holds(kind: Any) -> str:
    if pa.types.is_dictionary(kind):
        return _holds(kind.value_type)
    tests = {
        "true or false": pa.types.is_boolean,
        "text": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t),
        "numbers": lambda t: pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t),
        "dates": pa.types.is_date,
        "times": pa.types.is_timestamp,
        "nothing": pa.types.is_null,
    }
    return next((name for name, test in tests.items() if test(kind)), str(kind))


@dataclass(frozen=True)
class Value:
    """A literal, and where it stands."""

    value: Any
    position: int

    @property
    def holds(self) -> str:
        kinds = {bool: "true or false", str: "text", int: "numbers", float: "numbers"}
        return kinds[type(self.value)]


Operand = Column | Value


def joined(parts: list[Evaluate], join: Callable[[Any, Any], Any]) -> Evaluate:
    """Conditions one after the other, joined by AND or OR."""
    if len(parts) == 1:
        return parts[0]

    def evaluate(table: pa.Table) -> Any:
        result = parts[0](table)
        for part in parts[1:]:
            result = join(result, part(table))
        return result

    return evaluate


def negated(part: Evaluate) -> Evaluate:
    """What does not pass; what is not known stays so."""
    return lambda table: pc.invert(part(table))


def _scalar(value: Value, column: Column) -> Any:
    """A value as the column's type compares with it. Raises QueryError if it does not."""
    holds = column.holds
    if holds == "nothing":
        return pa.scalar(None, pa.null())
    if holds in ("dates", "times") and isinstance(value.value, str):
        try:
            moment = dt.datetime.fromisoformat(value.value)
        except ValueError as error:
            raise QueryError(
                f"filter, position {value.position}: '{value.value}' is not a date; write it as '1994-05-31'"
            ) from error
        return _moment(moment, column)
    if value.holds != holds:
        shown = repr(value.value) if isinstance(value.value, str) else value.value
        hints = {
            "text": "; write text in 'single quotes'",
            "dates": "; write a date as '1994-05-31'",
            "times": "; write a time as '1994-05-31T12:30:00'",
        }
        raise QueryError(
            f'filter, position {value.position}: column "{column.name}" holds {holds}, it cannot be compared with '
            f"{shown}{hints.get(holds, '')}"
        )
    return pa.scalar(value.value)


def _moment(moment: dt.datetime, column: Column) -> Any:
    kind = column.type.value_type if column.is_list else column.type
    if column.holds == "dates":
        return pa.scalar(moment.date(), pa.date32()).cast(kind)
    if kind.tz is None:
        return pa.scalar(moment.replace(tzinfo=None), pa.timestamp("us"))
    return pa.scalar(moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC), pa.timestamp("us", tz=kind.tz))


def _plain(column: Column, what: str) -> None:
    if column.is_list:
        raise QueryError(
            f'filter, position {column.position}: column "{column.name}" holds lists, it has no {what}; '
            f"write 'value' IN \"{column.name}\""
        )


def compare(left: Operand, sign: str, right: Operand) -> Evaluate:
    """A column with a value or another column. Raises QueryError where their types do not compare."""
    if isinstance(left, Value):
        if isinstance(right, Value):
            raise QueryError(f"filter, position {left.position}: compares two values; one side is to be a column")
        return compare(right, MIRRORED.get(sign, sign), left)
    column, operation = left, COMPARISONS[sign]
    _plain(column, sign)
    if isinstance(right, Value):
        scalar = _scalar(right, column)
        if column.holds == "nothing":
            return _nothing
        if isinstance(right.value, float) and pa.types.is_integer(column.type):
            return lambda table: operation(column.read(table).cast(pa.float64(), safe=False), scalar)
        return lambda table: operation(column.read(table), scalar)
    other = right
    _plain(other, sign)
    if column.holds != other.holds:
        raise QueryError(
            f'filter, position {other.position}: column "{column.name}" holds {column.holds}, '
            f'column "{other.name}" holds {other.holds}'
        )
    return lambda table: operation(column.read(table), other.read(table))


def _nothing(table: pa.Table) -> Any:
    """Neither true nor false, for every row."""
    return pa.nulls(table.num_rows, pa.bool_())


def is_null(operand: Operand, wanted: bool) -> Evaluate:
    """IS NULL, or IS NOT NULL."""
    if isinstance(operand, Value):
        raise QueryError(f"filter, position {operand.position}: IS NULL asks about a column, found a value")
    test = pc.is_null if wanted else pc.is_valid
    return lambda table: test(operand.read(table))


def is_in(left: Operand, values: list[Value]) -> Evaluate:
    """A column that is one of some values."""
    if isinstance(left, Value):
        raise QueryError(f"filter, position {left.position}: IN (...) asks about a column, found a value")
    return joined([compare(left, "=", value) for value in values], pc.or_kleene)


def contains(lists: Operand, wanted: Operand) -> Evaluate:
    """A column of lists that hold a value."""
    if isinstance(lists, Value) or not lists.is_list:
        named = f'column "{lists.name}" holds {lists.holds}' if isinstance(lists, Column) else "found a value"
        raise QueryError(f"filter, position {lists.position}: IN asks for (a, list) or a column of lists, {named}")
    if isinstance(wanted, Column):
        raise QueryError(f"filter, position {wanted.position}: IN a column asks for a value before it")
    column, scalar = lists, _scalar(wanted, lists)

    def evaluate(table: pa.Table) -> Any:
        values = table.column(column.name).combine_chunks()
        entries = values.flatten()
        if pa.types.is_dictionary(entries.type):
            entries = entries.cast(entries.type.value_type)
        equal = pc.fill_null(pc.equal(entries, scalar), False)
        owners = pc.filter(pc.list_parent_indices(values), equal)
        mask = np.zeros(len(values), dtype=np.bool_)
        mask[owners.to_numpy(zero_copy_only=False)] = True
        return pc.if_else(pc.is_valid(values), pa.array(mask), pa.scalar(None, pa.bool_()))

    return evaluate


def like(left: Operand, pattern: Value, *, ignore_case: bool) -> Evaluate:
    """A column of text that looks like a pattern."""
    if isinstance(left, Value):
        raise QueryError(f"filter, position {left.position}: LIKE asks about a column, found a value")
    column = left
    _plain(column, "LIKE")
    if column.holds != "text" or not isinstance(pattern.value, str):
        raise QueryError(
            f'filter, position {pattern.position}: LIKE compares text with text, column "{column.name}" holds '
            f"{column.holds}"
        )
    return lambda table: pc.match_like(column.read(table), pattern.value, ignore_case=ignore_case)
