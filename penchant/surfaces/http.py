"""The HTTP server: every operation at ``POST /v1/<operation>``, jobs, OpenAPI and a reference page."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from penchant.core.errors import InputError, PenchantError
from penchant.engine import OPERATIONS, Engine, problem_of, trace_of
from penchant.surfaces._body import Limits, header
from penchant.surfaces._endpoints import PROBLEM, JobEndpoints, OperationEndpoint, Server, send_problem
from penchant.surfaces._openapi import openapi
from penchant.surfaces._page import reference_html

__all__ = ["Limits", "create_app", "serve"]

log = logging.getLogger("penchant.http")


def create_app(engine: Engine, *, limits: Limits | None = None, hosts: tuple[str, ...] | None = None) -> Starlette:
    """Make the ASGI app that serves an engine's shop. It closes the engine when it stops.

    Args:
        engine: An embedded engine.
        limits: Sizes and times a request must keep; None for the usual ones.
        hosts: Host names a request may be addressed to; None for any. A server that listens on this machine
            only needs the list: without it a web page could reach it through a name of its own (DNS rebinding).
    """
    server = Server(engine, limits or Limits())
    jobs = JobEndpoints(server)
    routes = [
        Route(f"/v1/{operation.name}", OperationEndpoint(operation, server), methods=["POST"])
        for operation in OPERATIONS.values()
    ]
    routes += [
        Route("/v1/jobs", jobs.all),
        Route("/v1/jobs/{job_id}", jobs.one, methods=["GET", "DELETE"]),
        Route("/v1/jobs/{job_id}/files/{field}", jobs.file),
        Route("/openapi.json", _fixed(lambda: msgspec.json.encode(openapi()), "application/json")),
        Route("/docs", _fixed(lambda: reference_html().encode(), "text/html; charset=utf-8")),
        Route("/healthz", _fixed(lambda: b'{"status":"ok"}', "application/json")),
        Route("/readyz", _ready(server)),
        Route("/", lambda request: RedirectResponse("/docs")),
    ]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        server.close()

    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _http_problem})
    app.add_middleware(_SameSite, hosts=hosts)
    return app
