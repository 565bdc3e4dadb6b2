"""The HTTP server: every operation at ``POST /v1/<operation>``, jobs, OpenAPI and a reference page."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import cache
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router

from penchant.core.errors import InputError, NotFound, PenchantError
from penchant.engine import OPERATIONS, Engine, Keyring
from penchant.surfaces._body import Limits
from penchant.surfaces._collect import COLLECT_PATHS, CollectEndpoint
from penchant.surfaces._endpoints import (
    JobEndpoints,
    OperationEndpoint,
    Server,
    in_thread,
)
from penchant.surfaces._front import Front
from penchant.surfaces._gate import Gate, Tenant, require
from penchant.surfaces._logs import LogKind, configure
from penchant.surfaces._memory import stay_small
from penchant.surfaces._openapi import openapi
from penchant.surfaces._page import PAGE_POLICY, reference_html
from penchant.surfaces._send import problem_response
from penchant.surfaces._snippet import snippet
from penchant.surfaces._traces import Traces, traces_from_environment

__all__ = ["Limits", "create_app", "serve"]

_TURN = 0.0005  # seconds that a thread may keep the interpreter while others wait for it
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def create_app(
    engines: Engine | Sequence[Engine],
    *,
    limits: Limits | None = None,
    hosts: tuple[str, ...] | None = None,
    locked: bool = False,
    traces: Traces | None = None,
) -> Starlette:
    """Make the ASGI app that serves one shop, or several apart from each other. It closes the engines when it stops.

    Args:
        engines: An embedded engine, or one for each shop; of several shops the key of a request chooses one.
        limits: Sizes and times a request must keep; None for the usual ones.
        hosts: Host names a request may be addressed to; None for any. A server that listens on this machine
            only needs the list: else a web page could reach it through a name of its own (DNS rebinding).
        locked: Let nobody in without a key, even while a shop has none. Several shops are always locked.
        traces: Where requests are traced; None for nowhere.
    """
    shops = list(engines) if isinstance(engines, Sequence) else [engines]
    servers = [Server(engine, limits or Limits()) for engine in shops]
    gate = Gate([_tenant(server) for server in servers], locked=locked)
    routes = [
        Route("/openapi.json", _fixed(lambda: msgspec.json.encode(openapi()), "application/json")),
        Route("/docs", _fixed(lambda: reference_html().encode(), "text/html; charset=utf-8")),
        Route("/penchant.js", _script),
        Route("/healthz", _fixed(lambda: b'{"status":"ok"}', "application/json")),
        Route("/readyz", _ready(servers)),
        Route("/", lambda request: RedirectResponse("/docs")),
        Mount("/", app=gate),
    ]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        for server in servers:
            server.close()
        if traces is not None:
            traces.close()

    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _http_problem})
    app.add_middleware(Front, gate=gate, hosts=hosts, traces=traces, engines=shops)
    return app


def _tenant(server: Server) -> Tenant:
    """One shop behind the gate: every operation of the table, and its jobs."""
    jobs = JobEndpoints(server)
    endpoints = {f"/v1/{row.name}": OperationEndpoint(row, server) for row in OPERATIONS.values()}
    routes: list[BaseRoute] = [Route(path, one, methods=["POST"]) for path, one in endpoints.items()]
    routes += [
        Route(path, CollectEndpoint(path.removeprefix("/v1/").lstrip("/"), server), methods=["POST"])
        for path in sorted(COLLECT_PATHS)
    ]
    routes += [
        Route("/v1/jobs", jobs.all),
        Route("/v1/jobs/{job_id}", jobs.one, methods=["GET", "DELETE"]),
        Route("/v1/jobs/{job_id}/files/{field}", jobs.file),
        Route("/metrics", _metrics(server)),
    ]
    engine = server.engine
    ring = None if engine.path is None else Keyring(engine.path, engine.clock)
    return Tenant(engine, ring, Router(routes), server.metrics, endpoints)


def _metrics(server: Server) -> Callable[[Request], Awaitable[Response]]:
    """The numbers of one shop; with a key of the scope govern, where keys are asked for."""

    async def metrics(request: Request) -> Response:
        try:
            require(server.engine, "govern", "metrics")
        except PenchantError as error:
            return problem_response(error)
        page = await in_thread(server.looks, server.metrics.page)
        return Response(page, media_type="text/plain; version=0.0.4; charset=utf-8")

    return metrics


def _fixed(make: Callable[[], bytes], media_type: str) -> Callable[[Request], Response]:
    """A page that never changes while the server runs, made at its first request."""
    content = cache(make)

    def page(request: Request) -> Response:
        headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
        if media_type.startswith("text/html"):
            headers["Content-Security-Policy"] = PAGE_POLICY
        return Response(content(), media_type=media_type, headers=headers)

    return page


def _script(request: Request) -> Response:
    """The script for shop pages: any of them may load it."""
    headers = {
        "Cache-Control": "public, max-age=3600",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    return Response(snippet(), media_type="text/javascript; charset=utf-8", headers=headers)


def _ready(servers: Sequence[Server]) -> Callable[[Request], Awaitable[Response]]:
    """Whether requests of every shop can be answered now, and, of one shop, by what."""

    async def ready(request: Request) -> Response:
        try:
            rankers = [await in_thread(one.looks, _serving, one.engine) for one in servers]
        except PenchantError as error:
            return problem_response(error, status=503)
        state: dict[str, Any] = {"status": "ready", "degraded": any(ranker.degraded for ranker in rankers)}
        state |= {"model_id": rankers[0].model_id} if len(rankers) == 1 else {"shops": len(rankers)}
        return Response(msgspec.json.encode(state), media_type="application/json")

    return ready


def _serving(engine: Engine) -> Any:
    """What answers, if the shop can still take events in.

    Raises:
        PenchantError: It cannot, or nothing answers.
    """
    if engine.shop.store.failure is not None:
        raise engine.shop.store.failure
    return engine.serving.ranker


def _http_problem(request: Request, error: Exception) -> Response:
    """What routing itself refuses: an unknown path or a wrong method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    path = request.url.path[:100]
    if status == 404:
        return problem_response(NotFound("there is nothing at this path", value=path, hint="see /docs"))
    hint = "operations are called with POST; see /docs"
    refusal = InputError(f"{request.method} is not possible here", value=path, hint=hint)
    answer = problem_response(refusal, status=status)
    answer.headers.update(getattr(error, "headers", None) or {})  # the methods that are
    return answer


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def pin_threads() -> None:
    """Let numerical libraries use one thread for each request: call before they load.

    Several threads for one small product cost more than they bring. Jobs in processes of their own get the
    limits that were set before.
    """
    ours = [name for name in _THREAD_LIMITS if name not in os.environ]
    os.environ.update(dict.fromkeys(ours, "1"))
    if ours:
        os.environ["PENCHANT_PINNED"] = ",".join(ours)


def _end_quietly() -> None:
    """Make SIGTERM and Ctrl-C a regular end: the server catches them, shuts down, and then repeats them."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)


def serve(
    engines: Engine | Sequence[Engine],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    logs: LogKind = "text",
    tls: tuple[str, str] | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve shops until SIGTERM or Ctrl-C, then finish the running requests and release the shops.

    Args:
        engines: An embedded engine, or one for each shop; it holds the shop's write lock from here on.
        host: Address to listen at. Any but this machine's own is open to the network and asks for API keys.
        port: 0 for any free one.
        limits: Sizes and times a request must keep.
        logs: ``text`` tells warnings; ``json`` tells every request too, a JSON object a line.
        tls: Files of a certificate and its key, to answer by HTTPS.
        say: Where to tell the address and warnings.

    Raises:
        InputError: The address cannot be listened at, or is open to the network while a shop has no keys.
        PenchantError: A shop cannot be opened.
    """
    import uvicorn

    stay_small()
    configure(logs)
    traces = traces_from_environment()
    shops = list(engines) if isinstance(engines, Sequence) else [engines]
    own = _loopback(host)
    try:
        _check_keys(shops, asked=not own or len(shops) > 1)
        for engine in shops:
            engine.warm()
            engine.keep()
        listener = _listen(host, port)
    except BaseException:
        for engine in shops:
            engine.close()
        raise
    shown = f"[{host}]" if ":" in host else host
    served = ", ".join(str(engine.path) for engine in shops)
    scheme = "http" if tls is None else "https"
    say(f"serving {served} at {scheme}://{shown}:{listener.getsockname()[1]} (reference page: /docs)")
    hosts = (host, "localhost", "127.0.0.1", "::1") if own else None
    config = uvicorn.Config(
        create_app(shops, limits=limits, hosts=hosts, locked=not own, traces=traces),
        log_config=None,  # ours stays
        access_log=False,  # addresses are personal data; the shop keeps a log of operations
        server_header=False,
        ws="none",
        timeout_keep_alive=15,
        timeout_graceful_shutdown=20,
        limit_concurrency=1000,
        h11_max_incomplete_event_size=64 * 1024,
        ssl_certfile=None if tls is None else tls[0],
        ssl_keyfile=None if tls is None else tls[1],
    )
    # Threads that pure Python keeps waiting get their turn sooner than after the usual 5 ms: the event loop of a server
    # that refuses many must not stand before each step of the answers.
    sys.setswitchinterval(_TURN)
    _end_quietly()
    _reload_on_hangup(shops)
    uvicorn.Server(config).run(sockets=[listener])
    say("stopped")


def _reload_on_hangup(shops: Sequence[Engine]) -> None:
    """Read the settings anew at SIGHUP; wrong ones are told, and the old ones stay."""

    def reload() -> None:
        for engine in shops:
            try:
                engine.reload()
            except PenchantError as error:
                logging.getLogger("penchant.http").error("the settings stay as they were: %s", error)

    def start(*_: object) -> None:
        threading.Thread(target=reload, name="penchant-reload", daemon=True).start()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, start)


def _check_keys(shops: Sequence[Engine], *, asked: bool) -> None:
    """Refuse to open a shop to others while nobody is asked who they are."""
    for engine in shops if asked else ():
        if not len(Keyring(engine.shop_path, engine.clock)):
            raise InputError(
                "a server that others can reach, or that has several shops, asks for keys, and this shop has none",
                value=str(engine.path),
                hint=f"make one with `penchant keys create --scopes serve --shop {engine.path}`, "
                "or listen at 127.0.0.1",
            )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"cannot listen at this address: {getattr(error, 'strerror', None) or error}",
            value=f"{host}:{port}",
            hint="choose another with --host and --port (0 for any free one)",
        ) from None
