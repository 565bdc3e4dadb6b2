"""Command-line parameters from the fields of a request, and a request from what was typed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from penchant.core.errors import InputError, UnreadableFile
from penchant.engine import Operation
from penchant.surfaces._fields import Field, fields_of

_TYPES: dict[str, click.ParamType[Any]] = {"int": click.INT, "float": click.FLOAT}
_SOURCE = click.core.ParameterSource


def parameters(request: type[msgspec.Struct]) -> list[click.Parameter]:
    """The parameters of a command: arguments for positional fields, options for the others.

    An optional positional field can be given as an option too, so that ``--user-id`` works everywhere.
    """
    fields = fields_of(request)
    made: list[click.Parameter] = [_argument(field) for field in fields if field.positional]
    made += [_option(field) for field in fields if not field.positional]
    made += [
        click.Option([_flag(field.name), _alias(field.name)], hidden=True, expose_value=True)
        for field in fields
        if field.positional and not field.required
    ]
    return made


def argument_help(request: type[msgspec.Struct]) -> list[tuple[str, str]]:
    """What the arguments of a command mean (click itself only describes options)."""
    return [(_metavar(field), _help(field)) for field in fields_of(request) if field.positional]


def request_fields(request: type[msgspec.Struct], context: click.Context) -> dict[str, Any]:
    """What was typed, by field; what was not typed is left to the struct's own defaults.

    Raises:
        InputError: JSON text cannot be read, or a value was given twice.
    """
    given: dict[str, Any] = {}
    for field in fields_of(request):
        value = _typed(context, field.name)
        other = _typed(context, _alias(field.name))
        if other is not None:
            if value is not None:
                raise InputError(f"{field.name} was given twice", value=other, hint="give it once")
            value = other
        if value is None:
            continue
        given[field.name] = _json_value(field, value) if field.shape == "json" else _plain(field, value)
    return given


def command_line(operation: Operation, fields: Mapping[str, Any], *, where: str) -> list[str]:
    """Write a request as the words of a command line, without the name of the program.

    Args:
        operation: A row of the table.
        fields: Its request's fields, JSON-ready.
        where: The shop's folder.
    """
    words = [operation.name.replace("_", "-")]
    positional: list[str] = []
    for field in fields_of(operation.request):
        if fields.get(field.name) is None:
            continue
        value = fields[field.name]
        if field.shape == "bool":
            words.append(_flag(field.name) if value else "--no-" + _flag(field.name)[2:])
            continue
        values = value if field.many and field.shape != "json" else [value]
        for one in values:
            text = msgspec.json.encode(one).decode() if field.shape == "json" else str(one)
            if field.positional:
                positional.append(text)
            else:
                words += [_flag(field.name), text]
    words += [] if operation.creates_shop else ["--shop", where]
    positional += [where] if operation.creates_shop else []
    dashes = ["--"] if any(text.startswith("-") for text in positional) else []
    return [*words, *dashes, *positional]


def _typed(context: click.Context, name: str) -> Any:
    if name not in context.params or context.get_parameter_source(name) is _SOURCE.DEFAULT:
        return None
    return context.params[name]


def _plain(field: Field, value: Any) -> Any:
    """What was typed, as it is; only a file's name may be bytes that are no text.

    Raises:
        InputError: The terminal sent bytes that are not UTF-8.
    """
    values = list(value) if field.many else [value]
    for text in values if field.file is None else ():
        if isinstance(text, str) and any("\ud800" <= char <= "\udfff" for char in text):
            shown = text.encode("utf-8", "replace").decode()
            raise InputError(
                f"{_flag(field.name)} is not valid UTF-8", value=shown, hint="set the terminal to UTF-8"
            )
    return values if field.many else value


def _alias(name: str) -> str:
    return f"option_{name}"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _metavar(field: Field) -> str:
    if field.file:
        name = "FILE"
    elif field.shape == "json":
        name = "JSON"
    else:
        name = field.name.upper()
    if field.positional and field.many:
        name += "..."
    return f"[{name}]" if field.positional and not field.required else name


def _help(field: Field) -> str:
    words = [field.description] if field.description else []
    notes = []
    if field.shape == "json":
        notes.append("JSON, JSON lines, @FILE, or - for standard input")
    if field.many and not field.positional and field.shape != "json":
        notes.append("may be repeated")
    if field.limits and not field.many:
        notes.append(field.limits)
    if field.default not in (None, [], "") and field.shape != "bool":
        notes.append(f"default: {field.default}")
    return " ".join([*words, f"[{'; '.join(notes)}]" if notes else ""]).strip()


def _type(field: Field) -> click.ParamType[Any]:
    if field.choices:
        return click.Choice(field.choices)
    return _TYPES.get(field.shape, click.STRING)


def _argument(field: Field) -> click.Argument:
    return click.Argument(
        [field.name],
        type=_type(field),
        nargs=-1 if field.many else 1,
        required=field.required,
        metavar=_metavar(field),
    )


def _option(field: Field) -> click.Option:
    flag = _flag(field.name)
    if field.shape == "bool" and not field.many:
        names = [f"{flag}/--no-{flag[2:]}", field.name]
        return click.Option(names, default=bool(field.default), show_default=True, help=field.description)
    return click.Option(
        [flag, field.name],
        type=_type(field),
        multiple=field.many and field.shape != "json",
        required=field.required,
        show_default=False,
        metavar=None if field.choices or field.shape in _TYPES else _metavar(field),
        help=_help(field),
    )


def _json_value(field: Field, text: str) -> Any:
    """Values of a JSON option: a list, one object, or JSON lines; from the text, a file or standard input."""
    content = _content(text)
    try:
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        value = _json_lines(field, content, error) if field.many else None
        if value is None:
            raise InputError(
                f"{_flag(field.name)} is not valid JSON",
                value=str(error)[:200],
                hint="give a JSON list, JSON lines, @FILE or -",
            ) from None
    return [value] if field.many and not isinstance(value, list) else value


def _json_lines(field: Field, content: bytes, error: Exception) -> list[Any] | None:
    lines = [line for line in content.splitlines() if line.strip()]
    if len(lines) < 2 or content.lstrip().startswith(b"["):
        return None
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(msgspec.json.decode(line))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as wrong:
            raise InputError(
                f"{_flag(field.name)} has a line that is not valid JSON",
                value=str(wrong)[:200],
                path=f"line {number}",
                hint="correct that line",
            ) from error
    return found


def _content(text: str) -> bytes:
    if text == "-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return text.encode("utf-8", "surrogateescape")
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise UnreadableFile(
            f"the file cannot be read: {error.strerror}", value=text[1:], hint="check it"
        ) from None
