"""What is served: inputs, columns, index, limits."""

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from retrieval.features.schema import Feature
from retrieval.server.messages import InfoAnswer
from retrieval.server.routes.route import Context, route
from retrieval.server.snapshot import Snapshot

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLED_USERS: Final = 2_000  # users whose values are counted
SHOWN_VALUES: Final = 30
MIN_USERS: Final = 3  # users who must share a value before it is shown


@route("GET", "/v1/info")
def info(context: Context) -> InfoAnswer:
    """Describe what is served: inputs, columns, index, limits."""
    snapshot, limits = context.snapshot, context.limits
    schema = snapshot.bundle.schema
    values = _frequent_values(snapshot)
    return {
        **snapshot.stamp,
        "items": snapshot.count,
        "users": 0 if snapshot.users is None else len(snapshot.users),
        "dim": schema.dim,
        "index": {"kind": snapshot.kind, "recall@10": snapshot.facts.get("recall", {}).get("measured")},
        "user_features": [_feature(feature, values.get(feature.name)) for feature in schema.user.inputs],
        "item_features": [_feature(feature, None) for feature in schema.item.inputs],
        "columns": [{"name": field.name, "type": type_of(field.type)} for field in snapshot.item_schema],
        "limits": {"k": limits.k, "users": limits.batch, "body_bytes": limits.body_bytes},
    }


def type_of(kind: "pa.DataType") -> str:
    """A one-word name of a column type."""
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
    facts: dict[str, Any] = {"name": feature.name, "kind": feature.kind}
    if feature.max_length is not None:
        facts["max_length"] = feature.max_length
    if feature.size is not None:
        facts["size"] = feature.size
    return {**facts, "values": values} if values else facts


def _frequent_values(snapshot: Snapshot) -> dict[str, list[str]]:
    """Frequent values of categorical user features, for the form of the web page."""
    if snapshot.users is None:
        return {}
    names = [f.name for f in snapshot.bundle.schema.user.inputs if f.kind in ("category", "categories")]
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    for row in islice(range(len(snapshot.users)), SAMPLED_USERS if names else 0):
        record = snapshot.users.record(row)
        for name in names:
            value = record.get(name)
            counts[name].update(str(entry) for entry in (value if isinstance(value, list) else [value]) if entry)
    return {
        name: sorted(value for value, times in counted.most_common(SHOWN_VALUES) if times >= MIN_USERS)
        for name, counted in counts.items()
    }
