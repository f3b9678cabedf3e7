"""What is served, for those who ask of it: its inputs, its columns, its index."""

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from retrieval.features.schema import Feature
from retrieval.server.parsing import params_of
from retrieval.server.routes.recommend import Call
from retrieval.server.snapshot import Serving

if TYPE_CHECKING:
    import pyarrow as pa

LOOKED_AT: Final = 2_000  # users whose values are counted
VALUES: Final = 30
SHARED: Final = 3  # users who must have a value before it is shown


def info(call: Call) -> dict[str, Any]:
    params_of(call.params, ())
    serving = call.serving
    schema = serving.bundle.schema
    values = _values(serving)
    return {
        **serving.stamp,
        "items": serving.count,
        "users": 0 if serving.users is None else len(serving.users),
        "dim": schema.dim,
        "index": {"kind": serving.kind, "recall@10": serving.facts.get("recall", {}).get("measured")},
        "user_features": [_feature(feature, values.get(feature.name)) for feature in schema.user.inputs],
        "item_features": [_feature(feature, None) for feature in schema.item.inputs],
        "columns": [{"name": field.name, "type": type_of(field.type)} for field in serving.item_schema],
        "limits": {"k": call.limits.k, "users": call.limits.at_once, "body_bytes": call.limits.body_bytes},
    }


def type_of(kind: "pa.DataType") -> str:
    """The type of a column in a word."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        return type_of(kind.value_type)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return f"list of {type_of(kind.value_type)}"
    if types.is_boolean(kind):
        return "true or false"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    return "date" if types.is_temporal(kind) else "text"


def _feature(feature: Feature, values: list[str] | None) -> dict[str, Any]:
    told: dict[str, Any] = {"name": feature.name, "kind": feature.kind}
    if feature.max_length is not None:
        told["max_length"] = feature.max_length
    if feature.size is not None:
        told["size"] = feature.size
    return {**told, "values": values} if values else told


def _values(serving: Serving) -> dict[str, list[str]]:
    """Frequent values of the users' categories: a form offers them."""
    if serving.users is None:
        return {}
    names = [f.name for f in serving.bundle.schema.user.inputs if f.kind in ("category", "categories")]
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    for row in islice(range(len(serving.users)), LOOKED_AT if names else 0):
        record = serving.users.record(row)
        for name in names:
            value = record.get(name)
            counts[name].update(str(entry) for entry in (value if isinstance(value, list) else [value]) if entry)
    return {
        name: sorted(value for value, times in counted.most_common(VALUES) if times >= SHARED)
        for name, counted in counts.items()
    }
