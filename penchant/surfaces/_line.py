"""Bounded lines of requests before the threads that answer them: when a line is full, the next is refused at once.

Refusing costs microseconds, so a server under ten times its load goes on answering those it let in as fast as ever,
and its memory stays flat. What waits together may be answered together: that is how many small requests share one
commit to the disk.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from penchant.core.errors import Overloaded

_GROUP = 1_000_000  # bytes of requests that are answered together: one commit must not keep everybody waiting

Answers = Callable[[Sequence[Any]], Sequence[Any]]
"""Answers some requests, in order; an exception in place of an answer is raised to whoever asked."""


class _Waiting(NamedTuple):
    answers: Answers
    request: Any
    size: int
    since: float
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class Line:
    """Threads behind a bounded queue.

    Args:
        name: Of the threads.
        threads: How many work at once.
        waiting: Requests that may wait or be worked on.
        together: Requests for the same work that one thread takes at once.
        size: Bytes of requests that may wait or be worked on.
        patience: Seconds after which a request that still waits is refused instead of answered late.
    """

    def __init__(
        self,
        name: str,
        *,
        threads: int,
        waiting: int,
        together: int = 1,
        size: int = 256_000_000,
        patience: float = 1.0,
    ) -> None:
        self.refused = 0
        self.waiting = 0  # changed by the event loop's thread alone
        self._most, self._together, self._patience = waiting, together, patience
        self._size, self._most_size = 0, size
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def ask(self, answers: Answers, request: Any, size: int = 0) -> Any:
        """Wait for the answer to a request.

        Raises:
            Overloaded: The line is full, or the request waited too long.
        """
        if self.waiting >= self._most or (self._size and self._size + size > self._most_size):
            self.refused += 1
            raise overloaded()
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self.waiting += 1
        self._size += size
        self._queue.put(_Waiting(answers, request, size, time.monotonic(), loop, future))
        try:
            return await future
        finally:
            self.waiting -= 1
            self._size -= size

    def _run(self) -> None:
        kept: _Waiting | None = None
        while (first := kept or self._queue.get()) is not None:
            kept = None
            group, size = [first], first.size
            while len(group) < self._together and size < _GROUP:
                try:
                    other = self._queue.get_nowait()
                except Empty:
                    break
                if other is None or other.answers is not first.answers:
                    if other is None:
                        self._queue.put(None)
                    kept = other
                    break
                group.append(other)
                size += other.size
            self._answer(group)

    def _answer(self, group: list[_Waiting]) -> None:
        late = time.monotonic() - self._patience
        taken = [one for one in group if one.since >= late]
        self.refused += len(group) - len(taken)
        _tell([(one.future, overloaded()) for one in group if one.since < late], group[0].loop)
        if not taken:
            return
        try:
            found = taken[0].answers([one.request for one in taken])
        except BaseException as error:
            found = [error] * len(taken)
        _tell([(one.future, answer) for one, answer in zip(taken, found, strict=True)], group[0].loop)

    def close(self) -> None:
        """Answer what waits, then end the threads."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()


def overloaded() -> Overloaded:
    """What a request is told for which there is no room."""
    return Overloaded(
        "the server has more to do than it can", hint="try again after the seconds of Retry-After"
    )


def _tell(answers: list[tuple[asyncio.Future[Any], Any]], loop: asyncio.AbstractEventLoop) -> None:
    """Hand answers to the event loop, all with one call."""
    if answers:
        try:
            loop.call_soon_threadsafe(_settle, answers)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return


def _settle(answers: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, answer in answers:
        if future.done():  # whoever asked has gone
            continue
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)
