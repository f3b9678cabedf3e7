"""Write a config file: the keys that are set, and all others as comments with their default and what they do."""

import dataclasses
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

from retrieval.features.schema import SIDES, Feature, Side
from train.config.components import ENCODERS, encoder_class
from train.config.options import Data, Ease, Model, Split, Train

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_COLUMN: Final = 40  # where the comment of a key begins
_WIDTH: Final = 120


def render(
    *,
    heading: str,
    data: Mapping[str, str],
    features: Mapping[Side, Sequence[Feature]],
    remarks: Mapping[tuple[Side, str], str] | None = None,
    split: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
) -> str:
    """The text of a config file that `config.load` reads back to exactly this.

    heading: lines of comment at the top. data, split, model, train: keys that are set; in `model`, "user" and "item"
    are tables of an encoder. remarks: a comment beside a feature.
    """
    remarks = remarks or {}
    lines = [f"# {line}".rstrip() for line in heading.splitlines()]
    lines += ["", "[data]", *_keys(Data, data)]
    for side in SIDES:
        lines += ["", f"[{side}.features]"]
        lines += [_line(_entry(f), remarks.get((side, f.name), _HINTS.get(f.kind, ""))) for f in features[side]]
    lines += ["", "[split]", *_keys(Split, split or {})]
    model = model or {}
    tables = {side: model[side] for side in SIDES if side in model}
    rest = {name: value for name, value in model.items() if name not in (*tables, "ease")}
    lines += ["", "[model]", *_keys(Model, rest)]
    if not tables:
        lines.append(
            _line('# encoder = "attention"', "Or " + ", ".join(name for name in ENCODERS if name != "attention") + ".")
        )
    for side, table in tables.items():
        lines += ["", f"[model.{side}]", f"encoder = {_value(table['encoder'])}"]
        rest = {name: value for name, value in table.items() if name != "encoder"}
        lines += _keys(encoder_class(table["encoder"]).Options, rest)
    lines += ["", "[model.ease]", *_keys(Ease, model.get("ease", {}))]
    lines += ["", "[train]", *_keys(Train, train or {}), ""]
    return "\n".join(lines)


_HINTS: Final = {"history": "The user's own past items, newest last."}


def _keys(cls: type[Any], chosen: Mapping[str, Any]) -> list[str]:
    lines = []
    for field in dataclasses.fields(cls):
        if not field.metadata:
            continue
        text = field.metadata["text"]
        if field.name in chosen:
            lines.append(_line(f"{field.name} = {_value(chosen[field.name])}", text))
        elif field.default is not None:
            lines.append(_line(f"# {field.name} = {_value(field.default)}", text))
        elif cls is Data:
            lines.append(_line(f'# {field.name} = "..."', text))
        else:
            lines.append(_line(f'# {field.name} = "auto"', text))
    return lines


def _line(code: str, comment: str) -> str:
    """A key with its comment beside it, or above where it is too long for that."""
    line = f"{code:<{_COLUMN}}  # {comment}" if comment else code
    if len(line) <= _WIDTH or not comment:
        return line
    return "\n".join([*(f"# {part}" for part in textwrap.wrap(comment, _WIDTH - 2)), code])


def _entry(feature: Feature) -> str:
    name = feature.name if _BARE.fullmatch(feature.name) else _value(feature.name)
    if not feature.options:
        return f"{name} = {_value(feature.kind)}"
    inner = ", ".join(
        f"{option} = {_value(value)}" for option, value in {"kind": feature.kind, **feature.options}.items()
    )
    return f"{name} = {{ {inner} }}"


def _value(value: Any) -> str:
    """A TOML value: text, booleans and numbers are written as JSON writes them."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def reference() -> str:
    """Every section and key as tables in Markdown: the generated part of docs/reference/config.md."""
    sections: dict[str, type[Any]] = {
        "data": Data,
        "split": Split,
        "model": Model,
        "model.ease": Ease,
        "train": Train,
    }
    parts = [f"### [{name}]\n\n{_reference_table(cls)}" for name, cls in sections.items()]
    lines = ["### Encoders: `encoder` in [model] for both towers, in [model.user] and [model.item] for each", ""]
    for name in ENCODERS:
        encoder = encoder_class(name)
        summary = " ".join(encoder.__doc__.split("\n\n")[0].split())
        lines += [f"**`{name}`** ({' and '.join(encoder.sides)}): {summary}", "", _reference_table(encoder.Options), ""]
    return "\n\n".join([*parts, "\n".join(lines).rstrip()])


def _reference_table(cls: type[Any]) -> str:
    rows = ["| key | default | description |", "| --- | --- | --- |"]
    for field in dataclasses.fields(cls):
        if field.metadata:
            absent = "none" if cls is Data else "auto"
            default = absent if field.default is None else f"`{_value(field.default)}`"
            rows.append(f"| `{field.name}` | {default} | {field.metadata['text']} |")
    return "\n".join(rows)
