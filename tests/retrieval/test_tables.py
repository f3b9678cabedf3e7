"""Tables of every kind come in blocks, in order; a bad one is named."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.common.errors import DataError
from retrieval.features.tables import blocks

ROWS = [{"id": f"{n}", "n": n, "t": "a,b\né"} for n in range(10)]


def written(folder: Path, kind: str) -> Path:
    table = pa.Table.from_pylist(ROWS)
    path = folder / f"t.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
        return path
    if "json" in kind:
        text = "\n".join(json.dumps(row) for row in ROWS)
    else:
        mark = "\t" if "tsv" in kind else ","
        text = mark.join(["id", "n", "t"]) + "\n"
        text += "".join(f'{row["id"]}{mark}{row["n"]}{mark}"{row["t"]}"\n' for row in ROWS)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
    return path


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv", "jsonl", "ndjson", "csv.gz", "jsonl.gz", "CSV"])
def test_every_kind_gives_the_same_rows_in_blocks(tmp_path: Path, kind: str) -> None:
    read = list(blocks(written(tmp_path, kind), rows=4, types={"id": pa.string()}))
    assert [block.num_rows for block in read] == [4, 4, 2]
    assert [row for block in read for row in block.to_pylist()] == ROWS


def test_a_key_may_appear_late(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2, "b": ["x"]}\n')
    assert pa.concat_tables(blocks(path)).to_pylist() == [{"a": 1, "b": None}, {"a": 2, "b": ["x"]}]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"", "does not read as csv"),
        ("t.csv", b"a,b\n", "the table has no rows"),
        ("t.csv", b"a,b\n1\n", "does not read as csv"),
        ("t.csv", b"a,b,a\n1,2,3\n", 'there are two columns "a"; rename one'),
        ("t.csv", b"n\nx\n", "does not read as csv"),
        ("t.parquet", b"PAR1 but not really", "does not read as parquet"),
        ("t.jsonl", b'{"a": 1}\n[2]\n', "line 2: expected an object, found list"),
        ("t.jsonl", b'{"a": \n', "line 1"),
        ("t.csv.gz", b"not gzip", "does not read as csv"),
        ("t.xlsx", b"", "not a table by its suffix"),
        ("t", b"", "not a table by its suffix"),
    ],
)
def test_a_bad_table_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(blocks(path, types={"n": pa.float64()}))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_ids_are_text_however_json_holds_them(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(
        '{"id": 1, "tags": ["a", 2]}\n{"id": "1"}\n{"id": 1.0, "tags": "b"}\n{"id": null, "other": 1}\n{"other": "x"}'
    )
    (read,) = blocks(path, types={"id": pa.string(), "tags": pa.string()})
    assert read.column("id").to_pylist() == ["1", "1", "1", None, None]
    assert read.column("tags").to_pylist() == [["a", "2"], None, ["b"], None, None]
    assert read.column("other").to_pylist() == [None, None, None, "1", "x"]


@pytest.mark.parametrize("mark", [",", ";", "|", "\t"])
def test_a_csv_may_use_another_separator_and_spaces_in_its_header(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"\ufeffid {mark} n{mark}t\r\n007{mark}1{mark}a\r\n", encoding="utf-8")
    (read,) = blocks(path, types={"id": pa.string()})
    assert read.to_pylist() == [{"id": "007", "n": 1, "t": "a"}]


def test_whole_numbers_may_be_written_with_a_point(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,year\n1,1990.0\n2,\n3, 9007199254740993\n4,NaN\n")
    (read,) = blocks(path, types={"year": pa.int64()})
    assert read.column("year").to_pylist() == [1990, None, 9007199254740993, None]


def test_a_value_of_another_type_is_named_by_its_column(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,year,price\n1,1990,5\n2,1990.5,dear\n")
    with pytest.raises(DataError, match=r"column \"year\": invalid value '1990\.5', expected a whole number"):
        list(blocks(path, types={"year": pa.int64()}))
    with pytest.raises(DataError, match=r"column \"price\", line 3: invalid value 'dear', expected a number"):
        list(blocks(path, types={"price": pa.float64()}))


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        list(blocks(tmp_path / "none.csv"))
