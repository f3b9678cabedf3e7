"""Exact search against brute force in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.common.csr import from_lists
from retrieval.index import exact
from tests.support.brute import assert_exact, best, clustered


@pytest.mark.parametrize("queries", [1, 3, 5, 40])
@pytest.mark.parametrize(("count", "k"), [(1, 1), (7, 3), (7, 50), (600, 10), (9000, 10)])
@pytest.mark.parametrize("copies", [1, 30])
def test_finds_what_brute_force_finds(count: int, k: int, queries: int, copies: int) -> None:
    random = np.random.default_rng(count + copies)
    items = clustered(max(1, count // copies), 8, seed=1)[0]
    items = items[random.integers(0, len(items), count)]
    vectors = clustered(queries, 8, seed=2)[0]
    lists = [random.integers(0, count, 4) for _ in range(queries)]
    keep = random.random(count) < 0.7
    before = vectors.copy(), items.copy()
    rows, scores = exact.top_k(vectors, items, k=k, exclude=from_lists(lists), keep=keep)
    for query in range(queries):
        allowed = set(np.flatnonzero(keep).tolist()) - set(lists[query].tolist())
        assert_exact(rows[query], scores[query], best(vectors[query], items, k=k, allowed=allowed), items)
    assert np.array_equal(before[0], vectors)
    assert np.array_equal(before[1], items)


@given(seed=st.integers(0, 2**32 - 1), queries=st.integers(0, 12), count=st.integers(0, 300), k=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_a_batch_equals_its_queries_one_by_one(seed: int, queries: int, count: int, k: int) -> None:
    random = np.random.default_rng(seed)
    items = clustered(count, 4, seed=seed, clusters=3)[0] if count else np.empty((0, 4), np.float32)
    if count:
        items = items[random.integers(0, max(1, count // 3), count)]  # many equal vectors
    vectors = clustered(queries, 4, seed=seed + 1, clusters=3)[0]
    rows, scores = exact.top_k(vectors, items, k=k)
    assert rows.shape == scores.shape == (queries, k)
    for query in range(queries):
        alone = exact.top_k(vectors[query : query + 1], items, k=k)
        assert np.array_equal(alone[0][0], rows[query])
        assert np.array_equal(alone[1][0], scores[query])


@pytest.mark.parametrize("products", [1, 5_000, 10**6])
def test_results_do_not_depend_on_the_size_of_a_block(monkeypatch: pytest.MonkeyPatch, products: int) -> None:
    items, vectors = clustered(5000, 16, seed=3)[0], clustered(20, 16, seed=4)[0]
    whole = exact.top_k(vectors, items, k=7)
    monkeypatch.setattr(exact, "PRODUCTS", products)
    parts = exact.top_k(vectors, items, k=7)
    assert np.array_equal(whole[0], parts[0])
    assert np.array_equal(whole[1], parts[1])


def test_equal_items_are_ordered_by_row() -> None:
    items = np.repeat(np.array([[0.6, 0.8]], np.float32), 20_000, axis=0)
    for queries in (1, 9):
        rows, _ = exact.top_k(np.repeat(items[:1], queries, axis=0), items, k=12)
        assert (rows == np.arange(12)).all()


@pytest.mark.parametrize("k", [1, 10, 300])
def test_many_equal_items_far_apart_are_ordered_by_row(k: int) -> None:
    """Copies of few vectors are spread over all rows, and some are excluded: there are far more ties than results."""
    random = np.random.default_rng(k)
    items = clustered(12, 16, seed=8)[0][random.integers(0, 12, 30_000)]
    vectors = clustered(20, 16, seed=9)[0]
    lists = [random.integers(0, len(items), 200) for _ in vectors]
    rows, scores = exact.top_k(vectors, items, k=k, exclude=from_lists(lists))
    for query in range(len(vectors)):
        allowed = set(range(len(items))) - set(lists[query].tolist())
        assert_exact(rows[query], scores[query], best(vectors[query], items, k=k, allowed=allowed), items)
