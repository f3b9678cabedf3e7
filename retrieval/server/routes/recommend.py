"""Questions: each function answers one route, from one generation, with an object of JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from retrieval.retriever import Answer, Hit, Query
from retrieval.server.limits import Limits
from retrieval.server.parsing import (
    OPTIONS,
    Options,
    body_of,
    count_of,
    options_of,
    params_of,
    records_of,
    shown,
    users_of,
    vectors_of,
)
from retrieval.server.refusal import RefusedError
from retrieval.server.routes import search_items
from retrieval.server.snapshot import Serving

LISTED: Final = 20  # items or users where the request does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that has arrived whole. path: what its address names. params: its query string."""

    serving: Serving
    limits: Limits
    body: bytes = b""
    path: Mapping[str, str]
    params: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """A recommendation as it was asked for."""

    users: Sequence[Query]
    options: Options


def recommend(call: Call) -> dict[str, Any]:
    return recommended(call.serving, [asked_of(call)])[0]


def asked_of(call: Call) -> Asked:
    content = body_of(call.body, ("users", *OPTIONS, "include_seen"))
    options = options_of(content, call.limits)
    return Asked(users_of(content, call.limits), options)


def recommended(serving: Serving, asked: Sequence[Asked]) -> list[dict[str, Any]]:
    """Answers to requests that have their options in common. An error does not say whose it is: ask each alone."""
    options = asked[0].options
    answers = iter(
        serving.retriever.answer(
            [user for one in asked for user in one.users],
            k=options.k,
            where=options.where,
            exclude=options.exclude,
            include_seen=options.include_seen,
            diversity=options.diversity,
        )
    )
    return [
        {**serving.stamp, "results": [_result(answer) for answer in islice(answers, len(one.users))]} for one in asked
    ]


def search(call: Call) -> dict[str, Any]:
    content = body_of(call.body, ("vectors", "pair_id", *OPTIONS))
    serving = call.serving
    _of_pair(content.get("pair_id"), serving)
    options = options_of(content, call.limits)
    vectors = vectors_of(content, call.limits, dim=serving.bundle.schema.dim)
    hidden = serving.retriever.catalog.rows(options.exclude)
    found: list[list[Hit]] = []
    if len(vectors):
        found = serving.retriever.search(
            vectors,
            k=options.k,
            where=options.where,
            exclude=[hidden] * len(vectors),
            diversity=options.diversity,
        )
    return {**serving.stamp, "results": [{"hits": [hit.to_json() for hit in hits]} for hits in found]}


def similar(call: Call) -> dict[str, Any]:
    options = options_of(params_of(call.params, OPTIONS), call.limits)
    item = call.path["item"]
    _row_of(call.serving, item)
    hits = call.serving.retriever.similar(
        item, k=options.k, where=options.where, exclude=options.exclude, diversity=options.diversity
    )
    return {**call.serving.stamp, "item": item, "hits": [hit.to_json() for hit in hits]}


def embed(call: Call) -> dict[str, Any]:
    content = body_of(call.body, ("tower", "records"))
    side = content.get("tower")
    if side not in ("user", "item"):
        raise RefusedError(400, f'"tower" is {shown(side)}; expected "user" or "item"')
    records = records_of(content, "records", call.limits.at_once)
    vectors = call.serving.tower("user" if side == "user" else "item").embed(records)
    numbers = [[float(str(number)) for number in vector] for vector in vectors]  # the shortest text of a float32
    return {**call.serving.stamp, "dim": call.serving.bundle.schema.dim, "vectors": numbers}


def items(call: Call) -> dict[str, Any]:
    content = params_of(call.params, ("search", "where", "limit"))
    limit = count_of(content, "limit", default=LISTED, most=call.limits.listed)
    where = options_of({"where": content.get("where")}, call.limits).where
    rows, more = search_items.items(call.serving, content.get("search") or "", where=where, limit=limit)
    return {**call.serving.stamp, "items": [search_items.record(call.serving, row) for row in rows], "more": more}


def item(call: Call) -> dict[str, Any]:
    params_of(call.params, ())
    row = _row_of(call.serving, call.path["item"])
    return {**call.serving.stamp, "item": search_items.record(call.serving, row)}


def users(call: Call) -> dict[str, Any]:
    content = params_of(call.params, ("search", "limit"))
    limit = count_of(content, "limit", default=LISTED, most=call.limits.listed)
    found, more = search_items.users(call.serving, content.get("search") or "", limit=limit)
    return {**call.serving.stamp, "users": found, "more": more}


def user(call: Call) -> dict[str, Any]:
    params_of(call.params, ())
    found = search_items.user(call.serving, call.path["user"])
    if found is None:
        raise RefusedError(404, f'there is no user "{call.path["user"][:100]}"{_no_users(call.serving)}')
    return {**call.serving.stamp, "user": found}


def _result(answer: Answer) -> dict[str, Any]:
    """Hits as `query` gives them, the user if one was named, notes if there are any."""
    whole = answer.to_json()
    if answer.user is None:
        del whole["user"]
    return {**whole, "notes": answer.notes} if answer.notes else whole


def _row_of(serving: Serving, name: str) -> int:
    row = serving.retriever.catalog.row(name)
    if row is None:
        raise RefusedError(404, f'there is no item "{name[:100]}"; ids are those of the catalogue')
    return row


def _no_users(serving: Serving) -> str:
    return " (the bundle was made without users)" if serving.users is None else ""


def _of_pair(pair_id: Any, serving: Serving) -> None:
    """Raises RefusedError for vectors of another pair of towers: their scores would mean nothing."""
    if pair_id is not None and pair_id != serving.bundle.pair_id:
        raise RefusedError(
            409, f'the vectors are of model {shown(pair_id)}, the items of "{serving.bundle.pair_id}"; embed them anew'
        )
