"""Serving: one generation of a bundle with all that requests ask of it."""

import importlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from retrieval.bundle.layout import ADDED, ITEMS, USERS_LOOKUP
from retrieval.bundle.reader import Bundle
from retrieval.catalog.record_store import RecordStore
from retrieval.features.schema import Side
from retrieval.index.storage import read_facts
from retrieval.retriever import Query, Retriever
from retrieval.towers.tower import Tower, open_tower

if TYPE_CHECKING:
    import pyarrow as pa

LAZY: Final = (ITEMS, ADDED)  # files that a retriever reads when they are first asked for


class Serving:
    """One generation. Safe to share between threads.

    Its files are kept for as long as somebody holds it: a request takes it once and uses nothing else, so that no
    answer is made of two generations.
    """

    def __init__(self, bundle: Bundle) -> None:
        """Open everything and answer once, so that what is broken shows now. Raises BundleError."""
        self.retriever = Retriever(bundle)
        self.facts: Mapping[str, Any] = read_facts(bundle)
        self._lock = Lock()
        self._item_tower: Tower | None = None
        for name in (*LAZY, bundle.schema.item.file):
            if bundle.has(name):
                bundle.file(name)
        self.retriever.answer([Query(user="")], k=1)
        importlib.import_module("retrieval.catalog.where")  # a fifth of a second that no first filter should wait for

    @classmethod
    def open(cls, folder: Path) -> "Serving":
        return cls(Bundle.open(folder))

    @property
    def bundle(self) -> Bundle:
        return self.retriever.bundle

    @property
    def stamp(self) -> dict[str, Any]:
        """What every answer begins with: whose it is."""
        return {"pair_id": self.bundle.pair_id, "generation": self.bundle.generation}

    @property
    def kind(self) -> str:
        return str(self.facts["kind"])

    @property
    def count(self) -> int:
        """Items that can be found."""
        return int(self.facts["count"])

    def tower(self, side: Side) -> Tower:
        """The item tower is opened when it is first asked for."""
        if side == "user":
            return self.retriever.user_tower
        with self._lock:
            if self._item_tower is None:
                self._item_tower = open_tower(self.bundle, "item", threads=1)
            return self._item_tower

    @cached_property
    def users(self) -> RecordStore | None:
        """The users of the data, unless the bundle was made without."""
        return self.bundle.load(USERS_LOOKUP, RecordStore.open) if self.bundle.has(USERS_LOOKUP) else None

    @cached_property
    def item_schema(self) -> "pa.Schema":
        """The columns of the items; the first holds the ids."""
        import pyarrow.parquet as pq

        schema: pa.Schema = self.bundle.load(ITEMS, pq.read_schema)
        return schema
