"""`bench`: latency and throughput of a bundle on this machine."""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from retrieval.common.text_table import json_line, text_table
from retrieval.retriever import Query, Retriever

ROUNDS: Final = 7  # passes over all queries
QUERIES: Final = 200
BATCH: Final = 64  # queries in a batch
SEED: Final = 0


def sample_queries(retriever: Retriever, *, count: int, length: int = 20) -> list[Query]:
    """Queries with random histories, drawn from the catalogue."""
    random = np.random.default_rng(SEED)
    catalog = retriever.catalog
    rows = np.setdiff1d(np.arange(catalog.height), catalog.removed)
    return [
        Query(history=[catalog.id(row) for row in random.choice(rows, min(length, len(rows)), replace=False).tolist()])
        for _ in range(count if len(rows) else 0)
    ]


def measure(retriever: Retriever, *, k: int) -> list[dict[str, Any]]:
    """Time the user tower, the search and the whole query, one at a time and in batches.

    Returns:
        A row for each part and batch size: p50 and p99 in ms for a call, and queries per second.
    """
    queries = sample_queries(retriever, count=QUERIES)
    history = retriever.user_tower.schema.history
    records = [{} if history is None else {history.name: list(query.history or ())} for query in queries]
    vectors = retriever.user_tower.embed(records)
    parts: dict[str, Callable[[slice], object]] = {
        "user tower": lambda part: retriever.user_tower.embed(records[part]),
        "search": lambda part: retriever.index.search(vectors[part], k=k),
        "whole query": lambda part: retriever.query(queries[part], k=k),
    }
    return [
        {"part": name, "batch": size, **_timed(work, len(queries), size)}
        for size in (1, BATCH)
        for name, work in parts.items()
    ]


def _timed(work: Callable[[slice], object], count: int, size: int) -> dict[str, float]:
    """Quantiles over calls, and the median throughput of the rounds."""
    calls: list[float] = []
    rates: list[float] = []
    for _ in range(ROUNDS):
        taken = []
        for start in range(0, count, size):
            started = time.perf_counter()
            work(slice(start, start + size))
            taken.append(time.perf_counter() - started)
        calls += taken
        rates.append(count / sum(taken))
    p50, p99 = np.quantile(calls, [0.5, 0.99]) * 1e3
    return {"p50_ms": round(float(p50), 4), "p99_ms": round(float(p99), 4), "per_s": round(statistics.median(rates))}


def describe(rows: Sequence[dict[str, Any]]) -> str:
    names = list(rows[0])
    return text_table(names, [[row[name] for name in names] for row in rows])


@click.command(epilog="Example: twotower bench artifacts/demo")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("-k", "k", type=click.IntRange(min=1), default=10, show_default=True, help="Number of items.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of the user tower.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def bench(folder: Path, k: int, threads: int, as_json: bool) -> None:
    """Measure latency and throughput of the user tower, the search and the whole query on this machine."""
    started = time.perf_counter()
    with Retriever.open(folder, threads=threads) as retriever:
        opened = time.perf_counter() - started
        if retriever.index.count == 0:
            raise click.UsageError(f"{folder}: the index is empty, since every item was removed")
        k = min(k, retriever.index.count)
        rows = measure(retriever, k=k)
        facts = {"items": retriever.index.count, "kind": retriever.index.spec.name, "open_ms": round(opened * 1e3, 2)}
    if as_json:
        click.echo(json_line({**facts, "k": k, "threads": threads, "parts": rows}))
        return
    click.echo(f"{folder}: {facts['items']:,} items ({facts['kind']}), opened in {facts['open_ms']:g} ms")
    click.echo(describe(rows))
