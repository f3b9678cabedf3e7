"""One query: what is prepared for it answers as brute force does, also between equals, and for many threads at once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.common.csr import from_lists
from retrieval.index import factory
from retrieval.index.alone import best_of_few
from retrieval.index.candidates import hide, padded, sorted_best
from retrieval.index.index import Index
from tests.support.brute import best, clustered, same

DIM = 16


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 60),
    k=st.integers(1, 70),
    distinct=st.integers(1, 60),
    unwanted=st.integers(0, 20),
)
@settings(max_examples=150, deadline=None)
def test_the_best_of_few(seed: int, count: int, k: int, distinct: int, unwanted: int) -> None:
    random = np.random.default_rng(seed)
    items = clustered(distinct, DIM, seed=seed, clusters=4)[0][random.integers(0, distinct, count)]
    query = clustered(1, DIM, seed=seed + 1, clusters=4)[0]
    hidden = np.unique(random.integers(0, count, min(unwanted, count)))
    found = best_of_few(query, items, k=k, hidden=hidden)
    if found is None:  # equals were cut off
        assert len(np.unique(items, axis=0)) < count
        return
    allowed = set(range(count)) - set(hidden.tolist())
    same(found[0][0], found[1][0], best(query[0], items, k=k, allowed=allowed), items)


def test_many_are_not_asked_of_a_heap() -> None:
    items = clustered(500, DIM, seed=1)[0]
    assert best_of_few(items[:1], items, k=300, hidden=np.empty(0, np.int64)) is None


@pytest.mark.parametrize(
    ("name", "within"), [("flat", None), ("ivf", None), ("ivf", 0.3), ("pq", None), ("pq", 0.3), ("HNSW16", None)]
)
def test_one_query_is_answered_as_in_a_batch(name: str, within: float | None) -> None:
    items, asked = clustered(4_000, DIM, seed=1)[0], clustered(60, DIM, seed=2)[0]
    items[50:70] = items[3]
    asked[7] = items[3]
    index = Index.build(items, factory.choose(name, count=4_000, dim=DIM, recall=0.9))
    if index.lists is not None:
        index.effort = factory.SearchParams(probes=6, within=within, factor=8.0)
    rows, scores = index.search(asked, k=10)
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(lambda at: index.search(asked[at : at + 1], k=10), [*range(60)] * 5))
    for at, (own, own_scores) in enumerate(alone):
        assert own.shape == own_scores.shape == (1, 10)
        assert own.dtype == np.int64
        assert own_scores.dtype == np.float32
        assert np.array_equal(own[0], rows[at % 60])
        assert np.array_equal(own_scores[0], scores[at % 60])
    assert name == "HNSW16" or alone[7][0][0].tolist() == [3, *range(50, 59)]


def test_what_is_prepared_does_not_outlive_a_change() -> None:
    items = clustered(3_000, DIM, seed=1, spread=2.0)[0]
    index = Index.build(items, factory.choose("ivf", count=3_000, dim=DIM, recall=0.9))
    index.effort = factory.SearchParams(probes=1)
    asked = clustered(1, DIM, seed=3)[0]
    few = index.search(asked, k=10)[1]
    index.effort = factory.SearchParams(probes=10_000)
    every = index.search(asked, k=10)[1]
    assert (every >= few).all()
    assert not np.array_equal(every, few)
    first = int(index.search(asked, k=1)[0][0, 0])
    index.remove(np.array([first]))
    assert first not in index.search(asked, k=1)[0]
    new = index.add(asked)
    assert index.search(asked, k=1)[0].tolist() == [new.tolist()]


def test_candidates() -> None:
    rows, scores = (
        np.array([[4, 2, 9, -1], [1, 7, 3, 5]]),
        np.array([[0.1, 0.3, 0.2, -np.inf], [0, 1, 2, 3]], np.float32),
    )
    assert sorted_best(rows, scores, 1)[0].tolist() == [[2], [5]]
    assert sorted_best(rows, scores, 3)[0].tolist() == [[2, 9, 4], [5, 3, 7]]
    hidden, hidden_scores = hide(rows, scores, from_lists([[2, 100], [4, 5]]))
    assert hidden.tolist() == [[4, -1, 9, -1], [1, 7, 3, -1]]
    assert np.isneginf(hidden_scores[[0, 1], [1, 3]]).all()
    assert hide(rows, scores, None)[0] is rows
    chosen = np.array([[True, False, True], [False, True, False]])
    assert padded(chosen, np.array([2, 1])).tolist() == [[2, 0], [1, -1]]
