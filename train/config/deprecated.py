"""Old names of config keys, accepted with a note for one release."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from retrieval.common.console import note

# Old path -> new path. Longer paths stand before their parents.
RENAMED: Final[Mapping[str, str]] = {
    "model.linear.share": "model.ease.weight",
    "model.linear.likeness": "model.ease.feature_weight",
    "model.linear.decay": "model.ease.recency_decay",
    "model.linear": "model.ease",
    "train.ridge": "model.ease.ridge",
    "train.likeness": "model.ease.feature_weight",
    "train.impressions": "train.impression_weight",
    "model.user.short_cut": "model.user.residual_dropout",
}
RENAMED_ENCODERS: Final[Mapping[str, str]] = {
    "seed-attention": "notebook-attention",
    "seed-mlp": "notebook-mlp",
}
# Settings that no longer exist, with the reason.
REMOVED: Final[Mapping[str, str]] = {
    "model.linear.damping": "popular items are no longer down-weighted in EASE",
    "train.damping": "popular items are no longer down-weighted in EASE",
    "train.teaching": "soft targets from transition counts no longer exist",
    "train.horizon": "towers are trained on the next item",
    "train.positions": "all positions of a history are trained",
    "model.user.short_cut_items": "only the last item has an embedding of its own",
}


def modernise(raw: dict[str, Any], *, at: Callable[[str], str]) -> None:
    """Rename old keys of a parsed config in place, and say so once for each key.

    Args:
        raw: The tables of the file, with the overrides of the command line merged in.
        at: Names a key with the file or the option that set it, for the notes.

    """
    for old, reason in REMOVED.items():
        if _pop(raw, old) is not None:
            note(f"{at(old)} is ignored: {reason}; remove it")
    for old, new in RENAMED.items():
        value = _pop(raw, old)
        if value is not None and not (isinstance(value, dict) and not value):
            _set(raw, new, value)
            note(f"{at(old)} is now {new}; rename it")
    _ease_only(raw, at)


def current_encoder(name: Any, at: str) -> Any:
    """The name of an encoder in this release. at: The key, for the note."""
    if not isinstance(name, str) or name not in RENAMED_ENCODERS:
        return name
    note(f'{at}: the encoder "{name}" is now "{RENAMED_ENCODERS[name]}"; rename it')
    return RENAMED_ENCODERS[name]


def _ease_only(raw: dict[str, Any], at: Callable[[str], str]) -> None:
    """`train.start = "linear"` and the encoder `sum` both asked for EASE alone."""
    model = raw.get("model", {})
    asked = _get(raw, "train.start") == "linear" and _pop(raw, "train.start") is not None
    for path in ("model.encoder", "model.user.encoder", "model.encoder.user"):
        if isinstance(model, dict) and _get(raw, path) == "sum":
            _pop(raw, path)
            decay = _pop(raw, "model.user.decay")
            if decay is not None:
                _set(raw, "model.ease.recency_decay", decay)
            _pop(raw, "model.user.dropout")
            if model.get("user") == {}:
                del model["user"]
            asked = True
    if asked:
        _set(raw, "model.ease.weight", 1.0)
        note(f'{at("model")}: train.start = "linear" and the encoder "sum" are now model.ease.weight = 1; change it')


def _get(raw: Mapping[str, Any], path: str) -> Any:
    at: Any = raw
    for name in path.split("."):
        if not isinstance(at, Mapping) or name not in at:
            return None
        at = at[name]
    return at


def _pop(raw: dict[str, Any], path: str) -> Any:
    *parents, last = path.split(".")
    table = _get(raw, ".".join(parents)) if parents else raw
    return table.pop(last, None) if isinstance(table, dict) else None


def _set(raw: dict[str, Any], path: str, value: Any) -> None:
    """Set a key that is not set yet. A table is merged into the table at `path`."""
    *parents, last = path.split(".")
    table = raw
    for name in parents:
        child = table.setdefault(name, {})
        if not isinstance(child, dict):
            return  # the parser says what is wrong with it
        table = child
    if isinstance(value, dict) and isinstance(table.get(last), dict):
        for name, inner in value.items():
            table[last].setdefault(name, inner)
    else:
        table.setdefault(last, value)
