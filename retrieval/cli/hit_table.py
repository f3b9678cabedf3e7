"""Hits as tables and CSV rows, for `query` and `similar`."""

import shutil
from collections.abc import Sequence
from typing import Any, Final

from retrieval.common.text_table import text_table
from retrieval.retriever import Hit

DEFAULT_WIDTH: Final = 120  # where the terminal has no known width


def table(hits: Sequence[Hit], *, user: str | None = None) -> str:
    """Hits as an aligned table, as wide as the terminal; `user` is shown in a first column."""
    lead = [] if user is None else [("user", user)]
    header, rows = _rows(hits, lead, rounded=False)
    return text_table(header, rows, width=shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns)


def csv_rows(hits: Sequence[Hit], *, user: str | None = None) -> tuple[list[str], list[list[Any]]]:
    """A header and a row for each hit, with numbers as in JSON."""
    return _rows(hits, [] if user is None else [("user", user)], rounded=True)


def _rows(hits: Sequence[Hit], lead: list[tuple[str, str]], *, rounded: bool) -> tuple[list[str], list[list[Any]]]:
    records = [hit.item for hit in hits]
    names = list(dict.fromkeys(name for record in records for name in record))
    is_rating = bool(hits) and hits[0].predicted is not None
    score_name = "rating" if is_rating else "score"
    header = [name for name, _ in lead]
    header += ["rank", "id", score_name, *names] if rounded else ["#", score_name, "id", *names]
    rows = []
    for rank, (hit, record) in enumerate(zip(hits, records, strict=True), start=1):
        score = hit.score if hit.predicted is None else hit.predicted
        shown: list[Any] = [*(value for _, value in lead), rank]
        if rounded:
            shown += [hit.id, round(score, 6)]
        else:
            shown += [f"{score:.2f}" if is_rating else f"{score:.4f}", hit.id]
        rows.append([*shown, *(record.get(name) for name in names)])
    return header, rows
