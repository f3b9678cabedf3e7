"""What the tests of this folder share: exporting takes seconds, so each thing is exported once."""

from pathlib import Path

import pytest

from export.pair import export_towers
from retrieval.publish import publishing
from tests.export.pairs import Pair, make_pair, write_training


@pytest.fixture(scope="session")
def pair() -> Pair:
    return make_pair()


@pytest.fixture(scope="session")
def bundle_path(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of both towers and `retrieve.onnx`, not to be changed."""
    path = tmp_path_factory.mktemp("bundle")
    write_training(path)
    with publishing(path) as draft:
        export_towers(pair, draft, single_file=True)
    return path
