"""Tables from disk, a block at a time: Parquet, CSV, TSV, JSON Lines, told by suffix; .gz too for text."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from retrieval.errors import DataError

BLOCK_BYTES: Final = 4 << 20  # text read at a time; a row larger than this does not parse
SUFFIXES: Final = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")


def table_kind(path: Path) -> tuple[str, bool]:
    """The suffix that tells how to read a table, and whether it is gzipped. Raises DataError for another suffix."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    gzipped = bool(suffixes) and suffixes[-1] == ".gz"
    suffix = suffixes[-2 if gzipped else -1] if len(suffixes) > gzipped else ""
    if suffix not in SUFFIXES or (gzipped and suffix == ".parquet"):
        raise DataError(f"{path}: not a table by its suffix; expected {', '.join(SUFFIXES)}, or .gz of a text one")
    return suffix, gzipped


def blocks(path: Path, *, rows: int = 65_536, types: Mapping[str, pa.DataType] | None = None) -> Iterator[pa.Table]:
    """Read a table in blocks of at most `rows` rows, in file order.

    types: column -> type, for text files, where the first block would otherwise decide.
    Raises DataError that names the file: it is not there, empty, of another suffix, or does not parse.
    """
    suffix, _ = table_kind(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    found = False
    try:
        for batch in _batches(path, suffix, rows, dict(types or {})):
            for start in range(0, batch.num_rows, rows):
                found = True
                yield pa.Table.from_batches([batch.slice(start, rows)])
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowKeyError, pa.ArrowNotImplementedError, EOFError) as error:
        raise DataError(f"{path}: does not read as {suffix[1:]} ({str(error).splitlines()[0][:200]})") from error
    except OSError as error:  # pyarrow reports a damaged Parquet or gzip file as an OSError without a number
        if error.errno is not None:
            raise
        raise DataError(f"{path}: does not read as {suffix[1:]} ({str(error).splitlines()[0][:200]})") from error
    if not found:
        raise DataError(f"{path}: the table has no rows")


def _batches(path: Path, suffix: str, rows: int, types: dict[str, pa.DataType]) -> Iterator[Any]:
    if suffix == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(path, memory_map=True) as file:
            yield from file.iter_batches(batch_size=rows)
        return
    with pa.input_stream(str(path), compression="detect") as stream:
        if suffix in (".csv", ".tsv"):
            import pyarrow.csv as pacsv

            yield from pacsv.open_csv(
                stream,
                read_options=pacsv.ReadOptions(block_size=BLOCK_BYTES),
                parse_options=pacsv.ParseOptions(delimiter="\t" if suffix == ".tsv" else ",", newlines_in_values=True),
                convert_options=pacsv.ConvertOptions(column_types=types),
            )
        else:
            yield from _json_batches(stream, rows, types)


def _json_batches(stream: Any, rows: int, types: dict[str, pa.DataType]) -> Iterator[Any]:
    """JSON Lines by the standard library: pyarrow's reader refuses a key that first appears in a later block."""
    records: list[dict[str, Any]] = []
    number = 0
    for line in _lines(stream):
        number += 1
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise pa.ArrowInvalid(f"line {number}: {error}") from error
        if not isinstance(record, dict):
            raise pa.ArrowInvalid(f"line {number}: expected an object, found {type(record).__name__}")
        records.append(record)
        if len(records) == rows:
            yield _record_batch(records, types)
            records = []
    if records:
        yield _record_batch(records, types)


def _lines(stream: Any) -> Iterator[bytes]:
    rest = b""
    while chunk := stream.read(BLOCK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _record_batch(records: list[dict[str, Any]], types: dict[str, pa.DataType]) -> Any:
    names = list(dict.fromkeys(name for record in records for name in record))
    return pa.RecordBatch.from_arrays([_array(records, name, types.get(name)) for name in names], names)


def _array(records: list[dict[str, Any]], name: str, kind: pa.DataType | None) -> Any:
    values = [record.get(name) for record in records]
    try:
        if kind is not None and pa.types.is_temporal(kind) and any(isinstance(value, str) for value in values):
            return pa.array(values, pa.string()).cast(kind)  # JSON writes dates as text
        return pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        raise pa.ArrowInvalid(f'column "{name}": {error}') from error
