"""The ASGI application: routes, request bodies, threads, pages and error responses."""

import asyncio
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
from starlette.types import ASGIApp

from retrieval.common.errors import nearest
from retrieval.server import pages
from retrieval.server.errors import RequestError
from retrieval.server.generations import Generations
from retrieval.server.metrics import CONTENT_TYPE, Metrics
from retrieval.server.microbatch import MicroBatcher
from retrieval.server.middleware import PUBLIC, ROUTE, Guard, Instrumented
from retrieval.server.openapi import document
from retrieval.server.responses import (
    GENERATION_HEADER,
    PAIR_HEADER,
    error_response,
    json_response,
    refusal,
    respond,
    respond_batch,
)
from retrieval.server.routes import ROUTES, RawRequest, Route, recommend
from retrieval.server.settings import Limits, Settings

DRAIN_FACTOR: Final = 8  # read and drop up to this many times the largest body: most clients read no answer before
SMALL_BYTES: Final = 16_384
CLIENT_CLOSED: Final = 499  # seen by the metrics only
CLOSE: Final = {"Connection": "close"}  # the rest of the body is not read


def application(generations: Generations, settings: Settings) -> ASGIApp:
    """Build the ASGI application that answers from the present generation of a bundle."""
    metrics = Metrics(generations)
    handlers = _Handlers(generations, settings, metrics)
    by_path: dict[str, dict[str, Route]] = {}
    for route in ROUTES:
        by_path.setdefault(route.path, {})[route.method] = route
    routes = [
        StarletteRoute(path, partial(handlers.api, methods), methods=list(methods)) for path, methods in by_path.items()
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
        middleware=[*middleware, Middleware(Guard, settings=settings)],
        exception_handlers={HTTPException: _http_error, RequestError: _request_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return Instrumented(app, metrics, settings)


def is_small(body: bytes) -> bool:
    """Whether a recommendation may be answered in a micro-batch: one or two users, by the number of JSON objects."""
    return len(body) <= SMALL_BYTES and body.count(b"{") <= 4


class _Handlers:
    """Endpoints: they read requests on the event loop and answer them in threads."""

    def __init__(self, generations: Generations, settings: Settings, metrics: Metrics) -> None:
        self._generations = generations
        self._settings = settings
        self._metrics = metrics
        self._readers = ThreadPoolExecutor(settings.threads, thread_name_prefix="read")
        self._slots = asyncio.Semaphore(2 * settings.threads)  # a client that leaves while it waits costs nothing
        self._microbatcher = MicroBatcher(self._recommend_batch, self._readers, threads=settings.threads)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")  # a bundle has one writer at a time
        self._recommend = next(route for route in ROUTES if route.handler is recommend.recommend)

    def close(self) -> None:
        self._readers.shutdown()
        self._writer.shutdown()

    async def api(self, methods: Mapping[str, Route], request: Request) -> Response:
        """Answer a request to one of the routes under /v1."""
        route = methods["GET" if request.method == "HEAD" else request.method]
        request.scope[ROUTE] = route.documented_path
        if route.writes and not self._settings.writable:
            raise RequestError(403, "this server is read-only; see --read-only, --writable and --token-file")
        raw = RawRequest(
            body=await _read_body(request, self._settings.limits),
            path=request.path_params,
            params=tuple(request.query_params.multi_items()),
        )
        if route is self._recommend and is_small(raw.body):
            return await self._microbatcher.submit(raw)
        loop = asyncio.get_running_loop()
        if route.writes:
            return await loop.run_in_executor(self._writer, self._write, route, raw)
        had_to_wait = self._slots.locked()
        async with self._slots:
            if had_to_wait and await request.is_disconnected():
                raise RequestError(CLIENT_CLOSED, "the client closed the connection")
            return await loop.run_in_executor(self._readers, self._read, route, raw)

    def _read(self, route: Route, request: RawRequest) -> Response:
        """Runs in a thread."""
        snapshot = self._generations.present
        return respond(snapshot, lambda: route.call(snapshot, request, self._settings.limits))

    def _recommend_batch(self, requests: Sequence[RawRequest]) -> list[Response]:
        """Runs in a thread."""
        return respond_batch(self._generations.present, self._recommend, requests, self._settings.limits)

    def _write(self, route: Route, request: RawRequest) -> Response:
        """Runs in the writer's thread; the answer names the generation that the change made."""
        snapshot = self._generations.present

        def work() -> Mapping[str, Any]:
            answer = route.call(snapshot, request, self._settings.limits)
            self._generations.refresh()
            return {**answer, **self._generations.present.stamp}

        return respond(snapshot, work)

    async def healthz(self, request: Request) -> Response:
        request.scope[ROUTE] = "/healthz"
        return json_response(200, {"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """Ready as long as a generation answers; names the error if a newer one does not open."""
        request.scope[ROUTE] = "/readyz"
        snapshot, trouble = self._generations.present, self._generations.trouble
        content = {"status": "ready", **snapshot.stamp, "items": snapshot.count, "kind": snapshot.kind}
        if trouble is not None:
            content |= {"status": "ready, with an older generation", "error": trouble}
        return json_response(200, content)

    async def metrics(self, request: Request) -> Response:
        request.scope[ROUTE] = "/metrics"
        return Response(self._metrics.page(), headers={"Content-Type": CONTENT_TYPE})

    async def page(self, request: Request) -> Response:
        request.scope[ROUTE] = "/"
        return _page(pages.read("index.html"))

    async def docs(self, request: Request) -> Response:
        request.scope[ROUTE] = "/docs"
        return _page(pages.read("docs.html"))

    async def openapi(self, request: Request) -> Response:
        request.scope[ROUTE] = "/openapi.json"
        return json_response(200, document(self._settings))


async def _read_body(request: Request, limits: Limits) -> bytes:
    """Read a body. Raises RequestError if it is too long, too slow or compressed."""
    too_long = RequestError(
        413, f"the body is longer than {limits.body_bytes:,} bytes; send several requests", headers=CLOSE
    )
    declared = request.headers.get("content-length", "")
    length = int(declared) if declared.isdecimal() and len(declared) < 20 else 0
    if length > limits.body_bytes and (length > DRAIN_FACTOR * limits.body_bytes or "expect" in request.headers):
        raise too_long
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RequestError(415, "the body is compressed; send it uncompressed", headers=CLOSE)
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(limits.body_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limits.body_bytes:
                    body += chunk
                elif size > DRAIN_FACTOR * limits.body_bytes:
                    break
    except TimeoutError as error:
        raise RequestError(408, f"the body took longer than {limits.body_s:g} seconds", headers=CLOSE) from error
    except ClientDisconnect as error:
        raise RequestError(400, "the body ended early") from error
    if size > limits.body_bytes:
        raise too_long
    return bytes(body)


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


async def _request_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return refusal(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:100]
    message = str(error.detail)
    if error.status_code == 404:
        known = list(dict.fromkeys([*(route.documented_path for route in ROUTES), "/metrics", *PUBLIC]))
        message = f'there is no "{path}"{nearest(path, known) or "; see /docs"}'
    elif error.status_code == 405:
        allowed = ", ".join(sorted(set((error.headers or {}).get("Allow", "").split(", ")) - {"HEAD"}))
        message = f'"{path}" does not allow {request.method[:20]}; it allows {allowed}'
    return error_response(error.status_code, message, error.headers)
