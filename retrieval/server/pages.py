"""Self-contained HTML pages and their Content-Security-Policy, which allows their inline style and script only."""

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

_INLINE = {
    "script-src": re.compile(r"<script>(.*?)</script>", re.DOTALL),
    "style-src": re.compile(r"<style>(.*?)</style>", re.DOTALL),
}


@dataclass(frozen=True, slots=True)
class Page:
    """content: HTML in UTF-8. policy: Content-Security-Policy with the hashes of inline styles and scripts."""

    content: bytes
    policy: str


@cache
def read(name: str) -> Page:
    """Read a page of this package by its file name."""
    text = resources.files("retrieval.server").joinpath("html", name).read_text(encoding="utf-8")
    rules = [
        "default-src 'none'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    for directive, pattern in _INLINE.items():
        hashes = " ".join(_hash_of(part) for part in pattern.findall(text)) or "'none'"
        rules.append(f"{directive} {hashes}")
    return Page(text.encode(), "; ".join(rules))


def _hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
