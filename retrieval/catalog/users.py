"""Users: what a bundle keeps of the users of the data, for `--user` and for tuning an index on real queries."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from retrieval.bundle import layout
from retrieval.bundle.layout import USERS, USERS_LOOKUP
from retrieval.bundle.writer import Draft
from retrieval.catalog import record_store
from retrieval.catalog.items import json_lines
from retrieval.common.errors import DataError
from retrieval.features.columns import words
from retrieval.features.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa

HISTORY: Final = "history"  # the column's name where the user tower takes no history: it still tells what to leave out
BLOCK_ROWS: Final = 4_096


def history_name(schema: Schema) -> str:
    """The column of users that holds the ids of all their items, oldest first."""
    return schema.user.history.name if schema.user.history is not None else HISTORY


def users_table(training: Path, history: str) -> "pa.Table":
    """Users of a prepared training folder: id, columns, and a column `history` of all their items, oldest first.

    Raises DataError that names the file if one is not there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in (layout.USERS, layout.INTERACTIONS):
        if not (training / name).is_file():
            raise DataError(f'{training / name}: there is no such file; prepare the data with "twotower train"')
    users = pq.read_table(training / layout.USERS)
    users = users.set_column(0, users.column_names[0], words(users.column(0).combine_chunks()))
    if history in users.column_names:
        users = users.drop_columns([history])
    pairs = pq.read_table(training / layout.INTERACTIONS, columns=["user", "item"])
    owners = _codes(pairs.column("user"), users.column(0))
    order = np.argsort(owners, kind="stable")  # rows lie oldest first within a user
    order = order[np.searchsorted(owners[order], 0) :]  # without rows of users that the table does not have
    ends = np.zeros(users.num_rows + 1, dtype=np.int32)
    np.cumsum(np.bincount(owners[order], minlength=users.num_rows), out=ends[1:])
    items = words(pairs.column("item").combine_chunks()).take(pa.array(order))
    return users.append_column(history, pa.ListArray.from_arrays(pa.array(ends), items))


def _codes(column: Any, ids: Any) -> npt.NDArray[np.int64]:
    """The row of each value of a column among ids, -1 where it is not one of them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = column.combine_chunks()
    if pa.types.is_dictionary(values.type):
        rows = _codes(pa.chunked_array([values.dictionary]), ids)
        codes: npt.NDArray[np.int64] = rows[values.indices.to_numpy(zero_copy_only=False)]
        return codes
    found = pc.fill_null(pc.index_in(words(values), value_set=ids.combine_chunks()), -1)
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.int64)


def write_users(draft: Draft, users: "pa.Table") -> None:
    """Stage the users of the next generation. users: the id column first."""
    import pyarrow.parquet as pq

    pq.write_table(users, draft.path(USERS), row_group_size=65_536)
    write_users_lookup(draft, users)


def write_users_lookup(draft: Draft, users: "pa.Table") -> None:
    ids = words(users.column(0).combine_chunks()).to_pylist()
    record_store.write(draft.path(USERS_LOOKUP), ids, json_lines(users, leave_out=users.column_names[:1]))


def sample_users(draft: Draft, schema: Schema, *, count: int, seed: int) -> "pa.Table | None":
    """Some users as the user tower takes them, in random order: validation users where the data tells of any.

    None where the bundle knows no users.
    """
    import pyarrow.parquet as pq

    training = draft.folder / layout.TRAINING
    if draft.has(USERS):
        users = pq.read_table(draft.file(USERS))
    elif (training / layout.USERS).is_file() and (training / layout.INTERACTIONS).is_file():
        users = users_table(training, history_name(schema))
    else:
        return None
    rows = np.flatnonzero(_validates(training, users.column(0)))
    if len(rows) == 0:
        rows = np.arange(users.num_rows)
    chosen = np.random.default_rng(seed).permutation(rows)[:count]
    return users.take(chosen) if len(chosen) else None


def _validates(training: Path, ids: Any) -> npt.NDArray[np.bool_]:
    """Which users have interactions in the validation split."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    marked = np.zeros(len(ids), dtype=np.bool_)
    if (training / layout.INTERACTIONS).is_file():
        rows = pq.read_table(training / layout.INTERACTIONS, columns=["user", "split"])
        if rows.num_rows:
            split = words(rows.column("split").combine_chunks())
            owners = _codes(rows.column("user"), ids)[
                np.asarray(pc.equal(split, "valid").to_numpy(zero_copy_only=False), dtype=np.bool_)
            ]
            marked[owners[owners >= 0]] = True
    return marked
