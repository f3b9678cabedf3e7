"""Micro-batches: each request gets the answer that it would get alone."""

import asyncio
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from retrieval.retriever import Retriever
from retrieval.server.app import CLIENT_CLOSED, application, is_small
from retrieval.server.generations import Generations
from retrieval.server.microbatch import MAX_BATCH, MicroBatcher
from retrieval.server.responses import respond_batch
from retrieval.server.routes import ROUTES, RawRequest
from retrieval.server.settings import Limits, Settings
from retrieval.server.snapshot import Snapshot

ASKED: list[Any] = [
    {"users": [{"history": ["i1", "i3"]}]},
    {"users": [{"user": "u0"}, {"user": "nobody"}]},
    {"users": [{"history": ["i2"]}], "where": "year > 1990", "k": 3},
    {"users": []},
    {"users": [{"features": {"age": "old"}}]},
    {"users": [{"features": {"age": 20}}], "diversity": 0.5},
    {"users": [{"history": ["i4"]}], "where": "year > 1990", "k": 3},
    {"users": [{"history": ["i4"]}], "where": "yaer > 1990"},
    {"users": [{}], "exclude": ["i1"]},
    {"users": [{"features": {"agee": 1}}], "exclude": ["i1"]},
    {"users": 3},
    {"users": [{"history": ["i1"] * 30}, {}], "include_seen": True},
]


def answer_together(snapshot: Snapshot, bodies: Sequence[Any]) -> list[Response]:
    return respond_batch(snapshot, ROUTES[0], [RawRequest(body=json.dumps(body).encode()) for body in bodies], Limits())


def test_a_batched_answer_equals_the_answer_alone(shared: Path) -> None:
    snapshot = Snapshot.open(shared)
    together = answer_together(snapshot, ASKED)
    for response, body in zip(together, ASKED, strict=True):
        (alone,) = answer_together(snapshot, [body])
        assert (response.status_code, response.body) == (alone.status_code, alone.body)
        assert response.headers == alone.headers
    assert [response.status_code for response in together] == [
        200,
        200,
        200,
        200,
        400,
        200,
        200,
        400,
        200,
        400,
        400,
        200,
    ]


def test_only_small_requests_are_batched() -> None:
    assert is_small(json.dumps({"users": [{"user": "u1"}]}).encode())
    assert is_small(json.dumps({"users": [{"history": ["i1"] * 200, "features": {"age": 3}}]}).encode())
    assert not is_small(json.dumps({"users": [{}] * 5}).encode())
    assert not is_small(json.dumps({"users": [{"history": ["i1"] * 5000}]}).encode())


def test_requests_with_equal_options_share_one_call(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = Snapshot.open(shared)
    sizes: list[int] = []
    answer = Retriever.answer

    def counting(self: Retriever, queries: Any, **options: Any) -> Any:
        sizes.append(len(queries))
        return answer(self, queries, **options)

    monkeypatch.setattr(Retriever, "answer", counting)
    answer_together(snapshot, [{"users": [{"history": [f"i{number}"]}], "k": 5 + number % 2} for number in range(9)])
    assert sizes == [5, 4]


def test_a_free_thread_takes_its_share_of_the_queue() -> None:
    taken: list[int] = []
    first_is_in, let_go = threading.Event(), threading.Event()

    def double(numbers: Sequence[int]) -> list[int]:
        taken.append(len(numbers))
        first_is_in.set()
        assert let_go.wait(10)
        return [2 * number for number in numbers]

    async def ask() -> list[int]:
        with ThreadPoolExecutor(1) as executor:
            batcher = MicroBatcher(double, executor, threads=1)
            first = asyncio.create_task(batcher.submit(0))
            while not first_is_in.is_set():
                await asyncio.sleep(0.001)
            others = [asyncio.create_task(batcher.submit(number)) for number in range(1, MAX_BATCH + 9)]
            gone = asyncio.create_task(batcher.submit(-1))
            await asyncio.sleep(0.01)
            gone.cancel()
            let_go.set()
            return list(await asyncio.gather(first, *others))

    assert asyncio.run(ask()) == [2 * number for number in range(MAX_BATCH + 9)]
    assert taken == [1, MAX_BATCH, 9]


def test_a_client_that_disconnects_while_waiting_costs_no_work(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered: list[int] = []
    let_go = threading.Event()
    answer = Retriever.answer

    def slow(self: Retriever, queries: Any, **options: Any) -> Any:
        assert let_go.wait(10)
        answered.append(len(queries))
        return answer(self, queries, **options)

    async def ask(app: Any, users: int, *, stays: bool) -> list[int]:
        body = json.dumps({"users": [{}] * users}).encode()
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/recommend",
            "raw_path": b"/v1/recommend",
            "query_string": b"",
            "headers": [],
            "http_version": "1.1",
        }
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        statuses: list[int] = []

        async def receive() -> Any:
            if messages:
                return messages.pop()
            if stays:
                await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if "status" in message:
                statuses.append(message["status"])

        await app(scope, receive, send)
        return statuses

    async def all_of_them() -> list[list[int]]:
        generations = Generations(shared)
        monkeypatch.setattr(Retriever, "answer", slow)
        app = application(generations, Settings(threads=1))
        asked = [asyncio.create_task(ask(app, users, stays=users != 13)) for users in (11, 12, 13, 14)]
        await asyncio.sleep(0.05)
        let_go.set()
        return await asyncio.gather(*asked)

    assert asyncio.run(all_of_them()) == [[200], [200], [CLIENT_CLOSED], [200]]
    assert answered == [11, 12, 14]
