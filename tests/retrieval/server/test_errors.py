"""Errors: one clear line and a status for any input; nothing crashes."""

import json
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from retrieval.retriever import Retriever
from retrieval.server.settings import Limits
from tests.retrieval.server.conftest import Served

ONE = {"users": [{"history": ["i1"]}]}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is empty"),
        (b"  \n", "the body is empty"),
        (b"hello", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"users": [{"history": [NaN]}]}', "NaN or Infinity, which JSON does not have"),
        (b'{"users": [], "k": Infinity}', "NaN or Infinity, which JSON does not have"),
        (b"[" * 100_000, "the body: expected an object, found a list"),
        (b'{"k": ' + b"9" * 5000 + b"}", '"k": integer value out of range'),
        (b"[]", "the body: expected an object, found a list"),
        (b"null", "the body: expected an object, found null"),
        (b'{"users": [{"history": ["\\ud800"]}]}', "lone surrogate"),
        ({}, '"users" is missing'),
        ({"users": {}}, '"users": expected a list, found an object'),
        ({"users": ["i1"]}, '"users[0]": expected an object, found text'),
        ({"users": [{}, 3]}, '"users[1]": expected an object, found a whole number'),
        ({**ONE, "kk": 3}, 'unknown field "kk"; did you mean "k"?'),
        ({"users": [{"histroy": []}]}, 'unknown field "users[0].histroy"; did you mean "history"?'),
        ({"users": [{}, {"features": []}]}, '"users[1].features": expected an object, found a list'),
        ({"users": [{"history": "i1,i2"}]}, '"users[0].history": expected a list, found text'),
        ({"users": [{"history": [{"id": "i1"}]}]}, '"users[0].history[0]": expected text or a number, found an object'),
        ({"users": [{"user": True}]}, '"users[0].user": expected text or a number, found true or false'),
        ({"users": [{"user": ["u1"]}]}, '"users[0].user": expected text or a number, found a list'),
        ({"users": [{}, {"exclude": [[]]}]}, '"users[1].exclude[0]": expected text or a number, found a list'),
        ({"users": [{}, {"features": {"agee": 1}}]}, 'record 2: there is no feature "agee"; did you mean "age"?'),
        ({"users": [{"features": {"age": "old"}}]}, 'feature "age": expected a number, found str'),
        ({"users": [{"features": {"age": 10**400}}]}, 'feature "age"'),
        ({"users": [{"features": {"history": 3}}]}, "a history is a list of item ids"),
        ({"users": [{"history": ["a\0b"]}]}, "a NUL character"),
        ({**ONE, "k": 0}, '"k": expected a whole number >= 1'),
        ({**ONE, "k": 1001}, '"k" is larger than 1,000, the maximum of this server'),
        ({**ONE, "k": 2.5}, '"k": expected a whole number, found a number'),
        ({**ONE, "k": "10"}, '"k": expected a whole number, found text'),
        ({**ONE, "k": True}, '"k": expected a whole number, found true or false'),
        ({**ONE, "k": 10**30}, "larger than 1,000"),
        ({**ONE, "where": 3}, '"where": expected text, found a whole number'),
        ({**ONE, "where": "yaer > 3"}, 'did you mean "year"?'),
        ({**ONE, "where": "year >"}, "filter, position"),
        ({**ONE, "where": "(" * 50_000}, "filter"),
        ({**ONE, "exclude": "i1"}, '"exclude": expected a list, found text'),
        ({**ONE, "include_seen": "yes"}, '"include_seen": expected true or false, found text'),
        ({**ONE, "diversity": 2}, '"diversity": expected a number <= 1.0'),
        ({**ONE, "diversity": "a"}, '"diversity": expected a number, found text'),
    ],
)
def test_an_invalid_recommendation_request_gives_400(
    client: TestClient, body: bytes | dict[str, Any], words: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = client.post("/v1/recommend", content=content)
    assert response.status_code == 400
    assert list(response.json()) == ["error"]
    assert words in response.json()["error"]
    assert "\n" not in response.json()["error"]
    assert len(response.content) < 1000


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"vectors": [[1.0]]}, 400, '"vectors[0]" has 1 numbers; expected 8'),
        ({"vectors": [[1.0] * 8, [None] * 8]}, 400, '"vectors[1][0]": expected a number, found null'),
        ({"vectors": [["1"] * 8]}, 400, '"vectors[0][0]": expected a number, found text'),
        ({"vectors": [[True] * 8]}, 400, '"vectors[0][0]": expected a number, found true or false'),
        ({"vectors": [[10**400] * 8]}, 400, '"vectors[0][0]": number out of range'),
        ({"vectors": [[1e308] * 8, [0] * 8]}, 400, '"vectors[1]" is all zeros'),
        ({"vectors": [3]}, 400, '"vectors[0]": expected a list, found a whole number'),
        ({"vectors": [[1] * 8] * 257}, 413, "257 entries; this server takes at most 256"),
        ({"vectors": [[1] * 8], "pair_id": "fff"}, 409, 'model "fff", the items from "abc123abc123"'),
    ],
)
def test_an_invalid_search_request_is_refused(
    client: TestClient, body: dict[str, Any], status: int, words: str
) -> None:
    response = client.post("/v1/search", json=body)
    assert response.status_code == status
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"records": []}, '"tower" is missing'),
        ({"tower": "users", "records": []}, '"tower": expected "item" or "user"'),
        ({"tower": ["user"], "records": []}, '"tower": expected text, found a list'),
        ({"tower": "item", "records": [{}, {"yeer": 1}]}, 'record 2: there is no feature "yeer"'),
        ({"tower": "item", "records": [{"year": {}}]}, 'feature "year": expected a number'),
        ({"tower": "user", "records": [[]]}, '"records[0]": expected an object, found a list'),
    ],
)
def test_an_invalid_embed_request_gives_400(client: TestClient, body: dict[str, Any], words: str) -> None:
    response = client.post("/v1/embed", json=body)
    assert response.status_code == 400
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "address", "status", "words"),
    [
        ("GET", "/v1/similar/none", 404, 'there is no item "none"'),
        ("GET", "/v1/similar/..%2F..%2Fetc%2Fpasswd", 404, "there is no item"),
        ("GET", "/v1/similar/i1?k=ten", 400, '"k": expected a whole number, found text'),
        ("GET", "/v1/similar/i1?k=-1", 400, "expected a whole number >= 1"),
        ("GET", "/v1/similar/i1?diversity=nan", 400, "expected a number >= 0.0"),
        ("GET", "/v1/similar/i1?wher=x", 400, 'unknown parameter "wher"; did you mean "where"?'),
        ("GET", "/v1/items?limit=1000", 400, "larger than 200"),
        ("GET", "/v1/items?where=nonsense(", 400, "nonsense"),
        ("GET", "/v1/items/none", 404, "there is no item"),
        ("GET", "/v1/users/none", 404, "there is no user"),
        ("GET", "/v1/items/i1?k=3", 400, 'unknown parameter "k"; this address takes none'),
        ("GET", "/v1/recomend", 404, 'did you mean "/v1/recommend"?'),
        ("GET", "/v1/recommend/", 404, "there is no"),
        ("GET", "/../../etc/passwd", 404, "there is no"),
        ("GET", "/v1/recommend", 405, "allows POST"),
        ("PATCH", "/v1/items", 405, "allows GET, PUT"),
        ("PUT", "/v1/items", 403, "read-only"),
        ("DELETE", "/v1/items/i1", 403, "read-only"),
    ],
)
def test_invalid_paths_parameters_and_methods_are_refused(
    client: TestClient, method: str, address: str, status: int, words: str
) -> None:
    response = client.request(method, address)
    assert response.status_code == status
    assert words in response.json()["error"]


def test_large_and_compressed_bodies_are_refused(serve: Served) -> None:
    client, _ = serve(limits=Limits(body_bytes=100, batch=2))
    too_long = client.post("/v1/recommend", content=b"x" * 101)
    assert too_long.status_code == 413
    assert "longer than 100 bytes" in too_long.json()["error"]

    def pieces() -> Any:
        yield from [b"x" * 60] * 2

    assert client.post("/v1/recommend", content=pieces()).status_code == 413
    assert client.post("/v1/recommend", json={"users": [{}, {}, {}]}).status_code == 413
    packed = client.post("/v1/recommend", content=b"{}", headers={"Content-Encoding": "gzip"})
    assert packed.status_code == 415


def test_an_internal_error_is_logged_under_the_id_that_the_client_gets(
    serve: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client, _ = serve()

    def fail(*_args: object, **_options: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(Retriever, "answer", fail)
    with caplog.at_level(logging.ERROR, logger="twotower.server"):
        response = client.post("/v1/recommend", json=ONE)
    assert response.status_code == 500
    assert "secret" not in response.text
    (record,) = caplog.records
    assert response.json()["id"] in record.getMessage()
    assert record.exc_info is not None
    assert client.get("/readyz").status_code == 200


def test_too_many_requests_in_flight_give_503(serve: Served) -> None:
    client, _ = serve(limits=Limits(waiting=0))
    response = client.post("/v1/recommend", json=ONE)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert client.get("/healthz").status_code == 200


def test_a_token_is_required(serve: Served) -> None:
    client, _ = serve(token="abc")
    for headers in ({}, {"Authorization": "Bearer abd"}, {"Authorization": "abc"}, {"Authorization": "Bearer é"}):
        response = client.get("/v1/info", headers=[(name.encode(), value.encode()) for name, value in headers.items()])
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert "a valid token is required" in response.json()["error"]
    assert client.get("/v1/info", headers={"Authorization": "bearer abc"}).status_code == 200
    assert client.get("/metrics").status_code == 401
    for path in ("/", "/docs", "/healthz", "/readyz"):
        assert client.get(path).status_code == 200


def test_an_unknown_host_is_refused(serve: Served) -> None:
    client, _ = serve(hosts=("127.0.0.1", "localhost", "::1"))
    assert client.get("/v1/info").status_code == 421
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"):
        assert client.get("/v1/info", headers={"Host": host}).status_code == 200


def test_cors_allows_only_the_given_origins(serve: Served, client: TestClient) -> None:
    origin = {"Origin": "https://shop.example"}
    assert "access-control-allow-origin" not in client.get("/v1/info", headers=origin).headers
    preflight = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    assert client.options("/v1/recommend", headers=preflight).status_code == 405
    allowed, _ = serve(origins=("https://shop.example",), token="abc")
    found = allowed.options("/v1/recommend", headers=preflight)
    assert found.status_code == 200
    assert found.headers["access-control-allow-origin"] == "https://shop.example"
    assert "PUT" not in found.headers["access-control-allow-methods"]
    refused = allowed.get("/v1/info", headers=origin)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://shop.example"
    foreign = allowed.get("/v1/info", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in foreign.headers


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["i1", "u1"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "users",
                    "history",
                    "features",
                    "age",
                    "user",
                    "k",
                    "where",
                    "exclude",
                    "vectors",
                    "tower",
                    "records",
                    "year",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    path=st.sampled_from(["recommend", "search", "embed"]),
    body=st.dictionaries(st.sampled_from(["users", "k", "where", "vectors", "tower", "records"]), JSON, max_size=4),
)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_json_gets_an_answer_or_an_error(client: TestClient, path: str, body: Any) -> None:
    response = client.post(f"/v1/{path}", content=json.dumps(body).encode())
    assert response.status_code in (200, 400, 409, 413), response.text
    assert response.status_code == 200 or set(response.json()) == {"error"}


@given(
    body=st.fixed_dictionaries(
        {
            "users": st.lists(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "user": st.text(max_size=4) | st.integers(),
                        "history": st.lists(st.text(max_size=4) | st.integers(), max_size=5),
                        "features": st.fixed_dictionaries(
                            {},
                            optional={
                                "age": st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
                            },
                        ),
                    },
                ),
                max_size=4,
            )
        }
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_well_formed_request_is_answered_unless_its_text_is_invalid(client: TestClient, body: Any) -> None:
    response = client.post("/v1/recommend", content=json.dumps(body).encode())
    if response.status_code != 200:
        assert any(word in response.json()["error"] for word in ("NUL", "surrogate")), response.text
        return
    assert [len(result["hits"]) for result in response.json()["results"]] == [10] * len(body["users"])
