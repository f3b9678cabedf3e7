"""Finding items and users by a few letters, for people and for pages."""

import re
from typing import Any, Final

import numpy as np

from retrieval.catalog.users import HISTORY
from retrieval.server.snapshot import Serving

RANKED: Final = 2_000  # matches that are put in order; with more than these the first of the catalogue are taken
HISTORY_SHOWN: Final = 100


def items(serving: Serving, text: str, *, where: str | None, limit: int) -> tuple[list[int], bool]:
    """Rows of items whose id or text holds what was typed, likeliest first, and whether there are more.

    where: a filter that they pass too. Raises QueryError.
    """
    catalog = serving.retriever.catalog
    mask = np.ones(catalog.height, dtype=np.bool_)
    mask[catalog.removed] = False
    if where:
        mask &= catalog.where(where)
    text = text.strip()
    if not text:
        rows = np.flatnonzero(mask)
        return rows[:limit].tolist(), len(rows) > limit
    columns = text_columns(serving)
    mask &= catalog.where(" OR ".join(f"{_quoted(name)} ILIKE {_pattern(text)}" for name in columns))
    rows = np.flatnonzero(mask)
    exact = catalog.row(text)
    ranked = sorted(rows[:RANKED].tolist(), key=lambda row: (row != exact, *_rank(serving, row, text, columns[1:2])))
    if exact is not None and exact not in ranked and not where:
        ranked.insert(0, exact)
    return ranked[:limit], len(rows) > limit


def record(serving: Serving, row: int) -> dict[str, Any]:
    """An item as hits show it, without a score."""
    catalog = serving.retriever.catalog
    return {"id": catalog.id(row), **catalog.record(row)}


def users(serving: Serving, text: str, *, limit: int) -> tuple[list[str], bool]:
    """Ids that begin with what was typed, and whether there are more."""
    lookup = serving.users
    if lookup is None:
        return [], False
    rows = lookup.beginning(text.strip(), count=limit + 1)
    return [lookup.id(row) for row in rows[:limit]], len(rows) > limit


def user(serving: Serving, name: str) -> dict[str, Any] | None:
    """A user of the data: its features, and the newest items of its history, oldest first; None if there is none."""
    lookup = serving.users
    row = None if lookup is None else lookup.row(name)
    if lookup is None or row is None:
        return None
    columns = lookup.record(row)
    tower = serving.bundle.schema.user
    history = columns.pop(tower.history.name if tower.history is not None else HISTORY, None) or []
    catalog = serving.retriever.catalog
    shown = [(item, catalog.row(item)) for item in history[-HISTORY_SHOWN:]]
    return {
        "id": name,
        "features": {feature.name: columns[feature.name] for feature in tower.inputs if feature.name in columns},
        "history": [{"id": item} if row is None else record(serving, row) for item, row in shown],
        "history_length": len(history),
    }


def text_columns(serving: Serving) -> list[str]:
    """Columns of the items that hold a text each; the ids first."""
    import pyarrow as pa

    schema = serving.item_schema
    texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    return list(dict.fromkeys([schema.names[0], *texts]))


def _rank(serving: Serving, row: int, text: str, column: list[str]) -> tuple[int, int, int]:
    """Order among matches: the title begins with the text, a word of it does, anything else; shorter titles first."""
    title = str(serving.retriever.catalog.record(row).get(column[0]) or "") if column else ""
    folded, wanted = title.casefold(), text.casefold()
    place = 0 if folded.startswith(wanted) else 1 if re.search(rf"\b{re.escape(wanted)}", folded) else 2
    return place, len(title), row


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _pattern(text: str) -> str:
    doubled = text.replace("'", "''")
    return f"'%{doubled}%'"
