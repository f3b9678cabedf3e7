"""Micro-batching: small requests that wait at the same time are answered together.

The user tower and the search take less time for several users than for one at a time. No request waits for others: a
thread that becomes free takes its share of the queue, which is a single request on an idle server.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from threading import Lock
from typing import Final, Generic, TypeVar

Request = TypeVar("Request")
Response = TypeVar("Response")

MAX_BATCH: Final = 32  # beyond this a user costs hardly less, and the first request waits for the last


class MicroBatcher(Generic[Request, Response]):
    """Takes requests on an event loop and answers them in threads."""

    def __init__(
        self, answer: Callable[[Sequence[Request]], Sequence[Response]], executor: Executor, *, threads: int
    ) -> None:
        """
        Args:
            answer: Answers requests in their order; it never raises.
            executor: Runs `answer`.
            threads: Threads of the executor.
        """
        self._answer = answer
        self._executor = executor
        self._threads = threads
        self._queue: deque[tuple[Request, asyncio.Future[Response]]] = deque()
        self._lock = Lock()

    async def submit(self, request: Request) -> Response:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Response] = loop.create_future()
        self._queue.append((request, future))
        self._executor.submit(self._work, loop)
        return await future

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Runs in a thread, once for each request; the queue is empty if another call took the request along."""
        with self._lock:
            share = min(MAX_BATCH, -(-len(self._queue) // self._threads))
            batch = [self._queue.popleft() for _ in range(share)]
        if batch:
            responses = self._answer([request for request, _ in batch])
            futures = [future for _, future in batch]
            loop.call_soon_threadsafe(_deliver, futures, responses)


def _deliver(futures: Sequence["asyncio.Future[Response]"], responses: Sequence[Response]) -> None:
    for future, response in zip(futures, responses, strict=True):
        if not future.done():  # the client may have disconnected
            future.set_result(response)
