import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrieval.common import csr

LISTS = st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=8)


def test_pairs_keep_their_order_within_each_owner() -> None:
    pairs = csr.from_pairs(np.array([2, 0, 2, 0]), np.array([7, 5, 3, 1]), height=4)
    assert [pairs.list(row).tolist() for row in range(4)] == [[5, 1], [], [7, 3], []]
    assert pairs.owners().tolist() == [0, 0, 2, 2]
    assert pairs.ages().tolist() == [1, 0, 1, 0]


@given(LISTS)
def test_lists_come_back(lists: list[list[int]]) -> None:
    rows = csr.from_lists(lists)
    assert rows.height == len(lists)
    assert [rows.list(row).tolist() for row in range(rows.height)] == lists
    again = csr.from_pairs(rows.owners(), rows.indices, height=rows.height)
    assert again.indptr.tolist() == rows.indptr.tolist()
    assert again.indices.tolist() == rows.indices.tolist()


@given(LISTS, st.data())
def test_take_block_and_newest_are_those_of_lists(lists: list[list[int]], data: st.DataObject) -> None:
    rows = csr.from_lists(lists)
    start = data.draw(st.integers(0, len(lists)))
    stop = data.draw(st.integers(start, len(lists)))
    block = rows.block(start, stop)
    assert [block.list(row).tolist() for row in range(block.height)] == lists[start:stop]
    picks = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=5)) if lists else []
    taken = rows.take(np.array(picks, dtype=np.int64))
    assert [taken.list(row).tolist() for row in range(taken.height)] == [lists[pick] for pick in picks]
    newest = rows.newest(2)
    assert [newest.list(row).tolist() for row in range(newest.height)] == [entry[-2:] for entry in lists]


def test_merge_puts_the_first_before_the_second() -> None:
    merged = csr.merge(csr.from_lists([[1, 2], []]), csr.from_lists([[0], [3]]))
    assert [merged.list(row).tolist() for row in range(2)] == [[1, 2, 0], [3]]
    assert csr.empty(3).lengths.tolist() == [0, 0, 0]
    assert csr.from_lists([[1], [1, 2]]).counts(4).tolist() == [0, 2, 1, 0]


def test_mapped_entries_are_places_and_those_without_are_left_out() -> None:
    moved = csr.from_lists([[2, 0], [1], [], [0, 2]]).mapped(np.array([5, -1, 7]))
    assert [moved.list(row).tolist() for row in range(moved.height)] == [[7, 5], [], [], [5, 7]]
