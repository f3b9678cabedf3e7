"""Users of whom only features are known: the held-out users asked again, their histories withheld."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from retrieval.bundle.reader import Bundle
from retrieval.common import csr
from retrieval.common.arrays import Vectors
from retrieval.evaluation.baselines.base import scorer
from retrieval.evaluation.baselines.popularity import Popularity
from retrieval.evaluation.bundle_answers import embed_users
from retrieval.evaluation.held_out import HeldOut, Stage
from retrieval.evaluation.intervals import Bootstrap
from retrieval.evaluation.metric_table import MODEL
from retrieval.metrics import ranking

MEASURES: Final = {"recall": ranking.recall, "ndcg": ranking.ndcg}


def features_only(
    bundle: Bundle, held: HeldOut, stage: Stage, items: Vectors, *, k: int, seed: int = 0
) -> dict[str, Any] | None:
    """Recall and NDCG at k of users without a history; None where the user tower reads none to withhold.

    items: (items, dim), NaN for what the index does not hold. What is to be found and what is left out of the ranking
    are those of the stage. Beside the towers stand popularity and, where users have features, the towers given
    the features of another user: what they say of a user is worth no more than the gap to it.
    """
    if bundle.schema.user.history is None:
        return None
    unknown = stage._replace(histories=csr.empty(len(stage.rows)))
    users = embed_users(bundle, held, unknown)
    features = [feature.name for feature in bundle.schema.user.inputs if feature.kind != "history"]
    ranked = {MODEL: ranking.ranks(users, items, stage.truth, stage.seen)}
    if features:
        others = users[np.random.default_rng(seed).permutation(len(users))]
        ranked["shuffled user features"] = ranking.ranks(others, items, stage.truth, stage.seen)
    popularity = Popularity()
    popularity.fit(held.training)
    score = scorer(popularity, unknown.histories, {})
    ranked["popularity"] = ranking.rank_all(score, items=held.item_count, truth=stage.truth, seen=stage.seen).ranks
    drawn = Bootstrap(
        {
            f"{name} {measure}": function(ranks, stage.truth, k=k)
            for name, ranks in ranked.items()
            for measure, function in MEASURES.items()
        },
        seed=seed,
    )
    return {
        "features": features,
        "users": len(users),
        **{
            f"{measure}@{k}": {name: drawn.mean(f"{name} {measure}").to_json() for name in ranked}
            for measure in MEASURES
        },
    }


def measured_at(told: Mapping[str, Any]) -> str:
    """The name of the measure that judges: "ndcg@10"."""
    return next(name for name in told if name.startswith("ndcg@"))


def features_line(told: Mapping[str, Any]) -> str:
    """One line about users without a history."""
    metric = measured_at(told)
    values = ", ".join(f"{name} {interval['value']:.4f}" for name, interval in told[metric].items())
    known = f"only {', '.join(told['features'])} known" if told["features"] else "nothing known"
    return f"Cold-start users ({known}), {metric}: {values}"
