"""The pages are self-contained, match the routes, and render in a real browser."""

import base64
import hashlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from retrieval.server import pages
from retrieval.server.messages import Answer
from retrieval.server.routes import ROUTES
from retrieval.server.routes.route import Context, route
from tests.export.runtimes.machines import chromium
from tests.retrieval.server.conftest import Served
from tests.retrieval.server.test_process import ask, serving
from tests.support.tiny import write_tiny

PAGES = ("/", "/docs")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_self_contained(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    text = response.text
    links = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)["']""", text)
    assert all(not re.match(r"(?:https?:)?//", link) for link in links), links
    assert not re.search(r"@import|url\(|import\s*\(|innerHTML|eval\(", text)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert "unsafe" not in policy
    assert not re.search(r"""\s(?:style|on\w+)\s*=\s*["']""", text)  # the policy would drop them


def test_openapi_documents_every_route(client: TestClient, serve: Served) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    told = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    own = {("GET", path) for path in ("/healthz", "/readyz", "/metrics")}
    assert told == {(route.method, route.documented_path) for route in ROUTES} | own
    assert "security" not in document
    guarded, _ = serve(token="abc")
    assert guarded.get("/openapi.json").json()["security"] == [{"token": []}]


def test_openapi_documents_every_field_of_the_answers(client: TestClient) -> None:
    """Every field of a real answer is documented, and every example works."""
    document = client.get("/openapi.json").json()
    paths, schemas = document["paths"], document["components"]["schemas"]

    def fields(path: str, method: str) -> set[str]:
        content = paths[path][method]["responses"]["200"]["content"]
        return set(schemas[content["application/json"]["schema"]["$ref"].split("/")[-1]]["properties"])

    def example(path: str) -> Any:
        return paths[path]["post"]["requestBody"]["content"]["application/json"]["example"]

    embedded = client.post("/v1/embed", json=example("/v1/embed") | {"records": [{"history": ["i1"]}]})
    assert set(embedded.json()) == fields("/v1/embed", "post")
    search = {**example("/v1/search"), "vectors": embedded.json()["vectors"]}
    assert set(client.post("/v1/search", json=search).json()) == fields("/v1/search", "post")
    recommended = client.post("/v1/recommend", json=example("/v1/recommend"))
    assert recommended.status_code == 200
    assert set(recommended.json()) == fields("/v1/recommend", "post")
    for address, path in {
        "/v1/similar/i1": "/v1/similar/{item}",
        "/v1/items": "/v1/items",
        "/v1/items/i1": "/v1/items/{item}",
        "/v1/users": "/v1/users",
        "/v1/users/u1": "/v1/users/{user}",
        "/v1/info": "/v1/info",
    }.items():
        assert set(client.get(address).json()) == fields(path, "get")


def test_a_route_is_added_in_one_place(serve: Served) -> None:
    class HelloAnswer(Answer):
        hello: str

    def hello(context: Context) -> HelloAnswer:
        """Greet."""
        return {"pair_id": "", "generation": 0, "hello": context.path["name"]}

    hello.__annotations__ = {"context": Context, "return": HelloAnswer}
    route("GET", "/v1/hello/{name:id}")(hello)
    try:
        client, _ = serve()
        assert client.get("/v1/hello/you").json()["hello"] == "you"
        operation = client.get("/openapi.json").json()["paths"]["/v1/hello/{name}"]["get"]
    finally:
        ROUTES.pop()
    assert operation["summary"] == "Greet."
    assert [parameter["name"] for parameter in operation["parameters"]] == ["name"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Renders a page in a browser; the title of item i3 is hostile."""
    browser = chromium()
    folder = write_tiny(tmp_path_factory.mktemp("drawn") / "bundle")
    profile = tmp_path_factory.mktemp("profile")
    with serving(folder) as (_, port):
        hostile = {"id": "i3", "title": "<img src=x onerror=\"document.title='broken'\">", "year": 1999}
        assert ask(port, "PUT", "/v1/items", {"items": [hostile]})[0] == 200

        def draw(path: str) -> str:
            options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
            address = f"http://127.0.0.1:{port}{path}"
            done = subprocess.run(
                [browser, *options, "--virtual-time-budget=5000", "--dump-dom", address],
                capture_output=True,
                text=True,
                timeout=120,
                check=True,
            )
            assert "Refused to" not in done.stderr
            return done.stdout

        yield draw
    shutil.rmtree(profile, ignore_errors=True)


def test_a_browser_shows_recommendations(drawn: Any) -> None:
    state = quote('{"history":["i1","i5"],"where":"year > 1990","k":7}')
    page = drawn(f"/#{state}")
    assert page.count('class="hit"') == 7
    assert "40 items, flat index, model abc123abc123, generation 2" in page
    assert "Recommendations after Film 1 – é, Film 5 – é" in page
    assert "&lt;img src=x" in page
    assert "<img" not in page
    assert "<title>twotower</title>" in page


def test_a_browser_shows_a_user_similar_items_and_an_error(drawn: Any) -> None:
    page = drawn("/#" + quote('{"mode":"user","user":"u1"}'))
    assert "Recommendations for user u1" in page
    assert "History: 4 items" in page
    assert "Similar to Film 4" in drawn("/#" + quote('{"mode":"item","item":"i4"}'))
    page = drawn("/#" + quote('{"where":"yaer > 3"}'))
    assert 'there is no column "yaer"; did you mean "year"?' in page


def test_a_browser_shows_the_api(drawn: Any) -> None:
    page = drawn("/docs")
    assert page.count("<details") == len(ROUTES) + 3
    assert "users[].history" in page


def test_pages_are_package_data() -> None:
    folder = Path(pages.__file__).parent / "html"
    assert sorted(path.name for path in folder.iterdir()) == ["docs.html", "index.html"]
