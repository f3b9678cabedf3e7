"""Bodies and query strings -> checked requests. Past these functions a request is trusted."""

import re
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

from retrieval.common.errors import nearest
from retrieval.server.errors import RequestError
from retrieval.server.settings import Limits

T = TypeVar("T")

# msgspec's name of a type -> how an error says it
TYPES: Final = {
    "object": "an object",
    "array": "a list",
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
    "int | float | str": "text or a number",
}
NOT_JSON_NUMBERS: Final = (b"NaN", b"Infinity", b"-Infinity")
_MESSAGE: Final = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<place>.*)`)?$", re.DOTALL)
_EXPECTED: Final = re.compile(r"Expected `(?P<types>[^`]*)`(?P<bound> [<>=]+ [\d.]+)?(?:, got `(?P<found>\w+)`)?$")


def decode_body(raw: bytes, kind: type[T], limits: Limits) -> T:
    """Parse a JSON body.

    Raises:
        RequestError: 400 for what is not JSON, an unknown or missing field or a wrong type; 413 for too long a list.
    """
    content = raw.removeprefix(b"\xef\xbb\xbf")
    if not content.strip():
        raise RequestError(400, "the body is empty; expected a JSON object")
    try:
        request = msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise _explained(str(error), kind, "body") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(400, f"the body is not JSON: {_malformed(content, str(error))}") from error
    _check_limits(request, limits)
    return request


def decode_params(pairs: Sequence[tuple[str, str]], kind: type[T] | None, limits: Limits) -> T | None:
    """Parse a query string; `exclude` may be repeated and holds comma-separated ids. Raises RequestError, 400."""
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name == "exclude":
            content.setdefault(name, []).extend(part.strip() for part in value.split(",") if part.strip())
        else:
            content[name] = value
    if kind is None:
        if content:
            raise RequestError(400, f'unknown parameter "{next(iter(content))[:100]}"; this address takes none')
        return None
    try:
        request = msgspec.convert(content, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _explained(str(error), kind, "query string") from error
    _check_limits(request, limits)
    return request


def _check_limits(request: object, limits: Limits) -> None:
    for name, most in limits.maximum.items():
        value = getattr(request, name, None)
        if value is not None and value > most:
            raise RequestError(400, f'"{name}" is larger than {most:,}, the maximum of this server')
    for name, most in limits.max_items.items():
        entries = getattr(request, name, None)
        if entries is not None and len(entries) > most:
            raise RequestError(
                413, f'"{name}" has {len(entries):,} entries; this server takes at most {most:,} in one request'
            )


def _malformed(content: bytes, reason: str) -> str:
    """Why a body is not JSON, with a hint for the values that Python and JavaScript programs send by mistake."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return f"it is not UTF-8 ({error.reason} at byte {error.start})"
    at = re.search(r"\(byte (\d+)\)", reason)
    if at is not None and content[int(at[1]) :].startswith(NOT_JSON_NUMBERS):
        return "it holds NaN or Infinity, which JSON does not have; a missing value is null"
    if "surrogate" in reason or re.search(rb'\\u[dD][89a-fA-F][0-9a-fA-F]{2}"', content):
        return "it holds a lone surrogate, which is not valid Unicode"
    return reason.removeprefix("JSON is malformed: ")


def _explained(message: str, kind: Any, source: str) -> RequestError:
    """The error of msgspec in the words of this API: the field, what was expected, what was found."""
    parts = _MESSAGE.match(message)
    assert parts is not None
    what, place = parts["what"], parts["place"] or ""
    where = f'"{place}"' if place else f"the {source}"
    if unknown := re.match(r"Object contains unknown field `(.*)`$", what, re.DOTALL):
        name, word = unknown[1][:100], "parameter" if source == "query string" else "field"
        path = f"{place}.{name}" if place else name
        return RequestError(
            400, f'unknown {word} "{path}"{nearest(name, [field.name for field in _type_at(kind, place).fields])}'
        )
    if missing := re.match(r"Object missing required field `(.*)`$", what):
        return RequestError(400, f'"{place}.{missing[1]}" is missing' if place else f'"{missing[1]}" is missing')
    if expected := _EXPECTED.match(what):
        types = expected["types"].removesuffix(" | null")
        found = f", found {TYPES.get(expected['found'], expected['found'])}" if expected["found"] else ""
        return RequestError(400, f"{where}: expected {TYPES.get(types, types)}{expected['bound'] or ''}{found}")
    if what.startswith("Invalid enum value"):
        allowed = " or ".join(f'"{value}"' for value in _type_at(kind, place).values)
        return RequestError(400, f"{where}: expected {allowed}")
    return RequestError(400, f"{where}: {what[:1].lower()}{what[1:]}")


def _type_at(kind: Any, place: str) -> Any:
    """Msgspec's description of the type at a path such as `users[0]`."""
    found: Any = _unwrapped(inspect.type_info(kind))
    for token in re.findall(r"\[|\w+", re.sub(r"\[[^\]]*\]", "[", place)):
        inner = found.item_type if token == "[" else next(f.type for f in found.fields if f.name == token)
        found = _unwrapped(inner)
    return found


def _unwrapped(kind: Any) -> Any:
    """Without annotations and without null."""
    if isinstance(kind, inspect.Metadata):
        return _unwrapped(kind.type)
    if isinstance(kind, inspect.UnionType):
        return _unwrapped(next(entry for entry in kind.types if not isinstance(entry, inspect.NoneType)))
    return kind
