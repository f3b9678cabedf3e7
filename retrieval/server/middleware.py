"""ASGI middleware: host and token checks, unexpected errors, counters, and a bound on requests in flight."""

import hmac
import logging
import time
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval.server.errors import RequestError
from retrieval.server.metrics import Metrics
from retrieval.server.responses import error_response, internal_error, refusal
from retrieval.server.settings import Settings

log: Final = logging.getLogger("twotower.server")

ROUTE: Final = "twotower.route"  # key of a request's scope: the route that it took
PUBLIC: Final = ("/", "/docs", "/openapi.json", "/healthz", "/readyz")  # need no token: they hold nothing of the data
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")


class Guard:
    """Checks the Host header and the token; answers an unexpected exception with a 500."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = False

        async def watched_send(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            self._check(Request(scope))
            await self._app(scope, receive, watched_send)
        except RequestError as error:
            await refusal(error)(scope, receive, send)
        except Exception as error:
            response = internal_error(error)
            if not has_started:
                await response(scope, receive, send)

    def _check(self, request: Request) -> None:
        settings = self._settings
        if settings.hosts:
            # DNS rebinding: a page of another site can resolve its own name to this machine.
            host = _host_name(request.headers.get("host", ""))
            if host not in settings.hosts:
                raise RequestError(421, f'host "{host[:100]}" is not allowed; allow it with --allow-host')
        if settings.token is not None and request.url.path not in PUBLIC:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            is_valid = hmac.compare_digest(token.strip().encode(), settings.token.encode())
            if scheme.lower() != "bearer" or not is_valid:
                raise RequestError(
                    401,
                    'a valid token is required; send the header "Authorization: Bearer TOKEN"',
                    headers={"WWW-Authenticate": "Bearer"},
                )


class Instrumented:
    """Counts and times every request, and refuses requests when too many are in flight. The outermost layer."""

    def __init__(self, app: ASGIApp, metrics: Metrics, settings: Settings) -> None:
        self._app = app
        self._metrics = metrics
        self._max_in_flight = settings.limits.waiting
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._in_flight += 1
        self._metrics.started()
        try:
            if self._in_flight > self._max_in_flight and scope["path"] != "/healthz":
                busy = error_response(
                    503, f"{self._max_in_flight} requests are in flight; try again", {"Retry-After": "1"}
                )
                await busy(scope, receive, watched_send)
            else:
                await self._app(scope, receive, watched_send)
        finally:
            self._in_flight -= 1
            seconds = time.perf_counter() - started
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._metrics.finished(method=method, route=scope.get(ROUTE, "other"), status=status, seconds=seconds)
            log.info("%s %s %d %.1f ms", scope["method"], scope["path"], status, seconds * 1e3)


def _host_name(header: str) -> str:
    """A Host header without its port."""
    if header.startswith("["):
        return header.partition("]")[0].lstrip("[").lower()
    return header.partition(":")[0].lower()
