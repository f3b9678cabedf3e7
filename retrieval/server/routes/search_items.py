"""Search for items and users by text, and look one of them up."""

import re
from typing import Any, Final

import numpy as np

from retrieval.catalog.users import HISTORY
from retrieval.server.errors import RequestError
from retrieval.server.messages import (
    ItemAnswer,
    ListItemsAnswer,
    ListItemsParams,
    ListUsersAnswer,
    ListUsersParams,
    UserAnswer,
)
from retrieval.server.routes.route import Context, route
from retrieval.server.snapshot import Snapshot

DEFAULT_LIMIT: Final = 20
RANKED_MATCHES: Final = 2_000  # matches that are ranked; of more than these, the first of the catalogue
HISTORY_SHOWN: Final = 100


@route("GET", "/v1/items")
def list_items(context: Context, params: ListItemsParams) -> ListItemsAnswer:
    """Search for items by part of their id or text."""
    snapshot = context.snapshot
    limit = DEFAULT_LIMIT if params.limit is None else params.limit
    rows, more = find_items(snapshot, params.search or "", where=params.where, limit=limit)
    return {**snapshot.stamp, "items": [item_record(snapshot, row) for row in rows], "more": more}


@route("GET", "/v1/items/{item:id}", errors=(404,))
def get_item(context: Context) -> ItemAnswer:
    """Look up an item."""
    snapshot = context.snapshot
    return {**snapshot.stamp, "item": item_record(snapshot, snapshot.row(context.path["item"]))}


@route("GET", "/v1/users")
def list_users(context: Context, params: ListUsersParams) -> ListUsersAnswer:
    """Search for users of the data by the first characters of their id."""
    snapshot, users, more = context.snapshot, list[str](), False
    if snapshot.users is not None:
        limit = DEFAULT_LIMIT if params.limit is None else params.limit
        rows = snapshot.users.beginning((params.search or "").strip(), count=limit + 1)
        users, more = [snapshot.users.id(row) for row in rows[:limit]], len(rows) > limit
    return {**snapshot.stamp, "users": users, "more": more}


@route("GET", "/v1/users/{user:id}", errors=(404,))
def get_user(context: Context) -> UserAnswer:
    """Look up a user of the data: features, and the newest items of the history."""
    snapshot, name = context.snapshot, context.path["user"]
    found = user_record(snapshot, name)
    if found is None:
        why = " (the bundle was made without users)" if snapshot.users is None else ""
        raise RequestError(404, f'there is no user "{name[:100]}"{why}')
    return {**snapshot.stamp, "user": found}


def find_items(snapshot: Snapshot, text: str, *, where: str | None, limit: int) -> tuple[list[int], bool]:
    """Find items whose id or text columns contain `text`, ignoring case.

    Args:
        snapshot: The bundle.
        text: What to look for; all items if blank.
        where: A filter that the items must pass too.
        limit: Number of rows.

    Returns:
        Rows, most likely first: the exact id, then titles that begin with the text, then words; and whether there
        are more.

    Raises:
        QueryError: for an invalid filter.
    """
    catalog = snapshot.retriever.catalog
    mask = np.ones(catalog.height, dtype=np.bool_)
    mask[catalog.removed] = False
    if where:
        mask &= catalog.where(where)
    text = text.strip()
    if not text:
        rows = np.flatnonzero(mask)
        return rows[:limit].tolist(), len(rows) > limit
    columns = text_columns(snapshot)
    mask &= catalog.where(" OR ".join(f"{_quoted(name)} ILIKE {_pattern(text)}" for name in columns))
    rows = np.flatnonzero(mask)
    exact = catalog.row(text)
    ranked = sorted(
        rows[:RANKED_MATCHES].tolist(), key=lambda row: (row != exact, *_match_rank(snapshot, row, text, columns[1:2]))
    )
    if exact is not None and exact not in ranked and not where:
        ranked.insert(0, exact)
    return ranked[:limit], len(rows) > limit


def item_record(snapshot: Snapshot, row: int) -> dict[str, Any]:
    """The id and the columns of an item."""
    catalog = snapshot.retriever.catalog
    return {"id": catalog.id(row), **catalog.record(row)}


def user_record(snapshot: Snapshot, name: str) -> dict[str, Any] | None:
    """Features of a user of the data and the newest items of its history, oldest first; None if there is none."""
    users = snapshot.users
    row = None if users is None else users.row(name)
    if users is None or row is None:
        return None
    columns = users.record(row)
    tower = snapshot.bundle.schema.user
    history = columns.pop(tower.history.name if tower.history is not None else HISTORY, None) or []
    catalog = snapshot.retriever.catalog
    shown = [(item, catalog.row(item)) for item in history[-HISTORY_SHOWN:]]
    return {
        "id": name,
        "features": {feature.name: columns[feature.name] for feature in tower.inputs if feature.name in columns},
        "history": [{"id": item} if row is None else item_record(snapshot, row) for item, row in shown],
        "history_length": len(history),
    }


def text_columns(snapshot: Snapshot) -> list[str]:
    """The id column, then the text columns of the items."""
    import pyarrow as pa

    schema = snapshot.item_schema
    texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    return list(dict.fromkeys([schema.names[0], *texts]))


def _match_rank(snapshot: Snapshot, row: int, text: str, column: list[str]) -> tuple[int, int, int]:
    """Sort key: the title begins with the text, a word of it does, neither; then shorter titles first."""
    title = str(snapshot.retriever.catalog.record(row).get(column[0]) or "") if column else ""
    folded, needle = title.casefold(), text.casefold()
    place = 0 if folded.startswith(needle) else 1 if re.search(rf"\b{re.escape(needle)}", folded) else 2
    return place, len(title), row


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _pattern(text: str) -> str:
    doubled = text.replace("'", "''")
    return f"'%{doubled}%'"
