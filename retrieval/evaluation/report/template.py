"""Fill the snippets of report.html. Values are escaped unless they are `Html`."""

import re
from functools import cache
from html import escape
from importlib import resources
from string import Template

SNIPPET = re.compile(r"^<!-- snippet: (\w+) -->\n", re.MULTILINE)


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def fill(snippet: str, **values: object) -> Html:
    """Fill a snippet of report.html. Raises KeyError for a missing value or an unknown snippet."""
    texts = {name: value if isinstance(value, Html) else escape(str(value)) for name, value in values.items()}
    return Html(_snippets()[snippet].substitute(texts))


def join(parts: list[Html]) -> Html:
    return Html("".join(parts))


@cache
def _snippets() -> dict[str, Template]:
    text = resources.files("retrieval.evaluation.report").joinpath("report.html").read_text(encoding="utf-8")
    _, *parts = SNIPPET.split(text)
    return {name: Template(content.strip()) for name, content in zip(parts[::2], parts[1::2], strict=True)}
