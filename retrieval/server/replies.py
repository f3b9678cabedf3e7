"""Replies: what is sent back, for an answer as for what stands in its way."""

import json
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from starlette.responses import Response

from retrieval.common.errors import BundleError, TwoTowerError
from retrieval.server.parsing import Options
from retrieval.server.refusal import RefusedError
from retrieval.server.routes import recommend
from retrieval.server.routes.recommend import Asked, Call
from retrieval.server.snapshot import Serving

log: Final = logging.getLogger("twotower.server")

PAIR_HEADER: Final = "X-Twotower-Pair"
GENERATION_HEADER: Final = "X-Twotower-Generation"


def json_reply(status: int, content: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(
        text.encode(errors="replace") + b"\n", status, headers=headers, media_type="application/json; charset=utf-8"
    )


def error_reply(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return json_reply(status, {"error": message}, headers)


def refused(error: RefusedError) -> Response:
    return error_reply(error.status, str(error), error.headers)


def bug(error: Exception) -> Response:
    """A failure of ours: its traceback in the log, under an id that the client is given."""
    number = secrets.token_hex(4)
    log.error("error %s", number, exc_info=error)
    return json_reply(500, {"error": f"this is a bug of the server; its log says more under {number}", "id": number})


def reply(serving: Serving, work: Callable[[], dict[str, Any]]) -> Response:
    """The answer that some work gives, which begins with whose it is; or the error that it raises."""
    stamp: Mapping[str, Any] = serving.stamp
    try:
        stamp = content = work()
        response = json_reply(200, content)
    except RefusedError as error:
        response = refused(error)
    except BundleError as error:
        log.error("%s", error)
        response = error_reply(503, str(error), {"Retry-After": "5"})
    except TwoTowerError as error:
        response = error_reply(400, str(error))
    except Exception as error:
        response = bug(error)
    return _stamped(response, stamp)


def reply_together(serving: Serving, calls: Sequence[partial[Call]]) -> list[Response]:
    """Recommendations that were asked for at the same time; those of the same options are answered in one go."""
    found: dict[int, Response] = {}
    if len(calls) > 1:
        alike: dict[Options, dict[int, Asked]] = {}
        for place, call in enumerate(calls):
            try:
                asked = recommend.asked_of(call(serving=serving))
            except TwoTowerError:
                continue  # below it is asked alone, and refused
            alike.setdefault(asked.options, {})[place] = asked
        for group in alike.values():
            try:
                contents = recommend.recommended(serving, list(group.values()))
            except Exception:  # one of them is to blame: alone, it gets the error and the others their answers
                continue
            for place, content in zip(group, contents, strict=True):
                found[place] = _stamped(json_reply(200, content), content)
    return [found.get(place) or reply(serving, partial(_recommend, call, serving)) for place, call in enumerate(calls)]


def _recommend(call: partial[Call], serving: Serving) -> dict[str, Any]:
    return recommend.recommend(call(serving=serving))


def _stamped(response: Response, stamp: Mapping[str, Any]) -> Response:
    response.headers[PAIR_HEADER] = stamp["pair_id"]
    response.headers[GENERATION_HEADER] = str(stamp["generation"])
    return response
