"""What `evaluate` prints: the model beside its baselines, the verdict, and a warning where it is behind."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from retrieval.common.console import note
from retrieval.evaluation.cold_items import cold_line
from retrieval.evaluation.cold_users import features_line
from retrieval.evaluation.metric_table import MODEL, main_k
from retrieval.evaluation.rating import rating_table


def table(result: Mapping[str, Any], *, width: int | None = None) -> str:
    """The model and its baselines as aligned text, the best of each column marked.

    width: of the screen; what does not fit is left out, NDCG at other k than the main one first.
    """
    ks = result["k"]
    main = main_k(ks)
    columns = [f"{name}@{k}" for name in ("recall", "ndcg") for k in ks] + [f"mrr@{main}", f"coverage@{main}"]
    rows = {MODEL: result["metrics"], **result["baselines"]}
    first = max(map(len, rows))
    spare = [f"ndcg@{k}" for k in ks if k != main] + [f"recall@{k}" for k in ks if k != main]
    while width is not None and spare and first + sum(map(_room, columns)) > width:
        columns.remove(spare.pop(0))
    best = {column: max(values[column] for values in rows.values()) for column in columns}
    lines = [" " * first + "".join(f"{column:>{_room(column)}}" for column in columns)]
    for name, values in rows.items():
        cells = (
            f"{values[column]:.4f}{'*' if values[column] == best[column] and len(rows) > 1 else ' '}"
            for column in columns
        )
        lines.append(
            f"{name:<{first}}"
            + "".join(f"{cell:>{_room(column)}}" for column, cell in zip(columns, cells, strict=True))
        )
    return "\n".join(line.rstrip() for line in lines)


def _room(column: str) -> int:
    """The width of a column: its title or a number with a mark, and two spaces."""
    return max(len(column), 7) + 2


def show(result: Mapping[str, Any], *, path: Path) -> None:
    """Print the table and the verdict; warn where the model is behind."""
    split, index = result["split"], result["index"]
    click.echo(
        f"{result['users']:,} users, {result['items']:,} items, split {split['kind']}, on {split['stage']}; "
        f"index {index['kind']}, recall@10 against exact {index['recall@10_vs_exact']:.4f}\n"
    )
    click.echo(table(result, width=shutil.get_terminal_size((100, 24)).columns))
    if "rating" in result:
        click.echo(f"\n{rating_table(result['rating'])}")
    if "cold_items" in result:
        click.echo(f"\n{cold_line(result['cold_items'])}")
    if "features_only" in result:
        click.echo(f"\n{features_line(result['features_only'])}")
    click.echo(f"\n{result['verdict']['sentence']}")
    for name, reason in result["baselines_left_out"].items():
        note(f"left out {name}: {reason}")
    if result["verdict"]["behind"]:
        note(f"Warning: the model is behind {result['verdict']['best_baseline']}. What to try:")
        for entry in result["verdict"]["advice"]:
            note(f"  - {entry}")
    note(f"Report: {path / 'report.html'}")
