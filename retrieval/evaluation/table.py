"""What `evaluate` prints: the metrics of the model and its baselines, the verdict and suggestions."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from retrieval.common.console import note
from retrieval.common.text_table import display_width, text_table
from retrieval.evaluation.cold_items import cold_line
from retrieval.evaluation.cold_users import features_line
from retrieval.evaluation.metric_table import MODEL, main_k
from retrieval.evaluation.rating import rating_table

STAGES: Final = {"valid": "validation", "test": "test"}


def metrics_table(result: Mapping[str, Any], *, width: int | None = None) -> str:
    """Metrics of the model and its baselines as an aligned table; a star marks the best of each column.

    Args:
        result: What `evaluate --json` prints.
        width: Width of the terminal; columns of other k than the main one are left out to fit, NDCG first.
    """
    ks = result["k"]
    main = main_k(ks)
    columns = [f"{name}@{k}" for name in ("recall", "ndcg") for k in ks] + [f"mrr@{main}", f"coverage@{main}"]
    spare = [f"ndcg@{k}" for k in ks if k != main] + [f"recall@{k}" for k in ks if k != main]
    table = _render(result, columns)
    while width is not None and spare and max(map(display_width, table.splitlines())) > width:
        columns.remove(spare.pop(0))
        table = _render(result, columns)
    return table


def _render(result: Mapping[str, Any], columns: list[str]) -> str:
    rows = {MODEL: result["metrics"], **result["baselines"]}
    best = {column: max(values[column] for values in rows.values()) for column in columns}
    cells = [
        [name]
        + [
            f"{values[column]:.4f}{'*' if values[column] == best[column] and len(rows) > 1 else ' '}"
            for column in columns
        ]
        for name, values in rows.items()
    ]
    return text_table(["", *(f"{column} " for column in columns)], cells, right=[False] + [True] * len(columns))


def index_line(index: Mapping[str, Any]) -> str:
    """The kind of the index and what it misses."""
    if index["kind"] == "flat":
        return "FAISS index: exact (flat)"
    return f"FAISS index: {index['kind']}, recall@10 {index['recall@10_vs_exact']:.4f} of exact search"


def show(result: Mapping[str, Any], *, path: Path) -> None:
    """Print the metrics and the verdict; notes on stderr say what to try where the model is behind."""
    split, verdict = result["split"], result["verdict"]
    stage = STAGES.get(split["stage"], split["stage"])
    click.echo(
        f"{result['users']:,} {stage} users, {result['items']:,} items, split {split['kind']}; "
        f"{index_line(result['index'])}\n"
    )
    click.echo(metrics_table(result, width=shutil.get_terminal_size((100, 24)).columns))
    if "rating" in result:
        click.echo(f"\n{rating_table(result['rating'])}")
    if "cold_items" in result:
        click.echo(f"\n{cold_line(result['cold_items'])}")
    if "features_only" in result:
        click.echo(f"\n{features_line(result['features_only'])}")
    click.echo(f"\n{verdict['sentence']}")
    for name, reason in result["baselines_left_out"].items():
        note(f"baseline {name} was skipped: {reason}")
    if verdict["behind"]:
        note(f"Warning: a baseline, {verdict['best_baseline']}, beats the model. What to try:")
        for entry in verdict["advice"]:
            note(f"  - {entry}")
    note(f"Report: {path / 'report.html'}")
