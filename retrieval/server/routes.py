"""Routes: what is answered under /v1, by what, and in which words it is described."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from retrieval.server import answering, changing, describing
from retrieval.server.answering import Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """method, path: as Starlette writes it; `{item:path}` takes slashes too. writes: not for one that only answers."""

    method: str
    path: str
    answer: Callable[[Call], dict[str, Any]]
    writes: bool = False

    @property
    def shown(self) -> str:
        """The path as people and OpenAPI write it."""
        return self.path.replace(":path}", "}")


ROUTES: Final = (
    Route(method="POST", path="/v1/recommend", answer=answering.recommend),
    Route(method="GET", path="/v1/similar/{item:path}", answer=answering.similar),
    Route(method="POST", path="/v1/search", answer=answering.search),
    Route(method="POST", path="/v1/embed", answer=answering.embed),
    Route(method="GET", path="/v1/items", answer=answering.items),
    Route(method="PUT", path="/v1/items", answer=changing.put_items, writes=True),
    Route(method="GET", path="/v1/items/{item:path}", answer=answering.item),
    Route(method="DELETE", path="/v1/items/{item:path}", answer=changing.delete_item, writes=True),
    Route(method="GET", path="/v1/users", answer=answering.users),
    Route(method="GET", path="/v1/users/{user:path}", answer=answering.user),
    Route(method="GET", path="/v1/info", answer=describing.info),
)
