"""Bounded lines of requests before the threads that answer them: when a line is full, the next is refused at once.

Refusing costs little, and clients that come back at once are told off at a bounded pace, so a server under ten times
its load goes on answering those it let in, and its memory stays flat. What waits together may be answered together:
that is how many small requests share one commit to the disk, and how people who ask at once share one run of the
network. Nobody waits for company: a thread that is free takes what is there.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

from penchant.core.errors import Overloaded

_GROUP = 1_000_000  # bytes of requests that are answered together: one commit must not keep everybody waiting
_REFUSALS = 1000.0  # a second, told at once; those beyond wait their turn, a tenth of a core is enough for telling off
_LATEST = 1.0  # seconds after which a refusal is told whatever came before

Answers = Callable[[Sequence[Any]], Iterable[Any]]
"""Answers some requests, in order; an exception in place of an answer is raised to whoever asked.

A list is told all at once; of any other iterable each answer as soon as it is there."""


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
        self._turn = 0.0  # when the last refusal is told
        self._queue: deque[_Waiting] = deque()
        self._taking = threading.Lock()
        self._calls: SimpleQueue[bool] = SimpleQueue()  # one for each request that came; False ends a thread
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
            await self._paced()
            raise overloaded()
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self.waiting += 1
        self._size += size
        self._queue.append(_Waiting(answers, request, size, time.monotonic(), loop, future))
        self._calls.put(True)
        try:
            return await future
        finally:
            self.waiting -= 1
            self._size -= size

    async def _paced(self) -> None:
        """Wait for the turn of a refusal: telling off must not take the processor from those who were let in."""
        now = time.monotonic()
        self._turn = min(max(self._turn + 1 / _REFUSALS, now), now + _LATEST)
        if self._turn > now:
            await asyncio.sleep(self._turn - now)

    def _run(self) -> None:
        while self._calls.get():
            if group := self._taken():  # others may have taken what the call was for
                self._answer(group)

    def _taken(self) -> list[_Waiting]:
        """The first that waits, and those behind it that are answered with it."""
        with self._taking:
            if not self._queue:
                return []
            group = [self._queue.popleft()]
            size = group[0].size
            while self._queue and len(group) < self._together and size < _GROUP:
                if self._queue[0].answers is not group[0].answers:
                    break
                group.append(self._queue.popleft())
                size += group[-1].size
            return group

    def _answer(self, group: list[_Waiting]) -> None:
        late = time.monotonic() - self._patience
        taken = [one for one in group if one.since >= late]
        self.refused += len(group) - len(taken)
        _tell([(one.future, overloaded()) for one in group if one.since < late], group[0].loop)
        if not taken:
            return
        left = list(taken)
        try:
            found = taken[0].answers([one.request for one in taken])
            if not isinstance(found, list):
                for answer in found:
                    _tell([(left.pop(0).future, answer)], group[0].loop)
                return
        except BaseException as error:
            found = [error] * len(left)
        _tell([(one.future, answer) for one, answer in zip(left, found, strict=True)], group[0].loop)

    def close(self) -> None:
        """Answer what waits, then end the threads."""
        for _ in self._threads:
            self._calls.put(False)
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
