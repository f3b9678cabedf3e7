"""Items added and removed over HTTP: on disk before the answer, visible to the next request."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from retrieval import Retriever
from retrieval.bundle.writer import publishing
from retrieval.verify import verify_bundle
from tests.retrieval.server.conftest import Served


def ids(client: TestClient, **body: Any) -> list[str]:
    response = client.post("/v1/recommend", json={"users": [{"history": ["i1"]}], "k": 100, **body})
    return [hit["id"] for hit in response.json()["results"][0]["hits"]]


def test_an_item_is_added_found_replaced_and_deleted(serve: Served) -> None:
    client, generations = serve(writable=True)
    new = {"item_id": "new/1", "title": "Née", "year": 2024, "tags": ["odd"], "released": "2024-02-29"}
    put = client.put("/v1/items", json={"items": [new, {"id": "i3", "title": "Other"}]})
    assert put.json() == {"pair_id": "abc123abc123", "generation": 2, "added": 1, "replaced": 1}
    assert put.headers["x-twotower-generation"] == "2"
    assert ids(client, where="year = 2024") == ["new/1"]
    shown = client.get("/v1/items/new%2F1").json()["item"]
    assert shown == {
        "id": "new/1",
        "title": "Née",
        "year": 2024.0,
        "tags": ["odd"],
        "released": "2024-02-29",
        "play count": None,
    }
    assert client.get("/v1/items/i3").json()["item"]["year"] is None
    with Retriever.open(generations.folder) as retriever:  # the disk says the same
        assert retriever.catalog.record(retriever.catalog.row("new/1") or -1)["title"] == "Née"
    assert client.put("/v1/items", json={"items": [shown]}).json()["replaced"] == 1  # as it was shown
    assert client.delete("/v1/items/new/1").json()["removed"] == 1
    assert client.delete("/v1/items/new/1").status_code == 404
    assert "new/1" not in ids(client)
    assert len(list(verify_bundle(generations.folder))) == 3


@pytest.mark.parametrize("name", ['a\n"b\\ /?#% é', "a\n", "..", "x" * 5000])
def test_items_with_unusual_ids_are_found_and_deleted(serve: Served, name: str) -> None:
    client, _ = serve(writable=True)
    assert client.put("/v1/items", json={"items": [{"id": name, "title": "Odd"}]}).status_code == 200
    address = quote(name, safe="").replace(".", "%2E")
    assert client.get(f"/v1/items/{address}").json()["item"]["id"] == name.strip()
    assert client.get(f"/v1/similar/{address}?k=1").json()["item"] == name
    assert client.delete(f"/v1/items/{address}").json()["removed"] == 1


def test_unknown_columns_are_ignored_with_a_note(serve: Served, capfd: Any) -> None:
    client, _ = serve(writable=True)
    capfd.readouterr()
    put = client.put("/v1/items", json={"items": [{"item_id": "x", "colour": "red", "score": 3}]}).json()
    assert put["notes"] == ["ignored, since the catalogue has no such column: colour, score"]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([], '"items" is empty'),
        ([{"title": "x"}], '"items[0].item_id" is missing'),
        ([{"item_id": "a"}, {"item_id": None}], '"items[1].item_id" is missing'),
        ([{"item_id": ["a"]}], '"items[0].item_id" is missing; an item needs an id as text'),
        ([{"item_id": ""}], "an id is empty"),
        ([{"item_id": "a\0b"}], "NUL"),
        ([{"item_id": "a"}, {"item_id": "a"}], 'item "a" occurs twice'),
        ([{"item_id": "a", "year": "soon"}], 'column "year"'),
        ([{"item_id": "a", "year": {"x": 1}}], 'column "year"'),
        ([{"item_id": "a", "year": 1}, {"item_id": "b", "year": "x"}], 'column "year"'),
        ([{"item_id": "a", "play count": 10**30}], 'column "play count"'),
        ([{"item_id": "a", "tags": [[1]]}], 'column "tags"'),
        ([{"item_id": "a", "released": "soon"}], 'column "released"'),
        ("a", '"items": expected a list, found text'),
        (["a"], '"items[0]": expected an object, found text'),
    ],
)
def test_invalid_items_change_nothing(serve: Served, items: Any, words: str) -> None:
    client, generations = serve(writable=True)
    before = (generations.folder / "manifest.json").read_bytes()
    response = client.put("/v1/items", json={"items": items})
    assert response.status_code == 400, response.text
    assert words in response.json()["error"]
    assert "/tmp" not in response.json()["error"]
    assert (generations.folder / "manifest.json").read_bytes() == before
    assert client.get("/readyz").json()["generation"] == 1


VALUE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.text(max_size=2))


@given(
    items=st.lists(
        st.fixed_dictionaries(
            {"item_id": st.text(max_size=3) | st.integers() | st.floats(allow_nan=False)},
            optional=dict.fromkeys(("title", "year", "tags", "released", "play count", "id"), VALUE),
        ),
        min_size=1,
        max_size=3,
    )
)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_items_are_accepted_or_refused(writable: TestClient, items: Any) -> None:
    response = writable.put("/v1/items", content=json.dumps({"items": items}).encode())
    assert response.status_code in (200, 400), response.text
    assert ids(writable)


@pytest.fixture(scope="module")
def writable(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from retrieval.server.generations import Generations
    from retrieval.server.settings import Settings
    from tests.retrieval.server.conftest import client_of
    from tests.support.tiny import write_tiny

    folder = write_tiny(tmp_path_factory.mktemp("writable") / "bundle")
    with client_of(Generations(folder), Settings(writable=True)) as client:
        yield client


def test_another_writer_gives_503_after_a_wait(serve: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    client, generations = serve(writable=True)
    monkeypatch.setattr("retrieval.server.routes.items_write.WAIT_S", 0.05)
    with publishing(generations.folder):
        response = client.put("/v1/items", json={"items": [{"id": "x"}]})
    assert response.status_code == 503
    assert "is writing to it" in response.json()["error"]
    assert response.headers["retry-after"]


def test_the_last_item_can_be_deleted(tmp_path: Path, serve: Served) -> None:
    from tests.support.tiny import write_tiny

    client, _ = serve(write_tiny(tmp_path / "two", items=2, users=2), writable=True)
    for name in ("i0", "i1"):
        assert client.delete(f"/v1/items/{name}").status_code == 200
    assert ids(client) == []
    assert client.get("/v1/items?search=Film").json()["items"] == []
    assert client.get("/readyz").json()["items"] == 0
