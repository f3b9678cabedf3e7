"""Tables of every format, whole and in blocks; a file that cannot be used is named."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.common.errors import DataError
from retrieval.features import columns, tables
from retrieval.features.records import batch_of_table
from retrieval.features.schema import Feature
from retrieval.features.tables import blocks, read_table

ROWS = [{"id": f"{n}", "n": n if n != 3 else None, "t": 'a,b\n"é" 日本'} for n in range(10)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A table in the format of the path's suffix."""
    name = path.name.lower()
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    open_text: Callable[..., Any] = gzip.open if name.endswith(".gz") else open
    with open_text(path, "wt", encoding="utf-8", newline="") as file:
        if "json" in name:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            writer = csv.writer(file, delimiter="\t" if ".tsv" in name else ",", lineterminator="\n")
            writer.writerows([list(rows[0]), *([row[name] for name in rows[0]] for row in rows)])
    return path


FORMATS = ["parquet", "csv", "tsv", "jsonl", "ndjson", "csv.gz", "TSV.gz", "ndjson.gz", "CSV"]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_table(tmp_path: Path, kind: str) -> None:
    table = read_table(write(tmp_path / f"t.{kind}", ROWS))
    assert table.columns == ["id", "n", "t"]
    assert columns.ids(table.column("id", what=""), where="", text=table.text).to_pylist() == [r["id"] for r in ROWS]
    assert table.typed("n").to_pylist() == [row["n"] for row in ROWS]
    assert table.typed("t").to_pylist() == [row["t"] for row in ROWS]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_rows_in_blocks(tmp_path: Path, kind: str) -> None:
    found = list(blocks(write(tmp_path / f"t.{kind}", ROWS), rows=4, types={"id": pa.string()}))
    assert [block.num_rows for block in found] == [4, 4, 2]
    assert [row for block in found for row in block.to_pylist()] == ROWS
    assert len({block.schema.to_string() for block in found}) == 1


@pytest.mark.parametrize("mark", [",", ";", "|", "\t"])
def test_a_csv_may_use_another_separator_and_spaces_in_its_header(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"\ufeffid {mark} n{mark}t\r\n007{mark}1{mark}a\r\n", encoding="utf-8")
    (read,) = blocks(path)
    assert read.to_pylist() == [{"id": "007", "n": 1, "t": "a"}]
    assert read_table(path).table.to_pylist() == [{"id": "007", "n": "1", "t": "a"}]


def test_lines_may_end_with_a_carriage_return(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,b\r1,2\r3,4\r")
    assert read_table(tmp_path / "t.csv").table.to_pylist() == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_a_json_key_may_appear_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BLOCK_BYTES", 16)
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2.5, "b": ["x"]}\n{"b": [1]}\n{"c": {"d": 1}}\n{"a": 3}')
    nothing = {"a": None, "b": None, "c": None}
    expected = [
        {**nothing, "a": 1.0}, {**nothing, "a": 2.5, "b": ["x"]}, {**nothing, "b": ["1"]}, {**nothing, "c": {"d": 1}},
        {**nothing, "a": 3.0},
    ]  # fmt: skip
    assert read_table(path).table.to_pylist() == expected
    assert pa.concat_tables(blocks(path)).to_pylist() == expected


def test_json_values_of_different_kinds_are_text(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(
        '{"id": 1, "tags": ["a", 2]}\n{"id": "1"}\n{"id": 1.0, "tags": "b"}\n{"id": null, "other": 1}\n'
        '{"other": "x"}\n{"id": 18446744073709551615}'
    )
    table = read_table(path).table
    assert table.column("id").to_pylist() == ["1", "1", "1", None, None, "18446744073709551615"]
    assert table.column("tags").to_pylist() == [["a", "2"], None, ["b"], None, None, None]
    assert table.column("other").to_pylist() == [None, None, None, "1", "x", None]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("t.xlsx", b"x", "unknown kind of table"),
        ("t", b"x", "unknown kind of table"),
        ("t.parquet.gz", b"x", "unknown kind of table"),
        ("t.csv", b"", "the table is empty"),
        ("t.csv", b"\n", "the table is empty"),
        ("t.csv", b"a,b\n", "the table is empty"),
        ("t.jsonl", b"\n", "the table is empty"),
        ("t.csv", b"a,b\n\xff\xfe,2\n", "not text in UTF-8"),
        ("t.jsonl", b'{"a": "\xff"}\n', "not text in UTF-8"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16"), "the text is in UTF-16; save it as UTF-8"),
        ("t.csv", b"a,b\n1,2\n3\n", "cannot be read as csv: row 2 has 1 values, expected 2"),
        ("t.csv", b"a,b\n1,2,3\n", "cannot be read as csv: row 1 has 3 values, expected 2"),
        ("t.csv", b"a,b,a\n1,2,3\n", 'there are two columns "a"; rename one'),
        ("t.csv", b"a, a\n1,2\n", 'there are two columns "a"; rename one'),
        ("t.jsonl", b'{"a": \n', "cannot be read as jsonl: line 1"),
        ("t.jsonl", b'{"a": 1}\n[2]\n', "line 2: expected an object, found a list"),
        ("t.jsonl", b'{"a": [1\n2]}\n', "line 1"),
        ("t.jsonl", b'{"a": 1}\n{"a": "x\\ud800"}\n', "line 2 contains a lone surrogate"),
        ("t.parquet", b"PAR1 not really", "cannot be read as parquet"),
        ("t.csv.gz", b"not gzip", "damaged gzip file"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for read in (read_table, lambda path: list(blocks(path))):
        with pytest.raises(DataError, match=expected) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_quotation_mark_that_is_not_closed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BLOCK_BYTES", 64)
    (tmp_path / "t.csv").write_text('a,b\n"x,2\n' + "1,2\n" * 100)
    with pytest.raises(DataError, match="longer than 64 bytes; is a quotation mark not closed"):
        read_table(tmp_path / "t.csv")


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    for read in (read_table, lambda path: list(blocks(path))):
        with pytest.raises(DataError, match="there is no such file"):
            read(tmp_path / "none.csv")
        whole = gzip.compress(b"a,b\n" + b"1,2\n" * 1000)
        for damaged in (whole[: len(whole) // 2], whole[:20] + b"\0\0\0\0" + whole[24:]):
            (tmp_path / "t.csv.gz").write_bytes(damaged)
            with pytest.raises(DataError, match="damaged gzip file"):
                read(tmp_path / "t.csv.gz")
        pq.write_table(pa.table({"a": list(range(1000))}), tmp_path / "t.parquet")
        data = (tmp_path / "t.parquet").read_bytes()
        (tmp_path / "t.parquet").write_bytes(data[: len(data) // 2])
        with pytest.raises(DataError, match="cannot be read as parquet"):
            read(tmp_path / "t.parquet")


def test_a_column_that_is_not_there_suggests_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("user_id,item\n1,2\n")
    with pytest.raises(DataError, match=r'no column "userid" \(data.user\); did you mean "user_id"\?'):
        read_table(tmp_path / "t.csv").column("userid", what="data.user")


def test_a_value_of_another_type_is_named_by_column_and_row(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,year,price,on\n1,1990.0,5,yes\n2,1990.5,dear,maybe\n")
    for name, kind, expected in (
        ("year", pa.int64(), 'row 2 is "1990.5", expected a whole number'),
        ("price", pa.float64(), 'row 2 is "dear", expected a number'),
        ("on", pa.bool_(), 'row 2 is "maybe", expected true or false'),
        ("year", pa.date32(), 'row 1 is "1990.0", expected dates'),
    ):
        with pytest.raises(DataError, match=rf'column "{name}": {expected}'):
            list(blocks(path, rows=1, types={name: kind}))


def test_whole_numbers_may_be_written_with_a_point(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,year\n1,1990.0\n2,\n3, 9007199254740993\n4,NaN\n")
    (read,) = blocks(path, types={"year": pa.int64()})
    assert read.column("year").to_pylist() == [1990, None, 9007199254740993, None]


def test_the_type_of_a_column_is_that_of_all_its_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BLOCK_BYTES", 16)
    path = tmp_path / "t.csv"
    path.write_text("a,b,c\n1,1,NA\n2,2,\n3.5,x,5\n4,4,6\n")
    table = pa.concat_tables(blocks(path, rows=1))
    assert table.to_pydict() == {"a": [1.0, 2.0, 3.5, 4.0], "b": ["1", "2", "x", "4"], "c": [None, None, 5, 6]}


# One value in the forms in which a table can hold it.
TEXT = ["None", "na", "NaN", " 3 ", "3.0", "3", "007", "", "é", "a|b", " a | 3.0 ", "1e5", "x y"]
NUMBER = ["None", "na", "NaN", " 3 ", "3.0", "3", "-2.5", "1e5", ""]
FEATURES = [
    Feature(name="category", kind="category"),
    Feature(name="hash", kind="hash", buckets=10),
    Feature(name="list", kind="categories", separator="|"),
    Feature(name="number", kind="number"),
    Feature(name="real", kind="number"),
    Feature(name="vector", kind="vector", size=2),
]


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "id": st.integers(1, 99).map(lambda number: f"i{number}"),  # an empty row of one column is no row
                "category": st.sampled_from(TEXT),
                "hash": st.sampled_from(TEXT),
                "list": st.sampled_from(TEXT),
                "number": st.sampled_from(NUMBER),
                "real": st.none() | st.floats(-1e6, 1e6),
                "vector": st.sampled_from(["[1, 2]", "0.5 -1", ""]),
            }
        ),
        min_size=1,
        max_size=12,
    ),
    size=st.integers(1, 5),
    block_bytes=st.sampled_from([256, 4096]),
)
def test_a_value_means_the_same_in_every_format_whole_and_in_blocks(
    rows: list[dict[str, Any]], size: int, block_bytes: int
) -> None:
    found = []
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "BLOCK_BYTES", block_bytes)
        for suffix in ("csv", "jsonl", "parquet"):
            path = write(Path(folder) / f"t.{suffix}", rows)
            table = read_table(path)
            training = pa.table(
                {f.name: f.type.convert(f, table.column(f.name, what=""), where="").cast(_kind(f)) for f in FEATURES}
            )
            serving = pa.concat_tables(
                pa.table({f.name: block.column(f.name).cast(_kind(f)) for f in FEATURES})
                for block in blocks(path, rows=size, features=FEATURES, types={"id": pa.string()})
            )
            assert serving.to_pylist() == training.to_pylist()
            batch = batch_of_table(FEATURES, training)
            found.append({name: array.tolist() for name, array in batch.items()})
    assert repr(found[0]) == repr(found[1]) == repr(found[2])


def _kind(feature: Feature) -> pa.DataType:
    kinds = {"number": pa.float64(), "vector": pa.list_(pa.float32()), "categories": pa.list_(pa.string())}
    return kinds.get(feature.kind, pa.string())
