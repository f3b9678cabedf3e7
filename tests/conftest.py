"""Fixtures that every stage's tests share."""

import os
from pathlib import Path

import pytest

from retrieval.common.console import set_verbosity
from tests.support.planted import write_planted

os.environ["COLUMNS"] = "120"  # tables do not follow the terminal that the tests are run from

DATASETS = Path(os.environ.get("TWOTOWER_DATASETS", Path(__file__).parents[2] / "shared" / "datasets"))


def dataset(name: str) -> Path:
    """The folder of a real dataset; skips the test, by name, where it is not there."""
    path = DATASETS / name
    if not path.is_dir():
        pytest.skip(f"dataset {name} is not there; set TWOTOWER_DATASETS to the folder that holds it")
    return path


@pytest.fixture(autouse=True)
def _as_talkative_as_by_default() -> None:
    """A command that ran with -q keeps the process quiet; no test follows another in that."""
    set_verbosity()


@pytest.fixture(scope="session")
def movielens_small() -> Path:
    return dataset("ml-latest-small")


@pytest.fixture(scope="session")
def beauty() -> Path:
    return dataset("beauty")


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of the config of a planted dataset, not to be changed."""
    return write_planted(tmp_path_factory.mktemp("planted"))
