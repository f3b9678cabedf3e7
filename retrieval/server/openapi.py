"""The OpenAPI 3.1 document, derived from the registered routes and their types."""

from importlib.metadata import version
from typing import Any, Final

import msgspec

from retrieval.server.routes import ROUTES, Route
from retrieval.server.settings import Limits, Settings

COMPONENTS: Final = "#/components/schemas/{name}"
ERROR: Final = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
STATUSES: Final = {
    400: "The request is invalid.",
    401: "The token is missing or wrong.",
    403: "The server does not allow changes.",
    404: "There is no such item or user.",
    409: "The vectors come from another model.",
    413: "The body or a list in it is too long.",
    503: "Too many requests are waiting, or another process is writing.",
}
OPERATIONS: Final = {
    "/healthz": "Liveness: the process runs.",
    "/readyz": "Readiness: model, generation and items, and why a newer generation could not be opened.",
    "/metrics": "Metrics for Prometheus.",
}


def document(settings: Settings) -> dict[str, Any]:
    """Describe the API of a server with these settings."""
    types = [kind for route in ROUTES for kind in (route.body, route.params, route.answer) if kind is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template=COMPONENTS)
    by_type = dict(zip(types, schemas, strict=True))
    for kind in {kind for route in ROUTES for kind in (route.body, route.params) if kind is not None}:
        _add_limits(components[kind.__name__]["properties"], settings.limits)
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        operation = _operation(route, by_type, components, has_token=settings.token is not None)
        paths.setdefault(route.documented_path, {})[route.method.lower()] = operation
    for path, summary in OPERATIONS.items():
        paths[path] = {"get": {"summary": summary, "responses": {"200": {"description": "OK"}}}}
    whole: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "twotower", "version": version("twotower"), "description": "Recommendations of a bundle."},
        "paths": paths,
        "components": {"schemas": components},
    }
    if settings.token is not None:
        whole["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        whole["security"] = [{"token": []}]
    return whole


def _operation(
    route: Route, schemas: dict[Any, dict[str, Any]], components: dict[str, Any], *, has_token: bool
) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": route.summary, "operationId": route.handler.__name__}
    parameters = [
        {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string"}}
        for part in route.documented_path.split("/")
        if part.startswith("{")
    ]
    if route.params is not None:
        fields = components[route.params.__name__]["properties"]
        parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in fields.items()]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        content = {"schema": schemas[route.body], "example": route.example}
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    answer = {"application/json": {"schema": schemas[route.answer]}}
    responses: dict[str, Any] = {"200": {"description": "OK", "content": answer}}
    for status in sorted({400, 503, *route.errors, *([401] if has_token else [])}):
        responses[str(status)] = {"description": STATUSES[status], "content": {"application/json": {"schema": ERROR}}}
    return {**operation, "responses": responses}


def _add_limits(properties: dict[str, Any], limits: Limits) -> None:
    """Add the limits of this server to fields of requests. Modifies `properties`."""
    for name, schema in properties.items():
        bounded = schema["anyOf"][0] if "anyOf" in schema else schema
        if name in limits.maximum:
            bounded["maximum"] = limits.maximum[name]
        if name in limits.max_items:
            bounded["maxItems"] = limits.max_items[name]
