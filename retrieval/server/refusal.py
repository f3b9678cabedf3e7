"""Refused requests: what a client did wrong, with the status that says so."""

from collections.abc import Mapping

from retrieval.common.errors import TwoTowerError


class RefusedError(TwoTowerError):
    """A request that is not answered: one line, and an HTTP status from 400 on."""

    def __init__(self, status: int, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
