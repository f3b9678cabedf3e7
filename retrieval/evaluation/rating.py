"""Predicted values against those given, for towers trained to predict them, beside predictors that know averages."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from retrieval.common.text_table import text_table
from retrieval.evaluation.bundle_answers import Answers
from retrieval.evaluation.held_out import HeldOut, Stage
from retrieval.evaluation.metric_table import MODEL
from retrieval.metrics.rating import bias_errors, errors, stars


def rating_errors(
    held: HeldOut, stage: Stage, answers: Answers, scale: Mapping[str, float] | None
) -> dict[str, Any] | None:
    """Errors on the truth of a stage that has a value; None unless the towers predict values.

    scale: the "rating" of schema.json: low and high, which cosines of -1 and 1 stand for.
    """
    if scale is None or not held.has_values:
        return None
    users, items, actual = held.values(stage.name)
    known = np.isfinite(answers.items[items, 0])
    users, items, actual = users[known], items[known], actual[known]
    given = held.values("train")
    if len(actual) == 0 or len(given[2]) == 0:
        return None
    at = np.searchsorted(stage.rows, users)
    cosines = np.einsum("nd,nd->n", answers.users[at], answers.items[items])
    own = errors(stars(cosines, low=float(scale["low"]), high=float(scale["high"])), actual)
    others = bias_errors(*given, users=users, items=items, actual=actual)
    return {
        "ratings": len(actual),
        **{name: round(value, 6) for name, value in own.items()},
        "baselines": {
            name: {metric: round(value, 6) for metric, value in both.items()} for name, both in others.items()
        },
    }


def rating_table(rating: Mapping[str, Any]) -> str:
    """The errors as an aligned table; a star marks the smallest of each column."""
    rows = {MODEL: rating, **rating["baselines"]}
    least = {name: min(row[name] for row in rows.values()) for name in ("rmse", "mae")}
    cells = [
        [label, *(f"{row[name]:.4f}{'*' if row[name] == least[name] else ' '}" for name in least)]
        for label, row in rows.items()
    ]
    header = [f"on {rating['ratings']:,} ratings", "RMSE ", "MAE "]
    return text_table(header, cells, right=[False, True, True])
