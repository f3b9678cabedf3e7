"""Servers in this process over a tiny bundle: a shared one that tests must not change, and new ones."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from starlette.testclient import TestClient

from retrieval.server.app import application
from retrieval.server.generations import Generations
from retrieval.server.settings import Settings
from tests.support.tiny import write_tiny

Served: TypeAlias = Callable[..., tuple[TestClient, Generations]]


def client_of(generations: Generations, settings: Settings) -> TestClient:
    return TestClient(application(generations, settings), raise_server_exceptions=True)


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that tests must not change."""
    return write_tiny(tmp_path_factory.mktemp("served") / "bundle")


@pytest.fixture(scope="package")
def client(shared: Path) -> Iterator[TestClient]:
    """A server of `shared` with default settings."""
    with client_of(Generations(shared), Settings()) as client:
        yield client


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Served]:
    """Starts servers with given settings over a new bundle."""
    with ExitStack() as stack:

        def start(folder: Path | None = None, **settings: Any) -> tuple[TestClient, Generations]:
            generations = Generations(folder or write_tiny(tmp_path / "bundle"))
            return stack.enter_context(client_of(generations, Settings(**settings))), generations

        yield start
