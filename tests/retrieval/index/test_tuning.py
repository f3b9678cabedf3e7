"""Tuning reaches the requested recall on users that it did not see."""

import pytest

from retrieval.index import exact, factory
from retrieval.index.index import Index
from retrieval.index.tuning import tune
from tests.support.brute import clustered

DIM = 16


@pytest.mark.parametrize("kind", ["ivf", "pq", "HNSW16", "SQfp16", "RR16,IVF20,SQ8"])
@pytest.mark.parametrize("recall", [0.9, 0.99])
def test_tuning_reaches_the_recall(kind: str, recall: float) -> None:
    items, users = clustered(8_000, DIM, seed=1)[0], clustered(400, DIM, seed=2)[0]
    index = Index.build(items, factory.choose(kind, count=8_000, dim=DIM))
    tuned = tune(index, users[:200], recall=recall)
    scores = index.search(users[200:], k=10, params=tuned.params)[1]
    assert (scores >= exact.top_k(users[200:], items, k=10)[1][:, -1:]).mean() >= recall - 0.02
    assert tuned.recall >= recall - 0.02
    chosen = [point for point in tuned.curve if tuned.params.to_json().items() <= point.items()]
    assert chosen[0]["recall@10"] >= recall


def test_a_flat_index_needs_no_tuning() -> None:
    items = clustered(100, DIM, seed=1)[0]
    index = Index.build(items, factory.IndexSpec("flat", ""))
    assert tune(index, items, recall=0.5).recall == 1.0
