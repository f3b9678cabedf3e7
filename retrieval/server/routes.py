"""Routes: what is answered under /v1, by what, and in which words it is described."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from starlette.convertors import PathConvertor, register_url_convertor

from retrieval.server import answering, changing, describing
from retrieval.server.answering import Call


class _Id(PathConvertor):
    """An id in an address: as Starlette's path, slashes and all, and line breaks too."""

    regex = r"(?s:.*)"


register_url_convertor("id", _Id())


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """method, path: as Starlette writes it; `{item:id}` takes any text. writes: not for one that only answers."""

    method: str
    path: str
    answer: Callable[[Call], dict[str, Any]]
    writes: bool = False

    @property
    def shown(self) -> str:
        """The path as people and OpenAPI write it."""
        return self.path.replace(":id}", "}")


ROUTES: Final = (
    Route(method="POST", path="/v1/recommend", answer=answering.recommend),
    Route(method="GET", path="/v1/similar/{item:id}", answer=answering.similar),
    Route(method="POST", path="/v1/search", answer=answering.search),
    Route(method="POST", path="/v1/embed", answer=answering.embed),
    Route(method="GET", path="/v1/items", answer=answering.items),
    Route(method="PUT", path="/v1/items", answer=changing.put_items, writes=True),
    Route(method="GET", path="/v1/items/{item:id}", answer=answering.item),
    Route(method="DELETE", path="/v1/items/{item:id}", answer=changing.delete_item, writes=True),
    Route(method="GET", path="/v1/users", answer=answering.users),
    Route(method="GET", path="/v1/users/{user:id}", answer=answering.user),
    Route(method="GET", path="/v1/info", answer=describing.info),
)
