"""Arranging: lists hold the same as before, what is wanted most first, and nothing else is found."""

import faiss
import numpy as np
import pytest

from retrieval.index import factory
from retrieval.index.arranging import can_arrange
from retrieval.index.factory import SearchParams
from retrieval.index.index import Index, Vectors
from tests.support.brute import clustered

DIM = 16
COUNT = 4_000


@pytest.fixture(scope="module")
def items() -> Vectors:
    return clustered(COUNT, DIM, seed=1)[0]


@pytest.fixture(scope="module")
def users() -> Vectors:
    return clustered(200, DIM, seed=2)[0]


@pytest.mark.parametrize("codes", ["SQfp16", "Flat"])
def test_what_is_wanted_most_comes_first(items: Vectors, users: Vectors, codes: str) -> None:
    index = Index.build(items, factory.IndexSpec("own", f"IVF20,{codes}"))
    assert index.lists is not None
    before = [sorted(index.lists.list(number).tolist()) for number in range(20)]
    found = index.search(users, k=10, effort=SearchParams(probes=3))
    looked = np.random.default_rng(0).random((len(users), 20)) < 0.2
    looked[:, 7] = False
    least = np.full(len(users), 0.3, dtype=np.float32)
    order = index.lists.list(7).tolist()
    index.arrange(users, looked, least)
    assert index.lists.list(7).tolist() == order  # nobody looks into it
    for number in range(20):
        rows = index.lists.list(number)
        assert sorted(rows.tolist()) == before[number]
        if number != 7:
            worth = [sum(max(float(user @ items[row]) - 0.3, 0.0) for user in users[looked[:, number]]) for row in rows]
            assert (np.diff(worth) <= 1e-4).all()
    again = index.search(users, k=10, effort=SearchParams(probes=3))
    assert np.array_equal(again[0], found[0])
    assert np.array_equal(again[1], found[1])


@pytest.mark.parametrize("codes", ["SQfp16", "Flat"])
def test_each_row_keeps_its_code(items: Vectors, users: Vectors, codes: str) -> None:
    index = Index.build(items, factory.IndexSpec("own", f"IVF20,{codes}"))
    index.arrange(users, np.ones((len(users), 20), dtype=np.bool_), np.zeros(len(users), dtype=np.float32))
    base = faiss.downcast_index(index.structure.base_index)
    base.nprobe = 20
    assert base.search(items, 1)[1][:, 0].tolist() == list(range(COUNT))


def test_codes_of_4_bits_stay_as_they_are(items: Vectors) -> None:
    index = Index.build(items, factory.IndexSpec("own", f"IVF20,PQ{DIM}x4fs"))
    assert index.lists is not None
    assert not can_arrange(index.lists.ivf)
