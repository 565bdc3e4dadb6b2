"""JSON as it comes from outside: one meaning or none."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import msgspec

from penchant.core.errors import InputError, Malformed, TooLarge

_LEAST, _MOST = -(1 << 63), 1 << 64  # whole numbers that files can hold
_APART = re.compile(rb"\s:")


def strict_json(body: bytes, *, wide: bool = False) -> Any:
    """Read JSON in which every name comes once in its object, every number fits and every text is Unicode.

    Args:
        body: The JSON.
        wide: Let whole numbers beyond 64 bits pass, for callers that look at the numbers one by one.

    Raises:
        Malformed: It is no such JSON.
        InputError: It holds a number that cannot be kept: not finite, or a whole one beyond 64 bits.

    Example:
        >>> strict_json(b'{"a": [1, 2.5]}')
        {'a': [1, 2.5]}
        >>> try:
        ...     strict_json(b'{"k": 1, "k": 2}')
        ... except Malformed as error:
        ...     print(error)
        a name comes twice in one object (got 'k'): send each once
    """
    try:
        value = msgspec.json.decode(body)
        # Each name of the body ends with `":`, where nothing stands between the two. No more of them than the value has
        # names: none was dropped, and the slow reader has nothing to find.
        if body.count(b'":') == _names_in(value, wide) and not _APART.search(body):
            return value
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        pass  # the slow reader says why
    return _read_slowly(body, wide)


def _names_in(value: Any, wide: bool) -> int:
    """How many names all objects in a value have; -1 where a whole number is beyond 64 bits."""
    count = 0
    inner = [[value]]
    while inner:
        for one in inner.pop():
            kind = type(one)
            if kind is dict:
                count += len(one)
                inner.append(one.values())
            elif kind is list:
                inner.append(one)
            elif kind is int and not wide and not _LEAST <= one < _MOST:
                return -1
    return count


def _read_slowly(body: bytes, wide: bool) -> Any:
    try:
        value = json.loads(
            body.decode(),
            object_pairs_hook=_once,
            parse_constant=_no_number,
            parse_int=int if wide else _whole,
            parse_float=_number,
        )
        if b"\\u" in body:  # half a surrogate pair is a text that no file can hold
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise Malformed("the request is nested too deeply", hint="send a flat object") from None
    except InputError:
        raise
    except (UnicodeError, ValueError) as error:
        message = str(error).partition(": line")[0][:200] if isinstance(error, json.JSONDecodeError) else None
        raise Malformed(
            "the request is not valid JSON", value=message, hint="send one JSON object in UTF-8"
        ) from None
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise Malformed("a name comes twice in one object", value=twice[:100], hint="send each once")
    return found


def _no_number(text: str) -> Any:
    raise InputError("a number must be finite", value=text, hint="leave it out")


def _whole(text: str) -> int:
    if len(text) > 20 or not _LEAST <= (value := int(text)) < _MOST:
        raise InputError("a whole number is too large", value=text[:30], hint="send it as text")
    return value


def _number(text: str) -> float:
    value = float(text)
    return value if abs(value) != float("inf") else _no_number(text[:30])


def check_number(count: int, most: int, what: str) -> None:
    """Refuse a request that holds more of something than it may.

    Raises:
        TooLarge: It does.
    """
    if count > most:
        raise TooLarge(f"too many {what} in one request", value=count, hint=f"send at most {most} at a time")
