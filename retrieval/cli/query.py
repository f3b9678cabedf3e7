"""`query`, `similar` and `embed`: parse, call one function, print."""

import gzip
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click

from retrieval.cli.hit_table import csv_rows, table
from retrieval.common.console import note
from retrieval.common.errors import DataError, QueryError
from retrieval.common.text_table import FORMATS, csv_lines, json_line
from retrieval.retriever import Answer, Hit, Query, Retriever

FOLDER: Final = click.Path(path_type=Path)
AT_ONCE: Final = 256  # queries answered together

_Command = Callable[..., None]


def _shared(command: _Command) -> _Command:
    """Options that `query` and `similar` share."""
    for option in reversed(
        [
            click.option("-k", "k", type=click.IntRange(min=1), default=10, show_default=True, help="How many items."),
            click.option(
                "--where",
                metavar="EXPR",
                help="A filter on item columns, such as \"year >= 1990 AND 'Comedy' IN genres\".",
            ),
            click.option("--exclude", metavar="ID,ID", default="", help="Ids of items to leave out."),
            click.option(
                "--diversity",
                type=click.FloatRange(0, 1),
                default=0.0,
                metavar="LAMBDA",
                help="0 by score alone .. 1 by difference alone (maximal marginal relevance).",
            ),
            click.option(
                "--format", "form", type=click.Choice(FORMATS), help="Default: table on a terminal, else json."
            ),
        ]
    ):
        command = option(command)
    return command


@click.command(epilog='Example: twotower query artifacts/demo --history 50,181,172 -k 5 --where "year >= 1990"')
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--user", metavar="ID", help="A user of the data, with its features and history.")
@click.option("--history", metavar="ID,ID", help="Ids of the user's own items, oldest first.")
@click.option(
    "--features", metavar="JSON", help='Features of the user as JSON, such as {"age": 30}; what is left out is missing.'
)
@click.option("--input", "source", metavar="FILE", help="Users as JSON Lines (also .gz); - is stdin.")
@click.option("--include-seen", is_flag=True, help="Items of the history may come back too.")
@_shared
def query(
    folder: Path,
    user: str | None,
    history: str | None,
    features: str | None,
    source: str | None,
    include_seen: bool,
    k: int,
    where: str | None,
    exclude: str,
    diversity: float,
    form: str | None,
) -> None:
    """Find the top k items for users, known or new."""
    if source is None and user is None and history is None and features is None:
        raise click.UsageError("say who asks: --user, --history, --features or --input")
    if source is not None and not (user is None and history is None and features is None):
        raise click.UsageError("--input brings its own users; leave out --user, --history and --features")
    with Retriever.open(folder) as retriever:
        batches = iter([[_query(user, history, features)]]) if source is None else _batches(source)
        printer = _Printer(form, many=source is not None)
        for queries in batches:
            answers = retriever.answer(
                queries, k=k, where=where, exclude=_ids(exclude), include_seen=include_seen, diversity=diversity
            )
            for answer in answers:
                for told in answer.notes:
                    note(told)
                printer.answer(answer)
        printer.close()


@click.command(epilog="Example: twotower similar artifacts/demo 50 -k 5")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.argument("item", metavar="ITEM")
@_shared
def similar(
    folder: Path, item: str, k: int, where: str | None, exclude: str, diversity: float, form: str | None
) -> None:
    """Find the items nearest to an item, by their vectors."""
    with Retriever.open(folder) as retriever:
        hits = retriever.similar(item, k=k, where=where, exclude=_ids(exclude), diversity=diversity)
        printer = _Printer(form, many=False)
        printer.similar(item, hits)
        printer.close()


@click.command(epilog="Example: twotower embed artifacts/demo --tower item --input items.parquet -o items.npy")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--tower", "side", type=click.Choice(["user", "item"]), required=True, help="Which tower.")
@click.option("--input", "source", type=FOLDER, required=True, help="A table: Parquet, CSV, TSV or JSON Lines.")
@click.option("-o", "--output", type=FOLDER, required=True, help="A .npy, .parquet or .jsonl file.")
def embed(folder: Path, side: str, source: Path, output: Path) -> None:
    """Write the vectors of a table's rows, from one of the towers. Any size: it is read a block at a time."""
    from retrieval.towers.embed_table import embed_file

    count = embed_file(folder, side="user" if side == "user" else "item", source=source, output=output)
    note(f"{output}: {count:,} vectors")


def _ids(text: str) -> list[str]:
    """Ids between commas; spaces around them do not count."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _query(user: str | None, history: str | None, features: str | None) -> Query:
    given: Any = {}
    if features is not None:
        try:
            given = json.loads(features)
        except ValueError as error:
            raise click.UsageError(f"--features is not JSON ({error})") from error
        if not isinstance(given, dict):
            raise click.UsageError('--features is not an object like {"age": 30}')
    return Query(user=user, history=None if history is None else _ids(history), features=given)


def _batches(source: str) -> Iterator[list[Query]]:
    """Queries of a JSON Lines file, some at a time, in order. Raises QueryError that names the line."""
    queries: list[Query] = []
    for number, line in enumerate(_lines(source), start=1):
        if not line.strip():
            continue
        try:
            queries.append(Query.of(json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise QueryError(f"{source}, line {number}: not JSON ({error})") from error
        except QueryError as error:
            raise QueryError(f"{source}, line {number}: {error}") from error
        if len(queries) == AT_ONCE:
            yield queries
            queries = []
    if queries:
        yield queries


def _lines(source: str) -> Iterator[str]:
    try:
        if source == "-":
            for line in sys.stdin.buffer:
                yield line.decode("utf-8-sig")
        else:
            if not Path(source).exists() or Path(source).is_dir():  # a pipe is fine
                raise DataError(f"{source}: there is no such file")
            unpack = gzip.open if source.endswith(".gz") else open
            with unpack(source, "rt", encoding="utf-8-sig") as file:
                yield from file
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: is not UTF-8 ({error.reason} at byte {error.start})") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{source}: is damaged, not gzip ({error})") from error


class _Printer:
    """Answers to stdout in one format: JSON as they come, CSV with one header, a table each."""

    def __init__(self, form: str | None, *, many: bool) -> None:
        self._form = form or ("table" if sys.stdout.isatty() else "json")
        self._many = many
        self._header: list[str] | None = None
        self._asked = 0

    def answer(self, answer: Answer) -> None:
        self._asked += 1
        if self._form == "json":
            click.echo(json_line(answer.to_json()))
            return
        self._rows(answer.hits, (answer.user or "") if self._many else None)

    def similar(self, item: str, hits: list[Hit]) -> None:
        if self._form == "json":
            click.echo(json_line({"item": item, "hits": [hit.to_json() for hit in hits]}))
            return
        self._rows(hits, None)

    def _rows(self, hits: list[Hit], user: str | None) -> None:
        if self._form == "table":
            if self._asked > 1:
                click.echo()
            click.echo(table(hits, user=user))
            return
        header, rows = csv_rows(hits, user=user)
        if not hits:
            return
        if self._header is None:
            self._header = header
            click.echo(csv_lines(header, []), nl=False)
        known = {name: at for at, name in enumerate(header)}
        aligned = [[row[known[name]] if name in known else None for name in self._header] for row in rows]
        click.echo("".join(csv_lines([], aligned).splitlines(keepends=True)[1:]), nl=False)

    def close(self) -> None:
        if self._form == "csv" and self._header is None:
            click.echo(csv_lines(["rank", "id", "score"], []), nl=False)
        sys.stdout.flush()
