"""One suite for every kind of index: rows, scores, order, ties, filters and exclusions against brute force."""

from pathlib import Path

import numpy as np
import pytest

from retrieval.common.arrays import Vectors
from retrieval.common.csr import from_lists
from retrieval.common.errors import BundleError, DataError, QueryError
from retrieval.index import factory
from retrieval.index.index import Index
from tests.support.brute import assert_close, assert_exact, best, clustered

DIM = 16
COUNT = 6_000
COPIES = [7, *range(100, 140)]  # rows with the same vector
KINDS = ["flat", "ivf", "pq", "IVF30,SQ8", "HNSW16", "RR16,IVF20,SQ8", "SQfp16", "PQ16x4fs,RFlat"]


@pytest.fixture(scope="module")
def items() -> Vectors:
    rows = clustered(COUNT, DIM, seed=1)[0]
    rows[COPIES] = rows[7]
    return rows


@pytest.fixture(scope="module", params=KINDS)
def index(request: pytest.FixtureRequest, items: Vectors, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Built, saved and opened again, with the most thorough search parameters."""
    spec = factory.choose(request.param, count=COUNT, dim=DIM, recall=0.95)
    built = Index.build(items, spec)
    params = factory.DEFAULT_PARAMS if spec.is_flat else list(factory.search_grid(spec, built.structure))[-1]
    path = tmp_path_factory.mktemp("index") / "index.faiss"
    built.save(path)
    return Index.load(path, spec, params=params, added=np.empty((0, DIM), np.float32), removed=np.empty(0, np.int64))


@pytest.mark.parametrize("queries", [1, 30])
@pytest.mark.parametrize("k", [1, 10, 150, COUNT + 5])
def test_finds_the_best_rows(index: Index, items: Vectors, queries: int, k: int) -> None:
    vectors = clustered(queries, DIM, seed=5)[0]
    vectors[0] = items[7]  # scores the same with 41 rows
    before = vectors.copy()
    rows, scores = index.search(vectors, k=k)
    assert rows.shape == scores.shape == (queries, k)
    assert rows.dtype == np.int64
    assert scores.dtype == np.float32
    for query in range(0, queries, 5):
        expected = best(vectors[query], items, k=k)
        if factory.is_graph(index.structure) and k < COUNT:  # a search does not reach every node of a graph
            assert_close(rows[query], scores[query], expected, vectors[query], items, recall=0.6)
        else:
            assert_exact(rows[query], scores[query], expected, items)
    assert np.array_equal(before, vectors)


def test_a_batch_gives_the_same_bits_as_single_queries(index: Index, items: Vectors) -> None:
    vectors = clustered(60, DIM, seed=2)[0]
    vectors[7] = items[7]
    rows, scores = index.search(vectors, k=10)
    for query in range(60):
        one = index.search(vectors[query : query + 1], k=10)
        assert np.array_equal(one[0][0], rows[query])
        assert np.array_equal(one[1][0], scores[query])


@pytest.mark.parametrize("queries", [1, 12])
@pytest.mark.parametrize("share", [0.97, 0.0, 0.0005])
def test_a_filter_leaves_k_results(index: Index, items: Vectors, share: float, queries: int) -> None:
    mask = np.random.default_rng(3).random(COUNT) < share
    vectors = clustered(queries, DIM, seed=6)[0]
    rows, scores = index.search(vectors, k=10, row_filter=index.select(mask))
    for query in range(queries):
        expected = best(vectors[query], items, k=10, allowed=np.flatnonzero(mask).tolist())
        assert_exact(rows[query], scores[query], expected, items)


@pytest.mark.parametrize("queries", [1, 5])
@pytest.mark.parametrize("excluded", [1, 60, 1500])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_excluded_rows_are_not_found(index: Index, items: Vectors, excluded: int, share: float, queries: int) -> None:
    """The best rows of each query are excluded, so that every exclusion matters."""
    mask = np.random.default_rng(4).random(COUNT) < share
    vectors = clustered(queries, DIM, seed=7)[0]
    lists = [np.array(best(query, items, k=excluded + at)[0]) for at, query in enumerate(vectors)]
    row_filter = None if share == 1 else index.select(mask)
    rows, scores = index.search(vectors, k=10, row_filter=row_filter, exclude=from_lists(lists))
    for query in range(queries):
        allowed = set(np.flatnonzero(mask).tolist()) - set(lists[query].tolist())
        assert_exact(rows[query], scores[query], best(vectors[query], items, k=10, allowed=allowed), items)


def test_added_and_removed_rows(index: Index, items: Vectors) -> None:
    live = Index(index.structure, index.spec, params=index.params)
    new = clustered(50, DIM, seed=9)[0]
    assert live.add(new).tolist() == list(range(COUNT, COUNT + 50))
    live.remove(np.array([7, 100, COUNT + 3]))
    live.remove(np.array([7]))
    everything = np.concatenate([items, new])
    allowed = set(range(COUNT + 50)) - {7, 100, COUNT + 3}
    assert live.count == len(allowed)
    even = live.select(np.arange(COUNT + 50) % 2 == 0)
    for vectors in (items[7:8], new[3:4], new[:9]):
        exclude = from_lists([[0, COUNT + 4]] * len(vectors))
        rows, scores = live.search(vectors, k=10)
        filtered, filtered_scores = live.search(vectors, k=10, row_filter=even, exclude=exclude)
        for query in range(len(vectors)):
            expected = best(vectors[query], everything, k=10, allowed=allowed)
            assert_exact(rows[query], scores[query], expected, everything)
            passing = {row for row in allowed if row % 2 == 0} - {0, COUNT + 4}
            expected = best(vectors[query], everything, k=10, allowed=passing)
            assert_exact(filtered[query], filtered_scores[query], expected, everything)
    assert np.array_equal(live.vectors(np.array([COUNT + 1, 5])), everything[[COUNT + 1, 5]])
    with pytest.raises(IndexError):
        live.remove(np.array([COUNT + 50]))


def test_rejects_other_dimensions_and_k_below_one(index: Index) -> None:
    with pytest.raises(QueryError, match="16 numbers"):
        index.search(np.zeros((1, 3), np.float32), k=1)
    with pytest.raises(QueryError, match="at least 1"):
        index.search(np.zeros((1, DIM), np.float32), k=0)
    assert index.search(np.zeros((0, DIM), np.float32), k=4)[0].shape == (0, 4)


def test_removing_every_row_leaves_no_results() -> None:
    rows = clustered(5, DIM, seed=1)[0]
    index = Index.build(rows, factory.choose("flat", count=5, dim=DIM, recall=1))
    index.remove(np.arange(5))
    assert index.search(rows, k=2)[0].tolist() == [[-1, -1]] * 5


def test_a_search_follows_changes_of_the_index() -> None:
    items = clustered(3_000, DIM, seed=1, spread=2.0)[0]
    index = Index.build(items, factory.choose("ivf", count=3_000, dim=DIM, recall=0.9))
    query = clustered(1, DIM, seed=3)[0]
    index.params = factory.SearchParams(nprobe=1)
    few = index.search(query, k=10)[1]
    index.params = factory.SearchParams(nprobe=10_000)
    every = index.search(query, k=10)[1]
    assert (every >= few).all()
    assert not np.array_equal(every, few)
    first = int(index.search(query, k=1)[0][0, 0])
    index.remove(np.array([first]))
    assert first not in index.search(query, k=1)[0]
    assert index.search(query, k=1)[0].tolist() != [index.add(query).tolist()]
    assert index.search(query, k=1)[0].tolist() == [[3_000]]


def test_the_same_seed_builds_the_same_bytes(items: Vectors, tmp_path: Path) -> None:
    spec = factory.choose("ivf", count=COUNT, dim=DIM, recall=0.9)
    for name in ("a", "b"):
        Index.build(items, spec, seed=3).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_index_of_another_kind_is_refused(items: Vectors, tmp_path: Path) -> None:
    flat, ivf = (factory.choose(name, count=COUNT, dim=DIM, recall=0.9) for name in ("flat", "ivf"))
    Index.build(items, flat).save(tmp_path / "index.faiss")
    empty, none = np.empty((0, DIM), np.float32), np.empty(0, np.int64)
    with pytest.raises(BundleError, match=r"index\.faiss"):
        Index.load(tmp_path / "index.faiss", ivf, params=factory.DEFAULT_PARAMS, added=empty, removed=none)
    (tmp_path / "index.faiss").write_bytes(b"not an index")
    with pytest.raises(BundleError, match=r"index\.faiss"):
        Index.load(tmp_path / "index.faiss", flat, params=factory.DEFAULT_PARAMS, added=empty, removed=none)


@pytest.mark.parametrize("spec", ["IVF99999,Flat", "IVF4,PQ7", "PQ16x12", "IVF32,PQ16x12", "PCA99,Flat"])
def test_a_factory_string_that_does_not_fit_is_named(items: Vectors, spec: str) -> None:
    with pytest.raises(DataError) as caught:
        Index.build(items[:200], factory.choose(spec, count=200, dim=DIM))
    assert f'--kind "{spec}"' in str(caught.value)
    assert "\n" not in str(caught.value)
