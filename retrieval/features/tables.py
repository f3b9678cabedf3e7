"""Read tables: Parquet, CSV, TSV and JSON Lines by their suffix, the text formats also with .gz.

`read_table` reads a whole table, `blocks` reads one in blocks of rows. Both use the same parsers, and the functions of
`columns` convert what these return.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from retrieval.common.errors import DataError, nearest
from retrieval.features import columns
from retrieval.features.columns import is_list, is_text, texts
from retrieval.features.kinds import SEPARATOR
from retrieval.features.schema import Feature
from retrieval.features.text import text_of

BLOCK_BYTES: Final = 4 << 20  # text parsed at a time; a row of a CSV must not be larger
HEADER_BYTES: Final = 1 << 16
SEPARATORS: Final = (",", ";", "\t", "|")  # of columns; the first of those that are equally frequent is taken
SUFFIXES: Final = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Table:
    """A table in memory.

    Attributes:
        table: The columns.
        path: The file, for errors.
        text: Whether the file has no types (CSV, TSV): every column is text, and an empty cell is null.
    """

    table: pa.Table
    path: Path
    text: bool

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self.table.column_names)

    def column(self, name: str, *, what: str) -> Any:
        """A column as it was read.

        Args:
            name: Name of the column.
            what: The config key that names the column, for the error.

        Raises:
            DataError: if there is no such column; the error suggests the nearest name.
        """
        if name not in self.columns:
            raise DataError(f'{self.path}: no column "{name}" ({what}){nearest(name, self.columns)}')
        return self.table.column(name)

    def typed(self, name: str) -> Any:
        """A column with the type of its values: numbers in a text file become numbers."""
        column = self.table.column(name)
        return columns.natural(column) if self.text else column


def table_kind(path: Path) -> tuple[str, bool]:
    """The suffix that says how to read a table, and whether the file is gzipped.

    Raises:
        DataError: for any other suffix.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    gzipped = bool(suffixes) and suffixes[-1] == ".gz"
    suffix = suffixes[-2 if gzipped else -1] if len(suffixes) > gzipped else ""
    if suffix not in SUFFIXES or (gzipped and suffix == ".parquet"):
        raise DataError(f"{path}: unknown kind of table; expected {', '.join(SUFFIXES)}, text also with .gz")
    return suffix, gzipped


def read_table(path: Path) -> Table:
    """Read a whole table.

    Raises:
        DataError: if the file is missing, damaged, of another format, or has no rows or no columns.
    """
    with _reading(path) as suffix:
        if suffix == ".parquet":
            with pq.ParquetFile(path, memory_map=False) as file:  # not mapped: the file may be rewritten while in use
                table = file.read()
            _refuse_repeated_names(table.column_names, path)
        else:
            table = _join(list(_parsed(path, suffix)))
    if not table.num_columns or not table.num_rows:
        raise DataError(f"{path}: the table is empty; expected a row or more")
    return Table(table, path, suffix in (".csv", ".tsv"))


def blocks(
    path: Path,
    *,
    rows: int = 65_536,
    features: Sequence[Feature] = (),
    types: Mapping[str, pa.DataType] | None = None,
) -> Iterator[pa.Table]:
    """Read a table in blocks of rows, in the order of the file, in bounded memory.

    Args:
        path: The table.
        rows: Largest number of rows in a block.
        features: Features whose columns are converted by `FeatureKind.convert`, as in training. A list without a
            separator of its own is split at "|".
        types: Types of other columns, and of numbers. The other columns of a text file get the type of all their
            values; a file larger than one block is read twice for that.

    Raises:
        DataError: if the file is missing, empty, of another format, or has a value that does not convert.
    """
    converted = {feature.name: _with_separator(feature) for feature in features}
    found = False
    start = 0
    with _reading(path) as suffix:
        tables, types = _typed(path, suffix, rows, converted, dict(types or {}))
        for table in tables:
            for first in range(0, table.num_rows, rows):
                found = True
                block = table.slice(first, rows)
                yield pa.table(
                    [
                        _convert(
                            block.column(name),
                            converted.get(name),
                            types.get(name),
                            where=f'{path}: column "{name}"',
                            offset=start + first,
                        )
                        for name in block.column_names
                    ],
                    names=block.column_names,
                )
            start += table.num_rows
    if not found:
        raise DataError(f"{path}: the table is empty; expected a row or more")


def _with_separator(feature: Feature) -> Feature:
    return replace(feature, separator=feature.separator or SEPARATOR) if feature.is_list else feature


def _convert(column: Any, feature: Feature | None, kind: pa.DataType | None, *, where: str, offset: int) -> Any:
    if feature is not None and feature.kind != "number":
        return feature.type.convert(feature, column, where=where, offset=offset)
    if kind is not None:
        return columns.typed_column(column, kind, where=where, offset=offset)
    return column


@contextmanager
def _reading(path: Path) -> Iterator[str]:
    """The suffix of a table; an error of a parser becomes a DataError that names the file."""
    suffix, gzipped = table_kind(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    try:
        yield suffix
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowKeyError, pa.ArrowNotImplementedError, EOFError) as error:
        raise DataError(f"{path}: {_reason(str(error), suffix)}") from error
    except OSError as error:  # pyarrow reports a damaged Parquet or gzip file as an OSError without a number
        if error.errno is not None:
            raise
        if gzipped:
            raise DataError(f"{path}: damaged gzip file ({str(error).splitlines()[0][:200]})") from error
        raise DataError(f"{path}: {_reason(str(error), suffix)}") from error


def _reason(message: str, suffix: str) -> str:
    """What is wrong with a file, from the message of a parser."""
    if "invalid UTF8" in message:
        return "not text in UTF-8; save it as UTF-8"
    if "straddling" in message:
        message = f"a row is longer than {BLOCK_BYTES:,} bytes; is a quotation mark not closed?"
    return f"cannot be read as {suffix[1:]}: {message.strip().splitlines()[0][:200]}"


def _refuse_repeated_names(names: Sequence[str], path: Path) -> None:
    for name in names:
        if names.count(name) > 1:
            raise DataError(f'{path}: there are two columns "{name}"; rename one')


def _parsed(path: Path, suffix: str) -> Iterator[pa.Table]:
    """A text file as tables of some rows: the columns of a CSV as text, those of JSON Lines with the type of their
    values.
    """
    with path.open("rb") as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"{path}: the text is in UTF-16; save it as UTF-8")
    parse = _parse_json_lines if suffix in (".jsonl", ".ndjson") else _parse_csv
    return parse(path, suffix)


def _parse_csv(path: Path, suffix: str) -> Iterator[pa.Table]:
    with pa.input_stream(str(path), compression="detect") as stream:
        first = stream.read(HEADER_BYTES).replace(b"\r", b"\n").split(b"\n", 1)[0].decode("utf-8-sig", errors="replace")
    if not first.strip():
        return
    mark = "\t" if suffix == ".tsv" else max(SEPARATORS, key=first.count)
    names = next(csv.reader([first], delimiter=mark))
    stripped = [name.strip() for name in names]
    _refuse_repeated_names(stripped, path)
    ragged: list[str] = []

    def refuse(row: Any) -> str:
        ragged.append(f"row {row.number - 1} has {row.actual_columns} values, expected {row.expected_columns}")
        return "error"

    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            for batch in pacsv.open_csv(
                stream,
                read_options=pacsv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),  # half the CPU of threads
                parse_options=pacsv.ParseOptions(delimiter=mark, newlines_in_values=True, invalid_row_handler=refuse),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            ):
                yield pa.Table.from_batches([batch]).rename_columns(stripped)
    except pa.ArrowInvalid as error:
        if not ragged:
            raise
        raise pa.ArrowInvalid(ragged[0]) from error


def _parse_json_lines(path: Path, _suffix: str) -> Iterator[pa.Table]:
    """JSON Lines by the standard library: pyarrow's reader refuses a key that first appears in a later block."""
    number = 0
    with pa.input_stream(str(path), compression="detect") as stream:
        for lines in _line_blocks(stream):
            records = _records(lines, number)
            number += len(lines)
            if records:
                names = list(dict.fromkeys(chain.from_iterable(records)))
                yield pa.table([_array([record.get(name) for record in records], name) for name in names], names=names)


def _line_blocks(stream: Any) -> Iterator[list[bytes]]:
    rest = b""
    chunk = stream.read(BLOCK_BYTES)
    while chunk:
        following = stream.read(BLOCK_BYTES)
        *lines, rest = (rest + chunk).split(b"\n")
        yield lines if following else [*lines, rest]
        chunk = following


def _records(lines: Sequence[bytes], before: int) -> list[dict[str, Any]]:
    """The objects of some lines; blank lines are left out. before: lines of the file before these."""
    filled = [line for line in lines if line and not line.isspace()]
    data = b"[" + b",".join(filled) + b"]"  # one call for all lines is twice as fast as one for each
    try:
        records = json.loads(data)
        if len(records) == len(filled) and all(type(record) is dict for record in records) and b"\\u" not in data:
            return list(records)
    except (ValueError, RecursionError):
        pass  # the loop says which line it is
    records = []
    for number, line in enumerate(lines, start=before + 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            json.dumps(record, ensure_ascii=False).encode()
        except UnicodeDecodeError as error:
            raise pa.ArrowInvalid("invalid UTF8") from error
        except UnicodeEncodeError as error:
            raise pa.ArrowInvalid(f"line {number} contains a lone surrogate; it is not valid Unicode") from error
        except (ValueError, RecursionError) as error:
            raise pa.ArrowInvalid(f"line {number}: {error}") from error
        if not isinstance(record, dict):
            raise pa.ArrowInvalid(f"line {number}: expected an object, found {_json_name(record)}")
        records.append(record)
    return records


def _json_name(value: Any) -> str:
    names = {list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _array(values: list[Any], name: str) -> Any:
    """A column of JSON values; text where they are of different kinds."""
    try:
        try:
            mixed = {type(value) for value in values} - {type(None)} == {int, float}
            return pa.array(values, pa.float64() if mixed else None)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            if any(isinstance(value, list) for value in values):
                return pa.array([_text_list(value) for value in values], pa.list_(pa.string()))
            return pa.array([None if value is None else text_of(value) for value in values], pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, TypeError) as error:
        raise pa.ArrowInvalid(f'column "{name}": {error}') from error


def _text_list(value: Any) -> list[str | None] | None:
    """A list of text; a single value is a list of one."""
    if value is None:
        return None
    return [None if part is None else text_of(part) for part in (value if isinstance(value, list) else [value])]


def _join(tables: Sequence[pa.Table]) -> pa.Table:
    """The tables of one file as one, with the types that hold the values of all of them."""
    schema = _common_types(table.schema for table in tables)
    return pa.concat_tables([_conform(table, schema) for table in tables]) if tables else pa.table({})


def _common_types(schemas: Iterable[pa.Schema]) -> dict[str, pa.DataType]:
    types: dict[str, pa.DataType] = {}
    for schema in schemas:
        for field in schema:
            types[field.name] = _common_type(types.get(field.name, field.type), field.type)
    return types


def _common_type(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    """The narrowest type that holds the values of both."""
    if left == right:
        return left
    if is_list(left) != is_list(right) and not (pa.types.is_null(left) or pa.types.is_null(right)):
        return pa.list_(pa.string())
    try:
        both = [pa.schema([("column", kind)]) for kind in (left, right)]
        return pa.unify_schemas(both, promote_options="permissive").field(0).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.list_(pa.string()) if is_list(left) else pa.string()


def _conform(table: pa.Table, types: Mapping[str, pa.DataType]) -> pa.Table:
    """A table with the columns and types of `types`; a column that it does not have is null."""
    names = set(table.column_names)
    found = [
        _as_type(table.column(name), kind, name) if name in names else pa.nulls(table.num_rows, kind)
        for name, kind in types.items()
    ]
    return pa.table(found, names=list(types))


def _as_type(column: Any, kind: pa.DataType, name: str) -> Any:
    if column.type == kind or pa.types.is_null(column.type):
        return column.cast(kind)
    try:
        if is_text(kind):
            return texts(column)
        if is_list(kind) and is_text(kind.value_type):
            return pa.array([_text_list(value) for value in column.to_pylist()], kind)
    except TypeError as error:
        raise pa.ArrowInvalid(f'column "{name}": {error}') from error
    return column.cast(kind, safe=False)  # whole numbers to floats; JSON does not tell them apart


def _typed(
    path: Path, suffix: str, rows: int, features: Mapping[str, Feature], types: dict[str, pa.DataType]
) -> tuple[Iterable[pa.Table], dict[str, pa.DataType]]:
    """The parts of a table, and the types that their columns are converted to.

    types: those that are given; the type of a number feature, and of another column of a CSV, is that of its values.
    """
    csv_file = suffix in (".csv", ".tsv")
    found: dict[str, pa.DataType] = {}
    if suffix == ".parquet":
        tables: Iterable[pa.Table] = _parquet_blocks(path, rows)
        found = {field.name: field.type for field in pq.read_schema(path)}
    else:
        parsed = _parsed(path, suffix)
        start = list(islice(parsed, 2))
        if csv_file:
            given = {*types, *(name for name, feature in features.items() if feature.kind != "number")}
            names = [name for table in start[:1] for name in table.column_names if name not in given]
            if names:
                found = _common_types(_natural_schema(table, names) for table in chain(start, parsed))
        tables = start if len(start) < 2 else _parsed(path, suffix)
        if not csv_file:
            found = _common_types(table.schema for table in chain(start, parsed))
            tables = map(partial(_conform, types=dict(found)), tables)
    for name, feature in features.items():
        if feature.kind == "number" and not pa.types.is_integer(found.get(name, pa.null())):
            found[name] = pa.float64()
    used = found if csv_file else {name: kind for name, kind in found.items() if name in features}
    return tables, {**used, **types}


def _natural_schema(table: pa.Table, names: Sequence[str]) -> pa.Schema:
    return pa.schema([(name, columns.natural_type(table.column(name))) for name in names])


def _parquet_blocks(path: Path, rows: int) -> Iterator[pa.Table]:
    with pq.ParquetFile(path, memory_map=True) as file:
        _refuse_repeated_names(file.schema_arrow.names, path)
        for batch in file.iter_batches(batch_size=rows):
            yield pa.Table.from_batches([batch])
