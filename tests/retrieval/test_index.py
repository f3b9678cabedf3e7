"""Every kind of index passes one suite, against brute force."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval.common.csr import from_lists
from retrieval.common.errors import BundleError, DataError, QueryError
from retrieval.index import factory as kinds
from retrieval.index.index import Index, Vectors
from tests.support.brute import best, clustered, nearly, same

DIM = 16
COUNT = 6_000
ALL_KINDS = [
    "flat",
    "ivf",
    "pq",
    "ivf within",
    "pq within",
    "IVF20,Flat",
    "IVF30,SQ8",
    "HNSW16",
    "RR16,IVF20,PQ8",
    "SQfp16",
    "PQ16x4fs,RFlat",
]


@pytest.fixture(scope="module")
def items() -> Vectors:
    """With 40 equal vectors."""
    rows = clustered(COUNT, DIM, seed=1)[0]
    rows[100:140] = rows[7]
    return rows


@pytest.fixture(scope="module", params=ALL_KINDS)
def index(request: pytest.FixtureRequest, items: Vectors, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Built, searched as hard as it can be, saved and opened again."""
    name, _, within = request.param.partition(" ")
    kind = kinds.choose(name, count=len(items), dim=DIM, recall=0.95)
    built = Index.build(items, kind)
    effort = kinds.LEAST if kind.is_flat else list(kinds.efforts(kind, built.structure))[-1]
    if within:
        effort = replace(effort, within=4.0)  # every list is so near
    path = tmp_path_factory.mktemp("index") / "index.faiss"
    built.save(path)
    empty = np.empty((0, DIM), np.float32)
    return Index.load(path, kind, effort=effort, added=empty, removed=np.empty(0, np.int64))


@pytest.mark.parametrize("queries", [1, 2, 30])
@pytest.mark.parametrize("k", [1, 10, 150])
def test_finds_what_brute_force_finds(index: Index, items: Vectors, queries: int, k: int) -> None:
    asked = clustered(queries, DIM, seed=5)[0]
    asked[0] = items[7]
    before = asked.copy()
    rows, scores = index.search(asked, k=k)
    assert rows.shape == scores.shape == (queries, k)
    for query in range(queries):
        expected = best(asked[query], items, k=k)
        if kinds.is_graph(index.structure):  # a graph has places that its search does not reach
            nearly(rows[query], scores[query], expected, asked[query], items, floor=0.6)
        else:
            same(rows[query], scores[query], expected, items)
    assert np.array_equal(before, asked)


def test_k_above_the_number_of_items_leaves_a_tail_of_none(index: Index, items: Vectors) -> None:
    rows, scores = index.search(items[:1], k=COUNT + 5)
    assert sorted(rows[0, :COUNT].tolist()) == list(range(COUNT))
    assert (rows[0, COUNT:] == -1).all()
    assert np.isneginf(scores[0, COUNT:]).all()


@pytest.mark.parametrize("queries", [1, 12])
@pytest.mark.parametrize("share", [0.9, 0.3, 0.01, 0.0005, 0.0])
def test_a_filter_keeps_k(index: Index, items: Vectors, share: float, queries: int) -> None:
    keep = np.random.default_rng(3).random(COUNT) < share
    allowed = np.flatnonzero(keep).tolist()
    asked = clustered(queries, DIM, seed=6)[0]
    rows, scores = index.search(asked, k=10, among=index.select(keep))
    for query in range(queries):
        same(rows[query], scores[query], best(asked[query], items, k=10, allowed=allowed), items)


@pytest.mark.parametrize("queries", [1, 12])
@pytest.mark.parametrize("hidden", [1, 60, 1500])
def test_excluded_rows_are_not_found_and_k_are(index: Index, items: Vectors, hidden: int, queries: int) -> None:
    asked = clustered(queries, DIM, seed=7)[0]
    # The very best ones, so that every exclusion matters.
    lists = [np.array(best(query, items, k=hidden)[0]) for query in asked]
    rows, scores = index.search(asked, k=10, exclude=from_lists(lists))
    for query in range(queries):
        allowed = set(range(COUNT)) - set(lists[query].tolist())
        same(rows[query], scores[query], best(asked[query], items, k=10, allowed=allowed), items)


def test_filter_and_exclusion_together(index: Index, items: Vectors) -> None:
    keep = np.arange(COUNT) % 3 == 0
    asked = clustered(5, DIM, seed=8)[0]
    lists = [np.array(best(query, items, k=90)[0]) for query in asked]
    rows, scores = index.search(asked, k=10, among=index.select(keep), exclude=from_lists(lists))
    for query in range(5):
        allowed = set(np.flatnonzero(keep).tolist()) - set(lists[query].tolist())
        same(rows[query], scores[query], best(asked[query], items, k=10, allowed=allowed), items)


def test_equal_vectors_come_by_row_even_where_they_are_cut(index: Index, items: Vectors) -> None:
    rows, _ = index.search(items[7:8], k=20)
    if kinds.is_graph(index.structure):
        assert rows[0].tolist() == sorted(rows[0].tolist())
        return
    assert rows[0].tolist() == [7, *range(100, 119)]


def test_added_and_removed_rows(index: Index, items: Vectors) -> None:
    live = Index(index.structure, index.kind, effort=index.effort)
    new = clustered(50, DIM, seed=9)[0]
    assert live.add(new).tolist() == list(range(COUNT, COUNT + 50))
    live.remove(np.array([7, 100, COUNT + 3]))
    live.remove(np.array([7]))
    everything = np.concatenate([items, new])
    allowed = set(range(COUNT + 50)) - {7, 100, COUNT + 3}
    assert live.count == len(allowed)
    keep = np.arange(COUNT + 50) % 2 == 0
    for asked in (items[7:8], new[3:4], new[:9]):
        rows, scores = live.search(asked, k=10)
        filtered, filtered_scores = live.search(
            asked, k=10, among=live.select(keep), exclude=from_lists([[0, COUNT + 4]] * len(asked))
        )
        for query in range(len(asked)):
            same(rows[query], scores[query], best(asked[query], everything, k=10, allowed=allowed), everything)
            left = {row for row in allowed if row % 2 == 0} - {0, COUNT + 4}
            expected = best(asked[query], everything, k=10, allowed=left)
            same(filtered[query], filtered_scores[query], expected, everything)
    assert np.array_equal(live.vectors(np.array([COUNT + 1, 5])), everything[[COUNT + 1, 5]])
    with pytest.raises(IndexError):
        live.remove(np.array([COUNT + 50]))


def test_what_cannot_be_asked(index: Index) -> None:
    with pytest.raises(QueryError, match="16 numbers"):
        index.search(np.zeros((1, 3), np.float32), k=1)
    with pytest.raises(QueryError, match="at least 1"):
        index.search(np.zeros((1, DIM), np.float32), k=0)
    assert index.search(np.zeros((0, DIM), np.float32), k=4)[0].shape == (0, 4)


def test_all_removed_finds_nothing() -> None:
    rows = clustered(5, DIM, seed=1)[0]
    index = Index.build(rows, kinds.choose("flat", count=5, dim=DIM, recall=1))
    index.remove(np.arange(5))
    assert index.search(rows, k=2)[0].tolist() == [[-1, -1]] * 5


def test_the_same_seed_builds_the_same_bytes(items: Vectors, tmp_path: Path) -> None:
    kind = kinds.choose("ivf", count=COUNT, dim=DIM, recall=0.9)
    for name in ("a", "b"):
        Index.build(items, kind, seed=3).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_index_of_another_kind_is_refused(items: Vectors, tmp_path: Path) -> None:
    flat, ivf = (kinds.choose(name, count=COUNT, dim=DIM, recall=0.9) for name in ("flat", "ivf"))
    Index.build(items, flat).save(tmp_path / "index.faiss")
    empty, none = np.empty((0, DIM), np.float32), np.empty(0, np.int64)
    with pytest.raises(BundleError, match=r"index\.faiss"):
        Index.load(tmp_path / "index.faiss", ivf, effort=kinds.LEAST, added=empty, removed=none)
    (tmp_path / "index.faiss").write_bytes(b"nothing of the kind")
    with pytest.raises(BundleError, match=r"index\.faiss"):
        Index.load(tmp_path / "index.faiss", flat, effort=kinds.LEAST, added=empty, removed=none)


@pytest.mark.parametrize(
    ("count", "recall", "expected"),
    [
        (100, None, "flat"),
        (19_999, None, "flat"),
        (20_000, None, "ivf"),
        (1_000_000, None, "pq"),
        (999, 0.95, "flat"),
        (1_682, 0.95, "ivf"),
        (10_000, 0.95, "ivf"),
        (50_000, 0.95, "ivf"),
        (1_000_000, 0.95, "pq"),
        (1_000_000, 1.0, "flat"),
    ],
)
def test_auto_goes_by_size(count: int, recall: float | None, expected: str) -> None:
    assert kinds.choose("auto", count=count, dim=64, recall=recall).name == expected


@pytest.mark.parametrize("factory", ["IVF99999,Flat", "IVF4,PQ7", "PQ16x12", "IVF32,PQ16x12", "PCA99,Flat"])
def test_a_factory_that_does_not_fit_is_named(items: Vectors, factory: str) -> None:
    with pytest.raises(DataError) as caught:
        Index.build(items[:200], kinds.choose(factory, count=200, dim=DIM))
    assert f'--kind "{factory}"' in str(caught.value)
    assert "\n" not in str(caught.value)


def test_memory_bounds_the_choice() -> None:
    assert kinds.choose("auto", count=100_000, dim=64, recall=0.9, memory_bytes=10**10).name == "ivf"
    assert kinds.choose("auto", count=100_000, dim=64, recall=0.9, memory_bytes=8 * 10**6).name == "pq"
    with pytest.raises(DataError, match="--memory allows"):
        kinds.choose("auto", count=100_000, dim=64, recall=0.9, memory_bytes=10**6)
    with pytest.raises(DataError, match="factory string"):
        kinds.choose("IVF,nonsense", count=1000, dim=64, recall=0.9)
