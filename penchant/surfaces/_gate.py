"""Who may come in: every request finds its shop by its key, and nothing of any other shop.

Each shop has its own engine, jobs, threads and routes; the key decides which of them a request reaches at all. So no
id, job or cursor in a request can lead into another shop. A server of one shop that has no keys asks for none.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import parse_qsl, unquote

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from penchant.core.errors import Forbidden, PenchantError, TooManyRequests, Unauthorized
from penchant.engine import CALLER, KEY_PATTERN, QUICK, Caller, Engine, Grant, Keyring, log_access
from penchant.engine import Scope as KeyScope
from penchant.surfaces._body import header
from penchant.surfaces._metrics import Metrics
from penchant.surfaces._send import send_problem

KEYS_IN_QUERY: Mapping[str, str] = {"/mp/collect": "api_secret", "/debug/mp/collect": "api_secret"}
"""Paths of vendors' protocols that send the key in the query string, and the name it has there."""


@dataclass(frozen=True)
class Tenant:
    """One shop of a server: its engine, its keys and the app that answers for it."""

    engine: Engine
    ring: Keyring | None  # None: an engine without a folder, which has no keys
    app: Router
    metrics: Metrics
    calls: Mapping[str, ASGIApp]  # path of an operation -> what answers it, found without trying every route

    @cached_property
    def routes(self) -> frozenset[str]:
        """The paths that have no parameters."""
        return frozenset(route.path for route in self.app.routes if isinstance(route, Route))

    def route(self, path: str) -> str:
        """The name of a request's route in numbers and logs: as many as there are routes, and ``other``."""
        if path in self.routes:
            return path
        return "/v1/jobs/{job_id}" if path.startswith("/v1/jobs/") else "other"


class Gate:
    """Admits requests and hands each to the app of its shop.

    Args:
        tenants: The shops.
        locked: Whether nobody is let in without a key, even while there is none.
    """

    def __init__(self, tenants: Sequence[Tenant], *, locked: bool) -> None:
        self._tenants = tenants
        self._locked = locked or len(tenants) > 1
        self._buckets = Buckets()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or say why not."""
        try:
            tenant = self._enter(scope)
        except PenchantError as error:
            await send_problem(send, error)
            return
        call = tenant.calls.get(scope["path"]) if scope["method"] == "POST" else None
        await (call or tenant.app)(scope, receive, send)

    def answers(self, scope: Scope) -> bool:
        """Whether a request is for an operation, so that nothing but the gate stands before its endpoint."""
        return scope["method"] == "POST" and scope["path"] in self._tenants[0].calls

    def _enter(self, scope: Scope) -> Tenant:
        tenant, grant = self.admit(token_of(scope))
        scope["penchant.metrics"], scope["penchant.route"] = tenant.metrics, tenant.route(scope["path"])
        request_id = scope.get("penchant.request_id")
        if grant is None:
            CALLER.set(Caller(request_id=request_id))
            return tenant
        scope["penchant.key"] = grant.key
        wait = self._buckets.take((grant.key, scope["penchant.route"]), grant.rate)
        if wait > 0:
            error = TooManyRequests(
                "this key sends more requests than it may",
                value=f"{grant.rate:g} a second to each operation",
                hint=f"send the next one in {wait:.3g} seconds",
            )
            error.after = wait
            raise error
        CALLER.set(Caller(grant.key, grant.scopes, request_id))
        return tenant

    def admit(self, token: str | None) -> tuple[Tenant, Grant | None]:
        """The shop a key opens and what it may do there; without keys, the one shop and no limits.

        Raises:
            Unauthorized: There is no key, or none that is taken. The answer is the same for both.
        """
        for tenant in self._tenants:
            if token and tenant.ring is not None and (grant := tenant.ring.find(token)) is not None:
                return tenant, grant
        first = self._tenants[0]
        if token is None and not self._locked and not (first.ring is not None and len(first.ring)):
            return first, None
        raise refused()


def refused() -> Unauthorized:
    """What everybody hears who is not let in."""
    return Unauthorized(
        "this server asks for an API key",
        hint="send it as `Authorization: Bearer KEY`, never in the address; `penchant keys` makes one",
    )


def token_of(scope: Scope) -> str | None:
    """The key of a request: a bearer token, the user name of Basic authentication, or ``X-Api-Key``.

    Raises:
        Unauthorized: A key stands in the query string, where logs and histories keep it.
    """
    query = scope.get("query_string", b"").decode("latin-1")
    if query:
        name = KEYS_IN_QUERY.get(scope["path"])
        for field, value in parse_qsl(query, encoding="latin-1"):
            if name is not None and field == name:
                return str(value)
        if KEY_PATTERN.search(unquote(query)):
            raise refused()
    given = header(scope, b"authorization")
    if not given:
        return header(scope, b"x-api-key") or None
    kind, _, rest = given.partition(" ")
    if kind.lower() == "basic":
        try:
            return base64.b64decode(rest, validate=True).decode("latin-1").partition(":")[0]
        except (binascii.Error, ValueError):
            return ""
    return rest.strip() if kind.lower() == "bearer" else ""


def require(engine: Engine, scope: KeyScope, what: str) -> None:
    """Let the caller's key go no further than its scopes; a refusal of more than a page's call is logged.

    Raises:
        Forbidden: The key lacks the scope.
    """
    caller = CALLER.get()
    if caller.scopes is None or scope in caller.scopes:
        return
    if scope not in QUICK and engine.path is not None:
        log_access(engine.path, engine.clock, what, Forbidden.code, 0.0)
    raise Forbidden(
        f"this key may not call {what}", hint=f"use a key with the scope {scope}; `penchant keys` lists them"
    )


class Buckets:
    """Token buckets: each holds the requests of one second and fills at its rate.

    Example:
        >>> moment = [0.0]
        >>> buckets = Buckets(lambda: moment[0])
        >>> [buckets.take(("key", "/v1/observe"), 2.0) for _ in range(3)]
        [0.0, 0.0, 0.5]
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._levels: dict[tuple[str, str], tuple[float, float]] = {}  # level, when

    def take(self, bucket: tuple[str, str], rate: float) -> float:
        """Take one token; 0, or the seconds until there is one."""
        now, size = self._monotonic(), max(rate, 1.0)
        level, then = self._levels.get(bucket, (size, now))
        level = min(size, level + (now - then) * rate)
        if level < 1.0:
            self._levels[bucket] = (level, now)
            return (1.0 - level) / rate
        self._levels[bucket] = (level - 1.0, now)
        return 0.0
