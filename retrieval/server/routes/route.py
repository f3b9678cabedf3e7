"""Routes under /v1: a decorator registers a handler; parsing and documentation follow from its annotations."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, get_type_hints

from starlette.convertors import PathConvertor, register_url_convertor

from retrieval.server.decode import decode_body, decode_params
from retrieval.server.settings import Limits
from retrieval.server.snapshot import Snapshot

Handler = TypeVar("Handler", bound=Callable[..., Any])


class _Id(PathConvertor):
    """An id in a path: any text, slashes and line breaks included."""

    regex = r"(?s:.*)"


register_url_convertor("id", _Id())


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRequest:
    """A request as it arrived: body, path parameters and query string."""

    body: bytes = b""
    path: Mapping[str, str] = field(default_factory=dict)
    params: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler works with besides its parsed request: the bundle, the limits and the path parameters."""

    snapshot: Snapshot
    limits: Limits
    path: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A method and a path with their handler.

    Attributes:
        path: As Starlette writes it; `{item:id}` matches any text.
        body: Type of the JSON body, if the handler has a parameter `body`.
        params: Type of the query string, if the handler has a parameter `params`.
        answer: Type of the answer.
        errors: Statuses besides 400 and 503.
        writes: Whether the handler changes the bundle.
        example: An example body for the documentation.
    """

    method: str
    path: str
    handler: Callable[..., Any]
    body: Any
    params: Any
    answer: Any
    errors: tuple[int, ...]
    writes: bool
    example: Any

    @property
    def documented_path(self) -> str:
        """The path as OpenAPI writes it."""
        return self.path.replace(":id}", "}")

    @property
    def summary(self) -> str:
        """The first paragraph of the handler's docstring, on one line."""
        return " ".join((inspect.getdoc(self.handler) or "").split("\n\n")[0].split())

    def call(self, snapshot: Snapshot, request: RawRequest, limits: Limits) -> Any:
        """Parse a request and answer it. Raises TwoTowerError, RequestError among them."""
        arguments: dict[str, Any] = {}
        params = decode_params(request.params, self.params, limits)
        if self.params is not None:
            arguments["params"] = params
        if self.body is not None:
            arguments["body"] = decode_body(request.body, self.body, limits)
        return self.handler(Context(snapshot, limits, request.path), **arguments)


ROUTES: Final[list[Route]] = []


def route(
    method: str, path: str, *, errors: tuple[int, ...] = (), writes: bool = False, example: Any = None
) -> Callable[[Handler], Handler]:
    """Register a handler `(context, body=..., params=...) -> answer`; see `Route`."""

    def register(handler: Handler) -> Handler:
        hints = get_type_hints(handler, include_extras=True)
        ROUTES.append(
            Route(
                method=method,
                path=path,
                handler=handler,
                body=hints.get("body"),
                params=hints.get("params"),
                answer=hints["return"],
                errors=errors,
                writes=writes,
                example=example,
            )
        )
        return handler

    return register
