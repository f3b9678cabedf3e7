"""What a bundle answers to held-out users: user tower in ONNX, then the index, as a query goes."""

import time
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.bundle.reader import Bundle
from retrieval.common.arrays import Rows, Vectors
from retrieval.common.console import progress
from retrieval.common.csr import CSR
from retrieval.evaluation.held_out import HeldOut, Stage
from retrieval.index import exact
from retrieval.index.storage import open_both
from retrieval.metrics import ranking
from retrieval.metrics.ranking import NEVER, Ranking
from retrieval.towers.tower import open_tower

USER_BLOCK: Final = 4_096
COMPARED: Final = 1_000  # users whose answers by the index are held against exact ones
COMPARED_K: Final = 10


class Answers(NamedTuple):
    """The bundle's answers.

    deployed: through the index: a truth counts at its place in the answer or at its exact rank, whichever is worse
        (so ties count against it), and NEVER where it was not answered. exact: over all item vectors.
    agreement: share of the exact first ten that the index answered.
    users: (users, dim); items: (items, dim), NaN for an item that the index does not hold.
    """

    deployed: Ranking
    exact: Rows
    agreement: float
    kind: str
    users: Vectors
    items: Vectors
    seconds: dict[str, float]


def answer(bundle: Bundle, held: HeldOut, stage: Stage, *, k: int) -> Answers:
    """Ask the bundle for the k best items of every user of a stage, what is known of the user left out.

    k: all items, where there are fewer.
    """
    seconds = {}
    begin = time.perf_counter()
    index, catalog = open_both(bundle)
    ids = [catalog.id(row) for row in range(catalog.height)]
    k = min(k, len(ids))
    users = embed_users(bundle, held, stage)
    seconds["embed"] = time.perf_counter() - begin

    # Index rows <-> the rows of the prepared items; the index may have gained and lost items since.
    places = pc.index_in(pa.array(ids, pa.string()), value_set=held.items.column(0).combine_chunks().cast(pa.string()))
    row_of_place = np.asarray(places.fill_null(-1).to_numpy(zero_copy_only=False)).astype(np.int64)
    row_of_place[index.removed] = -1
    known = np.flatnonzero(row_of_place >= 0)
    place_of_row = np.full(held.item_count, -1, dtype=np.int64)
    place_of_row[row_of_place[known]] = known
    items = np.full((held.item_count, index.dim), np.nan, dtype=np.float32)
    items[row_of_place[known]] = index.vectors(known)

    begin = time.perf_counter()
    hidden = stage.seen.mapped(place_of_row)
    blocks = []
    starts = range(0, len(users), USER_BLOCK)
    for start in progress(starts, label="search", total=len(users), size=USER_BLOCK):
        stop = min(start + USER_BLOCK, len(users))
        found, _ = index.search(users[start:stop], k=k, exclude=hidden.block(start, stop))
        # What is not in the prepared items still takes its place in the answer.
        blocks.append(np.where(found >= 0, row_of_place[found], -1))
    lists = np.concatenate(blocks) if blocks else np.empty((0, k), dtype=np.int64)
    seconds["search"] = time.perf_counter() - begin

    begin = time.perf_counter()
    ranks = ranking.ranks(users, items, stage.truth, stage.seen)
    seconds["rank"] = time.perf_counter() - begin
    return Answers(
        deployed=Ranking(_deployed_ranks(lists, ranks, stage.truth), lists),
        exact=ranks,
        agreement=_agreement(users, items, stage.seen, lists),
        kind=index.spec.name,
        users=users,
        items=items,
        seconds=seconds,
    )


def embed_users(bundle: Bundle, held: HeldOut, stage: Stage) -> Vectors:
    """Vectors of the users of a stage with their histories, through the user tower's graph: (users, dim)."""
    schema = bundle.schema
    tower = open_tower(bundle, "user")
    history = schema.user.history
    feature, longest = (None, None) if history is None else (history.name, history.max_length)
    blocks = []
    starts = range(0, len(stage.rows), USER_BLOCK)
    for start in progress(starts, label="user vectors", total=len(stage.rows), size=USER_BLOCK):
        stop = min(start + USER_BLOCK, len(stage.rows))
        some = held.users_with(
            stage.rows[start:stop], stage.histories.block(start, stop), feature=feature, longest=longest
        )
        blocks.append(tower.embed_table(some))
    return np.concatenate(blocks) if blocks else np.empty((0, schema.dim), dtype=np.float32)


def _deployed_ranks(lists: Rows, exact_ranks: Rows, truth: CSR) -> Rows:
    ranks = np.full(len(truth.indices), NEVER, dtype=np.int64)
    owners = truth.owners()
    for start in range(0, len(ranks), USER_BLOCK):
        part = slice(start, start + USER_BLOCK)
        hits = lists[owners[part]] == truth.indices[part, None]  # (truths of the block, k)
        place = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, NEVER)
        ranks[part] = np.maximum(place, exact_ranks[part])
    return ranks


def _agreement(users: Vectors, items: Vectors, seen: CSR, lists: Rows) -> float:
    """Share of the exact first ten that is in the answers' first ten, over some users."""
    rows = np.linspace(0, len(users) - 1, num=min(len(users), COMPARED)).astype(np.int64)
    k = min(COMPARED_K, lists.shape[1])
    held = ~np.isnan(items[:, 0])
    best, _ = exact.top_k(users[rows], np.nan_to_num(items), k=k, exclude=seen.take(rows), keep=held)
    right = (best[:, :, None] == lists[rows, None, :k]).any(axis=2) & (best >= 0)
    return float(right.sum() / max(int((best >= 0).sum()), 1))
