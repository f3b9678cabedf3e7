"""The retriever against the two towers and brute force."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval import Hit, Query, Retriever
from retrieval.common.errors import BundleError, QueryError
from retrieval.index.mmr import reorder
from retrieval.towers.tower import Tower
from tests.support.brute import best
from tests.support.tiny import unit, write_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="module")
def retriever(folder: Path) -> Retriever:
    return Retriever.open(folder)


def expected_ids(retriever: Retriever, record: dict[str, Any], *, k: int, without: set[str]) -> list[str]:
    vector = retriever.user_tower.embed([record])[0]
    catalog = retriever.catalog
    allowed = [row for row in range(catalog.height) if catalog.id(row) not in without]
    return [catalog.id(row) for row in best(vector, retriever.index.base, k=k, allowed=allowed)[0]]


def ids(hits: list[Hit]) -> list[str]:
    return [hit.id for hit in hits]


def test_a_history_is_answered_without_itself(retriever: Retriever) -> None:
    seen = ["i2", "i4", "i6"]
    (hits,) = retriever.query([Query(history=seen)], k=5)
    assert ids(hits) == expected_ids(retriever, {"history": seen}, k=5, without=set(seen))
    assert all(int(hit.id[1:]) % 2 == 0 for hit in hits)
    (seen_too,) = retriever.query([Query(history=seen)], k=5, include_seen=True)
    assert ids(seen_too) == expected_ids(retriever, {"history": seen}, k=5, without=set())


def test_a_known_user_has_history_and_features(retriever: Retriever) -> None:
    seen = ["i1", "i3", "i5", "i7"]
    (hits,) = retriever.query([{"user": "u1"}], k=4)
    assert ids(hits) == expected_ids(retriever, {"history": seen, "age": 21.0}, k=4, without=set(seen))
    (other,) = retriever.query([{"user": "u1", "history": ["i2"], "features": {"age": None}}], k=4)
    assert ids(other) == expected_ids(retriever, {"history": ["i2"]}, k=4, without={"i2"})


def test_ids_may_be_numbers(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "numbers", prefix="")
    with Retriever.open(folder) as numbered:
        (text,) = numbered.query([Query(history=["2", "4"], exclude=["6"])], k=5)
        (numbers,) = numbered.query([Query(history=[2.0, np.int64(4), None, float("nan")], exclude=[6])], k=5)
        assert ids(text) == ids(numbers)
        assert [hit.score for hit in text] == [hit.score for hit in numbers]
        with pytest.raises(QueryError, match="an id in a history: expected text, found list"):
            numbered.query([Query(history=[["2"]])])


def test_a_history_may_stand_among_the_features(retriever: Retriever) -> None:
    assert ids(retriever.query([{"features": {"history": ["i2"], "age": 3}}])[0]) == ids(
        retriever.query([{"features": {"age": 3}, "history": ["i2"]}])[0]
    )


def test_exactly_k_or_all_that_pass(retriever: Retriever) -> None:
    for k in (1, 10, 40, 100):
        (hits,) = retriever.query([{"history": ["i0", "i1"]}], k=k)
        assert len(hits) == min(k, 38)
    (hits,) = retriever.query([{"history": ["i0"]}], k=10, where="year > 2015", exclude=["i38", "i38"])
    assert {hit.id for hit in hits} == {"i36", "i37", "i39"}
    assert retriever.query([{"history": ["i0"]}], where="year > 9999") == [[]]


@pytest.mark.parametrize("diversity", [0.0, 0.5])
def test_a_k_beyond_all_bounds_gives_all(retriever: Retriever, diversity: float) -> None:
    for k in (10**9, 10**20):
        (hits,) = retriever.query([{"history": ["i0", "i1"]}], k=k, diversity=diversity)
        assert len(hits) == 38
        assert len(retriever.similar("i0", k=k, diversity=diversity)) == 39


def test_many_queries_are_answered_as_one_by_one(retriever: Retriever) -> None:
    asked: list[Any] = [
        {"history": [f"i{number}" for number in range(first, first + length)], "features": {"age": first}}
        for first in range(30)
        for length in (0, 1, 9)
    ]
    together = retriever.query(asked, k=7)
    for query, hits in zip(asked, together, strict=True):
        (alone,) = retriever.query([query], k=7)
        assert ids(alone) == ids(hits)
        np.testing.assert_allclose([hit.score for hit in alone], [hit.score for hit in hits], atol=1e-6)


def test_what_a_long_history_was_cut_to_still_counts_as_seen(retriever: Retriever) -> None:
    history = [f"i{number}" for number in range(30)]
    (hits,) = retriever.query([{"history": history}], k=40)
    assert ids(hits) == expected_ids(retriever, {"history": history[-20:]}, k=40, without=set(history))


@pytest.mark.parametrize(
    ("query", "note"),
    [
        ({"user": "nobody"}, 'user "nobody" is not in the data'),
        ({"user": "u5"}, None),
        ({}, "nothing is known of this user"),
        ({"history": []}, "nothing is known"),
        ({"history": ["zz", "i1"]}, 'not in the catalogue: "zz"'),
        ({"history": [f"z{number}" for number in range(9)]}, "and 4 more"),
        ({"features": {"age": float("nan")}}, "nothing is known"),
        ({"features": {"age": None, "history": []}}, "nothing is known"),
        ({"features": {"age": 1e300}}, None),
        ({"history": ["i1"], "exclude": ["nope"]}, '"nope"'),
    ],
)
def test_whoever_asks_gets_an_answer(retriever: Retriever, query: dict[str, Any], note: str | None) -> None:
    (answer,) = retriever.answer([query], k=3)
    assert len(answer.hits) == 3
    assert all(np.isfinite(hit.score) for hit in answer.hits)
    assert note is None or any(note in told for told in answer.notes)


@pytest.mark.parametrize("user", [7, 7.0, "7", np.int64(7), np.float32(7)])
def test_a_user_is_the_same_however_the_id_is_held(retriever: Retriever, user: Any) -> None:
    (answer,) = retriever.answer([{"user": user, "history": np.array(["i1", "i2"]), "exclude": np.array(["i3"])}], k=50)
    assert answer.user == "7"
    assert not {hit.id for hit in answer.hits} & {"i1", "i2", "i3"}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"users": "u1"}, 'no "users"; did you mean "user"'),
        ({"features": {"aeg": 3}}, 'no feature "aeg"; did you mean "age"'),
        ({"features": {"age": "old"}}, 'feature "age": expected a number'),
        ({"history": "i1"}, '"history" of a query: expected a list of ids, found str'),
        ({"features": {"history": "i1"}}, "a history is a list"),
        ({"user": ["u1"]}, '"user" of a query: expected an id, found list'),
        ("u1", "a query is an object, found str"),
        ({"history": ["\ud800"]}, "surrogate"),
        ({"history": ["a\0b"]}, "NUL"),
    ],
)
def test_what_cannot_be_understood_is_named(retriever: Retriever, query: Any, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        retriever.query([query])


def test_options_that_cannot_be(retriever: Retriever) -> None:
    with pytest.raises(QueryError, match="at least 1"):
        retriever.query([{}], k=0)
    with pytest.raises(QueryError, match="diversity is 2"):
        retriever.query([{}], diversity=2)
    assert retriever.query([]) == []


def test_similar_is_by_vector_without_itself(retriever: Retriever) -> None:
    base = retriever.index.base
    hits = retriever.similar("i4", k=5)
    assert ids(hits) == [f"i{row}" for row in best(base[4], base, k=5, allowed=set(range(40)) - {4})[0]]
    assert ids(retriever.similar("i4", k=2, exclude=[hits[0].id])) == ids(hits[1:3])
    with pytest.raises(QueryError, match='no item "i99"'):
        retriever.similar("i99")


def test_diversity_follows_the_formula(retriever: Retriever) -> None:
    """Against maximal marginal relevance written as a plain loop."""
    vector = unit(np.random.default_rng(0).normal(size=(1, 8)))
    base = retriever.index.base
    for weight in (0.3, 0.7, 1.0):
        left = best(vector[0], base, k=50)[0]
        chosen: list[int] = []
        while len(chosen) < 6:
            worth = [
                (1 - weight) * float(base[row] @ vector[0])
                - weight * max((float(base[row] @ base[other]) for other in chosen), default=0.0)
                for row in left
            ]
            chosen.append(left.pop(int(np.argmax(worth))))
        (hits,) = retriever.search(vector, k=6, diversity=weight)
        assert ids(hits) == [f"i{row}" for row in chosen]
    assert reorder(np.array([0.9, 0.8], np.float32), base[:2], k=5, diversity=0.5).tolist() in ([0, 1], [1, 0])


def test_threads_get_the_same_answers(retriever: Retriever) -> None:
    asked = [{"history": [f"i{number}", f"i{number + 2}"]} for number in range(20)]
    expected = [ids(hits) for hits in retriever.query(asked, k=5, where="year > 1985")]
    failures: list[str] = []

    def ask() -> None:
        for _ in range(10):
            for query, wanted in zip(asked, expected, strict=True):
                if ids(retriever.query([query], k=5, where="year > 1985")[0]) != wanted:
                    failures.append(str(query))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_damaged_or_foreign_tower_is_named(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "bundle")
    content = bytearray((folder / "user_tower.onnx").read_bytes())
    content[100] ^= 1
    (folder / "user_tower.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"user_tower\.onnx: damaged"):
        Retriever.open(folder)
    other = write_tiny(tmp_path / "other", pair_id="def456def456")
    with pytest.raises(BundleError, match=r"belongs to model def456def456"):
        Tower(other / "user_tower.onnx", Retriever.open(other).bundle.schema.user, dim=8, pair_id="abc123abc123")


def test_items_and_hits_read_well(retriever: Retriever) -> None:
    hit = retriever.similar("i4", k=1)[0]
    assert repr(hit).startswith("Hit(id='i0', score=0.9")
    assert hit.to_json() == {
        "id": "i0",
        "score": round(hit.score, 6),
        "title": "Film 0 – é",
        "year": None,
        "tags": ["even", "third"],
        "released": "1980-01-01",
        "play count": 0,
    }


def test_filters_are_kept_as_long_as_they_are_small(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what they take, not by their number; the one that was asked for longest ago goes first."""
    from retrieval import retriever as module

    with Retriever.open(folder) as own:
        one = own.index.select(own.catalog.where("year > 1990")).size_bytes
        monkeypatch.setattr(module, "FILTER_BYTES", 3 * one + 3 * 8 * own.index.dim)
        for year in (1990, 1991, 1992, 1990, 1993):
            own.query([{"history": ["i1"]}], where=f"year > {year}")
        assert list(own._filters) == ["year > 1992", "year > 1990", "year > 1993"]
        monkeypatch.setattr(module, "FILTER_BYTES", 1)
        assert len(own.query([{"history": ["i1"]}], k=3, where="year > 1994")[0]) == 3
        assert list(own._filters) == ["year > 1994"]
