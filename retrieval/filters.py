"""Filters: `year >= 1990 AND 'Comedy' IN genres` -> which items pass.

    expression  = conjunction { OR conjunction }
    conjunction = negation { AND negation }
    negation    = NOT negation | "(" expression ")" | condition
    condition   = operand comparison operand            comparison: = == != <> < <= > >=
                | operand [NOT] IN "(" value { "," value } ")"
                | value [NOT] IN column                 the column holds lists
                | operand [NOT] LIKE 'pattern'          % any text, _ any character; ILIKE ignores case
                | operand [NOT] BETWEEN value AND value
                | operand IS [NOT] NULL
                | column                                the column holds true and false
    operand     = column | value
    value       = 12 | -1.5e3 | 'text' | TRUE | FALSE   dates and times are text: '1994-05-31', '1994-05-31T12:30:00'

A column is a bare name, or any name in "double quotes"; `id` is the first column, whatever its name, as in answers.
Keywords may be in lower case. A comparison with a missing value is neither true nor false, as in SQL: such an item does
not pass, nor does it pass NOT.
"""

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.errors import QueryError, nearest

Mask = npt.NDArray[np.bool_]
Evaluate = Callable[[pa.Table], Any]  # a table -> a boolean array, null where not known

MAX_DEPTH: Final = 100
ID: Final = "id"
KEYWORDS: Final = frozenset(["AND", "OR", "NOT", "IN", "LIKE", "ILIKE", "IS", "NULL", "TRUE", "FALSE", "BETWEEN"])
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

_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<text>'(?:[^']|'')*')
      | (?P<quoted>"(?:[^"]|"")+")
      | (?P<name>[^\W\d]\w*)
      | (?P<sign><=|>=|<>|!=|==|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE,
)


class Token(NamedTuple):
    kind: Literal["number", "text", "column", "keyword", "sign", "end"]
    text: str
    position: int  # counted from 1

    def __str__(self) -> str:
        return f'"{self.text}"' if self.kind != "end" else "the end"


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


@dataclass(frozen=True)
class Filter:
    """A parsed expression.

    columns: the columns it reads.
    """

    text: str
    columns: tuple[str, ...]
    _evaluate: Evaluate

    def mask(self, table: pa.Table) -> Mask:
        """Which rows pass. table: with at least `columns`, n rows. Returns (n,) bool."""
        passed = pc.fill_null(self._evaluate(table), False)
        chunked = passed.combine_chunks() if isinstance(passed, pa.ChunkedArray) else passed
        mask: Mask = np.asarray(chunked.to_numpy(zero_copy_only=False), dtype=np.bool_)
        return mask


def parse(text: str, schema: pa.Schema) -> Filter:
    """Read an expression over the columns of a schema.

    Raises QueryError that names the column (and the nearest one there is) or the position where it goes wrong.
    """
    parser = _Parser(text, schema)
    evaluate = parser.expression()
    parser.expect_end()
    return Filter(text, tuple(dict.fromkeys(parser.columns)), evaluate)


def _tokens(text: str) -> list[Token]:
    tokens = []
    place = 0
    while text[place:].strip():
        match = _TOKEN.match(text, place)
        start = place + len(text[place:]) - len(text[place:].lstrip())
        if match is None or match.lastgroup is None:
            what = "a quote that does not end" if text[start] in "'\"" else f'"{text[start]}"'
            raise QueryError(f"filter, position {start + 1}: cannot read {what}")
        found = match.group(match.lastgroup)
        position = start + 1
        if match.lastgroup == "quoted":
            tokens.append(Token("column", found[1:-1].replace('""', '"'), position))
        elif match.lastgroup == "text":
            tokens.append(Token("text", found[1:-1].replace("''", "'"), position))
        elif match.lastgroup == "name":
            is_keyword = found.upper() in KEYWORDS
            tokens.append(
                Token("keyword" if is_keyword else "column", found.upper() if is_keyword else found, position)
            )
        else:
            tokens.append(Token("number" if match.lastgroup == "number" else "sign", found, position))
        place = match.end()
    return [*tokens, Token("end", "", len(text) + 1)]


class _Parser:
    """Recursive descent over the grammar above; each rule returns what evaluates it."""

    def __init__(self, text: str, schema: pa.Schema) -> None:
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0
        self._schema = schema
        self.columns: list[str] = []

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._next
        self._at += token.kind != "end"
        return token

    def _accept(self, kind: str, *texts: str) -> Token | None:
        """Take the next token if it is one of these."""
        if self._next.kind == kind and self._next.text in texts:
            return self._take()
        return None

    def _expect(self, kind: str, text: str) -> None:
        if not self._accept(kind, text):
            raise self._unexpected(f'"{text}"')

    def _unexpected(self, expected: str) -> QueryError:
        return QueryError(f"filter, position {self._next.position}: expected {expected}, found {self._next}")

    def expect_end(self) -> None:
        if self._next.kind != "end":
            raise self._unexpected("AND, OR or the end")

    def expression(self) -> Evaluate:
        parts = [self._conjunction()]
        while self._accept("keyword", "OR"):
            parts.append(self._conjunction())
        return _joined(parts, pc.or_kleene)

    def _conjunction(self) -> Evaluate:
        parts = [self._negation()]
        while self._accept("keyword", "AND"):
            parts.append(self._negation())
        return _joined(parts, pc.and_kleene)

    def _negation(self) -> Evaluate:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise QueryError(f"filter, position {self._next.position}: nested more than {MAX_DEPTH} deep")
        if self._accept("keyword", "NOT"):
            found = _negated(self._negation())
        elif self._accept("sign", "("):
            found = self.expression()
            self._expect("sign", ")")
        else:
            found = self._condition()
        self._depth -= 1
        return found

    def _condition(self) -> Evaluate:
        left = self._operand()
        if sign := self._accept("sign", *COMPARISONS):
            return _compare(left, sign.text, self._operand())
        if self._accept("keyword", "IS"):
            wanted = self._accept("keyword", "NOT") is None
            self._expect("keyword", "NULL")
            return _is_null(left, wanted)
        negated = self._accept("keyword", "NOT") is not None
        found = self._membership(left)
        if found is None:
            if negated:
                raise self._unexpected("IN, LIKE or BETWEEN")
            return self._flag(left)
        return _negated(found) if negated else found

    def _membership(self, left: Operand) -> Evaluate | None:
        """What follows IN, LIKE or BETWEEN, if one of them comes next."""
        if self._accept("keyword", "IN"):
            if self._accept("sign", "("):
                values = [self._value()]
                while self._accept("sign", ","):
                    values.append(self._value())
                self._expect("sign", ")")
                return _is_in(left, values)
            return _contains(self._operand(), left)
        if like := self._accept("keyword", "LIKE", "ILIKE"):
            return _like(left, self._value(), ignore_case=like.text == "ILIKE")
        if self._accept("keyword", "BETWEEN"):
            low = self._value()
            self._expect("keyword", "AND")
            return _joined([_compare(left, ">=", low), _compare(left, "<=", self._value())], pc.and_kleene)
        return None

    def _flag(self, left: Operand) -> Evaluate:
        if isinstance(left, Column) and left.holds == "true or false" and not left.is_list:
            return left.read
        raise self._unexpected("a comparison, IN, LIKE, BETWEEN or IS NULL")

    def _value(self) -> Value:
        operand = self._operand()
        if isinstance(operand, Column):
            raise QueryError(
                f'filter, position {operand.position}: expected a value, found the column "{operand.name}"; '
                "write text in 'single quotes'"
            )
        return operand

    def _operand(self) -> Operand:
        token = self._next
        if token.kind == "column":
            self._take()
            name = self._schema.names[0] if self._means_id(token.text) else token.text
            if name not in self._schema.names:
                raise QueryError(f'filter: there is no column "{name}"{nearest(name, self._schema.names)}')
            self.columns.append(name)
            return Column(name, self._schema.field(name).type, token.position)
        if token.kind == "text":
            return Value(self._take().text, token.position)
        if token.kind == "number":
            return Value(_number(self._take().text), token.position)
        if flag := self._accept("keyword", "TRUE", "FALSE"):
            return Value(flag.text == "TRUE", token.position)
        raise self._unexpected("a column or a value")

    def _means_id(self, name: str) -> bool:
        """Whether a name is what answers call the first column: no other is called so."""
        return name == ID and ID not in self._schema.names


def _number(text: str) -> int | float:
    try:
        number = int(text)
    except ValueError:
        return float(text)
    return number if -(2**63) <= number < 2**63 else float(number)


def _joined(parts: list[Evaluate], join: Callable[[Any, Any], Any]) -> Evaluate:
    if len(parts) == 1:
        return parts[0]

    def evaluate(table: pa.Table) -> Any:
        result = parts[0](table)
        for part in parts[1:]:
            result = join(result, part(table))
        return result

    return evaluate


def _negated(part: Evaluate) -> Evaluate:
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


def _compare(left: Operand, sign: str, right: Operand) -> Evaluate:
    if isinstance(left, Value):
        if isinstance(right, Value):
            raise QueryError(f"filter, position {left.position}: compares two values; one side is to be a column")
        return _compare(right, MIRRORED.get(sign, sign), left)
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


def _is_null(operand: Operand, wanted: bool) -> Evaluate:
    if isinstance(operand, Value):
        raise QueryError(f"filter, position {operand.position}: IS NULL asks about a column, found a value")
    test = pc.is_null if wanted else pc.is_valid
    return lambda table: test(operand.read(table))


def _is_in(left: Operand, values: list[Value]) -> Evaluate:
    if isinstance(left, Value):
        raise QueryError(f"filter, position {left.position}: IN (...) asks about a column, found a value")
    return _joined([_compare(left, "=", value) for value in values], pc.or_kleene)


def _contains(lists: Operand, wanted: Operand) -> Evaluate:
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


def _like(left: Operand, pattern: Value, *, ignore_case: bool) -> Evaluate:
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
