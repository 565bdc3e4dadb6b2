"""What to say about a request that does not fit its type: where, what was there, and what the place takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect as mi

from penchant.core.errors import InputError

_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")


def refusal(
    name: str, request: type[msgspec.Struct], error: msgspec.ValidationError, given: Any
) -> InputError:
    """The error of a request that was refused.

    Args:
        name: The operation.
        request: The type it did not fit.
        error: What msgspec said.
        given: The request as it came: plain values, or structs in them.

    Example:
        >>> class Ask(msgspec.Struct):
        ...     k: int
        >>> try:
        ...     msgspec.convert({"k": "two"}, Ask)
        ... except msgspec.ValidationError as error:
        ...     print(refusal("ask", Ask, error, {"k": "two"}).message, refusal("ask", Ask, error, {"k": "two"}).value)
        ask: Expected `int`, got `str` two
    """
    message, _, path = str(error).partition(" - at `")
    path = path.rstrip("`")
    kind: mi.Type | None = mi.type_info(request)
    for field, number in _STEP.findall(path):
        kind = next(_inside(kind, field), None)
        given = _entry(given, field or int(number))
    see = f"see `penchant {name.replace('_', '-')} --help` or the reference page"
    says = _names(kind) if "unknown field" in message else _meaning(kind)
    shown = isinstance(given, str | int | float) and repr(given) not in message
    return InputError(
        f"{name}: {message}",
        value=given if shown else None,
        path=path or None,
        hint=f"{says}; {see}" if says else see,
    )


def _entry(given: Any, key: str | int) -> Any:
    """What stands at a step of the path; None where that cannot be told."""
    if isinstance(given, dict):
        return given.get(key)
    if isinstance(key, int):
        return given[key] if isinstance(given, list | tuple) and key < len(given) else None
    return getattr(given, key, None)


def _members(kind: mi.Type | None) -> Iterator[mi.Type]:
    """A type, or those of a union, each with its description."""
    inner = kind.type if isinstance(kind, mi.Metadata) else kind
    if isinstance(inner, mi.UnionType):
        for member in inner.types:
            yield from _members(member)
    elif kind is not None:
        yield kind


def _bare(kind: mi.Type | None) -> Iterator[mi.Type]:
    for member in _members(kind):
        yield member.type if isinstance(member, mi.Metadata) else member


def _inside(kind: mi.Type | None, field: str) -> Iterator[mi.Type]:
    """The type of a struct's field, or of a list's entries (no ``field``)."""
    for part in _bare(kind):
        if field and isinstance(part, mi.StructType):
            yield from (one.type for one in part.fields if one.encode_name == field)
        elif not field and isinstance(part, mi.ListType):
            yield part.item_type


def _names(kind: mi.Type | None) -> str:
    """The fields there are."""
    structs = (part for part in _bare(kind) if isinstance(part, mi.StructType))
    return "fields: " + ", ".join(one.encode_name for struct in structs for one in struct.fields)


def _meaning(kind: mi.Type | None) -> str:
    """The few words a place takes, or else what it is for."""
    for part in _bare(kind):
        if isinstance(part, mi.EnumType):
            return "one of " + ", ".join(str(member.value) for member in part.cls)
        if isinstance(part, mi.LiteralType):
            return "one of " + ", ".join(map(str, part.values))
    for part in _members(kind):
        if isinstance(part, mi.Metadata) and part.extra_json_schema:
            return str(part.extra_json_schema.get("description", ""))
    return ""
