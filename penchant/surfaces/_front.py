"""What every request passes first: it gets an id, pages of other sites are refused, and its answer is noted.

Noted means counted and timed (``_metrics``), written to the log where that is wanted (``_logs``), and traced where
a collector of traces is named (``_traces``). None of them sees a body, an address or an id of a person.
"""

from __future__ import annotations

import logging
import random
import re
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penchant.core.errors import InputError
from penchant.surfaces._body import header
from penchant.surfaces._collect import COLLECT_PATHS, PREFLIGHT, cors_headers, may_send
from penchant.surfaces._gate import Gate
from penchant.surfaces._send import send_problem

if TYPE_CHECKING:
    from penchant.engine import Engine
    from penchant.surfaces._traces import Traces

log = logging.getLogger("penchant.requests")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_ids = random.Random(secrets.randbits(128))  # no secret, and no question to the system for each request
_MOST_HEADERS = 64 * 1024  # bytes of all headers of a request
_HTTPS_ONLY = (b"strict-transport-security", b"max-age=31536000")


class Front:
    """The outermost part of the server.

    Args:
        app: What answers.
        gate: What answers the calls of operations, without the way through all routes.
        hosts: Host names a request may be addressed to; None for any.
        traces: Where requests are traced; None for nowhere.
        engines: The shops, which say whose pages may send them events.
    """

    def __init__(
        self,
        app: ASGIApp,
        gate: Gate,
        hosts: tuple[str, ...] | None,
        traces: Traces | None,
        engines: Sequence[Engine] = (),
    ) -> None:
        self.app, self.gate = app, gate
        self.engines = engines
        self.hosts = None if hosts is None else frozenset(hosts)
        self.traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it, and note what came of it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        visit = Visit(scope, send)
        if self.traces is None:
            await self._answer(scope, receive, visit)
        else:
            with self.traces.request(scope, visit):
                await self._answer(scope, receive, visit)
        visit.note(scope)

    async def _answer(self, scope: Scope, receive: Receive, visit: Visit) -> None:
        host, origin = header(scope, b"host"), header(scope, b"origin")
        if sum(len(name) + len(value) for name, value in scope["headers"]) > _MOST_HEADERS:
            error = InputError("the headers are too large", value=f"more than {_MOST_HEADERS:,} bytes")
            await send_problem(visit.send, error, status=431)
        elif self.hosts is not None and _address(f"//{host}")[0] not in self.hosts:
            error = InputError(
                "this server does not answer to that name", value=host[:100], hint="use localhost"
            )
            await send_problem(visit.send, error, status=421)
        elif origin and _address(origin)[1] != host:
            if scope["path"] in COLLECT_PATHS and any(may_send(one, origin) for one in self.engines):
                await self._answer_page(origin, scope, receive, visit)
                return
            error = InputError("requests from pages of other sites are refused", value=origin[:100])
            await send_problem(visit.send, error, status=403)
        else:
            await (self.gate if self.gate.answers(scope) else self.app)(scope, receive, visit.send)

    async def _answer_page(self, origin: str, scope: Scope, receive: Receive, visit: Visit) -> None:
        """Let a shop's page send events, and read what became of them."""
        visit.add(cors_headers(origin))
        if scope["method"] == "OPTIONS":
            await visit.send({"type": "http.response.start", "status": 204, "headers": list(PREFLIGHT)})
            await visit.send({"type": "http.response.body", "body": b""})
        else:
            await self.app(scope, receive, visit.send)


class Visit:
    """One request while it is answered: its id, and the status and the time of the answer."""

    def __init__(self, scope: Scope, send: Send) -> None:
        given = header(scope, b"x-request-id")
        self.id = given if _REQUEST_ID.fullmatch(given) else f"{_ids.getrandbits(64):016x}"
        self.status = 499  # until an answer begins: nobody waited for it
        self._send = send
        self._started = time.perf_counter()
        self._own = [*_SAFE, *([_HTTPS_ONLY] if scope.get("scheme") == "https" else [])]
        scope["penchant.request_id"] = self.id

    def add(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Put more headers on the answer."""
        self._own += headers

    async def send(self, message: Message) -> None:
        """Send a part of the answer; its head with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message["headers"]
            names = {name for name, _ in headers}
            own = [row for row in self._own if row[0] not in names]
            message = {**message, "headers": [*headers, *own, (b"x-request-id", self.id.encode())]}
        await self._send(message)

    def note(self, scope: Scope) -> None:
        """Count and log the answer."""
        seconds = time.perf_counter() - self._started
        route = scope.get("penchant.route", "other")
        if (metrics := scope.get("penchant.metrics")) is not None:
            metrics.answered(route, self.status, seconds)
        if log.isEnabledFor(logging.INFO):
            facts = {
                "request_id": self.id,
                "route": route,
                "status": self.status,
                "seconds": round(seconds, 6),
                "key": scope.get("penchant.key"),
            }
            log.info("answered", extra={"facts": facts})


def _address(url: str) -> tuple[str | None, str | None]:
    """Name, and name with port, that a header speaks of; None where it is no address at all."""
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.netloc
    except ValueError:
        return None, None
