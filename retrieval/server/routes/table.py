"""Routes: what is answered under /v1, by what, and in which words it is described."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from starlette.convertors import PathConvertor, register_url_convertor

from retrieval.server.routes import info, items_write, recommend
from retrieval.server.routes.recommend import Call


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
    Route(method="POST", path="/v1/recommend", answer=recommend.recommend),
    Route(method="GET", path="/v1/similar/{item:id}", answer=recommend.similar),
    Route(method="POST", path="/v1/search", answer=recommend.search),
    Route(method="POST", path="/v1/embed", answer=recommend.embed),
    Route(method="GET", path="/v1/items", answer=recommend.items),
    Route(method="PUT", path="/v1/items", answer=items_write.put_items, writes=True),
    Route(method="GET", path="/v1/items/{item:id}", answer=recommend.item),
    Route(method="DELETE", path="/v1/items/{item:id}", answer=items_write.delete_item, writes=True),
    Route(method="GET", path="/v1/users", answer=recommend.users),
    Route(method="GET", path="/v1/users/{user:id}", answer=recommend.user),
    Route(method="GET", path="/v1/info", answer=info.info),
)
