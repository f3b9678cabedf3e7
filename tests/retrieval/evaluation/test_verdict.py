"""The verdict against the best baseline, and the suggestions that follow from it."""

import numpy as np
import pytest

from retrieval.evaluation.intervals import Bootstrap
from retrieval.evaluation.verdict import Verdict, compare, suggest


def drawn(model: float, rival: float, users: int = 400, seed: int = 0) -> tuple[Bootstrap, float, float]:
    random = np.random.default_rng(seed)
    own, other = (random.random(users) < share for share in (model, rival))
    measures = {"model ndcg@10": own, "model recall@10": own, "knn ndcg@10": other, "knn recall@10": other}
    return Bootstrap({name: values.astype(float) for name, values in measures.items()}), own.mean(), other.mean()


@pytest.mark.parametrize(
    ("model", "rival", "outcome", "says"),
    [
        (0.5, 0.2, "wins", "Better than the best baseline, knn; NDCG@10 +"),
        (0.2, 0.5, "loses", "LOSES to the best baseline, knn; NDCG@10 -"),
        (0.3, 0.29, "level", "No significant difference from the best baseline, knn; NDCG@10 "),
    ],
)
def test_verdicts(model: float, rival: float, outcome: str, says: str) -> None:
    sample, own, other = drawn(model, rival)
    rivals = {"knn": {"ndcg@10": other, "recall@10": other}}
    verdict = compare(sample, {"ndcg@10": own, "recall@10": own}, rivals, k=10, users=400)
    assert verdict.outcome == outcome
    assert verdict.sentence.startswith(says)
    assert "400 users): NDCG@10 " in verdict.sentence
    assert verdict.behind == (own < other)


def test_suggestions_follow_from_the_training() -> None:
    config = {
        "user": {"features": [{"name": "history", "kind": "history"}]},
        "item": {"features": [{"name": "item_id", "kind": "category"}]},
        "model": {"dim": 64, "user": {"encoder": "mean"}},
        "train": {"objective": "softmax", "epochs": 30, "lr": 0.003},
    }
    rising = [{"epoch": epoch, "ndcg@10": epoch / 100} for epoch in (1, 2, 3)]
    behind = Verdict("loses", "transitions", "", behind=True)
    tips = suggest(config, rising, in_order=True, verdict=behind)
    assert "train.epochs = 60" in tips[0]
    assert any('transitions uses the order of the history: try model.encoder = "attention"' in line for line in tips)
    assert any("add item features" in line for line in tips)
    assert any("try a wider tower" in line for line in tips)
    assert "train.seed = 1" in tips[-1]
    ensemble = {**config, "model": {"dim": 64, "ease": {"weight": 0.3}}}
    assert any(
        "model.dropout = 0.5, model.ease.weight = 0.3" in line
        for line in suggest(ensemble, rising, in_order=True, verdict=behind)
    )
    tips = suggest(config, rising, in_order=False, verdict=behind, missed=0.022)
    assert "approximate search costs 2% of NDCG: use exact search with twotower index build DIR --recall 1" in tips[0]
    assert "train.epochs = 60" in tips[1]
    level = Verdict("level", "ease", "")
    falling = [{"epoch": epoch, "ndcg@10": 1 / epoch} for epoch in (1, 2, 3)]
    tips = suggest(config, falling, in_order=False, verdict=level, spare_users=900)
    assert "a smaller train.lr than 0.003" in tips[0]
    assert "900 held-out users" in tips[-1]
    ease = {**config, "model": {"dim": 64, "ease": {"weight": 1.0}}}
    for_ease = suggest(ease, [], in_order=True, verdict=behind)
    assert not any("epochs" in line or "wider tower" in line for line in for_ease)
    nobody = suggest(config, [], in_order=True, verdict=Verdict("loses", "popularity", "", behind=True))
    assert any("popularity recommends the same items to everyone" in line for line in nobody)
