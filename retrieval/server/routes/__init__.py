"""The routes under /v1: importing this package registers them all, in the order of the documentation."""

from retrieval.server.routes import recommend, search_items, items_write, info  # isort: skip
from retrieval.server.routes.route import ROUTES, RawRequest, Route

__all__ = ["ROUTES", "RawRequest", "Route", "info", "items_write", "recommend", "search_items"]
