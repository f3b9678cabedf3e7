"""Tables: formats, ids as text, numbers, times, lists, vectors, and what cannot be used."""

import csv
import gzip
import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.common.errors import DataError
from train.data import column_types, tables

ROWS = [{"id": "1", "n": "2.5", "t": 'é, "x"'}, {"id": "2", "n": "", "t": "日本"}]


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv", "a.TSV.gz", "a.jsonl", "a.ndjson.gz", "a.parquet"])
def test_every_format_gives_the_same(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if "csv" in name or "tsv" in name.lower():
        mark = "\t" if "tsv" in name.lower() else ","
        lines = [f"id{mark}n{mark}t"]
        lines += [mark.join('"' + row[key].replace('"', '""') + '"' if row[key] else "" for key in row) for row in ROWS]
        write(path, "\n".join(lines) + "\n")
    elif "json" in name:
        rows: list[dict[str, Any]] = [{**row, "n": float(row["n"]) if row["n"] else None} for row in ROWS]
        write(path, "".join(json.dumps(row) + "\n" for row in rows))
    else:
        pl.DataFrame([{**row, "n": float(row["n"]) if row["n"] else None} for row in ROWS]).write_parquet(path)
    table = tables.read(path)
    assert column_types.ids(table.frame["id"], where="", text=table.text).to_list() == ["1", "2"]
    assert table.typed("n").to_list() == [2.5, None]
    assert table.frame["t"].to_list() == ['é, "x"', "日本"]


def test_a_semicolon_and_a_byte_order_mark_as_spreadsheets_write_them(tmp_path: Path) -> None:
    table = tables.read(write(tmp_path / "a.csv", "\ufeffid; name \n1;a, b\n"))
    assert table.columns == ["id", "name"]
    assert table.frame["name"].to_list() == ["a, b"]


def test_ids_of_the_types_that_databases_have() -> None:
    prices = pl.Series([Decimal("5.00"), Decimal("0.50"), None])
    assert column_types.ids(prices, where="").to_list() == ["5", "0.50", None]
    for odd in (pl.Series([timedelta(seconds=1)]), pl.Series([b"x"]), pl.Series([{"a": 1}]), pl.Series([["x"]])):
        with pytest.raises(DataError, match=r"ids are of type .*, expected text or whole numbers"):
            column_types.ids(odd, where="t")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.xls", b"x", "unknown kind of table"),
        ("a", b"x", "unknown kind of table"),
        ("a.parquet.gz", b"x", "unknown kind of table"),
        ("a.csv", b"", "the table is empty"),
        ("a.csv", b"a,b\n", "the table is empty"),
        ("a.jsonl", b"\n", "the table is empty"),
        ("a.csv", b"a,b\n\xff\xfe,2\n", "not text in UTF-8"),
        ("a.csv", b"a,b\n1,2,3\n", "cannot be read as csv"),
        ("a.csv", b"a,b,a\n1,2,3\n", 'there are two columns "a"; rename one'),
        ("a.jsonl", b"{1\n", "cannot be read as jsonl"),
        ("a.jsonl", b'{"a": 1}\n{"a": "x\\ud800"}\n', "line 2 contains a lone surrogate"),
        ("a.parquet", b"PAR1 not really", "cannot be read as parquet"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=expected) as caught:
        tables.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        tables.read(tmp_path / "a.csv")
    whole = gzip.compress(b"a,b\n" + b"1,2\n" * 1000)
    for damaged in (whole[: len(whole) // 2], b"not gzip", whole[:20] + b"\0\0\0\0" + whole[24:]):
        (tmp_path / "a.csv.gz").write_bytes(damaged)
        with pytest.raises(DataError, match="damaged gzip file"):
            tables.read(tmp_path / "a.csv.gz")
    pl.DataFrame({"a": list(range(1000))}).write_parquet(tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="cannot be read as parquet"):
        tables.read(tmp_path / "a.parquet")


def test_a_column_that_is_not_there_suggests_the_nearest(tmp_path: Path) -> None:
    table = tables.read(write(tmp_path / "a.csv", "user_id,item\n1,2\n"))
    with pytest.raises(DataError, match=r'no column "userid" \(data.user\); did you mean "user_id"\?'):
        table.column("userid", what="data.user")


def ids(values: list[Any], *, text: bool = False, dtype: Any = None) -> list[str | None]:
    return column_types.ids(pl.Series("c", values, dtype=dtype), where="t.csv: column", text=text).to_list()


def test_one_id_whatever_it_is_in_the_file() -> None:
    assert ids([1, 2]) == ids(["1", "2"]) == ids([1.0, 2.0]) == ids(["1.0", "2.0"], text=True) == ["1", "2"]
    assert ids([1, 2], dtype=pl.UInt8) == ids([" 1", "2 "]) == ids(["1", "2"], dtype=pl.Categorical) == ["1", "2"]
    assert ids([9007199254740993]) == ids(["9007199254740993"], text=True) == ["9007199254740993"]
    assert ids(["007"], text=True) == ["007"]
    assert ids(["1.0"]) == ["1.0"]  # text of a typed file is what it says
    assert ids(["1.0", "a"], text=True) == ["1.0", "a"]  # not a float column
    assert ids(["1.0", "2.50"], text=True) == ["1", "2.50"]
    assert ids([-1.0, 2.5]) == ["-1", "2.5"]
    assert ids([True, False]) == ["true", "false"]


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
        ([[1]], False, "ids are of type List"),
    ],
)
def test_ids_that_cannot_be_are_named(values: list[Any], text: bool, expected: str) -> None:
    with pytest.raises(DataError, match=rf"t\.csv: column.*{expected}"):
        ids(values, text=text)


def test_ids_of_a_dictionary_are_checked_too() -> None:
    with pytest.raises(DataError, match="the id of row 2 is empty"):
        ids(["a", ""], dtype=pl.Categorical)
    assert ids(["a", " b", None], dtype=pl.Enum(["a", " b"])) == ["a", "b", None]


@given(st.lists(st.integers(-(2**53), 2**53), min_size=1))
def test_integers_and_their_floats_are_one_id(values: list[int]) -> None:
    as_text = [str(value) for value in values]
    assert ids(values) == as_text
    assert ids([float(value) for value in values]) == as_text
    assert ids([f"{value}.0" for value in values], text=True) == as_text


def test_text_files_give_columns_the_type_of_their_values() -> None:
    def typed(values: list[str | None]) -> tuple[Any, list[Any]]:
        series = column_types.natural(pl.Series(values, dtype=pl.String))
        return series.dtype, series.to_list()

    assert typed(["1", "-2", None]) == (pl.Int64, [1, -2, None])
    assert typed(["1", "NA", " 3"]) == (pl.Int64, [1, None, 3])
    assert typed(["1.5", "nan", "1e3"]) == (pl.Float64, [1.5, None, 1000.0])
    assert typed(["007", "8"]) == (pl.String, ["007", "8"])
    assert typed(["a", "1"]) == (pl.String, ["a", "1"])
    assert typed(["123456789012345678901"])[0] == pl.Float64
    assert typed([None, None]) == (pl.String, [None, None])


def test_numbers_and_what_is_none() -> None:
    series = pl.Series(["1", " 2.5", "NA", None, "inf", ""])
    assert column_types.numbers(series, where="").to_list() == [1.0, 2.5, None, None, None, None]
    assert column_types.numbers(pl.Series([True, None]), where="").to_list() == [1.0, None]
    with pytest.raises(DataError, match=r'r\.csv: rating: row 2 is "good", expected a number'):
        column_types.numbers(pl.Series(["1", "good"]), where="r.csv: rating")
    with pytest.raises(DataError, match="of type List"):
        column_types.numbers(pl.Series([[1]]), where="")


def test_times_are_epoch_seconds() -> None:
    text = [
        "2020-01-02", "2020-01-02T03:04:05Z", "2020-01-02 03:04:05.5+02:00", "2020/01/02 03:04", None, "",
    ]  # fmt: skip
    expected = [1577923200, 1577934245, 1577927045, 1577934240, None, None]
    assert column_types.times(pl.Series(text), where="").to_list() == expected
    assert column_types.times(pl.Series(["978300760", "5"]), where="").to_list() == [978300760, 5]
    assert column_types.times(pl.Series([1.9, float("nan")]), where="").to_list() == [1, None]
    moments = pl.Series(["2020-01-02"]).str.to_date()
    assert column_types.times(moments, where="").to_list() == [1577923200]
    assert column_types.times(moments.cast(pl.Datetime("ns")), where="").to_list() == [1577923200]
    with pytest.raises(DataError, match=r'w: row 2 is "soon", expected a number, a date or an ISO time'):
        column_types.times(pl.Series(["2020-01-02", "soon"]), where="w")
    with pytest.raises(DataError, match="is infinite"):
        column_types.times(pl.Series([float("inf")]), where="w")


def test_lists_from_text_and_from_lists() -> None:
    assert column_types.lists(pl.Series(["a|b", " c ||d", None, ""]), separator="|", where="").to_list() == [
        ["a", "b"], ["c", "d"], [], [],
    ]  # fmt: skip
    assert column_types.lists(pl.Series([[1.0, 2.0], [], None, [3.0]]), separator=None, where="").to_list() == [
        ["1", "2"], [], [], ["3"],
    ]  # fmt: skip
    assert column_types.lists(pl.Series([["a", "", None]]), separator=None, where="").to_list() == [["a"]]
    assert column_types.lists(pl.Series([None], dtype=pl.Null), separator=None, where="").to_list() == [[]]
    with pytest.raises(DataError, match="say how to split it"):
        column_types.lists(pl.Series(["a|b"]), separator=None, where="w")


def test_vectors_have_one_size() -> None:
    assert column_types.vectors(pl.Series(["[1, 2]", "3 4", None]), size=2, where="").to_list() == [
        [1, 2],
        [3, 4],
        None,
    ]
    array = pl.Series([[1.0, 2.0]], dtype=pl.Array(pl.Float64, 2))
    assert column_types.vectors(array, size=2, where="").to_list() == [[1.0, 2.0]]
    with pytest.raises(DataError, match="w: row 2 has 3 numbers, expected 2"):
        column_types.vectors(pl.Series([[1, 2], [1, 2, 3]]), size=2, where="w")
    with pytest.raises(DataError, match="w: row 1 is not a list of numbers"):
        column_types.vectors(pl.Series(["[1, x]"]), size=2, where="w")
    with pytest.raises(DataError, match="expected lists of 2 numbers"):
        column_types.vectors(pl.Series([1.0]), size=2, where="w")


def test_a_quoted_field_may_hold_the_separator_and_a_line_break(tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "t"], ["1", "a,\nb"]])
    assert tables.read(tmp_path / "a.csv").frame["t"].to_list() == ["a,\nb"]
