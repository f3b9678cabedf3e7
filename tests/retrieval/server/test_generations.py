"""A bundle that changes while it is served: each answer comes from one generation, and no request is dropped."""

import gc
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from retrieval.bundle.writer import publishing
from retrieval.common.errors import BundleError
from retrieval.index.updates import remove_items
from retrieval.server import generations as module
from retrieval.server.generations import Generations
from tests.retrieval.server.conftest import Served
from tests.support.tiny import write_tiny


def hits(client: TestClient, **body: Any) -> tuple[int, list[str]]:
    found = client.post("/v1/recommend", json={"users": [{"history": ["i0"]}], "k": 3, **body}).json()
    return found["generation"], [hit["id"] for hit in found["results"][0]["hits"]]


def eventually(holds: Callable[[], bool], *, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_new_generation_is_detected(serve: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.02)
    client, generations = serve()
    _, first = hits(client)
    with publishing(generations.folder) as draft:
        remove_items(draft, first)
    eventually(lambda: hits(client)[0] == 2)
    assert not set(first) & set(hits(client)[1])
    assert client.get("/readyz").json()["generation"] == 2
    assert "twotower_generation 2.0" in client.get("/metrics").text
    assert "twotower_items 37.0" in client.get("/metrics").text


def test_another_model_replaces_the_present_one(tmp_path: Path, serve: Served) -> None:
    client, generations = serve()
    write_tiny(generations.folder, seed=5, pair_id="def456def456")
    generations.refresh()
    found = client.get("/v1/similar/i0").json()
    assert (found["pair_id"], found["generation"]) == ("def456def456", 2)


def test_a_request_in_flight_keeps_its_generation(serve: Served) -> None:
    _, generations = serve()
    held = generations.present
    with publishing(generations.folder) as draft:
        remove_items(draft, ["i2"])
    generations.refresh()
    assert generations.present is not held
    assert held.retriever.query([{"user": "u0"}], where="year > 1980", k=40, include_seen=True)
    assert held.tower("item").embed([{"item_id": "i2"}]).shape == (1, 8)
    assert held.retriever.catalog.row("i2") is not None
    previous = generations.folder / ".previous"
    assert previous.exists()
    del held
    gc.collect()
    with publishing(generations.folder) as draft:
        remove_items(draft, ["i4"])
    generations.refresh()
    gc.collect()
    with publishing(generations.folder):
        pass  # a writer collects what nobody reads
    assert not previous.exists()


@pytest.mark.parametrize("victim", ["index.faiss", "items.parquet", "users.lookup", "item_tower.onnx", "manifest.json"])
def test_a_broken_generation_is_reported_and_the_old_one_still_answers(
    serve: Served, victim: str, caplog: pytest.LogCaptureFixture
) -> None:
    client, generations = serve()
    before = hits(client)
    whole = generations.folder.with_name("whole")
    with publishing(generations.folder) as draft:
        remove_items(draft, [before[1][0]])
    shutil.copytree(generations.folder, whole)
    content = bytearray((generations.folder / victim).read_bytes())
    content[len(content) // 2] ^= 255
    (generations.folder / victim).write_bytes(content)
    generations.refresh()
    generations.refresh()
    assert hits(client) == before
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["generation"] == 1
    assert victim in ready.json()["error"]
    assert "twotower_reload_failing 1.0" in client.get("/metrics").text
    assert len([record for record in caplog.records if victim in record.getMessage()]) == 1  # said once
    (generations.folder / victim).write_bytes((whole / victim).read_bytes())
    generations._retry_at = 0.0
    generations.refresh()
    assert "error" not in client.get("/readyz").json()
    assert hits(client)[0] == 2


def test_a_folder_that_disappears_and_reappears(serve: Served) -> None:
    client, generations = serve()
    before = hits(client, where="year > 1985")
    away = generations.folder.with_name("away")
    generations.folder.rename(away)
    generations.refresh()
    assert "no such folder" in client.get("/readyz").json()["error"]
    assert hits(client, where="year > 1985") == before
    away.rename(generations.folder)
    generations.refresh()
    assert "error" not in client.get("/readyz").json()


def test_an_index_that_disappears(serve: Served) -> None:
    client, generations = serve()
    with publishing(generations.folder) as draft:
        for name in ("index.faiss", "index.json"):
            draft.remove(name)
    generations.refresh()
    assert "has no index" in client.get("/readyz").json()["error"]
    assert hits(client)[0] == 1


def test_a_folder_without_a_valid_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        Generations(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match="not a bundle"):
        Generations(tmp_path / "empty")
    with pytest.raises(BundleError, match="has no index"):
        Generations(write_tiny(tmp_path / "bare", index=False))


def test_no_answer_mixes_two_generations(serve: Served) -> None:
    """Each generation has other scores and years; the generation of an answer says which ones it must have."""
    client, _ = serve(writable=True, threads=4)
    years: dict[int, float] = {}
    stop = threading.Event()
    seen: list[tuple[int, float | None]] = []
    failures: list[str] = []

    def ask() -> None:
        while not stop.is_set():
            response = client.post("/v1/recommend", json={"users": [{"history": ["i0"]}], "where": "year > 2900"})
            if response.status_code != 200:
                failures.append(response.text)
                return
            found = response.json()
            (hit,) = found["results"][0]["hits"] or [{"year": None}]
            assert str(found["generation"]) == response.headers["x-twotower-generation"]
            seen.append((found["generation"], hit["year"]))

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    for year in range(3000, 3008):
        put = client.put("/v1/items", json={"items": [{"id": "i9", "year": year}]}).json()
        years[put["generation"]] = float(year)
        time.sleep(0.03)
    stop.set()
    for asker in askers:
        asker.join()
    assert not failures
    assert len({generation for generation, _ in seen}) > 3
    assert all(year == years.get(generation) for generation, year in seen)
