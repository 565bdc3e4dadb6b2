"""A request struct as its surfaces see it: one ``Field`` a parameter, read from the annotations alone."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import msgspec
import msgspec.inspect as mi

from penchant.engine import alternatives

Shape = Literal["bool", "int", "float", "str", "choice", "json"]

_MISSING: Any = msgspec.NODEFAULT
_SIMPLE: dict[type, tuple[Shape, str]] = {
    mi.BoolType: ("bool", "yes or no"),
    mi.IntType: ("int", "whole number"),
    mi.FloatType: ("float", "number"),
    mi.StrType: ("str", "text"),
    mi.DateType: ("str", "date"),
    mi.DateTimeType: ("str", "date and time (ISO 8601)"),
}
_COMMENT = re.compile(r"^    (\w+): [^#\n]*?  # (.+)$", re.MULTILINE)
_LIMITS = (("ge", "at least {}"), ("gt", "more than {}"), ("le", "at most {}"), ("lt", "less than {}"))
_SIZES = (("min_length", "at least {:,} {}"), ("max_length", "at most {:,} {}"))


@dataclass(frozen=True)
class Field:
    """One field of a struct, with everything a surface says or checks about it."""

    name: str
    shape: Shape
    type: str  # in words, such as "list of text"
    required: bool
    default: Any  # None where there is none
    description: str
    choices: tuple[str, ...]
    many: bool  # a list of ``shape``
    positional: bool
    file: Literal["in", "out"] | None
    words: tuple[str, ...]  # texts a file field takes that are not paths
    limits: str  # in words, such as "at least 1, at most 1000"
    example: Any  # a value for documentation, None where nothing sensible is known


@cache
def fields_of(struct: type[msgspec.Struct]) -> tuple[Field, ...]:
    """Read the fields of a struct, in order of definition."""
    info = mi.type_info(struct)
    if not isinstance(info, mi.StructType):  # a ``Struct`` is always that; tells the type checker so
        raise TypeError(struct)
    return tuple(_field(row) for row in info.fields)


@cache
def explained(struct: type[msgspec.Struct]) -> tuple[Field, ...]:
    """The same fields for documentation; where there is no description, the comment in the source serves."""
    comments: dict[str, str] = {}
    for parent in reversed(struct.__mro__):
        with contextlib.suppress(OSError, TypeError):
            if parent.__module__.startswith("penchant"):
                comments.update(_COMMENT.findall(inspect.getsource(parent)))
    return tuple(
        replace(row, description=row.description or comments.get(row.name, "")) for row in fields_of(struct)
    )


def example_of(request: type[msgspec.Struct]) -> dict[str, Any]:
    """A small request for documentation: what is required, and what has an example of its own."""
    return {field.name: field.example for field in fields_of(request) if field.example is not None}


def structs_in(*kinds: Any) -> list[type[msgspec.Struct]]:
    """Every struct that some types are made of, in order of first appearance."""
    found: dict[type[msgspec.Struct], None] = {}
    todo: list[mi.Type] = [mi.type_info(one) for kind in kinds for one in alternatives(kind)]
    while todo:
        kind = todo.pop(0)
        if isinstance(kind, mi.StructType):
            if kind.cls not in found:
                found[kind.cls] = None
                todo += [field.type for field in kind.fields]
        elif isinstance(kind, mi.Metadata):
            todo.insert(0, kind.type)
        elif isinstance(kind, mi.UnionType):
            todo += kind.types
        elif isinstance(kind, mi.ListType | mi.VarTupleType):
            todo.append(kind.item_type)
        elif isinstance(kind, mi.DictType):
            todo.append(kind.value_type)
    return list(found)


def _field(row: mi.Field) -> Field:
    described = "".join(_schema(row.type, "description"))
    extras = list(_extras(row.type))
    bare = _bare(row.type)
    many = isinstance(bare, mi.ListType)
    inner = _bare(bare.item_type) if isinstance(bare, mi.ListType) else bare
    shape, words = _shape(inner)
    default = row.default
    if default is _MISSING:
        default = None if row.default_factory is _MISSING else row.default_factory()
    return Field(
        name=row.encode_name,
        shape=shape,
        type=f"list of {words}" if many else words,
        required=row.required,
        default=default,
        description=described,
        choices=_choices(inner),
        many=many,
        positional=any(extra.get("positional") for extra in extras),
        file=next((extra["file"] for extra in extras if "file" in extra), None),
        words=tuple(word for extra in extras for word in extra.get("words", ())),
        limits=", ".join(_limits(bare)),
        example=_example(row, shape, many, inner),
    )


def _example(row: mi.Field, shape: Shape, many: bool, inner: mi.Type) -> Any:
    for examples in _schema(row.type, "examples"):
        return examples[0]
    if not row.required:
        return None
    plain = {"bool": True, "int": 1, "float": 1.0, "str": f"SOME_{row.encode_name.upper()}", "choice": None}
    value = plain.get(shape)
    if isinstance(inner, mi.StructType):
        value = example_of(inner.cls)
    elif shape == "choice":
        value = _choices(inner)[0]
    return [value] if many else value


def _bare(kind: mi.Type) -> mi.Type:
    """The type without its metadata and without None."""
    while True:
        if isinstance(kind, mi.Metadata):
            kind = kind.type
        elif isinstance(kind, mi.UnionType):
            members = [member for member in kind.types if not isinstance(member, mi.NoneType)]
            if len(members) != 1:
                return kind
            kind = members[0]
        else:
            return kind


def _layers(kind: mi.Type) -> Iterator[mi.Metadata]:
    """The metadata on a field, outermost first, through None and into lists."""
    if isinstance(kind, mi.Metadata):
        yield kind
        yield from _layers(kind.type)
    elif isinstance(kind, mi.UnionType):
        for member in kind.types:
            yield from _layers(member)
    elif isinstance(kind, mi.ListType):
        yield from _layers(kind.item_type)


def _schema(kind: mi.Type, key: str) -> Iterator[Any]:
    """The outermost value of a key of the JSON schema, if any."""
    for layer in _layers(kind):
        if layer.extra_json_schema and key in layer.extra_json_schema:
            yield layer.extra_json_schema[key]
            return


def _extras(kind: mi.Type) -> Iterator[dict[str, Any]]:
    return (layer.extra for layer in _layers(kind) if layer.extra)


def _shape(kind: mi.Type) -> tuple[Shape, str]:
    if type(kind) in _SIMPLE:
        return _SIMPLE[type(kind)]
    if isinstance(kind, mi.LiteralType | mi.EnumType):
        return "choice", "one of " + ", ".join(_choices(kind))
    if isinstance(kind, mi.StructType):
        return "json", f"`{kind.cls.__name__}`"
    if isinstance(kind, mi.DictType):
        return "json", f"object of {_shape(_bare(kind.value_type))[1]}"
    if isinstance(kind, mi.ListType | mi.VarTupleType):
        return "json", f"list of {_shape(_bare(kind.item_type))[1]}"
    if isinstance(kind, mi.UnionType):
        return "json", " or ".join(_shape(_bare(member))[1] for member in kind.types)
    return "json", "any value"


def _choices(kind: mi.Type) -> tuple[str, ...]:
    if isinstance(kind, mi.LiteralType):
        return tuple(str(value) for value in kind.values)
    return tuple(str(member.value) for member in kind.cls) if isinstance(kind, mi.EnumType) else ()


def _limits(kind: mi.Type) -> Iterator[str]:
    for name, words in _LIMITS:
        if (value := getattr(kind, name, None)) is not None:
            yield words.format(f"{value:.15g}")
    unit = "entries" if isinstance(kind, mi.ListType) else "characters"
    for name, words in _SIZES:
        if (value := getattr(kind, name, None)) and value != 1:
            yield words.format(value, unit)
    if (pattern := getattr(kind, "pattern", None)) is not None:
        yield f"pattern {pattern}"
