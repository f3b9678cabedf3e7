"""Made-up data with a planted structure: what a user likes is known, so an answer can be checked against truth.

Items stand on shelves, and every user likes one of them: `LOYALTY` of the user's items come from there, the others
from anywhere. On a shelf the r-th item is chosen in proportion to log((r + 2) / (r + 1)), about 1 / r. The best answer
to a user is therefore the user's shelf, in order, less what the user has. The column `shelf` of users and items is the
truth; the features `club` and `label` tell it, but not always, so that new users and items can be answered too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.common.console import progress
from retrieval.features.schema import Feature
from train.config.load import CONFIG_NAME
from train.config.render import render
from train.datasets.dataset_folder import COLUMNS, TABLES, staging
from train.datasets.fetch import kept

LOYALTY: Final = 0.9
HONESTY: Final = 0.8  # how often a feature tells the truth
MOST_SHELVES: Final = 20
BLOCK: Final = 1_000_000  # interactions held at a time, about
EACH: Final = 20  # interactions of a user, if not said
FIRST_TIME_S: Final = 1_600_000_000
SPAN_S: Final = 86_400 * 365

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much to make. interactions: about so many, since a user's repeats are left out; `EACH` a user if None."""

    users: int = 1_000
    items: int = 500
    interactions: int | None = None
    seed: int = 0

    @property
    def shelves(self) -> int:
        return min(MOST_SHELVES, max(self.items // 10, 1))

    @property
    def each(self) -> int:
        """Interactions that a user is given, before repeats are left out."""
        return EACH if self.interactions is None else max(round(self.interactions / self.users), 2)

    @property
    def block_users(self) -> int:
        return max(BLOCK // self.each, 1)


def fetch_synthetic(plan: Plan, *, to: Path, force: bool = False) -> Path:
    """Write a dataset folder block by block, in memory that does not grow. Returns the path of its config.

    The same plan writes the same rows. Raises DataError if the folder holds something else.
    """
    if kept(to, force=force):
        return to / CONFIG_NAME
    with staging(to) as folder:
        _write(folder / TABLES["items"], _item_blocks(plan))
        _write(folder / TABLES["users"], _user_blocks(plan))
        total = -(-plan.users // plan.block_users)
        blocks = progress(interaction_blocks(plan), label="synthetic blocks", total=total)
        _write(folder / TABLES["interactions"], blocks)
        (folder / CONFIG_NAME).write_text(_config(plan), encoding="utf-8")
    return to / CONFIG_NAME


def shelf_of_user(plan: Plan, users: Rows) -> Rows:
    """What each user likes. Users in a row like different shelves."""
    return users % plan.shelves


def shelf_of_item(plan: Plan, items: Rows) -> Rows:
    """Where each item stands: its rank there is item // shelves."""
    return items % plan.shelves


def interaction_blocks(plan: Plan) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Interactions sorted by user, then time; a user and an item once. Each block by its own seed."""
    for number, first in enumerate(range(0, plan.users, plan.block_users)):
        random = np.random.default_rng((plan.seed, 1, number))
        present = np.arange(first, min(first + plan.block_users, plan.users))
        start = FIRST_TIME_S + random.integers(0, SPAN_S, len(present))
        users = np.repeat(present, plan.each)
        loyal = random.random(len(users)) < LOYALTY
        own = shelf_of_user(plan, users)
        shelf = np.where(loyal, own, random.integers(0, plan.shelves, len(users)))
        height = (plan.items - shelf - 1) // plan.shelves + 1  # items on the shelf
        # The log of the rank is uniform: ranks thin out as 1 / r.
        rank = np.minimum((np.exp(random.random(len(users)) * np.log(height + 1)) - 1).astype(np.int64), height - 1)
        items = rank * plan.shelves + shelf
        # The first of a user's repeats stays; rows keep their order.
        chosen = np.sort(np.unique(users * plan.items + items, return_index=True)[1])
        users, items, shelf = users[chosen], items[chosen], shelf[chosen]
        position = np.arange(len(users)) - np.searchsorted(users, users)
        liked = shelf == shelf_of_user(plan, users)
        rating = np.where(liked, random.integers(4, 6, len(users)), random.integers(1, 4, len(users)))
        yield {
            "user_id": users,
            "item_id": items,
            "rating": rating.astype(np.float64),
            "timestamp": start[users - first] + position * 3600,
        }


def _user_blocks(plan: Plan) -> Iterator[dict[str, npt.NDArray[Any]]]:
    for number, first in enumerate(range(0, plan.users, BLOCK)):
        random = np.random.default_rng((plan.seed, 2, number))
        users = np.arange(first, min(first + BLOCK, plan.users))
        shelf = shelf_of_user(plan, users)
        yield {
            "user_id": users,
            "club": _named("club", _told(shelf, plan, random)),
            "age": random.integers(18, 80, len(users)),
            "shelf": shelf,
        }


def _item_blocks(plan: Plan) -> Iterator[dict[str, npt.NDArray[Any]]]:
    for number, first in enumerate(range(0, plan.items, BLOCK)):
        random = np.random.default_rng((plan.seed, 3, number))
        items = np.arange(first, min(first + BLOCK, plan.items))
        shelf = shelf_of_item(plan, items)
        yield {
            "item_id": items,
            "title": _named("Item", items),
            "label": _named("label", _told(shelf, plan, random)),
            "year": random.integers(1950, 2026, len(items)),
            "shelf": shelf,
        }


def _told(shelf: Rows, plan: Plan, random: np.random.Generator) -> Rows:
    """The shelf as a feature tells it: the truth most often, else any."""
    honest = random.random(len(shelf)) < HONESTY
    return np.where(honest, shelf, random.integers(0, plan.shelves, len(shelf)))


def _named(word: str, numbers: Rows) -> npt.NDArray[Any]:
    return np.char.add(f"{word} ", numbers.astype(str)).astype(object)


def _write(path: Path, blocks: Iterator[dict[str, npt.NDArray[Any]]]) -> None:
    """A Parquet file, a row group a block."""
    writer: pq.ParquetWriter | None = None
    try:
        for block in blocks:
            table = pa.table(block)
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _config(plan: Plan) -> str:
    return render(
        heading=(
            f"Made up: {plan.users:,} users, {plan.items:,} items on {plan.shelves} shelves, seed {plan.seed}.\n"
            "A user likes one shelf; the column shelf of users and items is the truth, not a feature."
        ),
        data=COLUMNS,
        features={
            "user": [
                Feature(name="club", kind="category"),
                Feature(name="age", kind="number"),
                Feature(name="history", kind="history"),
            ],
            "item": [
                Feature(name="item_id", kind="category"),
                Feature(name="label", kind="category"),
                Feature(name="year", kind="number"),
            ],
        },
    )
