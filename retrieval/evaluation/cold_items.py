"""Cold items: how well items without any training interaction are found, by what they are made of alone."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from retrieval.common.csr import CSR
from retrieval.evaluation.baselines.base import scorer
from retrieval.evaluation.bundle_answers import Answers
from retrieval.evaluation.content_knn import ContentKNN, content
from retrieval.evaluation.held_out import HeldOut, Stage
from retrieval.evaluation.intervals import Bootstrap
from retrieval.evaluation.metric_table import MODEL
from retrieval.metrics import ranking

K: Final = 20
LEAST_TRUTHS: Final = 20  # fewer say nothing


def cold_items(held: HeldOut, stage: Stage, answers: Answers, *, seed: int = 0) -> dict[str, Any] | None:
    """Recall@20 among cold items alone, of the towers, a content-kNN and chance; None where too few were chosen.

    The content-kNN sees the item tower's features and the same histories. Nothing is left to choose its recency by, so
    it is given the best of a few, chosen on the truth itself: it is, if anything, flattered.
    """
    cold = np.flatnonzero((held.popularity == 0) & ~np.isnan(answers.items[:, 0]))
    place = np.full(held.item_count, -1, dtype=np.int64)
    place[cold] = np.arange(len(cold))
    truth, users = _among(stage.truth, place)
    if len(truth.indices) < LEAST_TRUTHS or len(cold) <= K:
        return None
    seen = stage.seen.take(users).mapped(place)
    histories = stage.histories.take(users)
    own = ranking.ranks(answers.users[users], answers.items[cold], truth, seen)
    measures = {MODEL: ranking.recall(own, truth, k=K)}
    matrix = content(held)
    if matrix is not None:
        model = ContentKNN(matrix, cold)
        tried = {}
        for decay in model.choices["decay"]:
            score = scorer(model, histories, {"decay": decay})
            ranks = ranking.rank_all(score, items=len(cold), truth=truth, seen=seen).ranks
            tried[decay] = ranking.recall(ranks, truth, k=K)
        measures["content-knn"] = max(tried.values(), key=lambda values: float(values.mean()))
    left = np.maximum(len(cold) - seen.lengths, 1)
    measures["random"] = np.minimum(K / left, 1.0)
    drawn = Bootstrap(measures, seed=seed)
    return {
        "items": len(cold),
        "users": len(users),
        "truths": len(truth.indices),
        f"recall@{K}": {name: drawn.mean(name).to_json() for name in measures},
    }


def _among(lists: CSR, place: npt.NDArray[np.int64]) -> tuple[CSR, npt.NDArray[np.int64]]:
    """The lists as places, those without any left out, and which they were."""
    moved = lists.mapped(place)
    users = np.flatnonzero(moved.lengths)
    return moved.take(users), users


def cold_line(cold: Mapping[str, Any]) -> str:
    """One line about cold items."""
    values = ", ".join(f"{name} {interval['value']:.4f}" for name, interval in cold[f"recall@{K}"].items())
    return f"Cold-start items ({cold['items']:,} without training interactions), recall@{K}: {values}"
