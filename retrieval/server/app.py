"""The application: routes, and around them what every request passes."""

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval.common.errors import nearest
from retrieval.server import pages
from retrieval.server.generations import Generations
from retrieval.server.metrics import CONTENT_TYPE, Meters
from retrieval.server.microbatch import Gathering
from retrieval.server.refusal import RefusedError
from retrieval.server.replies import (
    GENERATION_HEADER,
    PAIR_HEADER,
    bug,
    error_reply,
    json_reply,
    refused,
    reply,
    reply_together,
)
from retrieval.server.routes import recommend
from retrieval.server.routes.recommend import Call
from retrieval.server.routes.table import ROUTES, Route
from retrieval.server.settings import Settings

log: Final = logging.getLogger("twotower.server")

ROUTE: Final = "twotower.route"  # where a request notes in its scope which route it took
OPEN: Final = ("/", "/docs", "/openapi.json", "/healthz", "/readyz")  # without a token: nothing of the data is in them
DRAINED: Final = 8  # times the largest body: so much is read and dropped, for most clients read no answer before
SMALL_BYTES: Final = 16_384
GONE: Final = 499  # nobody sees it but the counters


def application(generations: Generations, settings: Settings) -> ASGIApp:
    """An ASGI application that answers from the present generation."""
    meters = Meters(generations)
    handlers = _Handlers(generations, settings, meters)
    by_path: dict[str, dict[str, Route]] = {}
    for route in ROUTES:
        by_path.setdefault(route.path, {})[route.method] = route
    routes = [
        StarletteRoute(path, partial(handlers.versioned, methods), methods=list(methods))
        for path, methods in by_path.items()
    ]
    for path, endpoint in {
        "/": handlers.page,
        "/docs": handlers.docs,
        "/openapi.json": handlers.openapi,
        "/healthz": handlers.healthz,
        "/readyz": handlers.readyz,
        "/metrics": handlers.metrics,
    }.items():
        routes.append(StarletteRoute(path, endpoint, methods=["GET"]))
    middleware = []
    if settings.origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.origins,
                allow_methods=["GET", "POST", *(["PUT", "DELETE"] if settings.writable else [])],
                allow_headers=["Authorization", "Content-Type"],
                expose_headers=[PAIR_HEADER, GENERATION_HEADER],
            )
        )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        generations.watch()
        try:
            yield
        finally:
            await asyncio.to_thread(generations.close)
            handlers.close()

    app = Starlette(
        routes=routes,
        middleware=[*middleware, Middleware(_Guard, settings=settings)],
        exception_handlers={HTTPException: _refused_by_starlette, RefusedError: _refused},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return _Metered(app, meters, settings)


def is_small(body: bytes) -> bool:
    """Whether a recommendation may be answered together with others: one user or two, by the objects in it."""
    return len(body) <= SMALL_BYTES and body.count(b"{") <= 4


class _Handlers:
    """Endpoints: an async front for functions that run in threads."""

    def __init__(self, generations: Generations, settings: Settings, meters: Meters) -> None:
        self._generations = generations
        self._settings = settings
        self._meters = meters
        self._askers = ThreadPoolExecutor(settings.threads, thread_name_prefix="ask")
        self._turns = asyncio.Semaphore(2 * settings.threads)  # who goes away while waiting costs nothing
        self._together = Gathering(self._answer_together, self._askers, threads=settings.threads)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")  # a bundle has one writer at a time

    def close(self) -> None:
        self._askers.shutdown()
        self._writer.shutdown()

    async def versioned(self, methods: Mapping[str, Route], request: Request) -> Response:
        route = methods["GET" if request.method == "HEAD" else request.method]
        request.scope[ROUTE] = route.shown
        if route.writes and not self._settings.writable:
            raise RefusedError(
                403, "this server only answers: it is --read-only, or open to others without --writable or a token"
            )
        call = partial(
            Call,
            limits=self._settings.limits,
            body=await self._body(request),
            path=request.path_params,
            params=request.query_params.multi_items(),
        )
        if route.answer is recommend.recommend and is_small(call.keywords["body"]):
            return await self._together.ask(call)
        loop = asyncio.get_running_loop()
        if route.writes:
            return await loop.run_in_executor(self._writer, self._write, route, call)
        had_to_wait = self._turns.locked()
        async with self._turns:
            if had_to_wait and await request.is_disconnected():
                raise RefusedError(GONE, "whoever asked has gone")
            return await loop.run_in_executor(self._askers, self._answer, route, call)

    def _answer(self, route: Route, call: partial[Call]) -> Response:
        """In a thread."""
        serving = self._generations.present
        return reply(serving, lambda: route.answer(call(serving=serving)))

    def _answer_together(self, calls: Sequence[partial[Call]]) -> list[Response]:
        """In a thread."""
        return reply_together(self._generations.present, calls)

    def _write(self, route: Route, call: partial[Call]) -> Response:
        """In the thread of the one writer: what was changed, of the generation that this made."""
        serving = self._generations.present

        def work() -> dict[str, Any]:
            content = route.answer(call(serving=serving))
            self._generations.refresh()
            return {**self._generations.present.stamp, **content}

        return reply(serving, work)

    async def _body(self, request: Request) -> bytes:
        """Raises RefusedError for one that is too long, too slow or compressed."""
        limits = self._settings.limits
        too_long = RefusedError(
            413, f"the body is longer than {limits.body_bytes:,} bytes; ask in several requests", headers=_CLOSE
        )
        declared = request.headers.get("content-length", "")
        length = int(declared) if declared.isdecimal() and len(declared) < 20 else 0
        if length > limits.body_bytes and (length > DRAINED * limits.body_bytes or "expect" in request.headers):
            raise too_long
        if request.headers.get("content-encoding", "identity") != "identity":
            raise RefusedError(415, "the body is compressed; send it as it is", headers=_CLOSE)
        body, size = bytearray(), 0
        try:
            async with asyncio.timeout(limits.body_s):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size <= limits.body_bytes:
                        body += chunk
                    elif size > DRAINED * limits.body_bytes:
                        break
        except TimeoutError as error:
            raise RefusedError(408, f"the body took longer than {limits.body_s:g} seconds", headers=_CLOSE) from error
        except ClientDisconnect as error:
            raise RefusedError(400, "the body ended early") from error
        if size > limits.body_bytes:
            raise too_long
        return bytes(body)

    async def healthz(self, request: Request) -> Response:
        request.scope[ROUTE] = "/healthz"
        return json_reply(200, {"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """Ready as long as a generation answers; says so if a newer one does not."""
        request.scope[ROUTE] = "/readyz"
        serving, trouble = self._generations.present, self._generations.trouble
        told = {"status": "ready", **serving.stamp, "items": serving.count, "kind": serving.kind}
        if trouble is not None:
            told |= {"status": "ready, of an older generation", "error": trouble}
        return json_reply(200, told)

    async def metrics(self, request: Request) -> Response:
        request.scope[ROUTE] = "/metrics"
        return Response(self._meters.page(), headers={"Content-Type": CONTENT_TYPE})

    async def page(self, request: Request) -> Response:
        request.scope[ROUTE] = "/"
        return _page(pages.read("index.html"))

    async def docs(self, request: Request) -> Response:
        request.scope[ROUTE] = "/docs"
        return _page(pages.read("docs.html"))

    async def openapi(self, request: Request) -> Response:
        from retrieval.server.openapi import document

        request.scope[ROUTE] = "/openapi.json"
        return json_reply(200, document(self._settings))


class _Guard:
    """Turns away who uses a foreign name of this server, or brings no token; has the last word on our own failures."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            self._check(Request(scope))
            await self._app(scope, receive, noting)
        except RefusedError as error:
            await refused(error)(scope, receive, send)
        except Exception as error:
            response = bug(error)
            if not begun:
                await response(scope, receive, send)

    def _check(self, request: Request) -> None:
        settings = self._settings
        if settings.hosts:
            # A page of another site can have its own name point to this machine; the name gives it away.
            host = _host_name(request.headers.get("host", ""))
            if host not in settings.hosts:
                raise RefusedError(
                    421, f'this server does not go by the name "{host[:100]}"; allow it with --allow-host'
                )
        if settings.token is not None and request.url.path not in OPEN:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            fits = hmac.compare_digest(given.strip().encode(), settings.token.encode())
            if scheme.lower() != "bearer" or not fits:
                raise RefusedError(
                    401,
                    'a token is needed; send it as the header "Authorization: Bearer TOKEN"',
                    headers={"WWW-Authenticate": "Bearer"},
                )


class _Metered:
    """Outermost: counts and times every request, and turns them away when too many wait."""

    def __init__(self, app: ASGIApp, meters: Meters, settings: Settings) -> None:
        self._app = app
        self._meters = meters
        self._waiting = settings.limits.waiting
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._in_flight += 1
        self._meters.began()
        try:
            if self._in_flight > self._waiting and scope["path"] != "/healthz":
                busy = error_reply(503, f"{self._waiting} requests are waiting; try again", {"Retry-After": "1"})
                await busy(scope, receive, noting)
            else:
                await self._app(scope, receive, noting)
        finally:
            self._in_flight -= 1
            seconds = time.perf_counter() - started
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._meters.ended(method=method, route=scope.get(ROUTE, "other"), status=status, seconds=seconds)
            log.info("%s %s %d %.1f ms", scope["method"], scope["path"], status, seconds * 1e3)


_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
_CLOSE: Final = {"Connection": "close"}  # what is left of the body is not read


def _page(page: pages.Page) -> Response:
    return Response(
        page.content,
        media_type="text/html",
        headers={
            "Content-Security-Policy": page.policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        },
    )


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return refused(error)


async def _refused_by_starlette(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:100]
    message = str(error.detail)
    if error.status_code == 404:
        known = list(dict.fromkeys([*(route.shown for route in ROUTES), "/metrics", *OPEN]))
        hint = nearest(path, known)
        message = f'there is no "{path}"{hint or "; /docs tells what there is"}'
    elif error.status_code == 405:
        allowed = ", ".join(sorted(set((error.headers or {}).get("Allow", "").split(", ")) - {"HEAD"}))
        message = f'"{path}" does not take {request.method[:20]}; it takes {allowed}'
    return error_reply(error.status_code, message, error.headers)


def _host_name(header: str) -> str:
    """A Host header without its port."""
    if header.startswith("["):
        return header.partition("]")[0].lstrip("[").lower()
    return header.partition(":")[0].lower()
