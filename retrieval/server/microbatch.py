"""Gathering: small questions that wait at the same time are answered together.

The user tower and the search take several users in less time than one by one. Nobody is waited for: a thread that has
become free takes its share of what has come in meanwhile, which is a single question on a server at leisure.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from threading import Lock
from typing import Final, Generic, TypeVar

Question = TypeVar("Question")
Reply = TypeVar("Reply")

AT_ONCE: Final = 32  # questions taken together: past that a user costs hardly less, and the first waits for the last


class Gathering(Generic[Question, Reply]):
    """Questions asked on an event loop, answered in threads."""

    def __init__(
        self, answer: Callable[[Sequence[Question]], Sequence[Reply]], executor: Executor, *, threads: int
    ) -> None:
        """answer: replies to questions, in their order; it never raises. threads: of the executor."""
        self._answer = answer
        self._executor = executor
        self._threads = threads
        self._waiting: deque[tuple[Question, asyncio.Future[Reply]]] = deque()
        self._lock = Lock()

    async def ask(self, question: Question) -> Reply:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        self._waiting.append((question, future))
        self._executor.submit(self._work, loop)
        return await future

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread, once for each question that was asked; often another call has taken it along."""
        with self._lock:
            share = min(AT_ONCE, -(-len(self._waiting) // self._threads))
            taken = [self._waiting.popleft() for _ in range(share)]
        if taken:
            replies = self._answer([question for question, _ in taken])
            futures = [future for _, future in taken]
            loop.call_soon_threadsafe(_deliver, futures, replies)


def _deliver(futures: Sequence["asyncio.Future[Reply]"], replies: Sequence[Reply]) -> None:
    for future, reply in zip(futures, replies, strict=True):
        if not future.done():  # whoever asked may have gone
            future.set_result(reply)
