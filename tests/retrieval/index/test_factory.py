"""The structure that `--kind auto` chooses, and search parameters in index.json."""

import pytest

from retrieval.common.errors import DataError
from retrieval.index import factory
from retrieval.index.factory import SearchParams


@pytest.mark.parametrize(
    ("count", "recall", "expected"),
    [
        (19_999, None, "flat"),
        (20_000, None, "ivf"),
        (1_000_000, None, "pq"),
        (999, 0.95, "flat"),
        (1_000, 0.95, "ivf"),
        (1_000_000, 0.95, "pq"),
        (1_000_000, 1.0, "flat"),
    ],
)
def test_auto_depends_on_the_number_of_items(count: int, recall: float | None, expected: str) -> None:
    assert factory.choose("auto", count=count, dim=64, recall=recall).name == expected


def test_memory_limits_the_choice() -> None:
    assert factory.choose("auto", count=100_000, dim=64, recall=0.9, memory_bytes=10**10).name == "ivf"
    assert factory.choose("auto", count=100_000, dim=64, recall=0.9, memory_bytes=8 * 10**6).name == "pq"
    with pytest.raises(DataError, match="--memory allows"):
        factory.choose("auto", count=100_000, dim=64, recall=0.9, memory_bytes=10**6)


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(DataError, match="factory string"):
        factory.choose("IVF,nonsense", count=1000, dim=64, recall=0.9)


@pytest.mark.parametrize(
    "params", [SearchParams(), SearchParams(nprobe=6), SearchParams(nprobe=6, k_factor=8.0), SearchParams(ef_search=64)]
)
def test_parameters_survive_json(params: SearchParams) -> None:
    assert SearchParams.from_json(params.to_json()) == params


def test_parameters_of_early_versions_are_read() -> None:
    old = {"nprobe": 6, "within": 0.1285, "reach": 0.075, "k_factor": 8.0}
    assert SearchParams.from_json(old) == SearchParams(nprobe=9, k_factor=8.0)
