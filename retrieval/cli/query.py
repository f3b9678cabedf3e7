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
BATCH: Final = 256  # queries answered together

_Command = Callable[..., None]


def _shared(command: _Command) -> _Command:
    """Add the options that `query` and `similar` share."""
    for option in reversed(
        [
            click.option("-k", "k", type=click.IntRange(min=1), default=10, show_default=True, help="Number of items."),
            click.option(
                "--where",
                metavar="EXPR",
                help="Filter on item columns, such as \"year >= 1990 AND 'Comedy' IN genres\".",
            ),
            click.option("--exclude", metavar="ID,ID", default="", help="Item ids to exclude."),
            click.option(
                "--diversity",
                type=click.FloatRange(0, 1),
                default=0.0,
                metavar="LAMBDA",
                help="Weight of diversity (maximal marginal relevance), 0 to 1.",
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
@click.option("--user", metavar="ID", help="Id of a user of the data; its features and history are used.")
@click.option("--history", metavar="ID,ID", help="Item ids of the user's history, oldest first.")
@click.option(
    "--features", metavar="JSON", help='Features of the user as JSON, such as {"age": 30}; others are missing.'
)
@click.option("--input", "source", metavar="FILE", help="File of users as JSON Lines (or .jsonl.gz); - is stdin.")
@click.option("--include-seen", is_flag=True, help="Recommend items of the history too.")
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
    """Recommend the top k items to users, known or new."""
    if source is None and user is None and history is None and features is None:
        raise click.UsageError("name the user with --user, --history, --features or --input")
    if source is not None and not (user is None and history is None and features is None):
        raise click.UsageError("--input cannot be combined with --user, --history or --features")
    with Retriever.open(folder) as retriever:
        batches = iter([[_query(user, history, features)]]) if source is None else _batches(source)
        printer = _Printer(form, many=source is not None)
        for queries in batches:
            answers = retriever.answer(
                queries, k=k, where=where, exclude=_ids(exclude), include_seen=include_seen, diversity=diversity
            )
            for answer in answers:
                for text in answer.notes:
                    note(text)
                printer.answer(answer)
        printer.close()


@click.command(epilog="Example: twotower similar artifacts/demo 50 -k 5")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.argument("item", metavar="ITEM")
@_shared
def similar(
    folder: Path, item: str, k: int, where: str | None, exclude: str, diversity: float, form: str | None
) -> None:
    """Find the items most similar to an item, by their embeddings."""
    with Retriever.open(folder) as retriever:
        hits = retriever.similar(item, k=k, where=where, exclude=_ids(exclude), diversity=diversity)
        printer = _Printer(form, many=False)
        printer.similar(item, hits)
        printer.close()


@click.command(epilog="Example: twotower embed artifacts/demo --tower item --input items.parquet -o items.npy")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--tower", "side", type=click.Choice(["user", "item"]), required=True, help="Tower to use.")
@click.option("--input", "source", type=FOLDER, required=True, help="Table: Parquet, CSV, TSV or JSON Lines.")
@click.option("-o", "--output", type=FOLDER, required=True, help="Output file: .npy, .parquet or .jsonl.")
def embed(folder: Path, side: str, source: Path, output: Path) -> None:
    """Embed the rows of a table with one of the towers. The table is read in blocks, so it can have any size."""
    from retrieval.towers.embed_table import embed_file

    count = embed_file(folder, side="user" if side == "user" else "item", source=source, output=output)
    note(f"{output}: {count:,} embeddings")


def _ids(text: str) -> list[str]:
    """Comma-separated ids; spaces around them are ignored."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _query(user: str | None, history: str | None, features: str | None) -> Query:
    given: Any = {}
    if features is not None:
        try:
            given = json.loads(features)
        except ValueError as error:
            raise click.UsageError(f"--features is not JSON ({error})") from error
        if not isinstance(given, dict):
            raise click.UsageError('--features is not a JSON object like {"age": 30}')
    return Query(user=user, history=None if history is None else _ids(history), features=given)


def _batches(source: str) -> Iterator[list[Query]]:
    """Batches of queries from a JSON Lines file. Raises QueryError that names the line."""
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
        if len(queries) == BATCH:
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
                raise DataError(f"{source}: no such file")
            unpack = gzip.open if source.endswith(".gz") else open
            with unpack(source, "rt", encoding="utf-8-sig") as file:
                yield from file
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not UTF-8 ({error.reason} at byte {error.start})") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{source}: damaged gzip file ({error})") from error


class _Printer:
    """Prints answers in one format: JSON line by line, CSV under one header, or a table for each answer."""

    def __init__(self, form: str | None, *, many: bool) -> None:
        self._form = form or ("table" if sys.stdout.isatty() else "json")
        self._many = many
        self._header: list[str] | None = None
        self._count = 0

    def answer(self, answer: Answer) -> None:
        self._count += 1
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
            if self._count > 1:
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
