"""Recommendations, similar items, search by vector and embeddings."""

from collections.abc import Sequence
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from retrieval.features.text import text_of
from retrieval.retriever import Answer, Hit, Query
from retrieval.server.errors import RequestError
from retrieval.server.messages import (
    EmbedAnswer,
    EmbedRequest,
    Ids,
    Options,
    RecommendAnswer,
    RecommendRequest,
    Result,
    SearchAnswer,
    SearchRequest,
    SimilarAnswer,
    User,
)
from retrieval.server.routes.route import Context, route
from retrieval.server.snapshot import Snapshot

Vectors = npt.NDArray[np.float32]

DEFAULT_K: Final = 10
UNIT_SLACK: Final = 1e-4  # a vector whose length is this close to 1 is used as it is


class SearchOptions(NamedTuple):
    """Options with defaults filled in; requests with equal options can share one search."""

    k: int
    where: str | None
    exclude: tuple[str, ...]
    diversity: float
    include_seen: bool = False


def search_options(request: Options) -> SearchOptions:
    return SearchOptions(
        k=DEFAULT_K if request.k is None else request.k,
        where=request.where,
        exclude=tuple(ids_of(request.exclude)),
        diversity=request.diversity or 0.0,
        include_seen=bool(getattr(request, "include_seen", False)),
    )


@route("POST", "/v1/recommend", errors=(413,), example={"users": [{"history": ["50", "172", "181"]}], "k": 5})
def recommend(context: Context, body: RecommendRequest) -> RecommendAnswer:
    """Recommend the top k items to users, known or new."""
    return recommend_batch(context.snapshot, [body])[0]


def recommend_batch(snapshot: Snapshot, requests: Sequence[RecommendRequest]) -> list[RecommendAnswer]:
    """Answer requests with equal options in one call. An error does not say which request caused it."""
    options = search_options(requests[0])
    answers = iter(
        snapshot.retriever.answer(
            [query_of(user) for request in requests for user in request.users], **options._asdict()
        )
    )
    return [
        {**snapshot.stamp, "results": [_result(answer) for answer in islice(answers, len(request.users))]}
        for request in requests
    ]


@route("GET", "/v1/similar/{item:id}", errors=(404,))
def similar(context: Context, params: Options) -> SimilarAnswer:
    """Find the items most similar to an item."""
    snapshot, item, options = context.snapshot, context.path["item"], search_options(params)
    snapshot.row(item)
    hits = snapshot.retriever.similar(
        item, k=options.k, where=options.where, exclude=options.exclude, diversity=options.diversity
    )
    return {**snapshot.stamp, "item": item, "hits": [hit.to_json() for hit in hits]}


@route("POST", "/v1/search", errors=(409, 413), example={"vectors": [[0.1, 0.2, "..."]], "k": 5})
def search(context: Context, body: SearchRequest) -> SearchAnswer:
    """Find the top k items for query vectors."""
    snapshot, options = context.snapshot, search_options(body)
    bundle, retriever = snapshot.bundle, snapshot.retriever
    if body.pair_id is not None and body.pair_id != bundle.pair_id:
        raise RequestError(
            409,
            f'the vectors come from model "{body.pair_id[:100]}", the items from "{bundle.pair_id}"; embed them again',
        )
    vectors = unit_vectors(body.vectors, dim=bundle.schema.dim)
    excluded = retriever.catalog.rows(options.exclude)
    found: list[list[Hit]] = []
    if len(vectors):
        found = retriever.search(
            vectors,
            k=options.k,
            where=options.where,
            exclude=[excluded] * len(vectors),
            diversity=options.diversity,
        )
    return {**snapshot.stamp, "results": [{"hits": [hit.to_json() for hit in hits]} for hits in found]}


@route("POST", "/v1/embed", errors=(413,), example={"tower": "user", "records": [{"history": ["50", "172"]}]})
def embed(context: Context, body: EmbedRequest) -> EmbedAnswer:
    """Embed users or items through their tower."""
    snapshot = context.snapshot
    vectors = snapshot.tower(body.tower).embed(body.records)
    numbers = [[float(str(number)) for number in vector] for vector in vectors]  # the shortest text of a float32
    return {**snapshot.stamp, "dim": snapshot.bundle.schema.dim, "vectors": numbers}


def ids_of(ids: Ids | None) -> list[str]:
    """Ids as text: 1 and "1" are the same id; null and "" are left out."""
    return [text for entry in ids or () if (text := text_of(entry))]


def query_of(user: User) -> Query:
    """The query of a user of a request."""
    return Query(
        user=text_of(user.user) or None,
        features=user.features or {},
        history=None if user.history is None else ids_of(user.history),
        exclude=ids_of(user.exclude),
    )


def unit_vectors(rows: Sequence[Sequence[float]], *, dim: int) -> Vectors:
    """Scale vectors to unit length; one that has it is not changed.

    Args:
        rows: Finite numbers.
        dim: Expected length of each row.

    Returns:
        (len(rows), dim) float32.

    Raises:
        RequestError: if a row has another length, or is all zeros.
    """
    for position, row in enumerate(rows):
        if len(row) != dim:
            raise RequestError(400, f'"vectors[{position}]" has {len(row)} numbers; expected {dim}')
    wide = np.array(rows, dtype=np.float64).reshape(len(rows), dim)
    peaks = np.abs(wide).max(axis=1, keepdims=True, initial=0.0)  # (rows, 1)
    if (peaks == 0).any():
        raise RequestError(400, f'"vectors[{int(peaks.argmin())}]" is all zeros; a zero vector has no direction')
    scaled = wide / peaks  # squares neither overflow nor vanish
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        is_unit = np.abs(lengths * peaks - 1) <= UNIT_SLACK
    vectors: Vectors = np.where(is_unit, wide, scaled / lengths).astype(np.float32)
    return vectors


def _result(answer: Answer) -> Result:
    """Hits as `twotower query` prints them, with the user id if there is one and notes if there are any."""
    result: Result = {"hits": [hit.to_json() for hit in answer.hits]}
    if answer.user is not None:
        result = {"user": answer.user, **result}
    if answer.notes:
        result["notes"] = answer.notes
    return result
