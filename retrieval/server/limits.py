"""Limits: how much one request may ask for."""

from dataclasses import dataclass
from typing import Final

from retrieval.towers.tower import BLOCK

AT_ONCE: Final = BLOCK  # users, vectors or records a request: what a tower takes in one call


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """k: of a request. body_bytes: of its body, and body_s: how long that may take to arrive.

    at_once: users, vectors or records in it. items: that one PUT may bring. listed: of a search for items or users.
    waiting: requests that may be in flight before further ones are turned away.
    """

    k: int = 1000
    body_bytes: int = 8 << 20
    body_s: float = 30.0
    at_once: int = AT_ONCE
    items: int = 10_000
    listed: int = 200
    waiting: int = 512
