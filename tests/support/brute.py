"""Brute-force search in float64, the independent answer for every index: ties by lower row."""

from collections.abc import Collection

import numpy as np

from retrieval.common.arrays import Rows, Scores, Vectors


def clustered(count: int, dim: int, *, seed: int, clusters: int = 50, spread: float = 0.6) -> tuple[Vectors, Rows]:
    """Random unit vectors around cluster centres, and the cluster of each vector."""
    centres = np.random.default_rng(12345).normal(size=(clusters, dim))
    random = np.random.default_rng(seed)
    owner = random.integers(0, clusters, count)
    rows = centres[owner] / np.sqrt(dim) + random.normal(size=(count, dim)) * spread / np.sqrt(dim)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), owner


def best(
    query: Vectors, items: Vectors, *, k: int, allowed: Collection[int] | None = None
) -> tuple[list[int], list[float]]:
    """Rows and scores of the k best allowed items, or of all of them if there are fewer."""
    scores = np.round((items.astype(np.float64) * query.astype(np.float64)).sum(axis=1), 7)
    rows = range(len(items)) if allowed is None else allowed
    order = sorted(rows, key=lambda row: (-scores[row], row))[:k]
    return order, [float(scores[row]) for row in order]


def assert_exact(
    rows: Rows,
    scores: Scores,
    expected: tuple[list[int], list[float]],
    items: Vectors,
) -> None:
    """Assert that a result is the expected one: order, ties by lower row, scores to 1e-5, -1 and -inf for missing rows.

    Two different items whose scores differ by less than 1e-6 may come in either order.
    """
    wanted, wanted_scores = expected
    found = rows[rows >= 0].tolist()
    assert len(found) == len(wanted)
    assert (rows[len(found) :] == -1).all()
    assert np.isneginf(scores[len(found) :]).all()
    np.testing.assert_allclose(scores[: len(found)], wanted_scores, atol=1e-5)
    assert len(set(found)) == len(found)
    for position, (row, other) in enumerate(zip(found, wanted, strict=True)):
        if row != other:
            assert not np.array_equal(items[row], items[other]), f"tie at {position}: {row} before {other}"
            assert abs(wanted_scores[position] - float(scores[position])) < 1e-6


def assert_close(
    rows: Rows,
    scores: Scores,
    expected: tuple[list[int], list[float]],
    query: Vectors,
    items: Vectors,
    *,
    recall: float,
) -> None:
    """Assert that an approximate result has the right scores and order, distinct rows, and at least this recall."""
    found = rows.tolist()
    assert len(found) == len(set(found)) == len(expected[0])
    np.testing.assert_allclose(scores, items[rows] @ query, atol=1e-5)
    assert all((-scores[at], found[at]) < (-scores[at + 1], found[at + 1]) for at in range(len(found) - 1))
    assert np.mean(scores >= expected[1][-1] - 1e-6) >= recall
