"""Guides: what the others foretell is what a fit without that user gives; fewer items are looked at for a recall."""

import numpy as np
import pytest

from retrieval.index import exact, factory, guides
from retrieval.index.factory import SearchParams
from retrieval.index.index import Index, Vectors
from retrieval.index.probing import CAP, looked_into
from retrieval.index.tuning import tune
from tests.support.brute import clustered

DIM = 16
COUNT = 6_000


@pytest.fixture(scope="module")
def items() -> Vectors:
    """Spread wide: many lists hold something for everybody."""
    return clustered(COUNT, DIM, seed=1, spread=1.2)[0]


@pytest.fixture(scope="module")
def users() -> Vectors:
    """Who have much in common, and differ in few directions."""
    rows = np.random.default_rng(2).normal(size=(700, DIM)) * (0.75 ** np.arange(DIM))
    rows[:, 0] += 2
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def built(items: Vectors, kind: str = "ivf") -> Index:
    return Index.build(items, factory.choose(kind, count=len(items), dim=DIM))


def test_the_best_score_of_each_list(items: Vectors, users: Vectors) -> None:
    index = built(items)  # which owns the vectors that its lists speak of
    lists = index.lists
    assert lists is not None
    best = guides._best_scores(lists, users[:50])
    for number in range(len(lists.sizes)):
        own = lists.list(number)
        expected = (items[own] @ users[:50].T).max(axis=0) if len(own) else -np.ones(50)
        np.testing.assert_allclose(best[:, number], expected, atol=1e-6)


def test_what_the_others_foretell(items: Vectors, users: Vectors) -> None:
    """In closed form it is what a fit without that user gives."""
    index = built(items)  # which owns the vectors that its lists speak of
    lists = index.lists
    assert lists is not None
    some = users[:150]
    best = exact.top_k(some, items, k=10)[0]
    found = guides.fit(lists, some, best, recall=0.95)
    assert found is not None
    missed = guides._best_scores(lists, some) - some @ lists.centroids.T
    errors = []
    for ridge in guides.RIDGES:
        others = np.delete(some, 3, axis=0).astype(np.float64)
        inverse = np.linalg.inv(others.T @ others + ridge * np.eye(DIM))
        fit = lists.centroids + (inverse @ others.T @ np.delete(missed, 3, axis=0)).T
        errors.append(np.abs(found.near[3] - fit @ some[3]).max())
    assert min(errors) < 1e-4


@pytest.mark.parametrize("recall", [0.9, 0.98])
def test_guided_lists_reach_what_is_asked_with_fewer_items(items: Vectors, users: Vectors, recall: float) -> None:
    guided, plain = built(items), built(items)
    effort = tune(guided, users[:400], recall=recall).effort
    asked = users[400:]
    least = exact.top_k(asked, items, k=10)[1][:, -1:]
    assert guided.probing is not None
    assert plain.probing is not None
    assert not np.array_equal(guided.probing.centroids, plain.probing.centroids)
    assert (guided.search(asked, k=10, effort=effort)[1] >= least).mean() >= recall - 0.01
    assert guided.lists is not None
    seen = looked_into(-guided.probing.gaps(asked), effort) @ guided.lists.sizes
    hits = plain.search(asked, k=10, effort=effort)[1] >= least
    assert plain.lists is not None
    assert (
        hits.mean() < recall
        or (looked_into(-plain.probing.gaps(asked), effort) @ plain.lists.sizes).mean() > seen.mean()
    )


def test_which_lists_are_looked_into() -> None:
    near = np.array([[0.9, 0.5, 0.8, 0.1], [0.2, 0.21, 0.22, 0.23]], np.float32)
    assert looked_into(near, SearchParams(probes=2)).tolist() == [
        [True, False, True, False],
        [False, False, True, True],
    ]
    assert looked_into(near, SearchParams(probes=1, within=0.15)).tolist() == [[True, False, True, False], [True] * 4]
    assert looked_into(np.tile(near, 3), SearchParams(probes=1, within=2.0)).sum(axis=1).max() == CAP + 2  # equals
    assert looked_into(near, SearchParams(probes=40)).all()


@pytest.mark.parametrize(
    ("kind", "is_guided"),
    [("ivf", True), ("IVF20,Flat", True), ("IVF20,SQ8", False), ("pq", False), ("IVF20_HNSW8,SQfp16", False)],
)
def test_codes_that_need_their_centroid_keep_it(items: Vectors, users: Vectors, kind: str, is_guided: bool) -> None:
    index = built(items, kind)
    assert index.lists is not None
    assert guides.can_guide(index.lists.ivf) is is_guided
    before = index.lists.centroids.copy()
    tune(index, users[:300], recall=0.99)
    assert index.lists is not None
    assert is_guided or np.array_equal(before, index.lists.centroids)


def test_few_users_guide_nobody(items: Vectors, users: Vectors) -> None:
    index = built(items)  # which owns the vectors that its lists speak of
    lists = index.lists
    assert lists is not None
    few = users[: guides.FEWEST_USERS - 1]
    assert guides.fit(lists, few, exact.top_k(few, items, k=10)[0], recall=0.9) is None
