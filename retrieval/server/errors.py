"""Requests that are refused, with the HTTP status that says why."""

from collections.abc import Mapping

from retrieval.common.errors import TwoTowerError


class RequestError(TwoTowerError):
    """A request that cannot be answered: one line for the client and an HTTP status of 400 or above."""

    def __init__(self, status: int, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
