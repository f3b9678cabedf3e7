"""Filtered search through lists: recall must not depend on what the filter has to do with the geometry."""

import numpy as np
import pytest

from retrieval.common.arrays import Mask, Vectors
from retrieval.common.csr import from_lists
from retrieval.index import exact, factory
from retrieval.index.factory import SearchParams
from retrieval.index.index import Index
from tests.support.brute import assert_exact, best, clustered

DIM = 32
COUNT = 60_000
CLUSTERS = 200
LEAST = 0.3  # share from which the passing rows are too many to gather their vectors


@pytest.fixture(scope="module")
def items() -> Vectors:
    return clustered(COUNT, DIM, seed=1, clusters=CLUSTERS)[0]


@pytest.fixture(scope="module")
def users() -> Vectors:
    return clustered(300, DIM, seed=2, clusters=CLUSTERS)[0]


@pytest.fixture(scope="module", params=["ivf", "pq"])
def index(request: pytest.FixtureRequest, items: Vectors, users: Vectors) -> Index:
    """With the fewest lists that reach recall 0.95."""
    built = Index.build(items, factory.choose(request.param, count=COUNT, dim=DIM))
    k_factor = 1.0 if request.param == "ivf" else 16.0
    least = exact.top_k(users, items, k=10)[1][:, -1:]
    for nprobe in factory.NPROBES:
        built.params = SearchParams(nprobe=nprobe, k_factor=k_factor)
        if (built.search(users, k=10)[1] >= least).mean() >= 0.95:
            return built
    raise AssertionError("no nprobe reaches the recall")


def mask_of(name: str, items: Vectors, share: float) -> Mask:
    random = np.random.default_rng(7)
    if name == "random":
        return random.random(COUNT) < share
    if name == "half-space":
        side = items @ random.normal(size=DIM).astype(np.float32)
        return np.asarray(side <= np.quantile(side, share))
    owner = clustered(COUNT, DIM, seed=1, clusters=CLUSTERS)[1]
    return np.isin(owner, random.permutation(CLUSTERS)[: round(share * CLUSTERS)])


@pytest.mark.parametrize("name", ["random", "half-space", "clusters"])
@pytest.mark.parametrize("share", [0.97, 0.8, 0.5, LEAST])
def test_a_filter_costs_no_recall(index: Index, items: Vectors, users: Vectors, name: str, share: float) -> None:
    mask = mask_of(name, items, share)
    row_filter = index.select(mask)
    assert not row_filter.is_small
    plain = index.search(users, k=10)[1] >= exact.top_k(users, items, k=10)[1][:, -1:]
    rows, scores = index.search(users, k=10, row_filter=row_filter)
    assert mask[rows].all()
    found = scores >= exact.top_k(users, items, k=10, keep=mask)[1][:, -1:]
    assert found.mean() >= plain.mean() - 0.02


@pytest.mark.parametrize("name", ["half-space", "clusters"])
def test_vectors_that_vary_in_few_directions(name: str, items: Vectors, users: Vectors) -> None:
    """Learned vectors do. Scores then spread further around the mean of a list than the variance per dimension says."""
    stretch = np.concatenate([np.full(6, 1.0), np.full(DIM - 6, 0.2)]).astype(np.float32)
    items, users = ((rows * stretch) / np.linalg.norm(rows * stretch, axis=1, keepdims=True) for rows in (items, users))
    index = Index.build(items, factory.IndexSpec("ivf", "IVF300,SQfp16"))
    index.params = SearchParams(nprobe=4)
    mask = mask_of(name, items, 0.5)
    found = index.search(users, k=10, row_filter=index.select(mask))[1]
    assert (found >= exact.top_k(users, items, k=10, keep=mask)[1][:, -1:]).mean() >= 0.97


def test_the_most_distant_rows_are_found(index: Index, items: Vectors, users: Vectors) -> None:
    """The filter leaves nothing in the lists near the user, and k is large."""
    mask = np.zeros(COUNT, dtype=np.bool_)
    mask[exact.top_k(users[:1], items, k=COUNT)[0][0][-20_000:]] = True
    rows, _ = index.search(users[:1], k=1_000, row_filter=index.select(mask))
    assert mask[rows].all()
    assert len(set(rows[0].tolist())) == 1_000


def test_equal_vectors_are_ordered_by_row(items: Vectors) -> None:
    items = items.copy()
    items[1_000:1_040] = items[3]
    index = Index.build(items, factory.IndexSpec("ivf", "IVF300,SQfp16"))
    row_filter = index.select(np.arange(COUNT) % 2 == 0)
    assert not row_filter.is_small
    rows, _ = index.search(items[[3, 5_000]], k=15, row_filter=row_filter)
    assert rows[0].tolist() == list(range(1_000, 1_030, 2))


@pytest.mark.parametrize("name", ["random", "half-space", "clusters"])
def test_a_batch_gives_the_same_bits_as_single_queries(index: Index, items: Vectors, users: Vectors, name: str) -> None:
    row_filter = index.select(mask_of(name, items, 0.5))
    best_rows = index.search(users[:40], k=8, row_filter=row_filter)[0]
    exclude = from_lists([found[: at % 8] for at, found in enumerate(best_rows)])
    rows, scores = index.search(users[:40], k=10, row_filter=row_filter, exclude=exclude)
    for query in range(40):
        own = exclude.block(query, query + 1)
        one = index.search(users[query : query + 1], k=10, row_filter=row_filter, exclude=own)
        assert np.array_equal(one[0][0], rows[query])
        assert np.array_equal(one[1][0], scores[query])
        assert not set(rows[query].tolist()) & set(own.indices.tolist())


def test_few_passing_rows_are_searched_exactly(index: Index, items: Vectors, users: Vectors) -> None:
    mask = mask_of("clusters", items, 0.05)
    assert index.select(mask).is_small
    rows, scores = index.search(users[:6], k=10, row_filter=index.select(mask))
    for query in range(6):
        expected = best(users[query], items, k=10, allowed=np.flatnonzero(mask).tolist())
        assert_exact(rows[query], scores[query], expected, items)
