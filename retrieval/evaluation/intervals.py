"""How sure a number is: bootstrap intervals, by drawing the users anew."""

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from retrieval.metrics.ranking import PerUser

RESAMPLES: Final = 1_000
FEWEST: Final = 200
DRAWS: Final = 50_000_000  # users drawn in all, from which on fewer resamples have to do
LEVEL: Final = 0.95


class Interval(NamedTuple):
    """A value and the bounds of its 95% interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """By name, to six places."""
        return {name: round(number, 6) for name, number in self._asdict().items()}

    def bounds(self) -> str:
        """The bounds as signed percentages: "-4% to +21%"; what rounds to nothing has no minus."""
        low, high = (f"{round(bound, 2) + 0.0:+.0%}" for bound in (self.low, self.high))
        return f"{low} to {high}"


class Bootstrap:
    """The means of some per-user measures under many draws of the same users: paired, since all share the draws.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993: percentile intervals.
    """

    def __init__(self, measures: Mapping[str, PerUser], *, seed: int = 0) -> None:
        """measures: name -> (users,), finite, all of the same users; at least one user."""
        self._names = {name: column for column, name in enumerate(measures)}
        values = np.stack(list(measures.values()), axis=1)  # (users, measures)
        users = len(values)
        count = int(np.clip(DRAWS // users, FEWEST, RESAMPLES))
        generator = np.random.default_rng(seed)
        self._means = values.mean(axis=0)
        self._drawn = np.empty((count, values.shape[1]))
        for draw in range(count):
            times = np.bincount(generator.integers(users, size=users), minlength=users)
            self._drawn[draw] = times @ values / users

    def mean(self, name: str) -> Interval:
        """Mean of one measure."""
        column = self._names[name]
        return _interval(float(self._means[column]), self._drawn[:, column])

    def difference(self, name: str, other: str) -> Interval:
        """Mean of one less mean of the other, over the same users."""
        left, right = self._names[name], self._names[other]
        return _interval(float(self._means[left] - self._means[right]), self._drawn[:, left] - self._drawn[:, right])

    def lift(self, name: str, other: str) -> Interval | None:
        """By which share the mean of one is above the other's; None where the other's is 0 in some draw."""
        left, right = self._names[name], self._names[other]
        if self._means[right] <= 0 or (self._drawn[:, right] <= 0).any():
            return None
        return _interval(
            float(self._means[left] / self._means[right] - 1), self._drawn[:, left] / self._drawn[:, right] - 1
        )


def _interval(value: float, drawn: npt.NDArray[np.float64]) -> Interval:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))
