"""What is refused: one clear line and a status, whatever is sent; nothing crashes."""

import json
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from retrieval.retriever import Retriever
from retrieval.server.limits import Limits
from tests.retrieval.server.conftest import Served

ONE = {"users": [{"history": ["i1"]}]}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is empty"),
        (b"  \n", "the body is empty"),
        (b"hello", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"users": [{"history": [NaN]}]}', "NaN is not a value of JSON"),
        (b'{"users": [], "k": Infinity}', "Infinity is not a value of JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"k": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[]", "the body is a list; expected a JSON object"),
        (b"null", "the body is null"),
        (b'{"users": [{"history": ["\\ud800"]}]}', "lone surrogate"),
        ({}, '"users" is not there'),
        ({"users": {}}, '"users" is an object; expected a list'),
        ({"users": ["i1"]}, '"users" holds text; expected an object'),
        ({"users": [{}, 3]}, 'record 2: "users" holds a number'),
        ({**ONE, "kk": 3}, 'there is no "kk" in this request; did you mean "k"?'),
        ({"users": [{"histroy": []}]}, 'did you mean "history"?'),
        ({"users": [{}, {"features": []}]}, 'record 2: "features" of a query: expected an object, found list'),
        ({"users": [{"history": "i1,i2"}]}, '"history" of a query: expected a list of ids, found str'),
        ({"users": [{"history": [{"id": "i1"}]}]}, '"history" holds an object; expected a list of item ids'),
        ({"users": [{"user": True}]}, '"user" is true or false'),
        ({"users": [{"user": ["u1"]}]}, '"user" of a query: expected an id, found list'),
        ({"users": [{}, {"exclude": [[]]}]}, 'record 2: "exclude" holds a list'),
        ({"users": [{}, {"features": {"agee": 1}}]}, 'record 2: there is no feature "agee"; did you mean "age"?'),
        ({"users": [{"features": {"age": "old"}}]}, 'feature "age": expected a number, found str'),
        ({"users": [{"features": {"age": 10**400}}]}, 'feature "age"'),
        ({"users": [{"features": {"history": 3}}]}, "a history is a list of item ids"),
        ({"users": [{"history": ["a\0b"]}]}, "a NUL character"),
        ({**ONE, "k": 0}, '"k" is 0; expected a whole number from 1 to 1,000'),
        ({**ONE, "k": 1001}, '"k" is 1001; this server gives at most 1,000'),
        ({**ONE, "k": 2.5}, '"k" is 2.5; expected a whole number'),
        ({**ONE, "k": "10"}, '"k" is "10"'),
        ({**ONE, "k": True}, '"k" is true'),
        ({**ONE, "k": 10**30}, "at most 1,000"),
        ({**ONE, "where": 3}, '"where" is a number; expected a filter as text'),
        ({**ONE, "where": "yaer > 3"}, 'did you mean "year"?'),
        ({**ONE, "where": "year >"}, "filter, position"),
        ({**ONE, "where": "(" * 50_000}, "filter"),
        ({**ONE, "exclude": "i1"}, '"exclude" is text; expected a list of item ids'),
        ({**ONE, "include_seen": "yes"}, '"include_seen" is "yes"; expected true or false'),
        ({**ONE, "diversity": 2}, '"diversity" is 2; expected a number from 0 to 1'),
        ({**ONE, "diversity": "a"}, '"diversity" is "a"'),
    ],
)
def test_a_recommendation_that_cannot_be_given(client: TestClient, body: bytes | dict[str, Any], words: str) -> None:
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
        ({"vectors": [[1.0]]}, 400, '"vectors" holds 1 numbers; expected a list of 8 numbers'),
        ({"vectors": [[1.0] * 8, [None] * 8]}, 400, 'record 2: "vectors" holds null; expected finite numbers'),
        ({"vectors": [["1"] * 8]}, 400, 'holds "1"; expected finite numbers'),
        ({"vectors": [[True] * 8]}, 400, "holds true"),
        ({"vectors": [[10**400] * 8]}, 400, "expected finite numbers"),
        ({"vectors": [[1e308] * 8, [0] * 8]}, 400, 'record 2: "vectors" holds one of zeros'),
        ({"vectors": [3]}, 400, '"vectors" holds a number'),
        ({"vectors": [[1] * 8] * 257}, 413, "257 entries; this server takes at most 256"),
        ({"vectors": [[1] * 8], "pair_id": "fff"}, 409, 'of model "fff", the items of "abc123abc123"'),
    ],
)
def test_a_search_that_cannot_be_made(client: TestClient, body: dict[str, Any], status: int, words: str) -> None:
    response = client.post("/v1/search", json=body)
    assert response.status_code == status
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"records": []}, '"tower" is null; expected "user" or "item"'),
        ({"tower": ["user"], "records": []}, '"tower" is a list'),
        ({"tower": "item", "records": [{}, {"yeer": 1}]}, 'record 2: there is no feature "yeer"'),
        ({"tower": "item", "records": [{"year": {}}]}, 'feature "year": expected a number'),
        ({"tower": "user", "records": [[]]}, '"records" holds a list'),
    ],
)
def test_records_that_cannot_be_embedded(client: TestClient, body: dict[str, Any], words: str) -> None:
    response = client.post("/v1/embed", json=body)
    assert response.status_code == 400
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "address", "status", "words"),
    [
        ("GET", "/v1/similar/none", 404, 'there is no item "none"'),
        ("GET", "/v1/similar/..%2F..%2Fetc%2Fpasswd", 404, "there is no item"),
        ("GET", "/v1/similar/i1?k=ten", 400, '"k" is "ten"; expected a number'),
        ("GET", "/v1/similar/i1?k=-1", 400, "expected a whole number"),
        ("GET", "/v1/similar/i1?diversity=nan", 400, "expected a number from 0 to 1"),
        ("GET", "/v1/similar/i1?wher=x", 400, 'did you mean "where"?'),
        ("GET", "/v1/items?limit=1000", 400, "at most 200"),
        ("GET", "/v1/items?where=nonsense(", 400, "nonsense"),
        ("GET", "/v1/items/none", 404, "there is no item"),
        ("GET", "/v1/users/none", 404, "there is no user"),
        ("GET", "/v1/recomend", 404, 'did you mean "/v1/recommend"?'),
        ("GET", "/v1/recommend/", 404, "there is no"),
        ("GET", "/../../etc/passwd", 404, "there is no"),
        ("GET", "/v1/recommend", 405, "takes POST"),
        ("PATCH", "/v1/items", 405, "takes GET, PUT"),
        ("PUT", "/v1/items", 403, "only answers"),
        ("DELETE", "/v1/items/i1", 403, "only answers"),
    ],
)
def test_addresses(client: TestClient, method: str, address: str, status: int, words: str) -> None:
    response = client.request(method, address)
    assert response.status_code == status
    assert words in response.json()["error"]


def test_a_body_has_a_largest_size(serve: Served) -> None:
    client, _ = serve(limits=Limits(body_bytes=100, at_once=2))
    too_long = client.post("/v1/recommend", content=b"x" * 101)
    assert too_long.status_code == 413
    assert "longer than 100 bytes" in too_long.json()["error"]

    def pieces() -> Any:
        yield from [b"x" * 60] * 2

    assert client.post("/v1/recommend", content=pieces()).status_code == 413
    assert client.post("/v1/recommend", json={"users": [{}, {}, {}]}).status_code == 413
    packed = client.post("/v1/recommend", content=b"{}", headers={"Content-Encoding": "gzip"})
    assert packed.status_code == 415


def test_our_own_failure_is_told_by_a_number_and_logged_whole(
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


def test_too_many_at_once_are_turned_away(serve: Served) -> None:
    client, _ = serve(limits=Limits(waiting=0))
    response = client.post("/v1/recommend", json=ONE)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert client.get("/healthz").status_code == 200


def test_a_token(serve: Served) -> None:
    client, _ = serve(token="abc")
    for headers in ({}, {"Authorization": "Bearer abd"}, {"Authorization": "abc"}, {"Authorization": "Bearer é"}):
        response = client.get("/v1/info", headers=[(name.encode(), value.encode()) for name, value in headers.items()])
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert "a token is needed" in response.json()["error"]
    assert client.get("/v1/info", headers={"Authorization": "bearer abc"}).status_code == 200
    assert client.get("/metrics").status_code == 401
    for path in ("/", "/docs", "/healthz", "/readyz"):
        assert client.get(path).status_code == 200


def test_a_foreign_name_is_refused(serve: Served) -> None:
    client, _ = serve(hosts=("127.0.0.1", "localhost", "::1"))
    assert client.get("/v1/info").status_code == 421
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"):
        assert client.get("/v1/info", headers={"Host": host}).status_code == 200


def test_other_sites_may_ask_only_where_they_were_allowed(serve: Served, client: TestClient) -> None:
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
def test_whatever_is_asked_gets_an_answer_or_a_reason(client: TestClient, path: str, body: Any) -> None:
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
def test_whatever_is_well_formed_is_answered_unless_its_text_is_none(client: TestClient, body: Any) -> None:
    response = client.post("/v1/recommend", content=json.dumps(body).encode())
    if response.status_code != 200:
        assert any(word in response.json()["error"] for word in ("NUL", "surrogate")), response.text
        return
    assert [len(result["hits"]) for result in response.json()["results"]] == [10] * len(body["users"])
