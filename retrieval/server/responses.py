"""Responses: answers and errors as JSON."""

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec
from starlette.responses import Response

from retrieval.common.errors import BundleError, TwoTowerError
from retrieval.server.decode import decode_body
from retrieval.server.errors import RequestError
from retrieval.server.messages import RecommendRequest
from retrieval.server.routes import RawRequest, Route
from retrieval.server.routes.recommend import SearchOptions, recommend_batch, search_options
from retrieval.server.settings import Limits
from retrieval.server.snapshot import Snapshot

log: Final = logging.getLogger("twotower.server")

PAIR_HEADER: Final = "X-Twotower-Pair"
GENERATION_HEADER: Final = "X-Twotower-Generation"


def json_response(status: int, content: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    body = msgspec.json.encode(content) + b"\n"
    return Response(body, status, headers=headers, media_type="application/json; charset=utf-8")


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return json_response(status, {"error": message}, headers)


def refusal(error: RequestError) -> Response:
    return error_response(error.status, str(error), error.headers)


def internal_error(error: Exception) -> Response:
    """A bug: the traceback goes to the log, under an id that the client gets."""
    number = secrets.token_hex(4)
    log.error("error %s", number, exc_info=error)
    return json_response(500, {"error": f"internal server error; the log has details under {number}", "id": number})


def respond(snapshot: Snapshot, work: Callable[[], Mapping[str, Any]]) -> Response:
    """The answer of `work`, or the error that it raises."""
    stamp: Mapping[str, Any] = snapshot.stamp
    try:
        stamp = content = work()
        response = json_response(200, content)
    except RequestError as error:
        response = refusal(error)
    except BundleError as error:
        log.error("%s", error)
        response = error_response(503, str(error), {"Retry-After": "5"})
    except TwoTowerError as error:
        response = error_response(400, str(error))
    except Exception as error:
        response = internal_error(error)
    return _stamped(response, stamp)


def respond_batch(snapshot: Snapshot, route: Route, requests: Sequence[RawRequest], limits: Limits) -> list[Response]:
    """Answer requests to /v1/recommend; those with equal options share one call of the tower and the index."""
    responses: dict[int, Response] = {}
    if len(requests) > 1:
        groups: dict[SearchOptions, dict[int, RecommendRequest]] = {}
        for position, request in enumerate(requests):
            if request.params:
                continue  # answered alone below, and refused
            try:
                body = decode_body(request.body, RecommendRequest, limits)
            except TwoTowerError:
                continue  # likewise
            groups.setdefault(search_options(body), {})[position] = body
        for group in groups.values():
            try:
                answers = recommend_batch(snapshot, list(group.values()))
            except Exception:  # caused by one request: answered alone, it gets the error and the others their answers
                continue
            for position, answer in zip(group, answers, strict=True):
                responses[position] = _stamped(json_response(200, answer), answer)
    return [
        responses.get(position) or respond(snapshot, partial(route.call, snapshot, request, limits))
        for position, request in enumerate(requests)
    ]


def _stamped(response: Response, stamp: Mapping[str, Any]) -> Response:
    response.headers[PAIR_HEADER] = stamp["pair_id"]
    response.headers[GENERATION_HEADER] = str(stamp["generation"])
    return response
