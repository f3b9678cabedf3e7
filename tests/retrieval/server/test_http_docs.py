"""docs/how-to/http.md: routes, limits and metrics are documented, and its requests work."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retrieval.server.routes import ROUTES
from retrieval.server.settings import Limits
from tests.retrieval.server.conftest import Served
from tests.support.tiny import write_tiny

DOCS = Path(__file__).parents[3] / "docs" / "how-to" / "http.md"
TEXT = DOCS.read_text(encoding="utf-8")


def told() -> Iterator[tuple[str, dict[str, Any]]]:
    """The commands, each with the documented answer."""
    for sent, answered in re.findall(r"```sh\n(curl.*?)```\n```json\n(.*?)\n```", TEXT, re.DOTALL):
        rest = re.sub(r"\.\.\.,|, *\.\.\.", "", answered)
        for command in sent.splitlines():
            answer, end = json.JSONDecoder().raw_decode(rest)
            rest = rest[end:].lstrip()
            yield command, answer
        assert rest == ""


def test_every_route_and_limit_is_documented() -> None:
    for route in ROUTES:
        assert f"`{route.method} {route.documented_path}`" in TEXT
    limits = Limits()
    for told in (f"k {limits.k:,}", f"{limits.batch} users", f"{limits.items:,} items", f"{limits.listed} items"):
        assert told in TEXT
    assert f"{limits.body_bytes >> 20} MiB" in TEXT
    assert f"{limits.body_s:g} s" in TEXT
    assert f"{limits.waiting} requests" in TEXT


def test_documented_requests_work(serve: Served, tmp_path: Path) -> None:
    """The ids are those of the demo, so that 404 is accepted here."""
    client, _ = serve(write_tiny(tmp_path / "bundle"), writable=True)
    asked = set()
    for command, answer in told():
        words = shlex.split(command)[1:]
        method, body, address = "GET", None, ""
        while words:
            word = words.pop(0)
            if word == "-d":
                method, body = ("POST" if method == "GET" else method), words.pop(0)
            elif word == "-X":
                method = words.pop(0)
            else:
                address = word.removeprefix("localhost:8000")
        response = client.request(method, address, content=body)
        asked.add((method, address))
        if response.status_code != 404:
            assert response.status_code == (400 if "error" in answer else 200), (command, response.text)
            assert set(answer) <= set(response.json()), command
    assert len(asked) == 10


@pytest.mark.parametrize("metric", re.findall(r"`(twotower_\w+)`", TEXT))
def test_documented_metrics_exist(serve: Served, tmp_path: Path, metric: str) -> None:
    client, _ = serve(write_tiny(tmp_path / "bundle"))
    client.get("/healthz")
    assert f"\n{metric}" in client.get("/metrics").text or f"{metric}_count" in client.get("/metrics").text
