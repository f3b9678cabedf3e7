"""Probing: the lists that are near enough, for one query and for many, and that tuning by it reaches what is asked."""

import numpy as np
import pytest

from retrieval.index import exact, factory
from retrieval.index.factory import SearchParams
from retrieval.index.index import Index, Vectors
from retrieval.index.probing import CAP
from retrieval.index.tuning import tune
from tests.support.brute import clustered

DIM = 16
COUNT = 8_000


@pytest.fixture(scope="module")
def items() -> Vectors:
    return clustered(COUNT, DIM, seed=1)[0]


@pytest.fixture(scope="module")
def users() -> Vectors:
    return clustered(400, DIM, seed=2)[0]


@pytest.fixture(scope="module", params=["ivf", "pq"])
def index(request: pytest.FixtureRequest, items: Vectors) -> Index:
    return Index.build(items, factory.choose(request.param, count=COUNT, dim=DIM))


def test_gaps_are_to_the_nearest_list(index: Index, users: Vectors) -> None:
    assert index.probing is not None
    near = users.astype(np.float64) @ index.probing.centroids.T.astype(np.float64)
    gaps = index.probing.gaps(users)
    np.testing.assert_allclose(gaps, near.max(axis=1, keepdims=True) - near, atol=1e-6)


@pytest.mark.parametrize("within", [0.0, 0.05, 0.3])
def test_only_lists_that_are_near_enough(index: Index, items: Vectors, users: Vectors, within: float) -> None:
    """What is found is the best of exactly those lists, whether one asks or many."""
    assert index.lists is not None
    assert index.probing is not None
    effort = SearchParams(probes=5, within=within, factor=400.0)
    gaps = index.probing.gaps(users)
    rows, scores = index.search(users, k=5, effort=effort)
    for query in range(40):
        lists = np.flatnonzero(gaps[query] <= within)
        nearest = np.argsort(gaps[query], kind="stable")[: 5 * CAP]
        inside = np.concatenate([index.lists.list(number) for number in np.intersect1d(lists, nearest)])
        if len(inside) <= 5:  # too few: answered exactly
            continue
        best = np.sort(items[inside] @ users[query])[::-1][:5]
        np.testing.assert_allclose(scores[query], best, atol=1e-6)
        alone = index.search(users[query : query + 1], k=5, effort=effort)
        assert np.array_equal(alone[0][0], rows[query])
        assert np.array_equal(alone[1][0], scores[query])


def test_a_query_near_to_everything_looks_into_few_lists(index: Index, users: Vectors) -> None:
    assert index.probing is not None
    counts = np.count_nonzero(index.probing._near(users, 2.0, 6)[0] >= 0, axis=1)
    assert (counts == 6).all()
    rows, scores = index.search(users[:20], k=5, effort=SearchParams(probes=1, within=2.0, factor=400.0))
    for query in range(20):  # of many lists the nearest, whether one asks or many
        alone = index.search(users[query : query + 1], k=5, effort=SearchParams(probes=1, within=2.0, factor=400.0))
        assert np.array_equal(alone[0][0], rows[query])
        assert np.array_equal(alone[1][0], scores[query])


def test_efforts_look_into_as_many_lists_on_average(index: Index, users: Vectors) -> None:
    assert index.probing is not None
    gaps = index.probing.gaps(users)
    found = list(factory.efforts(index.kind, index.structure, gaps=gaps))
    for effort in found:
        if effort.within is not None:
            assert effort.probes is not None
            mean = (gaps <= effort.within).sum(axis=1).mean()
            assert effort.probes - 1 <= mean <= effort.probes * 1.1 + 0.1
    assert found[-1].probes == gaps.shape[1]


@pytest.mark.parametrize("recall", [0.9, 0.99])
def test_tuning_reaches_what_is_asked(index: Index, items: Vectors, users: Vectors, recall: float) -> None:
    effort = tune(index, users[:200], recall=recall).effort
    assert SearchParams.from_json(effort.to_json()) == effort
    scores = index.search(users[200:], k=10, effort=effort)[1]
    assert (scores >= exact.top_k(users[200:], items, k=10)[1][:, -1:]).mean() >= recall - 0.02


def test_hidden_rows_are_not_found(index: Index, users: Vectors) -> None:
    from retrieval.common.csr import from_lists

    effort = SearchParams(probes=4, within=0.1, factor=16.0)
    first = index.search(users[:20], k=5, effort=effort)[0]
    rows = index.search(users[:20], k=5, effort=effort, exclude=from_lists(list(first)))[0]
    for query in range(20):
        assert not set(rows[query].tolist()) & set(first[query].tolist())
        alone = index.search(users[query : query + 1], k=5, effort=effort, exclude=from_lists([first[query]]))[0]
        assert np.array_equal(alone[0], rows[query])
