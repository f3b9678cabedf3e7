"""Retriever: queries -> hits; where towers, index and catalogue meet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from retrieval.bundle.layout import USERS_LOOKUP
from retrieval.bundle.reader import Bundle
from retrieval.catalog.items import Catalog
from retrieval.catalog.record_store import RecordStore
from retrieval.catalog.users import HISTORY
from retrieval.common import csr
from retrieval.common.arrays import Vectors
from retrieval.common.errors import QueryError, nearest
from retrieval.features.records import Record
from retrieval.features.text import text_of
from retrieval.index import mmr
from retrieval.index.index import Index
from retrieval.index.row_filter import RowFilter
from retrieval.index.storage import open_both
from retrieval.metrics.rating import stars
from retrieval.towers.tower import open_tower

FILTERS_KEPT: Final = 256
FILTER_BYTES: Final = 256_000_000  # that kept filters may take together


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Who asks.

    user: an id of the data; its features and history stand in for those that are not given.
    features: by name; what is left out is missing. history: ids of items, oldest first.
    exclude: ids of items that are not wanted.
    """

    user: str | None = None
    features: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[str] | None = None
    exclude: Sequence[str] = ()

    @classmethod
    def of(cls, content: "Query | Mapping[str, Any]") -> "Query":
        """A query from a JSON object of those keys. Raises QueryError on another key or a value of another type."""
        if isinstance(content, Query):
            return content
        if not isinstance(content, Mapping):
            raise QueryError(f"a query is an object, found {type(content).__name__}")
        found: dict[str, Any] = {}
        for name, value in content.items():
            if name not in _PARTS:
                raise QueryError(f'a query has no "{name}"{nearest(name, _PARTS)}')
            if value is None:
                continue
            kinds, wanted = _PARTS[name]
            if not isinstance(value, kinds):
                raise QueryError(f'"{name}" of a query: expected {wanted}, found {type(value).__name__}')
            found[name] = value.tolist() if isinstance(value, np.ndarray) else value
        if "user" in found:
            found["user"] = text_of(found["user"]) or None
        return cls(**found)


# part of a query -> what it may be, and how an error calls that
_LIST: Final = ((list, tuple, np.ndarray), "a list of ids")
_PARTS: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "user": ((str, int, float, np.integer, np.floating), "an id"),
    "features": ((Mapping,), "an object"),
    "history": _LIST,
    "exclude": _LIST,
}


class Hit:
    """An item that was found: its id, its score, and its columns, read when they are asked for.

    predicted: the rating that the score stands for, where the towers were trained on ratings.
    """

    __slots__ = ("_catalog", "_row", "id", "predicted", "score")

    def __init__(self, row: int, score: float, catalog: Catalog, predicted: float | None = None) -> None:
        self.id = catalog.id(row)
        self.score = score
        self.predicted = predicted
        self._row = row
        self._catalog = catalog

    @property
    def item(self) -> dict[str, Any]:
        """The columns of the item, without its id."""
        return self._catalog.record(self._row)

    def to_json(self) -> dict[str, Any]:
        rating = {} if self.predicted is None else {"predicted": round(self.predicted, 4)}
        return {"id": self.id, "score": round(self.score, 6), **rating, **self.item}

    def __repr__(self) -> str:
        return f"Hit(id={self.id!r}, score={self.score:.4f})"


@dataclass(frozen=True, slots=True)
class Answer:
    """Hits, best first, and what the asker may want to know: an unknown user, unknown items, nothing to go by."""

    user: str | None
    hits: list[Hit]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        return {"user": self.user, "hits": [hit.to_json() for hit in self.hits]}


Asked: TypeAlias = Query | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A query as it is answered: the record for the user tower, the rows to leave out, the notes."""

    user: str | None
    record: Record
    exclude: npt.NDArray[np.int64]
    notes: list[str]


class Retriever:
    """Answers queries on one generation of a bundle. Safe to share between threads."""

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        """Use `open`."""
        schema = bundle.schema
        self.bundle = bundle
        self.user_tower = open_tower(bundle, "user", threads=threads)
        self.index: Index
        self.catalog: Catalog
        self.index, self.catalog = open_both(bundle)
        history = schema.user.history
        self._history_name = history.name if history is not None else None
        self._history_length = history.max_length if history is not None else None
        self._rating = _rating_of(schema.facts.get("rating"))
        self._users: RecordStore | None = None
        self._filters: dict[str, RowFilter] = {}
        self._lock = Lock()

    @classmethod
    def open(cls, path: str | Path, *, threads: int = 1) -> "Retriever":
        """Open the present generation of a bundle.

        threads: of one call of the user tower.
        Raises BundleError, in one line that names the file, where something is missing, damaged or of another model.
        """
        return cls(Bundle.open(path), threads=threads)

    @property
    def pair_id(self) -> str:
        return self.bundle.pair_id

    def close(self) -> None:
        """Let the generation go."""
        self.bundle.close()

    def __enter__(self) -> "Retriever":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def query(
        self,
        queries: Sequence[Asked],
        *,
        k: int = 10,
        where: str | None = None,
        exclude: Sequence[str] = (),
        include_seen: bool = False,
        diversity: float = 0.0,
    ) -> list[list[Hit]]:
        """The k best items for each query: exactly k while at least k items may be shown, else all that may.

        where: a filter on columns of the items (see `retrieval.catalog.where`). exclude: ids, for all queries.
        include_seen: items of the history too. diversity: 0 by score alone .. 1 by difference alone.
        Raises QueryError on a feature, value or filter that cannot be understood.
        """
        answers = self.answer(
            queries, k=k, where=where, exclude=exclude, include_seen=include_seen, diversity=diversity
        )
        return [answer.hits for answer in answers]

    def answer(
        self,
        queries: Sequence[Asked],
        *,
        k: int = 10,
        where: str | None = None,
        exclude: Sequence[str] = (),
        include_seen: bool = False,
        diversity: float = 0.0,
    ) -> list[Answer]:
        """As `query`, with notes."""
        if not queries:
            return []
        parsed = [self._parse(Query.of(query), exclude, include_seen) for query in queries]
        vectors = self.user_tower.embed([entry.record for entry in parsed])
        found = self.search(vectors, k=k, where=where, exclude=[entry.exclude for entry in parsed], diversity=diversity)
        return [Answer(entry.user, hits, entry.notes) for entry, hits in zip(parsed, found, strict=True)]

    def recommend(self, frame: Any, *, k: int = 10, **options: Any) -> Any:
        """The k best items for each row of a table of users.

        Args:
            frame: A pandas or polars DataFrame or an Arrow table, a row for each user. Columns: `user` (or the name
                of the id column in the data), `history` (a list of item ids, oldest first, or text joined by "|"),
                and features of the user tower; at least one of them. A null or absent feature is missing.
            k: Number of items for each user.
            **options: `where`, `exclude`, `include_seen` and `diversity`, as for `query`.

        Returns:
            A table of the same library, a row for each hit, in the order of `frame` and best first: the user column
            (or `row`, the position in `frame`), `rank` from 1, `id`, `score` and the columns of the item.

        Raises:
            DataError: if `frame` is no table.
            QueryError: if no column describes users, or a value or filter is invalid.
        """
        from retrieval import frames

        return frames.recommend(self, frame, k=k, **options)

    def search(
        self,
        vectors: Vectors,
        *,
        k: int = 10,
        where: str | None = None,
        exclude: Sequence[npt.NDArray[np.int64]] | None = None,
        diversity: float = 0.0,
    ) -> list[list[Hit]]:
        """The k best items for each vector.

        vectors: (q, dim) float32, unit rows. exclude: rows of the catalogue, for each vector.
        Raises QueryError on a k below 1, a diversity outside 0 .. 1 or a filter that cannot be understood.
        """
        if not 0.0 <= diversity <= 1.0:
            raise QueryError(f"diversity is {diversity:g}; it goes from 0 (by score alone) to 1 (by difference alone)")
        hidden = csr.from_lists(exclude) if exclude is not None and any(map(len, exclude)) else None
        row_filter = self._filter(where) if where else None
        k = min(k, max(self.index.count, 1))  # no more can be found, and room is made for k of each vector
        rows, scores = self._search(vectors, k, row_filter, hidden, diversity)
        return [self._hits(*found) for found in zip(rows.tolist(), scores.tolist(), strict=True)]

    def _hits(self, rows: list[int], scores: list[float]) -> list[Hit]:
        catalog = self.catalog
        if self._rating is None:
            return [Hit(row, score, catalog) for row, score in zip(rows, scores, strict=True) if row >= 0]
        predicted = stars(np.array(scores), low=self._rating[0], high=self._rating[1]).tolist()
        return [
            Hit(row, score, catalog, star) for row, score, star in zip(rows, scores, predicted, strict=True) if row >= 0
        ]

    def similar(
        self, item: str, *, k: int = 10, where: str | None = None, exclude: Sequence[str] = (), diversity: float = 0.0
    ) -> list[Hit]:
        """The items nearest to an item, without itself. Raises QueryError if there is no such item."""
        row = self.catalog.row(item)
        if row is None:
            raise QueryError(f'there is no item "{item}"; ids are those of the catalogue')
        hidden = np.append(self.catalog.rows(exclude), row)
        vector = self.index.vectors(np.array([row]))
        return self.search(vector, k=k, where=where, exclude=[hidden], diversity=diversity)[0]

    def _search(
        self, vectors: Vectors, k: int, row_filter: RowFilter | None, exclude: csr.CSR | None, weight: float
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        if not weight:
            return self.index.search(vectors, k=k, row_filter=row_filter, exclude=exclude)
        wide, wide_scores = self.index.search(vectors, k=mmr.candidates(k), row_filter=row_filter, exclude=exclude)
        rows = np.full((len(wide), k), -1, dtype=np.int64)
        scores = np.full((len(wide), k), -np.inf, dtype=np.float32)
        for query, found in enumerate(wide):
            own = found[found >= 0]
            order = mmr.reorder(wide_scores[query, : len(own)], self.index.vectors(own), k=k, diversity=weight)
            rows[query, : len(order)] = own[order]
            scores[query, : len(order)] = wide_scores[query, order]
        return rows, scores

    def _filter(self, where: str) -> RowFilter:
        """The items that pass a filter; filters that come again are not worked out again."""
        with self._lock:
            found = self._filters.pop(where, None)
            if found is not None:
                self._filters[where] = found  # the last to be forgotten
                return found
        found = self.index.select(self.catalog.where(where))
        with self._lock:
            self._filters[where] = found
            taken = sum(kept.size_bytes for kept in self._filters.values())
            while len(self._filters) > 1 and (taken > FILTER_BYTES or len(self._filters) > FILTERS_KEPT):
                taken -= self._filters.pop(next(iter(self._filters))).size_bytes
        return found

    def _parse(self, query: Query, exclude: Sequence[str], include_seen: bool) -> _Parsed:
        notes: list[str] = []
        features = dict(query.features)
        history = query.history
        if self._history_name is not None and self._history_name in features:
            given = features.pop(self._history_name)
            history = given if history is None else history
        if query.user is not None:
            known = self._known_user(query.user)
            if known is None:
                nobody = "" if self._users is not None else " (the bundle was made without users)"
                notes.append(f'user "{query.user}" is not in the data{nobody}; answered as somebody new')
            else:
                past = known.pop(self._history_name or HISTORY, None)
                history = past if history is None else history
                inputs = {feature.name for feature in self.user_tower.inputs}
                features = {**{name: value for name, value in known.items() if name in inputs}, **features}
        if isinstance(history, str) or not (history is None or isinstance(history, Sequence)):
            raise QueryError(f"a history is a list of item ids, found {type(history).__name__}")
        seen = _texts(history or (), what="a history")
        unwanted = _texts([*query.exclude, *exclude], what="the items to leave out")
        rows, unknown = self._rows([*([] if include_seen else seen), *unwanted])
        if include_seen:
            unknown += self._rows(seen)[1]
        if unknown:
            shown = ", ".join(f'"{name}"' for name in list(dict.fromkeys(unknown))[:5])
            more = f" and {len(set(unknown)) - 5} more" if len(set(unknown)) > 5 else ""
            notes.append(f"not in the catalogue: {shown}{more}")
        if not seen and all(_is_missing(value) for value in features.values()):
            notes.append("nothing is known of this user: no history, no features")
        if self._history_name is not None:
            features[self._history_name] = seen[-self._history_length :] if self._history_length else seen
        return _Parsed(query.user, features, rows, notes)

    def _rows(self, ids: Sequence[str]) -> tuple[npt.NDArray[np.int64], list[str]]:
        """Rows of ids, and the ids that have none."""
        found = self.catalog.rows(ids)
        if len(found) == len(ids):
            return found, []
        return found, [name for name in ids if self.catalog.row(name) is None]

    def _known_user(self, user: str) -> dict[str, Any] | None:
        """The record of a user of the data."""
        if self._users is None:
            if not self.bundle.has(USERS_LOOKUP):
                return None
            self._users = self.bundle.load(USERS_LOOKUP, RecordStore.open)
        row = self._users.row(user)
        return None if row is None else self._users.record(row)


def _texts(ids: Sequence[Any], *, what: str) -> list[str]:
    """Ids as text, without those that are missing. A list of text, which a long history is, needs one look.

    Raises QueryError for one that no id can be.
    """
    if isinstance(ids, list) and set(map(type, ids)) == {str} and "" not in ids:
        return ids
    try:
        return [text for item in ids if (text := text_of(item))]
    except TypeError as error:
        raise QueryError(f"an id in {what}: {error}") from None


def _is_missing(value: Any) -> bool:
    """Whether a feature says nothing: null, NaN, an empty text or list."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return True
    return isinstance(value, (str, Sequence)) and len(value) == 0


def _rating_of(fact: Any) -> tuple[float, float] | None:
    """The lowest and the highest rating that training saw, where scores stand for ratings."""
    if not isinstance(fact, Mapping) or not {"low", "high"} <= fact.keys():
        return None
    return float(fact["low"]), float(fact["high"])
