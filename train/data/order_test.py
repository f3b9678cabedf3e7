"""Order test: whether the order of histories says anything, measured, since a column of times may hold only noise.

Where the order is not informative, a model of sequences fits noise and EASE finds more (docs/experiments/ablation.md).
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from train.config.defaults import RANKING_OBJECTIVES
from train.config.load import Config

# Repeats over chance, from where on sequence models find more than EASE (docs/experiments/ablation.md). In a short
# history all items are near each other in any order, so the ratio is near 1 even where the order matters.
INFORMATIVE: Final = 2.5
INFORMATIVE_SHORT: Final = 1.15
SHORT_HISTORY: Final = 10  # mean items of a history
MAX_GAP: Final = 3  # places apart that still count as near
SHUFFLES: Final = 4
MIN_EXPECTED: Final = 100  # repeats by chance, below which the ratio is too noisy to use
MAX_INTERACTIONS: Final = 300_000  # measured, of a random sample of users

Rows = npt.NDArray[np.int64]


class OrderTest(NamedTuple):
    """What is known of the order of the histories.

    informative: Whether histories are read as sequences.
    timed: Whether they come in an order at all: by times or by rows of the file.
    repeats: `repeats_above_chance`, None where it was not measured.
    """

    informative: bool
    timed: bool
    repeats: float | None = None


def run_order_test(interactions: pl.DataFrame, config: Config) -> OrderTest:
    """Decide whether the order of the histories is informative.

    Without a time column the rows stand in the order of the file, which is an order unless the split ignores it. Where
    all times are equal there is none. A config that sets a user encoder, another objective than softmax or a column of
    negatives has decided against EASE, so its histories are read in their order.

    Args:
        interactions: Columns user, item, time, split; sorted by user, then time. Only `train` rows are measured.
        config: With the split and the model.

    """
    times = interactions.get_column("time")
    no_times = times.null_count() == times.len()
    if no_times and config.split.kind not in ("leave-one-out", "time"):
        return OrderTest(informative=False, timed=False)
    if not no_times and times.n_unique() == 1:
        return OrderTest(informative=False, timed=False)
    train = interactions.filter(pl.col("split") == "train")
    repeats = repeats_above_chance(
        train.get_column("user").to_numpy().astype(np.int64),
        train.get_column("item").to_numpy().astype(np.int64),
        None if no_times else train.get_column("time").to_physical().fill_null(strategy="min").to_numpy(),
    )
    decided = (
        config.model.user is not None
        or config.train.objective not in RANKING_OBJECTIVES
        or config.data.negative is not None
    )
    short = train.height < SHORT_HISTORY * max(train.get_column("user").n_unique(), 1)
    threshold = INFORMATIVE_SHORT if short else INFORMATIVE
    return OrderTest(informative=decided or repeats is None or repeats >= threshold, timed=True, repeats=repeats)


def repeats_above_chance(users: Rows, items: Rows, times: Rows | None) -> float | None:
    """How often the same two items follow each other in different histories, over the same count after shuffling.

    Items at most `MAX_GAP` places apart count. 1 means that the order says nothing about what follows what, however
    often the items are taken together.

    Args:
        users: (n,) sorted.
        items: (n,) oldest first within a user.
        times: (n,) by which rows are ordered, ties at random; None keeps the order of the rows.

    Returns:
        The ratio; None where shuffled histories give fewer than `MIN_EXPECTED` repeats.

    """
    generator = np.random.default_rng(0)
    if len(users) > MAX_INTERACTIONS:
        present = np.unique(users)
        drawn = np.zeros(int(present[-1]) + 1, np.bool_)
        drawn[generator.permutation(present)[: max(len(present) * MAX_INTERACTIONS // len(users), 2)]] = True
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
    return seen / chance if chance >= MIN_EXPECTED else None


def _repeats(users: Rows, items: Rows) -> float:
    counts = np.unique(np.concatenate(list(_pairs(users, items))), return_counts=True)[1].astype(np.float64)
    return float((counts * (counts - 1)).sum() / 2)


def _pairs(users: Rows, items: Rows) -> Iterator[Rows]:
    """Pairs of near items of a user, each as one number."""
    size = int(items.max()) + 1
    for gap in range(1, MAX_GAP + 1):
        same = users[gap:] == users[:-gap]
        yield items[:-gap][same] * size + items[gap:][same]
