"""Measured: what one model's answers to the held-out users are worth, in numbers."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from retrieval.common.arrays import Rows
from retrieval.common.csr import CSR
from retrieval.metrics import ranking as metrics
from retrieval.metrics.ranking import PerUser, Ranking

MODEL: Final = "two towers"  # as tables and charts call it, beside the baselines
PER_USER: Final = {
    "recall": metrics.recall,
    "ndcg": metrics.ndcg,
    "mrr": metrics.mrr,
    "hit_rate": metrics.hit_rate,
}
CURVE: Final = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100)  # at which recall is drawn

CLASSES: Final = ("head", "middle", "tail", "cold")
# A slice of users by how many items they had; the last goes on for ever.
LENGTHS: Final = (0, 1, 3, 6, 11, 21, 51, 101, 201)


def main_k(ks: Sequence[int]) -> int:
    """The k that judges, of those measured at: 10 if it is there."""
    return 10 if 10 in ks else ks[len(ks) // 2]


class Measured(NamedTuple):
    """One model.

    ranks: of each truth; lists: (users, k), the answers. per_user: "recall@10" -> (users,). values: their means, and
    those that are not of single users.
    """

    ranks: Rows
    lists: Rows
    per_user: Mapping[str, PerUser]
    values: Mapping[str, float]


def measure(ranking: Ranking, *, truth: CSR, popularity: Rows, users: int, ks: Sequence[int]) -> Measured:
    """All metrics at all k.

    popularity: (items,) training users of each item, out of `users`.
    """
    items = len(popularity)
    per_user = {f"{name}@{k}": function(ranking.ranks, truth, k=k) for k in ks for name, function in PER_USER.items()}
    values = {name: float(np.mean(value)) for name, value in per_user.items()}
    for k in ks:
        shown = ranking.lists[:, :k]
        values[f"coverage@{k}"] = metrics.coverage(shown, items=items)
        values[f"novelty@{k}"] = metrics.novelty(shown, popularity=popularity, users=users)
        values[f"gini@{k}"] = metrics.gini(shown, items=items)
    return Measured(ranking.ranks, ranking.lists, per_user, values)


def curve(measured: Measured, *, truth: CSR) -> dict[int, float]:
    """Recall against k."""
    return {k: float(metrics.recall(measured.ranks, truth, k=k).mean()) for k in CURVE}


class Slice(NamedTuple):
    """A part of the truth: a label, which users or truths are in it, and how many."""

    label: str
    truths: npt.NDArray[np.bool_]
    size: int


def by_history(histories: CSR, truth: CSR) -> list[Slice]:
    """Truths by how many items their user had, as many slices as there is something in."""
    lengths = histories.lengths[truth.owners()]
    slices = []
    for low, high in zip(LENGTHS, [*LENGTHS[1:], None], strict=True):
        inside = lengths >= low if high is None else (lengths >= low) & (lengths < high)
        label = f"{low}+" if high is None else str(low) if high == low + 1 else f"{low}–{high - 1}"
        slices.append(Slice(label, inside, int(np.count_nonzero(inside))))
    return [part for part in slices if part.size]


def popularity_class(popularity: Rows) -> npt.NDArray[np.int8]:
    """0 head, 1 middle, 2 tail, 3 cold: (items,).

    Head are the most popular items that together have a third of all training interactions, middle those with the
    next third, tail the rest; cold ones have none.
    """
    order = np.argsort(-popularity, kind="stable")
    before = np.cumsum(popularity[order]) - popularity[order]
    total = max(int(popularity.sum()), 1)
    classes = np.empty(len(popularity), dtype=np.int8)
    classes[order] = np.minimum(before * 3 // total, 2)
    classes[popularity == 0] = 3
    return classes


def by_popularity(popularity: Rows, truth: CSR) -> list[Slice]:
    """Truths by how popular they were in training."""
    classes = popularity_class(popularity)[truth.indices]
    slices = [
        Slice(label, classes == code, int(np.count_nonzero(classes == code))) for code, label in enumerate(CLASSES)
    ]
    return [part for part in slices if part.size]


def found(ranks: Rows, part: Slice, *, k: int) -> float:
    """Share of a slice's truths that are among the first k of their user."""
    return float(np.count_nonzero(ranks[part.truths] <= k) / part.size)


def shown_share(lists: Rows, popularity: Rows) -> dict[str, float]:
    """Which share of the recommendations falls to head, middle, tail and cold items."""
    classes = popularity_class(popularity)
    shown = lists[lists >= 0]
    counts = np.bincount(classes[shown], minlength=len(CLASSES))
    return {label: float(count / max(len(shown), 1)) for label, count in zip(CLASSES, counts, strict=True)}
