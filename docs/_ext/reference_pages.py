"""Write the generated parts of the reference into docs/_generated before the pages are read.

Pages include these parts: the config keys from their definitions, and the HTTP API from the OpenAPI document that the
server itself publishes. Examples at the end of a command's help become code blocks.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from sphinx.application import Sphinx


def http_reference(document: Mapping[str, Any]) -> str:
    """Describe every operation of an OpenAPI document in Markdown."""
    lines: list[str] = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            lines += [f"### {method.upper()} {path}", "", operation["summary"], ""]
            lines += _operation(operation, document)
    return "\n".join(lines)


def _operation(operation: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[str]:
    parameters = operation.get("parameters", [])
    if parameters:
        yield from _table(
            "Parameter",
            [
                (f"{entry['name']} ({entry['in']})", entry.get("schema", {}), entry.get("required", False))
                for entry in parameters
            ],
            document,
        )
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None:
        yield from _table("Body", _fields(body["schema"], document), document)
        if "example" in body:
            yield from ("Example of a body:", "", "```json", json.dumps(body["example"]), "```", "")
    for status, response in operation["responses"].items():
        answer = response.get("content", {}).get("application/json")
        if status == "200" and answer is not None:
            yield from _table("Answer", _fields(answer["schema"], document), document)
    errors = [f"**{code}** {found['description']}" for code, found in operation["responses"].items() if code != "200"]
    if errors:
        yield from (f"Errors: {' '.join(errors)}", "")


def _fields(schema: Mapping[str, Any], document: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, bool]]:
    """Name, schema and necessity of each property, those of objects in a list included."""
    schema = _resolved(schema, document)
    rows: list[tuple[str, Any, bool]] = []
    for name, entry in schema.get("properties", {}).items():
        inner = _resolved(entry, document)
        rows.append((prefix + name, entry, name in schema.get("required", [])))
        nested = _resolved(inner.get("items", {}), document) if inner.get("type") == "array" else inner
        if "properties" in nested:
            rows += _fields(nested, document, f"{prefix}{name}[]." if nested is not inner else f"{prefix}{name}.")
    return rows


def _resolved(schema: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """Follow a reference, and drop null from a choice of types."""
    found = dict(schema)
    while "$ref" in found:
        part: Any = document
        for name in found.pop("$ref").removeprefix("#/").split("/"):
            part = part[name]
        found = {**part, **found}
    choices = [choice for choice in found.get("anyOf", []) if choice.get("type") != "null"]
    if len(choices) == 1:
        found = {**_resolved(choices[0], document), **{key: found[key] for key in found if key != "anyOf"}}
    return found


def _table(title: str, rows: list[tuple[str, Any, bool]], document: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"| {title} | Type | Description |", "| --- | --- | --- |")
    for name, entry, required in rows:
        schema = _resolved(entry, document)
        text = [_sentence(schema), _bounds(schema), "Required." if required and title != "Answer" else ""]
        yield f"| `{name}` | {_type(schema, document)} | {' '.join(part for part in text if part)} |"
    yield ""


def _sentence(schema: Mapping[str, Any]) -> str:
    text: str = schema.get("description", "").replace("|", "\\|")
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) or not text else ".")


def _type(schema: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    schema = _resolved(schema, document)
    if "enum" in schema:
        return " or ".join(f'"{value}"' for value in schema["enum"])
    if "anyOf" in schema:
        names = [_type(choice, document) for choice in schema["anyOf"] if choice.get("type") != "null"]
        return " or ".join(name for name in names if not (name == "integer" and "number" in names))
    name = schema.get("type", "any")
    if name == "array":
        return f"list of {_type(schema.get('items', {}), document)}"
    return str(name) if isinstance(name, str) else " or ".join(part for part in name if part != "null")


def _bounds(schema: Mapping[str, Any]) -> str:
    words = {"minimum": "at least", "maximum": "at most", "maxItems": "at most", "default": "default"}
    found = [f"{word} {json.dumps(schema[key])}" for key, word in words.items() if schema.get(key) is not None]
    entries = " entries" if "maxItems" in schema else ""
    return f"{', '.join(found).capitalize()}{entries}." if found else ""


def write_pages(app: Sphinx) -> None:
    """Write the generated parts; an unchanged one is left alone, so that Sphinx rebuilds only what changed."""
    from retrieval.server.openapi import document
    from retrieval.server.settings import Settings
    from train.config.render import reference

    folder = Path(app.srcdir) / "_generated"
    folder.mkdir(exist_ok=True)
    for name, text in {"config": reference(), "http": http_reference(document(Settings()))}.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def example_as_code(app: Sphinx, ctx: click.Context, lines: list[str]) -> None:  # noqa: ARG001  (an event's signature)
    """Turn the line "Example: twotower ..." at the end of a help text into a code block."""
    text = " ".join(line.strip().removeprefix("|").strip() for line in lines).strip()
    if text.startswith("Example: "):
        lines[:] = ["**Example**", "", ".. code-block:: sh", "", f"   {text.removeprefix('Example: ')}", ""]


def without_common_options(app: Sphinx, ctx: click.Context, lines: list[str]) -> None:  # noqa: ARG001
    """Leave out -q and -v of each command: the page states them once."""
    if ctx.parent is None:
        return
    start = ".. option:: "
    options = ("\n" + "\n".join(lines)).split(f"\n{start}")[1:]
    kept = [start + option for option in options if not option.startswith(("-q, --quiet", "-v, --verbose"))]
    lines[:] = "\n".join(kept).split("\n") if kept else []


def without_arguments(app: Sphinx, ctx: click.Context, lines: list[str]) -> None:  # noqa: ARG001
    """Leave out the list of arguments: the usage line names them, and they have no help of their own."""
    lines.clear()


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx's events."""
    app.connect("builder-inited", write_pages)
    app.connect("sphinx-click-process-options", without_common_options)
    app.connect("sphinx-click-process-arguments", without_arguments)
    app.connect("sphinx-click-process-epilog", example_as_code)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
