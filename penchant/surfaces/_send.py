"""How answers are sent: JSON, or an error as problem details with the headers it asks for."""

from __future__ import annotations

import math

import msgspec
from starlette.responses import Response
from starlette.types import Send

from penchant.core.errors import Overloaded, TooManyRequests, Unauthorized
from penchant.engine import problem_of

PROBLEM = "application/problem+json"
JSON = "application/json"
HEADERS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


async def send_json(
    send: Send,
    body: bytes,
    *,
    status: int = 200,
    media_type: str = JSON,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    """Send a JSON answer."""
    own = ((b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": [*own, *HEADERS, *headers]})
    await send({"type": "http.response.body", "body": body})


def problem_response(error: BaseException, *, status: int | None = None) -> Response:
    """An error as problem details, for routes that give back their answer."""
    problem = problem_of(error, status=status)
    return Response(msgspec.json.encode(problem), problem.status, media_type=PROBLEM)


async def send_problem(send: Send, error: BaseException, *, status: int | None = None) -> None:
    """Send an error as problem details."""
    problem = problem_of(error, status=status)
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if isinstance(error, Unauthorized):
        headers = ((b"www-authenticate", b'Bearer realm="penchant"'),)
    elif isinstance(error, (TooManyRequests, Overloaded)):
        headers = ((b"retry-after", str(math.ceil(error.after)).encode()),)
    body = msgspec.json.encode(problem)
    await send_json(send, body, status=problem.status, media_type=PROBLEM, headers=headers)
