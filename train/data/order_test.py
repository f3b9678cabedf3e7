"""Whether the order of histories tells anything: measured, since a column of times may hold nothing but noise.

Where it does not, a model that reads order fits what is not there: MovieLens with its times dealt out anew within each
user is found a fifth worse by attention than by a sum (docs/training.md). Where the measure leaves it open,
`train.loop.fit` tries both.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from train.config.load import Config

NEAR: Final = 3  # places apart that still count as near
SHUFFLES: Final = 4
TELLS: Final = 1.15  # times chance: below, order tells nothing
SURE: Final = 2.5  # times chance, from which on it plainly tells something; between, sets may find as much
LEAST: Final = 100  # repeats by chance, below which nothing can be said
MOST: Final = 300_000  # interactions measured, of users drawn at random

SOFTMAX: Final = (None, "softmax", "sampled-softmax")

Rows = npt.NDArray[np.int64]


class Order(NamedTuple):
    """told: whether histories are read as sequences. repeats: `repeats_above_chance`, None where not measured.

    unsure: whether they may as well be sets, by that.
    """

    told: bool
    repeats: float | None = None
    unsure: bool = False


def order_of(interactions: pl.DataFrame, config: Config) -> Order:
    """Whether the order of the histories means anything.

    interactions: columns user, item, time, split; sorted by user, then time. Only `train` rows are measured.
    Without a time column the rows stand in the order of the file, which is an order unless the split ignores it.
    Where times are given and all alike, nothing came before anything. A config that names the user's encoder, another
    objective than softmax or what was not chosen is taken at its word: the sum's closed form knows nothing of those.
    """
    times = interactions.get_column("time")
    timeless = times.null_count() == times.len()
    if timeless and config.split.kind not in ("leave-one-out", "time"):
        return Order(told=False)
    if not timeless and times.n_unique() == 1:
        return Order(told=False)
    train = interactions.filter(pl.col("split") == "train")
    repeats = repeats_above_chance(
        train.get_column("user").to_numpy().astype(np.int64),
        train.get_column("item").to_numpy().astype(np.int64),
        None if timeless else train.get_column("time").to_physical().fill_null(strategy="min").to_numpy(),
    )
    asked = config.model.user is not None or config.train.objective not in SOFTMAX or config.data.negative is not None
    if asked or repeats is None:
        return Order(told=True, repeats=repeats)
    return Order(told=repeats >= TELLS, repeats=repeats, unsure=TELLS <= repeats < SURE)


def repeats_above_chance(users: Rows, items: Rows, times: Rows | None) -> float | None:
    """How often two items stand near each other, in this order, in more than one history; over the same in any order.

    Counted are pairs of equal pairs at most `NEAR` places apart. Histories dealt out anew are what chance is: 1 says
    that order tells nothing of what follows what, however often the items are taken together.
    users, items: (n,) sorted by user, then time. times: (n,); equal ones stand in any order. None: all as they stand.
    Returns None where chance alone makes fewer than `LEAST`.
    """
    generator = np.random.default_rng(0)
    if len(users) > MOST:
        present = np.unique(users)
        drawn = np.zeros(int(present[-1]) + 1, np.bool_)
        drawn[generator.permutation(present)[: max(len(present) * MOST // len(users), 2)]] = True
        kept = drawn[users]
        users, items, times = users[kept], items[kept], None if times is None else times[kept]
    if not len(users):
        return None
    if times is None:
        seen = _repeats(users, items)
    else:
        seen = _repeats(users, items[np.lexsort((generator.random(len(users)), times, users))])
    shuffled = (items[np.lexsort((generator.random(len(users)), users))] for _ in range(SHUFFLES))
    chance = sum(_repeats(users, dealt) for dealt in shuffled) / SHUFFLES
    return seen / chance if chance >= LEAST else None


def _repeats(users: Rows, items: Rows) -> float:
    counts = np.unique(np.concatenate(list(_pairs(users, items))), return_counts=True)[1].astype(np.float64)
    return float((counts * (counts - 1)).sum() / 2)


def _pairs(users: Rows, items: Rows) -> Iterator[Rows]:
    """Pairs of near items of a user, each as one number."""
    size = int(items.max()) + 1
    for gap in range(1, NEAR + 1):
        same = users[gap:] == users[:-gap]
        yield items[:-gap][same] * size + items[gap:][same]
