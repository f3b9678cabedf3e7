"""What the tests of this folder share: exporting takes seconds, so each thing is exported once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from export.export_towers import export_towers
from export.precision import Precision
from retrieval.bundle.writer import publishing
from tests.support.pairs import Pair, make_pair, write_training


@pytest.fixture(scope="session")
def pair() -> Pair:
    return make_pair()


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Precision], Path]:
    """A bundle of both towers and `retrieve.onnx` in a precision, not to be changed."""
    made: dict[Precision, Path] = {}

    def bundle(precision: Precision) -> Path:
        if precision not in made:
            path = tmp_path_factory.mktemp(f"bundle-{precision}")
            write_training(path)
            with publishing(path) as draft:
                pair = make_pair(objective="softmax" if precision == "fp32" else "rating")
                export_towers(pair, draft, precision=precision, single_file=True, allow_loss=True)
            made[precision] = path
        return made[precision]

    return bundle


@pytest.fixture(scope="session")
def bundle_path(exported: Callable[[Precision], Path]) -> Path:
    """The bundle in full precision, not to be changed."""
    return exported("fp32")
