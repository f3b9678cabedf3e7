"""Snapshot: one generation of a bundle, opened for requests."""

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
from retrieval.server.errors import RequestError
from retrieval.server.messages import Answer
from retrieval.towers.tower import Tower, open_tower

if TYPE_CHECKING:
    import pyarrow as pa

LAZY: Final = (ITEMS, ADDED)  # files that a retriever reads on first use


class Snapshot:
    """One generation of a bundle. Safe to share between threads.

    A request takes the snapshot once and uses nothing else, so that no answer mixes two generations. Its files stay
    open as long as the object lives.
    """

    def __init__(self, bundle: Bundle) -> None:
        """Open everything and answer one query, so that a broken bundle fails here. Raises BundleError."""
        self.retriever = Retriever(bundle)
        self.facts: Mapping[str, Any] = read_facts(bundle)
        self._lock = Lock()
        self._item_tower: Tower | None = None
        for name in (*LAZY, bundle.schema.item.file):
            if bundle.has(name):
                bundle.file(name)
        self.retriever.answer([Query(user="")], k=1)
        importlib.import_module("retrieval.catalog.where")  # takes 0.2 s to load

    @classmethod
    def open(cls, folder: Path) -> "Snapshot":
        return cls(Bundle.open(folder))

    @property
    def bundle(self) -> Bundle:
        return self.retriever.bundle

    @property
    def stamp(self) -> Answer:
        """The fields that every answer begins with."""
        return {"pair_id": self.bundle.pair_id, "generation": self.bundle.generation}

    @property
    def kind(self) -> str:
        return str(self.facts["kind"])

    @property
    def count(self) -> int:
        """Number of items that can be recommended."""
        return int(self.facts["count"])

    def row(self, item: str) -> int:
        """The row of an item. Raises RequestError, 404, if there is none."""
        row = self.retriever.catalog.row(item)
        if row is None:
            raise RequestError(404, f'there is no item "{item[:100]}" in the catalogue')
        return row

    def tower(self, side: Side) -> Tower:
        """A tower; the item tower is opened on first use."""
        if side == "user":
            return self.retriever.user_tower
        with self._lock:
            if self._item_tower is None:
                self._item_tower = open_tower(self.bundle, "item", threads=1)
            return self._item_tower

    @cached_property
    def users(self) -> RecordStore | None:
        """The users of the data; None if the bundle was made without them."""
        return self.bundle.load(USERS_LOOKUP, RecordStore.open) if self.bundle.has(USERS_LOOKUP) else None

    @cached_property
    def item_schema(self) -> "pa.Schema":
        """The columns of the items; the first one holds the ids."""
        import pyarrow.parquet as pq

        schema: pa.Schema = self.bundle.load(ITEMS, pq.read_schema)
        return schema
