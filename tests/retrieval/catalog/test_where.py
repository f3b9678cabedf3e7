"""Filters: every form on a table whose answers are known by hand; every mistake in one line that says where."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.catalog import where
from retrieval.common.errors import QueryError

TABLE = pa.table(
    {
        "item_id": ["a", "b", "c", "d", "é"],
        "year": pa.array([1990, 1995, None, 2001, 2010], pa.int64()),
        "price": pa.array([1.5, float("nan"), 3.0, -2.0, None], pa.float32()),
        "title": ["It's here", "100% wool", "Über_all", None, "it's"],
        "genres": pa.array([["Comedy", "Drama"], [], None, ["Drama"], ["Sci-Fi", None]], pa.list_(pa.string())),
        "tags": pa.array([[1, 2], [3], None, [], [2]], pa.list_(pa.int32())),
        "free": [True, False, None, True, False],
        "day": pa.array([dt.date(1994, 5, 31), dt.date(2000, 1, 1), None, dt.date(2020, 2, 29), dt.date(1970, 1, 1)]),
        "seen": pa.array([dt.datetime(2020, 1, 1, 12), None, dt.datetime(2021, 1, 1), None, None], pa.timestamp("ms")),
        "play count": pa.array([0, 10, 20, 30, 40], pa.uint64()),
        "kind": pa.array(["x", "y", "x", None, "z"]).dictionary_encode(),
        "nothing": pa.nulls(5),
        'say "hi"': [1, 2, 3, 4, 5],
    }
)

CASES = [
    ("year >= 1995", "bdé"),
    ("year = 1995", "b"),
    ("year == 1995.0", "b"),
    ("year <> 1995", "adé"),
    ("1995 <= year", "bdé"),
    ("1995 > year", "a"),
    ("year != 1995 AND year < 2005", "ad"),
    ("year < 1991 OR year > 2005", "aé"),
    ("NOT year < 1995", "bdé"),
    ("not (year < 1995 or free = true)", "bé"),
    ("year < 1991 OR year > 1994 AND year < 1996", "ab"),
    ("(year < 1991 OR year > 1994) AND year < 1996", "ab"),
    ("year IS NULL", "c"),
    ("year is not null", "abdé"),
    ("price IS NULL", "bé"),
    ("price > -2.5e0", "acd"),
    ("price = -2", "d"),
    ("NOT price = 3", "ad"),
    ("year IN (1990, 2001, 3)", "ad"),
    ("year NOT IN (1990, 2001)", "bé"),
    ("item_id IN ('a', 'é')", "aé"),
    ("id = 'b'", "b"),
    ("\"id\" NOT IN ('b', 'c')", "adé"),
    ("title LIKE 'It%'", "a"),
    ("title ILIKE 'it''s%'", "aé"),
    ("title NOT LIKE '%s%'", "bc"),
    ("title LIKE '100\\% wool'", "b"),
    ("title LIKE '_ber%'", "c"),
    ("title = 'it''s'", "é"),
    ("title > 'U'", "cé"),
    ("'Drama' IN genres", "ad"),
    ("'Drama' NOT IN genres", "bé"),
    ("NOT 'Drama' IN genres", "bé"),
    ("'Comedy' in genres and 'Drama' in genres", "a"),
    ("2 IN tags", "aé"),
    ("genres IS NULL", "c"),
    ("free", "ad"),
    ("NOT free", "bé"),
    ("free = FALSE", "bé"),
    ("day >= '2000-01-01'", "bd"),
    ("day < '1994-05-31'", "é"),
    ("day = '2020-02-29'", "d"),
    ("day BETWEEN '1990-01-01' AND '2000-01-01'", "ab"),
    ("year NOT BETWEEN 1991 AND 2005", "aé"),
    ("seen > '2020-01-01T11:59:59'", "ac"),
    ("seen >= '2021-01-01'", "c"),
    ('"play count" > 15', "cdé"),
    ('"say ""hi""" = 2', "b"),
    ("kind = 'x'", "ac"),
    ("kind LIKE 'z'", "é"),
    ("nothing = 3", ""),
    ("nothing IS NULL", "abcdé"),
    ('year > "play count"', "abdé"),
    ("item_id = 'a' -- no comment", None),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_what_passes(text: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(QueryError, match="position 15"):
            where.parse(text, TABLE.schema)
        return
    parsed = where.parse(text, TABLE.schema)
    mask = parsed.mask(TABLE.select(parsed.columns))
    assert mask.dtype == np.bool_
    assert "".join(name for name, passed in zip("abcdé", mask, strict=True) if passed) == expected


MISTAKES = [
    ("yaer > 3", 'there is no column "yaer"; did you mean "year"'),
    ("Year > 3", 'there is no column "Year"; did you mean "year"'),
    ("", "position 1: expected a column or a value, found the end"),
    ("   ", "found the end"),
    ("year", "position 5: expected a comparison"),
    ("year >", "position 7: expected a column or a value, found the end"),
    ("year > AND", 'position 8: expected a column or a value, found "AND"'),
    ("(year > 3", 'position 10: expected "\\)", found the end'),
    ("year > 3)", "position 9: expected AND, OR or the end"),
    ("year > 3 year < 4", "position 10: expected AND, OR or the end"),
    ("year > '1990'", "position 8: column \"year\" holds numbers, it cannot be compared with '1990'"),
    ("title = 3", "position 9: column \"title\" holds text.*'single quotes'"),
    ("title = Comedy", 'there is no column "Comedy"'),
    ("day > 1990", "position 7: column \"day\" holds dates.*write a date as '1994-05-31'"),
    ("day > 'May'", "position 7: 'May' is not a date"),
    ("genres = 'Drama'", "holds lists"),
    ("'Drama' IN title", "holds text"),
    ("3 IN genres", 'position 1: column "genres" holds text'),
    ("year LIKE '19%'", "LIKE compares text"),
    ("title LIKE 3", "LIKE compares text"),
    ("3 = 4", "position 1: compares two values"),
    ("3 IS NULL", "IS NULL asks about a column"),
    ("year IN ()", "position 10: expected a column or a value"),
    ("year IN (year)", "expected a value, found the column"),
    ("year IN (1 2)", 'expected "\\)", found "2"'),
    ("year NOT 3", "expected IN, LIKE or BETWEEN"),
    ("year BETWEEN 1 OR 2", 'expected "AND"'),
    ("title = 'open", "position 9: cannot read a quote that does not end"),
    ("year > 3; DROP", 'position 9: cannot read ";"'),
    ("year > title", 'column "title" holds text'),
    ("free > year", 'column "year" holds numbers'),
    ("(" * 300 + "free" + ")" * 300, "nested more than 100 deep"),
    ("NOT " * 3000 + "free", "nested more than 100 deep"),
    ("year > 1e999999 AND x", 'no column "x"'),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(QueryError, match=message) as caught:
        where.parse(text, TABLE.schema)
    assert "\n" not in str(caught.value)


WORDS = [
    "year",
    "title",
    "genres",
    "free",
    "AND",
    "OR",
    "NOT",
    "IN",
    "LIKE",
    "IS",
    "NULL",
    "(",
    ")",
    ",",
    "'a'",
    "3",
    "<",
    "=",
    '"',
    "'",
]


@given(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join) | st.text(max_size=30))
def test_anything_is_an_answer_or_a_query_error(text: str) -> None:
    try:
        parsed = where.parse(text, TABLE.schema)
    except QueryError:
        return
    assert parsed.mask(TABLE).shape == (5,)


def test_large_numbers_and_many_values() -> None:
    table = pa.table({"x": [2**53, 2**53 + 1, 5]})
    assert where.parse(f"x = {2**53 + 1}", table.schema).mask(table).tolist() == [False, True, False]
    assert where.parse(f"x < {10**30}", table.schema).mask(table).all()
    values = ", ".join(map(str, range(3000)))
    assert where.parse(f"x IN ({values})", table.schema).mask(table).tolist() == [False, False, True]


def test_a_column_that_is_called_id_is_that_column() -> None:
    table = pa.table({"item_id": ["a", "b"], "id": [7, 8]})
    parsed = where.parse("id = 8", table.schema)
    assert parsed.mask(table.select(parsed.columns)).tolist() == [False, True]
