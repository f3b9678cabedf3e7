"""Answers over HTTP equal those of the command line and of Python."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from retrieval import Retriever
from retrieval.towers.tower import Tower
from tests.retrieval.server.conftest import Served
from tests.support.tiny import write_tiny
from tests.test_cli import run

Captured = pytest.CaptureFixture[str]


def ask(client: TestClient, **body: Any) -> Any:
    response = client.post("/v1/recommend", json=body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize(
    ("user", "options"),
    [
        ({"user": "u1"}, []),
        ({"user": "u1"}, ["--include-seen", "-k", "40"]),
        ({"history": ["i2", "i4", "i6"]}, ["--where", "year >= 1990 AND 'third' IN tags"]),
        ({"features": {"age": 30}}, ["-k", "3", "--exclude", "i1,i3"]),
        ({"features": {"age": None}, "history": ["i1", "no such item"]}, ["--diversity", "0.5"]),
        ({"user": "nobody"}, ["-k", "100", "--where", "\"play count\" > 300 OR title LIKE 'Film 1%'"]),
        ({}, []),
    ],
)
def test_recommendations_equal_those_of_the_command(
    client: TestClient, shared: Path, tmp_path: Path, capsys: Captured, user: dict[str, Any], options: list[str]
) -> None:
    source = tmp_path / "one.jsonl"
    source.write_text(json.dumps(user))
    assert run(["query", str(shared), "--input", str(source), *options]) == 0
    expected = json.loads(capsys.readouterr().out)["hits"]
    body: dict[str, Any] = {"users": [user], "include_seen": "--include-seen" in options}
    for name, value in pairwise(options):
        if name in ("-k", "--diversity"):
            body[name.strip("-")] = json.loads(value)
        elif name == "--where":
            body["where"] = value
        elif name == "--exclude":
            body["exclude"] = value.split(",")
    (result,) = ask(client, **body)["results"]
    assert result["hits"] == expected
    assert expected


def test_the_same_request_gives_the_same_bytes(client: TestClient) -> None:
    body = {"users": [{"history": ["i1", "i5"]}, {"user": "u0"}], "k": 7, "diversity": 0.2}
    first, second = (client.post("/v1/recommend", json=body) for _ in range(2))
    assert first.content == second.content
    assert first.headers["x-twotower-pair"] == first.json()["pair_id"] == "abc123abc123"
    assert first.headers["x-twotower-generation"] == str(first.json()["generation"]) == "1"


def test_a_batch_of_users_equals_single_requests(client: TestClient) -> None:
    users: list[dict[str, Any]] = [{"user": f"u{number % 6}"} for number in range(50)] + [{"history": ["i3"]}]
    together = ask(client, users=users, k=4)["results"]
    assert together == [ask(client, users=[user], k=4)["results"][0] for user in users]
    assert [result.get("user") for result in together] == [user.get("user") for user in users]


def test_unknown_users_and_items_are_noted(client: TestClient) -> None:
    known, stranger, empty = ask(client, users=[{"user": "u1"}, {"user": "x", "history": ["zz"]}, {}], k=1)["results"]
    assert "notes" not in known
    assert stranger["notes"] == ['user "x" is not in the data; answered as somebody new', 'not in the catalogue: "zz"']
    assert "user" not in empty
    assert "nothing is known" in empty["notes"][0]


def test_empty_requests_give_empty_results(client: TestClient) -> None:
    assert ask(client, users=[])["results"] == []
    assert client.post("/v1/search", json={"vectors": []}).json()["results"] == []
    assert client.post("/v1/embed", json={"tower": "item", "records": []}).json()["vectors"] == []


def test_ids_may_be_numbers_and_null_is_the_default(tmp_path: Path, serve: Served, client: TestClient) -> None:
    assert ask(client, users=[{"user": None, "history": None, "features": None}], where=None, exclude=None, k=None)
    (result,) = ask(client, users=[{"history": [1, 2.0, "3", None, ""]}], k=1)["results"]
    assert result["notes"] == ['not in the catalogue: "1", "2", "3"']


def test_fewer_than_k_items_are_all_returned(client: TestClient) -> None:
    (result,) = ask(client, users=[{"history": ["i1"]}], k=1000)["results"]
    assert len(result["hits"]) == 39
    (result,) = ask(client, users=[{}], where="year > 3000")["results"]
    assert result["hits"] == []


def test_similar_items_equal_those_of_the_command(client: TestClient, shared: Path, capsys: Captured) -> None:
    assert run(["similar", str(shared), "i4", "-k", "3", "--where", "year < 2000", "--exclude", "i6,i8"]) == 0
    expected = json.loads(capsys.readouterr().out)
    found = client.get("/v1/similar/i4", params={"k": 3, "where": "year < 2000", "exclude": ["i6", "i8"]}).json()
    assert {key: found[key] for key in expected} == expected
    joined = client.get("/v1/similar/i4?k=3&where=year%20%3C%202000&exclude=i6,%20i8").json()
    assert joined == found


def test_search_by_vector_equals_the_retriever(client: TestClient, shared: Path) -> None:
    records = [{"history": ["i2"], "age": 3}, {"history": []}]
    embedded = client.post("/v1/embed", json={"tower": "user", "records": records}).json()
    with Retriever.open(shared) as retriever:
        expected = retriever.user_tower.embed(records)
        wanted = [[hit.to_json() for hit in hits] for hits in retriever.search(expected, k=5, where="year > 1990")]
    np.testing.assert_array_equal(np.array(embedded["vectors"], np.float32), expected)
    body = {"vectors": embedded["vectors"], "pair_id": embedded["pair_id"], "k": 5, "where": "year > 1990"}
    found = client.post("/v1/search", json=body).json()
    assert [result["hits"] for result in found["results"]] == wanted
    for factor in (7, 1e300, 1e-300):
        scaled = (np.array(embedded["vectors"]) * factor).tolist()
        longer = client.post("/v1/search", json={**body, "vectors": scaled}).json()
        assert [[hit["id"] for hit in result["hits"]] for result in longer["results"]] == [
            [hit["id"] for hit in hits] for hits in wanted
        ]
    less = client.post("/v1/search", json={**body, "exclude": [wanted[0][0]["id"]]}).json()
    assert less["results"][0]["hits"][0] == wanted[0][1]


def test_items_are_embedded_by_the_item_tower(client: TestClient, shared: Path) -> None:
    record = {"item_id": "i7", "year": 1991.0}
    found = client.post("/v1/embed", json={"tower": "item", "records": [record]}).json()
    with Retriever.open(shared) as retriever:
        tower = Tower(shared / "item_tower.onnx", retriever.bundle.schema.item, dim=8)
    np.testing.assert_array_equal(np.array(found["vectors"], np.float32), tower.embed([record]))
    assert found["dim"] == 8


def test_items_are_found_by_text(client: TestClient) -> None:
    def ids(**params: Any) -> list[str]:
        return [item["id"] for item in client.get("/v1/items", params=params).json()["items"]]

    assert ids(limit=3) == ["i0", "i1", "i2"]
    assert ids(search="i3", limit=2) == ["i3", "i30"]  # the id itself first
    assert ids(search="FILM 12") == ["i12"]
    assert ids(search="film", where="year = 1981") == ["i1"]
    assert ids(search='it\'s "odd"; DROP') == []
    page = client.get("/v1/items?limit=5").json()
    assert page["more"] is True
    assert client.get("/v1/items?search=Film%2012").json()["more"] is False
    assert page["items"][1]["title"] == "Film 1 – é"
    assert client.get("/v1/items/i1").json()["item"] == page["items"][1]


def test_users_are_found_by_id_prefix(client: TestClient) -> None:
    assert client.get("/v1/users?search=u&limit=2").json()["users"] == ["u0", "u1"]
    assert client.get("/v1/users?search=u3").json()["users"] == ["u3"]
    found = client.get("/v1/users/u1").json()["user"]
    assert found["features"] == {"age": 21.0}
    assert [item["id"] for item in found["history"]] == ["i1", "i3", "i5", "i7"]
    assert found["history"][0]["title"].startswith("Film 1")
    assert found["history_length"] == 4


def test_a_bundle_without_users(tmp_path: Path, serve: Served) -> None:
    from retrieval.bundle.writer import publishing

    folder = write_tiny(tmp_path / "no-users")
    with publishing(folder) as draft:
        for name in ("users.parquet", "users.lookup"):
            draft.remove(name)
    client, _ = serve(folder)
    assert client.get("/v1/users?search=u").json()["users"] == []
    assert "made without users" in client.get("/v1/users/u1").json()["error"]
    assert "made without users" in ask(client, users=[{"user": "u1"}])["results"][0]["notes"][0]
    assert client.get("/v1/info").json()["users"] == 0


def test_info_describes_the_bundle(client: TestClient) -> None:
    found = client.get("/v1/info").json()
    assert found["items"] == 40
    assert found["index"] == {"kind": "flat", "recall@10": 1.0}
    assert [feature["name"] for feature in found["user_features"]] == ["history", "age"]
    assert {column["name"]: column["type"] for column in found["columns"]} == {
        "item_id": "text",
        "title": "text",
        "year": "number",
        "tags": "list of text",
        "released": "date",
        "play count": "number",
    }


def test_health_and_readiness(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {
        "status": "ready",
        "pair_id": "abc123abc123",
        "generation": 1,
        "items": 40,
        "kind": "flat",
    }
    assert client.head("/v1/info").status_code == 200
