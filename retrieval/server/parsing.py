"""Bodies and query strings -> checked values. Past these functions a request is trusted."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from retrieval.common.errors import QueryError, nearest
from retrieval.features.text import text_of
from retrieval.retriever import Query
from retrieval.server.limits import Limits
from retrieval.server.refusal import RefusedError

Vectors = npt.NDArray[np.float32]

OPTIONS: Final = ("k", "where", "exclude", "diversity")
UNIT_SLACK: Final = 1e-4  # a vector this near to length 1 is taken as it is
NAMES: Final = {
    dict: "an object",
    list: "a list",
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `Retriever.answer` takes beside the users."""

    k: int = 10
    where: str | None = None
    exclude: tuple[str, ...] = ()
    include_seen: bool = False
    diversity: float = 0.0


def body_of(raw: bytes, keys: Collection[str]) -> dict[str, Any]:
    """A JSON object of some of the keys. Raises RefusedError on anything else."""
    if not raw.strip():
        raise RefusedError(400, f"the body is empty; expected a JSON object of {_listed(keys)}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RefusedError(400, f"the body is not UTF-8 ({error.reason} at byte {error.start})") from error
    try:
        content = json.loads(text, parse_constant=_no_constant)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise RefusedError(400, "the body holds a lone surrogate, which is not valid Unicode") from error
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"the body is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise RefusedError(400, f"the body is {named(content)}; expected a JSON object of {_listed(keys)}")
    for name in content:
        if name not in keys:
            raise RefusedError(400, f'there is no "{name[:100]}" in this request{nearest(name[:100], keys)}')
    return content


def params_of(pairs: Sequence[tuple[str, str]], keys: Collection[str]) -> dict[str, Any]:
    """A query string as if it were a body: numbers parsed, `exclude` a list of what stands between commas."""
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name not in keys:
            raise RefusedError(400, f'there is no parameter "{name[:100]}"{nearest(name[:100], keys)}')
        if name == "exclude":
            content.setdefault(name, []).extend(part.strip() for part in value.split(",") if part.strip())
        elif name in ("k", "limit", "diversity"):
            content[name] = _number_in(name, value)
        else:
            content[name] = value
    return content


def options_of(content: Mapping[str, Any], limits: Limits) -> Options:
    """Raises RefusedError that names the key."""
    diversity = content.get("diversity")
    if diversity is not None and not (_is_number(diversity) and 0 <= diversity <= 1):
        raise RefusedError(400, f'"diversity" is {shown(diversity)}; expected a number from 0 to 1')
    where = content.get("where")
    if where is not None and not isinstance(where, str):
        raise RefusedError(400, f'"where" is {named(where)}; expected a filter as text, as "year >= 1990"')
    include_seen = content.get("include_seen")
    if include_seen is not None and not isinstance(include_seen, bool):
        raise RefusedError(400, f'"include_seen" is {shown(include_seen)}; expected true or false')
    return Options(
        k=count_of(content, "k", default=10, most=limits.k),
        where=where,
        exclude=tuple(ids_of(content.get("exclude"), '"exclude"')),
        include_seen=bool(include_seen),
        diversity=float(diversity or 0.0),
    )


def count_of(content: Mapping[str, Any], name: str, *, default: int, most: int) -> int:
    value = content.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise RefusedError(400, f'"{name}" is {shown(value)}; expected a whole number from 1 to {most:,}')
    if value > most:
        raise RefusedError(400, f'"{name}" is {shown(value)}; this server gives at most {most:,}')
    return value


def ids_of(value: Any, place: str) -> list[str]:
    """Ids as text: 1 and "1" are one; those that are missing are left out. Raises RefusedError that names the place."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise RefusedError(400, f"{place} is {named(value)}; expected a list of item ids")
    try:
        texts = [text_of(entry) for entry in value]
    except TypeError as error:
        wrong = next(entry for entry in value if isinstance(entry, (dict, list)))
        raise RefusedError(400, f"{place} holds {named(wrong)}; expected a list of item ids") from error
    return [text for text in texts if text]


def users_of(content: Mapping[str, Any], limits: Limits) -> list[Query]:
    """The users of a request. Raises RefusedError that says which one is wrong, and how."""
    users = records_of(content, "users", limits.at_once)
    return [_user_of(user, place_of(position, users)) for position, user in enumerate(users)]


def _user_of(user: Mapping[str, Any], place: str) -> Query:
    if isinstance(user.get("user"), bool):
        raise RefusedError(400, f'{place}"user" is true or false; expected an id')
    try:
        query = Query.of(user)
    except QueryError as error:
        raise RefusedError(400, f"{place}{error}") from error
    return Query(
        user=query.user,
        features=query.features,
        history=None if query.history is None else ids_of(query.history, f'{place}"history"'),
        exclude=ids_of(user.get("exclude"), f'{place}"exclude"'),
    )


def records_of(content: Mapping[str, Any], name: str, most: int) -> list[dict[str, Any]]:
    """A list of objects. Raises RefusedError."""
    value = list_of(content, name, most, "objects")
    for position, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise RefusedError(400, f'{place_of(position, value)}"{name}" holds {named(entry)}; expected an object')
    return value


def list_of(content: Mapping[str, Any], name: str, most: int, what: str) -> list[Any]:
    value = content.get(name)
    if value is None:
        raise RefusedError(400, f'"{name}" is not there; expected a list of {what}')
    if not isinstance(value, list):
        raise RefusedError(400, f'"{name}" is {named(value)}; expected a list of {what}')
    if len(value) > most:
        raise RefusedError(413, f'"{name}" has {len(value):,} entries; this server takes at most {most:,} a request')
    return value


def vectors_of(content: Mapping[str, Any], limits: Limits, *, dim: int) -> Vectors:
    """Vectors as unit rows: (n, dim) float32. One that is of length 1 is not touched. Raises RefusedError."""
    rows = list_of(content, "vectors", limits.at_once, f"vectors of {dim} numbers")
    for position, row in enumerate(rows):
        place = place_of(position, rows)
        if not isinstance(row, list) or len(row) != dim:
            found = f"{len(row)} numbers" if isinstance(row, list) else named(row)
            raise RefusedError(400, f'{place}"vectors" holds {found}; expected a list of {dim} numbers')
        wrong = next((value for value in row if not _is_number(value)), None)
        if wrong is not None or None in row:
            raise RefusedError(400, f'{place}"vectors" holds {shown(wrong)}; expected finite numbers')
    wide = np.array(rows, dtype=np.float64).reshape(len(rows), dim)
    peaks = np.abs(wide).max(axis=1, keepdims=True, initial=0.0)
    for position in np.flatnonzero(peaks[:, 0] == 0).tolist():
        raise RefusedError(400, f'{place_of(position, rows)}"vectors" holds one of zeros, which has no direction')
    even = wide / peaks  # squares of what is left neither overflow nor vanish
    lengths = np.linalg.norm(even, axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        is_unit = np.abs(lengths * peaks - 1) <= UNIT_SLACK
    scaled: Vectors = np.where(is_unit, wide, even / lengths).astype(np.float32)
    return scaled


def place_of(position: int, among: Sequence[object]) -> str:
    """Which of several an error speaks of, as the retriever says it."""
    return f"record {position + 1}: " if len(among) > 1 else ""


def named(value: Any) -> str:
    """What kind of thing a value of JSON is."""
    return "null" if value is None else NAMES[type(value)]


def shown(value: Any) -> str:
    """A value of JSON, or what kind of thing it is where it is long."""
    text = named(value) if isinstance(value, (dict, list)) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."


def _is_number(value: Any) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _number_in(name: str, text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError as error:
        raise RefusedError(400, f'"{name}" is {shown(text)}; expected a number') from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a value of JSON; missing is null")


def _listed(keys: Collection[str]) -> str:
    return ", ".join(f'"{key}"' for key in keys)
