"""The collector: events from the libraries that shops already have, at the addresses those libraries call.

Segment and RudderStack libraries speak ``/v1/track``, ``/v1/batch`` and the like, with a write key as the user name of
Basic authentication; GA4's Measurement Protocol speaks ``/mp/collect``. What they say goes to the one operation
``collect``, so their events meet the same rules as every other.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections import Counter
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from penchant.core.errors import InputError, PenchantError
from penchant.engine import CollectReport, CollectRequest, Engine, MessageForm, trace_of
from penchant.surfaces._body import Limits, RefusedError, header, read_body
from penchant.surfaces._endpoints import Server
from penchant.surfaces._gate import require
from penchant.surfaces._send import send_json, send_problem

log = logging.getLogger("penchant.http")

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
        try:
            await self._respond(scope, receive, send)
        except ConnectionResetError:
            return
        except RefusedError as refused:
            await send_problem(send, refused.error, status=refused.status)
        except PenchantError as error:
            await send_problem(send, error)
        except Exception as error:  # an answer without a trace; the log gets it without data
            log.error("collecting failed unexpectedly\n%s", trace_of(error))
            await send_problem(send, error)

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
        if len(found) > _MOST:
            raise _too_many(len(found), _MOST)
        around = {name: body[name] for name in ("sentAt", "context") if body.get(name) is not None}
        return [{**around, **message} if isinstance(message, dict) else message for message in found]

    async def _measurement(self, scope: Scope, body: dict[str, Any], size: int, send: Send) -> None:
        """GA4's Measurement Protocol."""
        events = body.get("events")
        if not isinstance(events, list):
            raise InputError("a request needs its events", path="$.events", hint="send a list of at most 25")
        if len(events) > _MOST_GA4:
            raise _too_many(len(events), _MOST_GA4)
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
        return strict_json(body), len(body)


class _Collected(msgspec.Struct):
    """The answer of the collector: ``success`` is what the libraries look for."""

    success: bool
    stored: int
    results: list[Any]


def _too_many(count: int, most: int) -> RefusedError:
    error = InputError(
        "too many messages in one request", value=count, hint=f"send at most {most:,} at a time"
    )
    return RefusedError(413, error)


def gunzip(body: bytes, limits: Limits) -> bytes:
    """Unpack a gzip body that stays within the limits when unpacked.

    Raises:
        RefusedError: It grows beyond them (413).
        InputError: It is not gzip, cut off, or more than one.
    """
    unpack = zlib.decompressobj(wbits=31)
    try:
        plain = unpack.decompress(body, limits.body + 1)
    except zlib.error:
        plain = b""
    if len(plain) > limits.body:
        error = InputError("the request is too large unpacked", value=f"more than {limits.body:,} bytes")
        raise RefusedError(413, error)
    if not unpack.eof or unpack.unused_data:  # a second part would be passed over without a word
        raise RefusedError(400, InputError("the body is not whole gzip", hint="send it again"))
    return plain


def strict_json(body: bytes) -> dict[str, Any]:
    """Read a JSON object in which every name comes once, every number fits and every text is Unicode.

    Raises:
        RefusedError: It is not such an object: 400, or 422 for a number that cannot be kept.

    Example:
        >>> strict_json(b'{"a": [1, 2.5]}')
        {'a': [1, 2.5]}
    """
    try:
        value = json.loads(
            body.decode(),
            object_pairs_hook=_once,
            parse_constant=_no_number,
            parse_int=_whole,
            parse_float=_number,
        )
        if b"\\ud" in body or b"\\uD" in body:  # half a surrogate pair: a text that no file can hold
            msgspec.json.encode(value)
    except RecursionError:
        raise RefusedError(
            400, InputError("the request is nested too deeply", hint="send a flat object")
        ) from None
    except (UnicodeError, ValueError) as error:
        message = str(error).partition(": line")[0][:200] if isinstance(error, json.JSONDecodeError) else None
        shown = InputError(
            "the request is not valid JSON", value=message, hint="send one JSON object in UTF-8"
        )
        raise RefusedError(400, shown) from None
    if not isinstance(value, dict):
        raise RefusedError(400, InputError("the request is not a JSON object", value=type(value).__name__))
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        error = InputError("a name comes twice in one object", value=twice[:100], hint="send each once")
        raise RefusedError(400, error)
    return found


def _no_number(text: str) -> Any:
    raise RefusedError(422, InputError("a number must be finite", value=text, hint="leave it out"))


def _whole(text: str) -> int:
    if len(text) > 20 or not -(1 << 63) <= (value := int(text)) < 1 << 64:
        raise RefusedError(
            422, InputError("a whole number is too large", value=text[:30], hint="send it as text")
        )
    return value


def _number(text: str) -> float:
    value = float(text)
    return value if abs(value) != float("inf") else _no_number(text[:30])


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
