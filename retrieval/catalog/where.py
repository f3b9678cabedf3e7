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

import re
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.catalog.predicates import (
    COMPARISONS,
    Column,
    Evaluate,
    Operand,
    Value,
    compare,
    contains,
    is_in,
    is_null,
    joined,
    like,
    negated,
)
from retrieval.common.arrays import Mask
from retrieval.common.errors import QueryError, nearest

MAX_DEPTH: Final = 100
ID: Final = "id"
KEYWORDS: Final = frozenset(["AND", "OR", "NOT", "IN", "LIKE", "ILIKE", "IS", "NULL", "TRUE", "FALSE", "BETWEEN"])

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
        return joined(parts, pc.or_kleene)

    def _conjunction(self) -> Evaluate:
        parts = [self._negation()]
        while self._accept("keyword", "AND"):
            parts.append(self._negation())
        return joined(parts, pc.and_kleene)

    def _negation(self) -> Evaluate:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise QueryError(f"filter, position {self._next.position}: nested more than {MAX_DEPTH} deep")
        if self._accept("keyword", "NOT"):
            found = negated(self._negation())
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
            return compare(left, sign.text, self._operand())
        if self._accept("keyword", "IS"):
            wanted = self._accept("keyword", "NOT") is None
            self._expect("keyword", "NULL")
            return is_null(left, wanted)
        is_negated = self._accept("keyword", "NOT") is not None
        found = self._membership(left)
        if found is None:
            if is_negated:
                raise self._unexpected("IN, LIKE or BETWEEN")
            return self._flag(left)
        return negated(found) if is_negated else found

    def _membership(self, left: Operand) -> Evaluate | None:
        """What follows IN, LIKE or BETWEEN, if one of them comes next."""
        if self._accept("keyword", "IN"):
            if self._accept("sign", "("):
                values = [self._value()]
                while self._accept("sign", ","):
                    values.append(self._value())
                self._expect("sign", ")")
                return is_in(left, values)
            return contains(self._operand(), left)
        if word := self._accept("keyword", "LIKE", "ILIKE"):
            return like(left, self._value(), ignore_case=word.text == "ILIKE")
        if self._accept("keyword", "BETWEEN"):
            low = self._value()
            self._expect("keyword", "AND")
            return joined([compare(left, ">=", low), compare(left, "<=", self._value())], pc.and_kleene)
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
