"""Ratings: what a score means in stars, how far predictions are off, and what the simplest predictors reach."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.integer[Any]]
Values = npt.NDArray[np.floating[Any]]

DAMPING: Final = 5.0  # ratings at the mean that every user and item is taken to have given or got besides


def stars(scores: Values, *, low: float, high: float) -> npt.NDArray[np.float64]:
    """Scale cosines back to the range of the ratings that training saw: -1 is the lowest, 1 the highest.

    scores: any shape; a score beyond [-1, 1], by rounding or without a sense as a rating, counts as its end.
    """
    return low + (np.clip(np.asarray(scores, np.float64), -1.0, 1.0) + 1.0) / 2.0 * (high - low)


def errors(predicted: Values, actual: Values) -> dict[str, float]:
    """Root of the mean squared error, and the mean absolute error. predicted, actual: (n,), one shape, n > 0."""
    # Were one of them (n, 1), numpy would silently average over n x n pairs.
    assert predicted.shape == actual.shape, (predicted.shape, actual.shape)
    assert actual.ndim == 1
    off = np.asarray(predicted, np.float64) - np.asarray(actual, np.float64)
    return {"rmse": float(np.sqrt(np.mean(off**2))), "mae": float(np.mean(np.abs(off)))}


def bias_errors(
    train_users: Rows, train_items: Rows, train_values: Values, *, users: Rows, items: Rows, actual: Values
) -> dict[str, dict[str, float]]:
    """Errors of three predictors that know nothing but averages of the training ratings.

    train_*: (n,) rows and ratings that train; users, items, actual: (m,) those to predict.
    The last is the baseline predictor of Koren, Bell and Volinsky, 2009 (doi 10.1109/MC.2009.263), equation 1, with
    damped averages: item first, then user on what is left.
    """
    height = 1 + int(max(train_users.max(initial=0), users.max(initial=0)))
    width = 1 + int(max(train_items.max(initial=0), items.max(initial=0)))
    values = np.asarray(train_values, np.float64)
    mean = float(values.mean())
    of_user = _damped(train_users, values - mean, height, damping=0.0)
    of_item = _damped(train_items, values - mean, width, damping=DAMPING)
    rest = _damped(train_users, values - mean - of_item[train_items], height, damping=DAMPING)
    return {
        "global mean": errors(np.full(len(actual), mean), actual),
        "user mean": errors(mean + of_user[users], actual),
        "user + item bias": errors(mean + of_item[items] + rest[users], actual),
    }


def _damped(rows: Rows, values: Values, height: int, *, damping: float) -> npt.NDArray[np.float64]:
    """Mean of the values of each row, drawn towards 0; 0 where there is none."""
    total = np.bincount(rows, weights=values, minlength=height)
    count = np.bincount(rows, minlength=height)
    mean: npt.NDArray[np.float64] = total / np.maximum(count + damping, 1e-12)
    return mean
