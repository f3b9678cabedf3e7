"""Tables from disk, a block at a time: Parquet, CSV, TSV, JSON Lines, told by suffix; .gz too for text."""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from retrieval.common.errors import DataError
from retrieval.features.kinds import text_of

BLOCK_BYTES: Final = 4 << 20  # text read at a time; a row larger than this does not parse
HEADER_BYTES: Final = 1 << 16
SEPARATORS: Final = (",", ";", "\t", "|")  # of two that are as frequent the first
MISSING: Final = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")
KINDS: Final = {"int64": "a whole number", "double": "a number", "float": "a number", "bool": "true or false"}
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

    types: column -> type, for text files, where the first block would otherwise decide. A column of type string takes
        numbers too, as the text they are: 1, 1.0 and "1" are one id.
    The separator of a CSV is the most frequent of , ; tab and | in its first line; spaces around a name do not count.
    Raises DataError that names the file: it is not there, empty, of another suffix, or does not parse.
    """
    suffix, _ = table_kind(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    found = False
    try:
        for batch in _batches(path, suffix, rows, dict(types or {})):
            names = batch.schema.names
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise DataError(f'{path}: there are two columns "{twice}"; rename one')
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
    if suffix in (".csv", ".tsv"):
        yield from _csv_batches(path, suffix, types)
        return
    with pa.input_stream(str(path), compression="detect") as stream:
        yield from _json_batches(stream, rows, types)


def _csv_batches(path: Path, suffix: str, types: dict[str, pa.DataType]) -> Iterator[Any]:
    import pyarrow.csv as pacsv

    with pa.input_stream(str(path), compression="detect") as stream:
        first = stream.read(HEADER_BYTES).split(b"\n", 1)[0].decode("utf-8-sig", errors="replace").rstrip("\r")
    mark = "\t" if suffix == ".tsv" else max(SEPARATORS, key=first.count)
    names = next(csv.reader([first], delimiter=mark), [])
    told = {name: types[name.strip()] for name in names if name.strip() in types}
    whole = {name: kind for name, kind in told.items() if pa.types.is_integer(kind)}
    told |= dict.fromkeys(whole, pa.string())
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            for batch in pacsv.open_csv(
                stream,
                read_options=pacsv.ReadOptions(block_size=BLOCK_BYTES),
                parse_options=pacsv.ParseOptions(delimiter=mark, newlines_in_values=True),
                convert_options=pacsv.ConvertOptions(column_types=told),
            ):
                columns = [
                    _whole(column, whole[name], name=name) if name in whole else column
                    for name, column in zip(batch.schema.names, batch.columns, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(columns, [name.strip() for name in batch.schema.names])
    except pa.ArrowInvalid as error:
        raise pa.ArrowInvalid(_placed(str(error), names)) from error


def _whole(column: Any, kind: pa.DataType, *, name: str) -> Any:
    """Text as integers: 1990.0 too, as a spreadsheet or pandas writes whole numbers where some are missing."""
    bare = pc.utf8_trim_whitespace(column)
    known = pc.if_else(pc.is_in(bare, value_set=pa.array(MISSING)), None, bare)
    try:
        return known.cast(kind)
    except pa.ArrowInvalid:
        known = pc.replace_substring_regex(known, r"\.0*$", "")
    try:
        return known.cast(kind)
    except pa.ArrowInvalid as error:
        value = re.search(r"'(.*)'", str(error))
        told = f"invalid value '{value[1]}'" if value else str(error)
        raise pa.ArrowInvalid(f'column "{name}": {told}, expected a whole number') from error


def _placed(message: str, names: list[str]) -> str:
    """What pyarrow says of a value, with the name of the column in place of its number."""
    found = re.match(r"In CSV column #(\d+): (?:Row #(\d+): )?CSV conversion error to (\w+): (.*)", message)
    if found is None or int(found[1]) >= len(names):
        return message
    row = f", line {found[2]}" if found[2] else ""
    return f'column "{names[int(found[1])]}"{row}: {found[4]}, expected {KINDS.get(found[3], found[3])}'


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
        try:
            return pa.array(values, kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            if kind is not None and not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise
            return _text_array(values)  # numbers among text, or in its place
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, TypeError) as error:
        raise pa.ArrowInvalid(f'column "{name}": {error}') from error


def _text_array(values: list[Any]) -> Any:
    """Text, or lists of it. Raises TypeError for what is neither."""
    if any(isinstance(value, list) for value in values):
        return pa.array([_texts(value) for value in values], pa.list_(pa.string()))
    return pa.array([None if value is None else text_of(value) for value in values], pa.string())


def _texts(value: Any) -> list[str | None] | None:
    """A list of text; a single value stands for a list of one."""
    if value is None:
        return None
    return [None if part is None else text_of(part) for part in (value if isinstance(value, list) else [value])]
