"""What `/openapi.json` says: each route in the words of OpenAPI 3.1."""

from importlib.metadata import version
from typing import Any, Final

from retrieval.server.limits import Limits
from retrieval.server.routes.table import ROUTES, Route
from retrieval.server.settings import Settings

HIT: Final = {
    "type": "object",
    "required": ["id", "score"],
    "properties": {
        "id": {"type": "string"},
        "score": {"type": "number", "description": "inner product of unit vectors; higher is better"},
        "predicted": {"type": "number", "description": "the rating, where the model was trained on ratings"},
    },
    "additionalProperties": {"description": "the columns of the item"},
}
STAMP: Final = {
    "pair_id": {"type": "string", "description": "the model: the pair of towers"},
    "generation": {"type": "integer", "description": "counts what was published to the bundle"},
}
TEXT: Final = {"type": "string"}
TEXTS: Final = {"type": "array", "items": {"type": "string"}}
NUMBERS: Final = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
STATUSES: Final = {
    400: "Something in the request cannot be understood.",
    401: "The token is missing or wrong.",
    403: "The server does not take changes.",
    404: "There is no such item or user.",
    409: "The vectors are of another model.",
    413: "The body is too long, or holds too many entries.",
    503: "Too many requests wait, or another process is writing.",
}


def document(settings: Settings) -> dict[str, Any]:
    """An OpenAPI document of this server."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.shown, {})[route.method.lower()] = _operation(route, settings)
    for path, summary in {
        "/healthz": "Whether the process lives.",
        "/readyz": "What answers: model, generation, items; and what is wrong with a newer generation, if anything is.",
        "/metrics": "Counts for Prometheus.",
    }.items():
        paths[path] = {"get": {"summary": summary, "responses": {"200": {"description": "as it is"}}}}
    whole: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "twotower", "version": version("twotower"), "description": "Recommendations of a bundle."},
        "paths": paths,
    }
    if settings.token is not None:
        whole["components"] = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}
        whole["security"] = [{"token": []}]
    return whole


def _operation(route: Route, settings: Settings) -> dict[str, Any]:
    summary, content, fields, codes = _TOLD[route.method, route.shown]
    told: dict[str, Any] = {"summary": summary}
    names = [part[1:-1] for part in route.shown.split("/") if part.startswith("{")]
    parameters = [{"name": name, "in": "path", "required": True, "schema": TEXT} for name in names]
    inputs = content(settings.limits)
    if route.method in ("POST", "PUT"):
        required = [name for name in inputs if name in ("users", "vectors", "tower", "records", "items")]
        schema = {"type": "object", "required": required, "properties": inputs, "additionalProperties": False}
        told["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": _EXAMPLES[route.method, route.shown]}},
        }
    else:
        parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in inputs.items()]
    if parameters:
        told["parameters"] = parameters
    answer = {"type": "object", "properties": {**STAMP, **fields}}
    responses: dict[str, Any] = {
        "200": {"description": "The answer.", "content": {"application/json": {"schema": answer}}}
    }
    error = {"type": "object", "required": ["error"], "properties": {"error": TEXT}}
    for code in (400, *codes, *([401] if settings.token is not None else []), 503):
        responses[str(code)] = {"description": STATUSES[code], "content": {"application/json": {"schema": error}}}
    return {**told, "responses": dict(sorted(responses.items()))}


def _options(limits: Limits, *, seen: bool = False) -> dict[str, Any]:
    options: dict[str, Any] = {
        "k": {"type": "integer", "minimum": 1, "maximum": limits.k, "default": 10, "description": "how many items"},
        "where": {**TEXT, "description": "a filter on columns of the items, as: year >= 1990 AND 'Comedy' IN genres"},
        "exclude": {**TEXTS, "description": "ids that are not wanted; between commas in a query string"},
        "diversity": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "default": 0,
            "description": "0 by score alone .. 1 by difference alone",
        },
    }
    if seen:
        options["include_seen"] = {"type": "boolean", "default": False, "description": "items of the history too"}
    return options


def _users(limits: Limits) -> dict[str, Any]:
    user = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "user": {**TEXT, "description": "an id of the data, with its features and history"},
            "features": {"type": "object", "description": "by name; what is left out is missing"},
            "history": {**TEXTS, "description": "ids of items, oldest first"},
            "exclude": TEXTS,
        },
    }
    return {"users": {"type": "array", "maxItems": limits.at_once, "items": user}, **_options(limits, seen=True)}


def _vectors(limits: Limits) -> dict[str, Any]:
    pair = {**TEXT, "description": "the model that made the vectors; another one than answers is refused"}
    return {"vectors": {**NUMBERS, "maxItems": limits.at_once}, "pair_id": pair, **_options(limits)}


def _records(limits: Limits) -> dict[str, Any]:
    records = {"type": "array", "maxItems": limits.at_once, "items": {"type": "object"}}
    return {"tower": {"enum": ["user", "item"]}, "records": records}


def _search(limits: Limits, *, filtered: bool = True) -> dict[str, Any]:
    limit = {"type": "integer", "minimum": 1, "maximum": limits.listed, "default": 20}
    where = {"where": {**TEXT, "description": "a filter"}} if filtered else {}
    what = "part of an id or a text" if filtered else "how the id begins"
    return {"search": {**TEXT, "description": what}, **where, "limit": limit}


def _nothing(_limits: Limits) -> dict[str, Any]:
    return {}


_HITS: Final = {"hits": {"type": "array", "items": HIT}}
_RESULTS: Final = {
    "results": {
        "type": "array",
        "items": {"type": "object", "properties": {"user": TEXT, **_HITS, "notes": {**TEXTS}}},
    }
}
_ITEM: Final = {"type": "object", "required": ["id"], "properties": {"id": TEXT}}
_MORE: Final = {"more": {"type": "boolean", "description": "whether the limit left some out"}}

_INFO: Final = {
    "items": {"type": "integer"},
    "users": {"type": "integer"},
    "dim": {"type": "integer"},
    "index": {"type": "object"},
    "user_features": {"type": "array", "items": {"type": "object"}},
    "item_features": {"type": "array", "items": {"type": "object"}},
    "columns": {"type": "array", "items": {"type": "object"}},
    "limits": {"type": "object"},
}

# method, path -> one line, what goes in, what comes out beside the stamp, statuses beside 400 and 503
_TOLD: Final[dict[tuple[str, str], tuple[str, Any, dict[str, Any], tuple[int, ...]]]] = {
    ("POST", "/v1/recommend"): ("The best items for users, known or new.", _users, _RESULTS, (413,)),
    ("GET", "/v1/similar/{item}"): ("The items nearest to an item.", _options, {"item": TEXT, **_HITS}, (404,)),
    ("POST", "/v1/search"): (
        "The best items for vectors; they are scaled to length 1.",
        _vectors,
        _RESULTS,
        (409, 413),
    ),
    ("POST", "/v1/embed"): (
        "Vectors of users or items, through their tower.",
        _records,
        {"dim": {"type": "integer"}, "vectors": NUMBERS},
        (413,),
    ),
    ("GET", "/v1/items"): (
        "Items by a few letters of their id or text.",
        _search,
        {"items": {"type": "array", "items": _ITEM}, **_MORE},
        (),
    ),
    ("PUT", "/v1/items"): (
        "Add items, or replace those of the same id. On the disk before the answer.",
        lambda limits: {"items": {"type": "array", "maxItems": limits.items, "items": {"type": "object"}}},
        {"added": {"type": "integer"}, "replaced": {"type": "integer"}, "notes": TEXTS},
        (403, 413),
    ),
    ("GET", "/v1/items/{item}"): ("One item.", _nothing, {"item": _ITEM}, (404,)),
    ("DELETE", "/v1/items/{item}"): (
        "Remove an item: it is no longer recommended. On the disk before the answer.",
        _nothing,
        {"removed": {"type": "integer"}},
        (403, 404),
    ),
    ("GET", "/v1/users"): (
        "Users of the data whose id begins so.",
        lambda limits: _search(limits, filtered=False),
        {"users": TEXTS, **_MORE},
        (),
    ),
    ("GET", "/v1/users/{user}"): (
        "A user of the data: features, and the newest items of its history.",
        _nothing,
        {"user": {"type": "object"}},
        (404,),
    ),
    ("GET", "/v1/info"): ("What is served: inputs, columns, index, limits.", _nothing, _INFO, ()),
}

_EXAMPLES: Final[dict[tuple[str, str], Any]] = {
    ("POST", "/v1/recommend"): {"users": [{"history": ["50", "172", "181"]}], "k": 5},
    ("POST", "/v1/search"): {"vectors": [[0.1, 0.2, "..."]], "k": 5},
    ("POST", "/v1/embed"): {"tower": "user", "records": [{"history": ["50", "172"]}]},
    ("PUT", "/v1/items"): {"items": [{"id": "9001", "title": "A new one"}]},
}
