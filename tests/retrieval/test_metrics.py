"""Examples worked on paper, brute force over random ones, and an independent library."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.common import csr
from retrieval.common.csr import CSR
from retrieval.metrics import ranking as metrics


def brute_rank(scores: npt.NDArray[Any], target: int, seen: list[int]) -> int:
    return 1 + sum(
        1 for item, score in enumerate(scores) if item != target and item not in seen and score >= scores[target]
    )


def test_ranks_on_paper() -> None:
    queries = np.array([[1, 0], [0, 1]], dtype=np.float32)
    items = np.array([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9], [0.5, 0.2]], dtype=np.float32)
    truth = csr.from_lists([[1, 2], [0]])
    # User 0 scores .9 .5 .1 .5: item 1 ties with item 3 and comes after it, so third; item 2 is last.
    # User 1 scores .1 .5 .9 .2 and has seen item 2: item 0 comes after 1 and 3.
    assert metrics.ranks(queries, items, truth, csr.from_lists([[], [2]])).tolist() == [3, 4, 3]


def test_all_alike_finds_nothing() -> None:
    flat = np.zeros((1, 2), dtype=np.float32)
    assert metrics.ranks(flat, np.ones((50, 2), dtype=np.float32), csr.from_lists([[7]]), csr.empty(1)).tolist() == [50]


def test_a_truth_that_cannot_be_found_is_never_found() -> None:
    queries = np.ones((1, 1), dtype=np.float32)
    items = np.array([[1.0], [np.nan], [3.0]], dtype=np.float32)
    ranks = metrics.ranks(queries, items, csr.from_lists([[0, 1, 2]]), csr.from_lists([[2]]))
    assert ranks.tolist() == [1, metrics.NEVER, metrics.NEVER]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 400))
def test_ranks_and_lists_are_those_of_brute_force(seed: int, items: int, block_bytes: int) -> None:
    rng = np.random.default_rng(seed)
    users = 5
    scores = rng.integers(0, 6, (users, items)).astype(np.float32)  # many ties
    split = [rng.permutation(items) for _ in range(users)]
    wanted = [row[: rng.integers(0, items // 2 + 1)].tolist() for row in split]
    known = [row[items // 2 + 1 :].tolist() for row in split]
    truth, seen = csr.from_lists(wanted), csr.from_lists(known)
    before = scores.copy()
    ranking = metrics.rank_all(
        lambda start, stop: scores[start:stop].copy(), items=items, truth=truth, seen=seen, k=5, block_bytes=block_bytes
    )
    expected = [brute_rank(scores[user], item, known[user]) for user in range(users) for item in wanted[user]]
    assert ranking.ranks.tolist() == expected
    for user in range(users):
        order = [item for item in np.argsort(-scores[user], kind="stable").tolist() if item not in known[user]][:5]
        assert ranking.lists[user].tolist() == order + [-1] * (min(5, items) - len(order))
    np.testing.assert_array_equal(scores, before)


def test_sorting_and_comparing_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    queries, items = rng.normal(size=(9, 4)).astype(np.float32), rng.normal(size=(80, 4)).astype(np.float32)
    truth = csr.from_lists([rng.permutation(80)[:30] for _ in range(9)])
    one = metrics.ranks(queries, items, truth, csr.empty(9))
    monkeypatch.setattr(metrics, "FEW_TRUTHS", 100)
    assert one.tolist() == metrics.ranks(queries, items, truth, csr.empty(9)).tolist()


def test_metrics_on_paper() -> None:
    truth = csr.from_lists([[10, 11, 12], [13], []])
    ranks = np.array([1, 3, 9, 4])
    np.testing.assert_allclose(metrics.recall(ranks, truth, k=3), [2 / 3, 0, np.nan])
    np.testing.assert_allclose(metrics.hit_rate(ranks, truth, k=3), [1, 0, np.nan])
    np.testing.assert_allclose(metrics.mrr(ranks, truth, k=4), [1, 1 / 4, np.nan])
    # User 0: gains at 1 and 3 are 1 and 1/2; the ideal of three truths in four places is 1 + 0.63093 + 0.5.
    # User 1: 1 / log2(5) over 1.
    np.testing.assert_allclose(metrics.ndcg(ranks, truth, k=4), [1.5 / 2.1309297536, 0.4306765581, np.nan])
    # With k = 2 the ideal holds two of the three.
    np.testing.assert_allclose(metrics.ndcg(ranks, truth, k=2), [1 / 1.6309297536, 0, np.nan])


def test_catalogue_metrics_on_paper() -> None:
    lists = np.array([[0, 1], [0, -1]])
    assert metrics.coverage(lists, items=4) == 0.5
    # 8 users; item 0 is had by 4 (1 bit), item 1 by nobody, which counts as one (3 bits): (1 + 3 + 1) / 3.
    assert metrics.novelty(lists, popularity=np.array([4, 0, 1, 1]), users=8) == pytest.approx(5 / 3)
    # Exposures 0 0 1 2: sum of (2 i - n - 1) x_i is -3 * 0 - 1 * 0 + 1 * 1 + 3 * 2 = 7, over 4 * 3.
    assert metrics.gini(lists, items=4) == pytest.approx(7 / 12)
    assert metrics.gini(np.array([[0, 1], [2, 3]]), items=4) == 0
    assert metrics.gini(np.full((1, 2), -1), items=4) == 0


def relevance(scores: npt.NDArray[np.float32], truth: CSR) -> Any:
    torch = pytest.importorskip("torch")
    target = torch.zeros(scores.shape, dtype=torch.bool)
    target[truth.owners(), truth.indices] = True
    return target


@pytest.mark.parametrize("k", [1, 5, 10, 200])
def test_an_independent_library_agrees(k: int) -> None:
    functional = pytest.importorskip("torchmetrics.functional.retrieval")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    scores = rng.permuted(np.arange(12 * 90, dtype=np.float32).reshape(12, 90), axis=1)  # no ties
    truth = csr.from_lists([rng.permutation(90)[: rng.integers(1, 40)] for _ in range(12)])
    ranks = metrics.rank_all(
        lambda start, stop: scores[start:stop].copy(), items=90, truth=truth, seen=csr.empty(12)
    ).ranks
    target = relevance(scores, truth)
    theirs = {
        "recall": functional.retrieval_recall,
        "ndcg": functional.retrieval_normalized_dcg,
        "mrr": functional.retrieval_reciprocal_rank,
        "hit_rate": functional.retrieval_hit_rate,
    }
    for name, reference in theirs.items():
        ours = getattr(metrics, name)(ranks, truth, k=k)
        expected = [
            float(reference(torch.from_numpy(row), hits, top_k=k)) for row, hits in zip(scores, target, strict=True)
        ]
        np.testing.assert_allclose(ours, expected, rtol=1e-5, err_msg=name)  # theirs is float32
