"""Tables in memory: pandas, polars and Arrow -> queries -> recommendations in a table of the same library."""

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from retrieval.bundle.layout import ITEMS, USERS
from retrieval.common.console import note
from retrieval.common.errors import DataError, QueryError, nearest
from retrieval.features.kinds import SEPARATOR

if TYPE_CHECKING:
    import pyarrow as pa

    from retrieval.retriever import Answer, Query, Retriever

USER: Final = "user"
HISTORY: Final = "history"
BATCH_ROWS: Final = 256  # queries answered together


def to_arrow(frame: Any, *, name: str) -> "pa.Table":
    """Convert a table of pandas, polars or Arrow. The index of a pandas DataFrame is left out.

    Args:
        frame: A pandas or polars DataFrame, a pyarrow Table, or any object with the Arrow C stream interface.
        name: What the table is, for errors.

    Raises:
        DataError: if `frame` is no table, or a column has values that Arrow cannot hold together.
    """
    import pyarrow as pa

    if isinstance(frame, pa.Table):
        return frame
    try:
        if _is_pandas(frame):
            return pa.Table.from_pandas(frame, preserve_index=False)
        if _is_polars(frame):
            return frame.to_arrow()  # its C stream has string views, which few functions of Arrow take
        if hasattr(frame, "__arrow_c_stream__"):
            return pa.table(frame)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{name}: cannot be converted to an Arrow table ({error})") from error
    raise DataError(f"{name}: expected a pandas or polars DataFrame or an Arrow table, found {type(frame).__name__}")


def from_arrow(table: "pa.Table", *, like: Any) -> Any:
    """The table as a DataFrame of the library that `like` comes from; Arrow for all others."""
    if _is_pandas(like):
        return table.to_pandas()
    if _is_polars(like):
        return sys.modules["polars"].DataFrame(table)
    return table


def recommend(
    retriever: "Retriever",
    frame: Any,
    *,
    k: int = 10,
    where: str | None = None,
    exclude: Sequence[str] = (),
    include_seen: bool = False,
    diversity: float = 0.0,
) -> Any:
    """See `Retriever.recommend`."""
    import pyarrow as pa

    users = to_arrow(frame, name="users")
    user = _user_column(retriever, users)
    pending = queries(retriever, users)
    answers: list[Answer] = []
    while batch := list(islice(pending, BATCH_ROWS)):
        answers += retriever.answer(
            batch,
            k=k,
            where=where,
            exclude=exclude,
            include_seen=include_seen,
            diversity=diversity,
        )
    owners = pa.array([row for row, answer in enumerate(answers) for _ in answer.hits], pa.int64())
    lead = {"row": owners} if user is None else {user: users.column(user).take(owners)}
    return from_arrow(pa.table({**lead, **_hit_columns(retriever, answers, taken=[*lead])}), like=frame)


def queries(retriever: "Retriever", users: "pa.Table") -> Iterator["Query"]:
    """A query for each row of a table of users; see `Retriever.recommend` for its columns.

    Raises:
        QueryError: if no column holds users, histories or features of the user tower.
    """
    from retrieval.retriever import Query

    tower = retriever.user_tower.schema
    user = _user_column(retriever, users)
    history = next((name for name in _history_names(retriever) if name in users.column_names), None)
    features = [
        feature.name
        for feature in tower.inputs
        if feature.name in users.column_names and feature.name not in (user, history)
    ]
    used = [name for name in (user, history, *features) if name is not None]
    known = [USER, *_history_names(retriever), *(feature.name for feature in tower.inputs)]
    if not used:
        first = users.column_names[0] if users.column_names else ""
        raise QueryError(f'no column of the table describes users, for example "{first}"{nearest(first, known)}')
    ignored = [name for name in users.column_names if name not in used]
    if ignored:
        note(f"columns that are not features of the user tower are ignored: {', '.join(ignored)}")
    for row in users.select(used).to_pylist():
        past = row.get(history) if history is not None else None
        if isinstance(past, str):
            past = past.split(SEPARATOR) if past else []
        given = {name: row[name] for name in features if row[name] is not None}
        yield Query.of({"user": row.get(user) if user is not None else None, "history": past, "features": given})


def _user_column(retriever: "Retriever", users: "pa.Table") -> str | None:
    """The column of user ids: "user", or the name that it has in the data."""
    names = [USER, *(_schema(retriever, USERS).names[:1] if retriever.bundle.has(USERS) else [])]
    return next((name for name in names if name in users.column_names), None)


def _history_names(retriever: "Retriever") -> list[str]:
    feature = retriever.user_tower.schema.history
    return [HISTORY] if feature is None else list(dict.fromkeys([feature.name, HISTORY]))


def _hit_columns(retriever: "Retriever", answers: Sequence["Answer"], *, taken: Sequence[str]) -> dict[str, Any]:
    """Columns of all hits: rank, id, score and the columns of the items; "item." goes before a name that is taken."""
    import pyarrow as pa

    hits = [hit for answer in answers for hit in answer.hits]
    columns = {
        "rank": pa.array([rank for answer in answers for rank in range(1, len(answer.hits) + 1)], pa.int64()),
        "id": pa.array([hit.id for hit in hits], pa.string()),
        "score": pa.array([hit.score for hit in hits], pa.float32()),
    }
    if any(hit.predicted is not None for hit in hits):
        columns["predicted"] = pa.array([hit.predicted for hit in hits], pa.float32())
    records = [hit.item for hit in hits]
    reserved = {*taken, *columns}
    for field in [*_schema(retriever, ITEMS)][1:]:
        if not records or field.name in records[0]:  # records leave vectors out
            name = f"item.{field.name}" if field.name in reserved else field.name
            columns[name] = _column([record.get(field.name) for record in records], field.type)
    return columns


def _schema(retriever: "Retriever", name: str) -> "pa.Schema":
    """The columns of a Parquet file of the bundle."""
    import pyarrow.parquet as pq

    schema: pa.Schema = retriever.bundle.load(name, pq.read_schema)
    return schema


def _column(values: Sequence[Any], kind: "pa.DataType") -> "pa.Array":
    """Values as records hold them, in the type of their column: dates are text there, decimals are floats."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    try:
        if pa.types.is_temporal(kind):
            return pa.array(values, pa.string()).cast(kind)
        return pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return pa.array(values)


def _is_pandas(frame: Any) -> bool:
    return type(frame).__module__.split(".")[0] == "pandas"


def _is_polars(frame: Any) -> bool:
    return type(frame).__module__.split(".")[0] == "polars" and hasattr(frame, "to_arrow")
