import numpy as np
import pytest

from retrieval.common import csr
from retrieval.evaluation.metric_table import (
    by_history,
    by_popularity,
    curve,
    found,
    measure,
    popularity_class,
    shown_share,
)
from retrieval.metrics.ranking import Ranking


def test_measures_at_every_k() -> None:
    truth = csr.from_lists([[3], [0, 1]])
    ranking = Ranking(np.array([2, 1, 7]), np.array([[2, 3], [0, 2]]))
    measured = measure(ranking, truth=truth, popularity=np.array([4, 2, 1, 1]), users=4, ks=(1, 2))
    assert measured.values["recall@1"] == pytest.approx(0.25)
    assert measured.values["recall@2"] == pytest.approx(0.75)
    assert measured.values["hit_rate@2"] == 1
    assert measured.values["mrr@2"] == pytest.approx(0.75)
    assert measured.values["coverage@2"] == 0.75
    assert measured.values["coverage@1"] == 0.5
    assert measured.per_user["recall@2"].tolist() == [1, 0.5]
    assert curve(measured, truth=truth)[7] == 1


def test_popularity_classes_are_thirds_of_the_interactions() -> None:
    # 12 interactions: item 2 begins in the first third, 0 and 1 in the second, 3 and 5 in the last.
    popularity = np.array([3, 2, 4, 2, 0, 1])
    assert popularity_class(popularity).tolist() == [1, 1, 0, 2, 3, 2]
    assert popularity_class(np.zeros(2, dtype=np.int64)).tolist() == [3, 3]
    shares = shown_share(np.array([[2, 0], [4, -1]]), popularity)
    assert shares == {
        "head": pytest.approx(1 / 3),
        "middle": pytest.approx(1 / 3),
        "tail": 0,
        "cold": pytest.approx(1 / 3),
    }


def test_slices_are_parts_of_the_truth() -> None:
    truth = csr.from_lists([[2], [4, 1], [0]])
    histories = csr.from_lists([[], [0, 3], list(range(30))])
    ranks = np.array([1, 30, 5, 11])
    parts = by_history(histories, truth)
    assert [(part.label, part.size, found(ranks, part, k=10)) for part in parts] == [
        ("0", 1, 1.0),
        ("1–2", 2, 0.5),
        ("21–50", 1, 0.0),
    ]
    parts = by_popularity(np.array([3, 2, 4, 2, 0, 1]), truth)
    assert [(part.label, part.size, found(ranks, part, k=10)) for part in parts] == [
        ("head", 1, 1.0),
        ("middle", 2, 0.5),
        ("cold", 1, 0.0),
    ]
