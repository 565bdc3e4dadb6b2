"""The collector: events from the libraries that shops already have, at the addresses those libraries call.

Segment and RudderStack libraries speak ``/v1/track``, ``/v1/batch`` and the like, with a write key as the user name of
Basic authentication; GA4's Measurement Protocol speaks ``/mp/collect``. What they say goes to the one operation
``collect``, so their events meet the same rules as every other.
"""

from __future__ import annotations

import zlib
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from penchant.core.errors import InputError, Malformed, PenchantError, TooLarge
from penchant.engine import (
    CollectReport,
    CollectRequest,
    Engine,
    MessageForm,
    check_number,
    strict_json,
)
from penchant.surfaces._body import Limits, RefusedError, header, read_body
from penchant.surfaces._endpoints import Server, answered
from penchant.surfaces._gate import require
from penchant.surfaces._send import send_json, send_problem

SEGMENT_CALLS = ("track", "identify", "page", "screen", "group", "alias")
COLLECT_PATHS = frozenset(
    {*(f"/v1/{call}" for call in (*SEGMENT_CALLS, "batch", "import")), "/mp/collect", "/debug/mp/collect"}
)
_MOST = 10_000  # messages of one request
_MOST_GA4 = 25  # events of one request, as Google has it
_AFTER = {"refused": 422, "conflict": 409}


class CollectEndpoint:
    """One address of the collector. ``call`` is the last word of its path."""

    def __init__(self, call: str, server: Server) -> None:
        self.call = call
        self.server = server
        self._encode = msgspec.json.Encoder().encode
        self._answers = server.collect_all

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await answered(self._respond, "collecting", scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        engine = self.server.engine
        require(engine, "write", self.call)
        origin = header(scope, b"origin")
        if origin and not _same_place(scope, origin) and not may_send(engine, origin):
            raise RefusedError(403, InputError("pages of this site may not send events", value=origin[:100]))
        body, size = await self._json(scope, receive)
        if self.call.endswith("collect"):
            await self._measurement(scope, body, size, send)
            return
        messages = self._messages(body)
        if header(scope, b"sec-gpc") == "1":
            await self._declined(send, len(messages))
            return
        report = await self._collect("segment", messages, size)
        if self.call not in {"batch", "import"} and report.results:
            (result,) = report.results
            status = _AFTER.get(result.status, 200)
            if status != 200:
                error = InputError(result.error or result.status, hint="it is kept aside, see `dead_letters`")
                await send_problem(send, error, status=status)
                return
        await send_json(send, self._encode(_Collected(True, report.stored, report.results)))

    async def _declined(self, send: Send, count: int) -> None:
        """The browser's owner objects to tracking: nothing is read, stored or counted."""
        told = {"success": True, "stored": 0, "declined": count, "why": "the request carries Sec-GPC: 1"}
        await send_json(send, self._encode(told))

    def _messages(self, body: dict[str, Any]) -> list[Any]:
        if self.call not in {"batch", "import"}:
            return [{**body, "type": self.call}]
        found = body.get("batch")
        if not isinstance(found, list):
            raise InputError(
                "a batch needs its messages", path="$.batch", hint="send a list, it may be empty"
            )
        check_number(len(found), _MOST, "messages")
        around = {name: body[name] for name in ("sentAt", "context") if body.get(name) is not None}
        return [{**around, **message} if isinstance(message, dict) else message for message in found]

    async def _measurement(self, scope: Scope, body: dict[str, Any], size: int, send: Send) -> None:
        """GA4's Measurement Protocol."""
        events = body.get("events")
        if not isinstance(events, list):
            raise InputError("a request needs its events", path="$.events", hint="send a list of at most 25")
        check_number(len(events), _MOST_GA4, "events")
        if not any(
            isinstance(body.get(n), str) and body[n] for n in ("client_id", "app_instance_id", "user_id")
        ):
            raise InputError("nobody is named", path="$.client_id", hint="send client_id or app_instance_id")
        around = {name: value for name, value in body.items() if name != "events"}
        messages = [{**around, "event": event} for event in events]
        if header(scope, b"sec-gpc") == "1":
            await self._declined(send, len(messages))
            return
        if self.call.startswith("debug"):
            told = [] if messages else [{"description": "there are no events", "fieldPath": "events"}]
            checked = await self._collect("ga4-measurement", messages, size, dry_run=True)
            told += [
                {"description": result.error, "fieldPath": f"events[{at}]", "validationCode": "VALUE_INVALID"}
                for at, result in enumerate(checked.results)
                if result.status == "refused"
            ]
            await send_json(send, self._encode({"validationMessages": told}))
            return
        report = await self._collect("ga4-measurement", messages, size)
        if all(result.status not in _AFTER for result in report.results):
            await send(
                {"type": "http.response.start", "status": 204, "headers": [(b"cache-control", b"no-store")]}
            )
            await send({"type": "http.response.body", "body": b""})
            return
        await send_json(send, self._encode(_Collected(True, report.stored, report.results)))

    async def _collect(
        self, form: MessageForm, messages: list[Any], size: int, *, dry_run: bool = False
    ) -> CollectReport:
        request = CollectRequest(form=form, messages=messages, dry_run=dry_run)
        report: CollectReport = await self.server.events.ask(self._answers, request, size)
        return report

    async def _json(self, scope: Scope, receive: Receive) -> tuple[dict[str, Any], int]:
        """The body, and its bytes when unpacked."""
        limits = self.server.limits
        body = await read_body(scope, receive, limits)
        encoding = header(scope, b"content-encoding").strip().lower()
        if encoding == "gzip":
            body = gunzip(body, limits)
        elif encoding not in {"", "identity"}:
            error = InputError("this encoding is not known", value=encoding[:50], hint="use gzip, or none")
            raise RefusedError(415, error)
        read = strict_json(body)
        if not isinstance(read, dict):
            raise Malformed("the request is not a JSON object", value=type(read).__name__)
        return read, len(body)


class _Collected(msgspec.Struct):
    """The answer of the collector: ``success`` is what the libraries look for."""

    success: bool
    stored: int
    results: list[Any]


def gunzip(body: bytes, limits: Limits) -> bytes:
    """Unpack a gzip body that stays within the limits when unpacked.

    Raises:
        TooLarge: It grows beyond them.
        Malformed: It is not gzip, cut off, or more than one.
    """
    unpack = zlib.decompressobj(wbits=31)
    try:
        plain = unpack.decompress(body, limits.body + 1)
    except zlib.error:
        plain = b""
    if len(plain) > limits.body:
        raise TooLarge("the request is too large unpacked", value=f"more than {limits.body:,} bytes")
    if not unpack.eof or unpack.unused_data:  # a second part would be passed over without a word
        raise Malformed("the body is not whole gzip", hint="send it again")
    return plain


def may_send(engine: Engine, origin: str) -> bool:
    """Whether pages of an origin may send events to a shop, by its ``[collect]`` settings."""
    try:
        origins = engine.shop.config.collect.origins
    except PenchantError:  # the folder is no shop yet
        return False
    return "*" in origins or origin in origins


def _same_place(scope: Scope, origin: str) -> bool:
    return origin.partition("://")[2] == header(scope, b"host")


def cors_headers(origin: str) -> list[tuple[bytes, bytes]]:
    """What tells a browser that the page may read the answer."""
    return [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin")]


PREFLIGHT = (
    (b"access-control-allow-methods", b"POST"),
    (b"access-control-allow-headers", b"Authorization, Content-Type"),
    (b"access-control-max-age", b"600"),
)
