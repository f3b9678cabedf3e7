"""Settings of a server, and the limits of one request."""

import os
from dataclasses import dataclass, field

from retrieval.towers.tower import BLOCK


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one request may ask for.

    Attributes:
        k: Largest k.
        listed: Largest `limit` of a search for items or users.
        batch: Users, vectors or records in one request; what a tower takes in one call.
        items: Items in one PUT.
        body_bytes: Size of a body.
        body_s: Seconds that a body may take to arrive.
        waiting: Requests in flight; further ones are refused with 503.
    """

    k: int = 1000
    listed: int = 200
    batch: int = BLOCK
    items: int = 10_000
    body_bytes: int = 8 << 20
    body_s: float = 30.0
    waiting: int = 512

    @property
    def maximum(self) -> dict[str, int]:
        """Field of a request -> its largest value."""
        return {"k": self.k, "limit": self.listed}

    @property
    def max_items(self) -> dict[str, int]:
        """Field of a request -> the largest length of its list."""
        return {"users": self.batch, "vectors": self.batch, "records": self.batch, "items": self.items}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a server behaves.

    Attributes:
        writable: Whether PUT and DELETE are allowed.
        token: The bearer token that requests must send, if any.
        origins: Origins that CORS allows; "*" for all.
        hosts: Host names that requests may use; empty for any.
        threads: Requests answered in parallel.
    """

    writable: bool = False
    token: str | None = None
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    limits: Limits = field(default_factory=Limits)
