"""Columns: ids, text, numbers, flags, times, lists and vectors, and the values that are refused."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.common.errors import DataError
from retrieval.features import columns
from retrieval.features.text import text_of


def ids(values: list[Any], *, text: bool = False, dtype: Any = None) -> list[str | None]:
    found: list[str | None] = columns.ids(pa.array(values, dtype), where="t.csv: column", text=text).to_pylist()
    return found


def test_one_id_whatever_it_is_in_the_file() -> None:
    assert ids([1, 2]) == ids(["1", "2"]) == ids([1.0, 2.0]) == ids(["1.0", "2.0"], text=True) == ["1", "2"]
    assert ids([1, 2], dtype=pa.uint8()) == ids([" 1", "2 "]) == ids(["1.0", "2"]) == ["1", "2"]
    assert ids(["1", "2"], dtype=pa.dictionary(pa.int32(), pa.string())) == ids(["1", "2"], dtype=pa.large_string())
    assert ids([9007199254740993]) == ids(["9007199254740993"], text=True) == ["9007199254740993"]
    assert ids(["007"], text=True) == ["007"]
    assert ids(["1.0", "a"]) == ids(["1.0", "a"], text=True) == ["1", "a"]
    assert ids(["1.0", "2.50"], text=True) == ["1", "2.50"]
    assert ids([-1.0, 2.5]) == ["-1", "2.5"]
    assert ids([True, False]) == ["true", "false"]
    assert ids([date(2020, 1, 2)]) == ["2020-01-02"]
    assert ids([Decimal("5.00"), Decimal("0.50"), None]) == ["5", "0.50", None]


def test_a_gap_in_ids_is_none_where_a_float_column_or_a_typed_file_has_it() -> None:
    assert ids([1.0, None, float("nan")]) == ["1", None, None]
    assert ids(["1.0", None], text=True) == ["1", None]
    assert ids(["a", None]) == ["a", None]


@pytest.mark.parametrize(
    ("values", "text", "expected"),
    [
        (["a", ""], False, "the id of row 2 is empty"),
        (["a", "  "], True, "the id of row 2 is empty"),
        (["a", None], True, "row 2 has no id"),
        (["a\0b"], False, "the id of row 1 contains a NUL"),
        ([2.0**53 + 2], False, "have lost digits"),
        ([[1]], False, "ids are lists of whole numbers, expected text or whole numbers"),
        ([timedelta(seconds=1)], False, "ids are durations"),
        ([b"x"], False, "ids are bytes"),
        ([{"a": 1}], False, "ids are objects"),
    ],
)
def test_ids_that_cannot_be_used_are_named(values: list[Any], text: bool, expected: str) -> None:
    with pytest.raises(DataError, match=rf"t\.csv: column.*{expected}"):
        ids(values, text=text)


def test_ids_of_a_dictionary_are_checked_too() -> None:
    kind = pa.dictionary(pa.int32(), pa.string())
    with pytest.raises(DataError, match="the id of row 2 is empty"):
        ids(["a", ""], dtype=kind)
    assert ids(["a", " b", None], dtype=kind) == ["a", "b", None]


def test_a_block_counts_its_rows_from_the_start_of_the_table() -> None:
    text = pa.array(["1", "x"])
    for convert in (columns.numbers, columns.integers, columns.flags, columns.times):
        with pytest.raises(DataError, match='w: row 102 is "x", expected'):
            convert(text, where="w", offset=100)
    with pytest.raises(DataError, match="w: the id of row 102 is empty"):
        columns.ids(pa.array(["a", ""]), where="w", offset=100)
    with pytest.raises(DataError, match="w: row 102 has 1 numbers, expected 2"):
        columns.vectors(pa.array([[1.0, 2.0], [1.0]]), size=2, where="w", offset=100)


@given(st.lists(st.integers(-(2**53), 2**53), min_size=1))
def test_integers_and_their_floats_are_one_id(values: list[int]) -> None:
    as_text = [str(value) for value in values]
    assert ids(values) == as_text
    assert ids([float(value) for value in values]) == as_text
    assert ids([f"{value}.0" for value in values]) == as_text


@given(st.lists(st.one_of(st.none(), st.text(alphabet=" \t\u00a0-0123.aé", max_size=6), st.from_regex(r"-?\d+\.0*"))))
def test_a_column_and_a_single_value_give_the_same_text(values: list[str | None]) -> None:
    assert columns.words(pa.array(values, pa.string())).to_pylist() == [text_of(value) or None for value in values]


@given(st.lists(st.floats() | st.none()))
def test_floats_are_written_as_a_single_one_is(values: list[float | None]) -> None:
    finite = [None if value is not None and value in (float("inf"), float("-inf")) else value for value in values]
    assert columns.words(pa.array(finite, pa.float64())).to_pylist() == [text_of(value) or None for value in finite]


def test_a_narrow_float_is_written_as_it_was_typed() -> None:
    assert columns.words(pa.array([0.1, 3.0, 1e-7, None], pa.float32())).to_pylist() == ["0.1", "3", "1e-07", None]


def test_text_files_give_columns_the_type_of_their_values() -> None:
    def typed(values: list[str | None]) -> tuple[Any, list[Any]]:
        column = columns.natural(pa.array(values, pa.string()))
        return column.type, column.to_pylist()

    assert typed(["1", "-2", None]) == (pa.int64(), [1, -2, None])
    assert typed(["1", "NA", " 3", "None"]) == (pa.int64(), [1, None, 3, None])
    assert typed(["1.5", "nan", "1e3"]) == (pa.float64(), [1.5, None, 1000.0])
    assert typed(["007", "8"]) == (pa.string(), ["007", "8"])
    assert typed(["a", "1"]) == (pa.string(), ["a", "1"])
    assert typed(["1234567890123456783"]) == (pa.int64(), [1234567890123456783])
    assert typed(["123456789012345678901"])[0] == pa.string()
    assert typed([None, None]) == (pa.string(), [None, None])
    assert columns.natural_type(pa.array(["", "NA", None])) == pa.null()


def test_numbers_and_missing_ones() -> None:
    column = pa.array(["1", " 2.5", "NA", None, "inf", "", "None", "na", "NaN", "+3"])
    assert columns.numbers(column, where="").to_pylist() == [1.0, 2.5, *[None] * 7, 3.0]
    assert columns.numbers(pa.array([True, None]), where="").to_pylist() == [1.0, None]
    assert columns.numbers(pa.array([Decimal("2.50")]), where="").to_pylist() == [2.5]
    with pytest.raises(DataError, match=r'r\.csv: rating: row 2 is "good", expected a number'):
        columns.numbers(pa.array(["1", "good"]), where="r.csv: rating")
    with pytest.raises(DataError, match=r'row 1 is "1,25", expected a number; write 1\.25 for 1,25'):
        columns.numbers(pa.array(["1,25"]), where="")
    with pytest.raises(DataError, match="holds lists of whole numbers, expected numbers"):
        columns.numbers(pa.array([[1]]), where="")


def test_whole_numbers_may_have_a_decimal_point() -> None:
    for values in (["1990.0", " 5", "NaN"], [1990.0, 5.0, None], ["1990", "5", None]):
        assert columns.integers(pa.array(values), where="").to_pylist() == [1990, 5, None]
    with pytest.raises(DataError, match=r'w: row 2 is "1990.5", expected a whole number'):
        columns.integers(pa.array([1.0, 1990.5]), where="w")
    with pytest.raises(DataError, match=r'w: row 2 is "300", expected a whole number \(int8\)'):
        columns.integers(pa.array([1, 300]), where="w", kind=pa.int8())


def test_flags() -> None:
    column = pa.array(["true", " FALSE", "1", "0.0", "Yes", "no", "", None])
    assert columns.flags(column, where="").to_pylist() == [True, False, True, False, True, False, None, None]
    assert columns.flags(pa.array([1.0, 0.0, None]), where="").to_pylist() == [True, False, None]
    with pytest.raises(DataError, match='w: row 2 is "maybe", expected true or false'):
        columns.flags(pa.array(["yes", "maybe"]), where="w")


def times(values: list[Any], dtype: Any = None) -> list[int | None]:
    found: list[int | None] = columns.times(pa.array(values, dtype), where="w").to_pylist()
    return found


def test_times_are_epoch_seconds() -> None:
    text = [
        "2020-01-02", "2020-01-02T03:04:05Z", "2020-01-02 03:04:05+02:00", "2020/01/02 03:04", None, "",
        "2020-1-2", "1969-12-31 23:59:59", "9999-12-31",
    ]  # fmt: skip
    assert times(text) == [
        1577923200, 1577934245, 1577927045, 1577934240, None, None, 1577923200, -1, 253402214400,
    ]  # fmt: skip
    assert times(["2020-01-02 03:04:05", None]) == [1577934245, None]
    assert times(["978300760", "5", "None"]) == [978300760, 5, None]
    assert times(["1577934245000000001", "5"]) == [1577934245000000001, 5]
    assert times([1.0, -5.0, float("nan")]) == [1, -5, None]
    assert times([date(2020, 1, 2)]) == [1577923200]
    moment = datetime(2020, 1, 2, 3, 4, 5)
    for unit in ("s", "ms", "us", "ns"):
        assert times([moment, None], pa.timestamp(unit)) == [1577934245, None]
    assert times([moment.replace(tzinfo=UTC)], pa.timestamp("us", "Europe/Berlin")) == [1577934245]


def test_fractions_of_a_second_are_not_cut() -> None:
    assert times(["2020-01-02 03:04:05.9", "2020-01-02T03:04:05Z", None]) == [1577934245900, 1577934245000, None]
    assert times(["2020-01-02 03:04:05.123456789"]) == [1577934245123456789]
    assert times(["1969-12-31 23:59:59.5"]) == [-500]
    assert times([1577934245.25, 5.0, None]) == [1577934245250000, 5000000, None]
    assert times(["1577934245.1", "1577934245"]) == [1577934245100000, 1577934245000000]
    assert times([1.7e15, 1.7e15 + 0.25]) == [1700000000000000000, 1700000000000000256]  # as exact as a float is
    assert times([Decimal("5.50")]) == [5500000]
    assert times([1577934245900, 1577934245000], pa.timestamp("ms")) == [1577934245900, 1577934245000]
    assert times([1577934245000000001, None], pa.timestamp("ns")) == [1577934245000000001, None]


def test_a_time_is_shown_as_a_date_in_any_unit() -> None:
    for scale in (1, 10**3, 10**6, 10**9):
        assert columns.date_of(1577934245 * scale) == "2020-01-02"
    assert columns.date_of(1_234_567) == "1,234,567"
    assert columns.date_of(-5) == "-5"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2020-01-02", "soon"], 'row 2 is "soon", expected a number, a date or an ISO time'),
        (["2020-02-30"], 'row 1 is "2020-02-30"'),
        (["02.01.2020"], 'row 1 is "02.01.2020"'),
        ([float("inf")], "row 1 is infinite"),
        ([1.0, 1e19], r"row 2 is 1e\+19, too large for a time"),
        (["5", "18446744073709551615"], "row 2 is 18446744073709551615, too large for a time"),
        ([[1]], "holds lists of whole numbers, expected numbers, dates or ISO text"),
    ],
)
def test_times_that_cannot_be_read_are_named(values: list[Any], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        columns.times(pa.array(values), where="w")


def test_an_unsigned_time_beyond_int64_is_named() -> None:
    with pytest.raises(DataError, match="w: row 2 is 18446744073709551615, too large for a time"):
        columns.times(pa.array([5, 2**64 - 1], pa.uint64()), where="w")
    assert columns.times(pa.array([5, None], pa.uint64()), where="w").to_pylist() == [5, None]


def test_lists_from_text_and_from_lists() -> None:
    def lists(values: list[Any], separator: str | None = None, dtype: Any = None) -> list[list[str]]:
        found: list[list[str]] = columns.lists(pa.array(values, dtype), separator=separator, where="w").to_pylist()
        return found

    assert lists(["a|b", " c ||d", None, ""], "|") == [["a", "b"], ["c", "d"], [], []]
    assert lists(["a, b", "3.0, 4"], ", ") == [["a", "b"], ["3", "4"]]
    assert lists([[1.0, 2.0], [], None, [3.0]]) == [["1", "2"], [], [], ["3"]]
    assert lists([["a", " ", None, " b "]]) == [["a", "b"]]
    assert lists([["a", "b"], None], dtype=pa.list_(pa.string(), 2)) == [["a", "b"], []]
    assert lists([None], dtype=pa.null()) == [[]]
    with pytest.raises(DataError, match="holds text, not lists; say how to split it"):
        lists(["a|b"])
    with pytest.raises(DataError, match="holds lists of objects, expected lists of text"):
        lists([[{"a": 1}]])


def test_vectors_have_one_size() -> None:
    def vectors(values: list[Any], dtype: Any = None) -> list[list[float] | None]:
        found: list[list[float] | None] = columns.vectors(pa.array(values, dtype), size=2, where="w").to_pylist()
        return found

    assert vectors(["[1, 2]", "3 4", None, "(5;6)", " "]) == [[1, 2], [3, 4], None, [5, 6], None]
    assert vectors([[1.0, 2.0], None, [3.0, 4.0]]) == [[1, 2], None, [3, 4]]
    assert vectors([[1.0, 2.0], None, [3.0, None]], pa.list_(pa.float64(), 2)) == [[1, 2], None, [3, None]]
    assert vectors([None], pa.null()) == [None]
    with pytest.raises(DataError, match="w: row 2 has 3 numbers, expected 2"):
        vectors([[1, 2], [1, 2, 3]])
    with pytest.raises(DataError, match="w: row 2 is not a list of numbers"):
        vectors(["[1, 2]", "[1, x]"])
    with pytest.raises(DataError, match="holds numbers, expected lists of 2 numbers"):
        vectors([1.0])
    with pytest.raises(DataError, match="holds lists of text, expected lists of 2 numbers"):
        vectors([["1", "2"]])


def test_a_slice_of_a_column_converts_as_its_rows() -> None:
    text = pa.chunked_array([["x", "a|b", None], ["c"]]).slice(1)
    assert columns.lists(text, separator="|", where="").to_pylist() == [["a", "b"], [], ["c"]]
    vectors = pa.array([[9.0], [1.0, 2.0], None, [3.0, 4.0]]).slice(1)
    assert columns.vectors(vectors, size=2, where="").to_pylist() == [[1, 2], None, [3, 4]]


def test_columns_of_no_rows() -> None:
    empty = pa.array([], pa.string())
    assert columns.ids(empty, where="").to_pylist() == []
    assert columns.words(empty).to_pylist() == []
    assert columns.numbers(empty, where="").to_pylist() == []
    assert columns.times(empty, where="").to_pylist() == []
    assert columns.lists(empty, separator="|", where="").to_pylist() == []
    assert columns.vectors(empty, size=2, where="").to_pylist() == []
