import numpy as np
import pytest

from retrieval.evaluation.intervals import Bootstrap, Interval


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(3, 2, 4000)
    value, low, high = Bootstrap({"a": values}).mean("a")
    error = values.std() / np.sqrt(4000)
    assert value == pytest.approx(values.mean())
    assert low == pytest.approx(value - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(value + 1.96 * error, abs=0.2 * error)


def test_a_difference_is_paired() -> None:
    """Two measures that differ by a tenth for every user: the difference is sure, however much users differ."""
    base = np.random.default_rng(0).normal(0, 5, 500) + 100
    drawn = Bootstrap({"one": base + 0.1, "other": base})
    np.testing.assert_allclose(drawn.difference("one", "other"), [0.1, 0.1, 0.1], atol=1e-9)
    assert drawn.mean("one").high - drawn.mean("one").low > 0.5
    lift = drawn.lift("one", "other")
    assert lift is not None
    assert lift.low == pytest.approx(0.001, rel=0.05)


def test_no_lift_over_nothing() -> None:
    assert Bootstrap({"one": np.ones(5), "none": np.zeros(5)}).lift("one", "none") is None


def test_one_user_and_the_same_seed() -> None:
    assert Bootstrap({"a": np.array([0.5])}).mean("a") == (0.5, 0.5, 0.5)
    values = {"a": np.random.default_rng(1).random(50)}
    assert Bootstrap(values).mean("a") == Bootstrap(values).mean("a")


def test_bounds_in_words() -> None:
    assert Interval(0.1, -0.004, 0.213).bounds() == "+0% to +21%"
    assert Interval(0.1, -0.04, -0.001).bounds() == "-4% to +0%"
