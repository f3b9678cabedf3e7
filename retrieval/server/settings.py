"""Settings: how a server was asked to be."""

import os
from dataclasses import dataclass, field

from retrieval.server.limits import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """writable: whether items may be put and deleted. token: that requests must bring, if any.

    origins: of other sites whose pages may ask, "*" for all. hosts: names that requests may use, none for all.
    threads: questions answered at the same time.
    """

    writable: bool = False
    token: str | None = None
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    limits: Limits = field(default_factory=Limits)
