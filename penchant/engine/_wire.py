"""How answers and errors leave the process: problem details (RFC 9457) and back to the same class.

Shared by the HTTP server, the remote client and the job records.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec

from penchant.core import Noun
from penchant.core.errors import PenchantError

RESPONSE_HEADER = "Penchant-Response"  # holds the response where the body of an answer is a file
UNEXPECTED = "something went wrong inside penchant"
_LONGEST = 500  # characters of a value that travels


class Problem(Noun, frozen=True, omit_defaults=True):
    """One error as JSON (``application/problem+json``).

    ``type`` points at the entry of the reference page; ``code`` names the class of the error tree; ``detail``
    is the whole message for people, made of ``title``, ``value``, ``path`` and ``hint``.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    value: Any = None
    path: str | None = None
    hint: str | None = None
    proposal: dict[str, Any] | None = None  # a mapping for unknown columns


def error_classes() -> dict[str, type[PenchantError]]:
    """Every class of the error tree by its code."""
    return {kind.code: kind for kind in _descend(PenchantError)}


def _descend(kind: type[PenchantError]) -> Iterator[type[PenchantError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _descend(child)


def problem_of(error: BaseException, *, status: int | None = None) -> Problem:
    """Describe an error for the outside; one that is not of our tree says nothing about the inside."""
    if not isinstance(error, PenchantError):
        hint = "the operator finds it in the server's log"
        error = PenchantError(f"{UNEXPECTED} ({type(error).__name__})", hint=hint)
    proposal = getattr(error, "proposal", None)
    return Problem(
        type=f"/docs#error-{error.code}",
        title=error.message,
        status=status or error.status,
        detail=str(error),
        code=error.code,
        value=_plain(error.value),
        path=error.path,
        hint=error.hint,
        proposal=None if proposal is None else msgspec.to_builtins(proposal),
    )


def error_of(problem: Problem) -> PenchantError:
    """Rebuild the error, of the class it had; of the base class when the code is not known here."""
    kind = error_classes().get(problem.code, PenchantError)
    error = kind.__new__(kind)
    PenchantError.__init__(error, problem.title, value=problem.value, hint=problem.hint, path=problem.path)
    if problem.proposal is not None:
        from penchant.data import Mapping as ColumnMapping

        error.proposal = msgspec.convert(problem.proposal, ColumnMapping)  # type: ignore[attr-defined]
    return error


def _plain(value: object) -> Any:
    """The offending value as JSON, shortened."""
    try:
        encoded = msgspec.json.encode(value)
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
        return str(value)[:_LONGEST]
    if len(encoded) <= _LONGEST:
        return msgspec.json.decode(encoded)
    return value[:_LONGEST] if isinstance(value, str) else str(value)[:_LONGEST]


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """Put the caller's file names in place of our temporary paths, anywhere in JSON-ready values.

    Example:
        >>> renamed({"out": "/tmp/x/r.csv", "note": "wrote /tmp/x/r.csv"}, {"/tmp/x/r.csv": "r.csv"})
        {'out': 'r.csv', 'note': 'wrote r.csv'}
    """
    if isinstance(value, str):
        for path, name in names.items():
            if path in value:
                value = value.replace(path, name)
        return value
    if isinstance(value, dict):
        return {renamed(key, names): renamed(inner, names) for key, inner in value.items()}
    return [renamed(inner, names) for inner in value] if isinstance(value, list) else value


def renamed_problem(error: BaseException, names: Mapping[str, str]) -> Problem:
    """Describe an error with the caller's file names in place of our temporary paths."""
    return msgspec.convert(renamed(msgspec.to_builtins(problem_of(error)), names), Problem)


def alternatives(response: Any) -> tuple[Any, ...]:
    """The types a response may have: the members of a union, or the one type.

    Example:
        >>> alternatives(int | str), alternatives(list[int])
        ((<class 'int'>, <class 'str'>), (list[int],))
    """
    return get_args(response) if get_origin(response) in {Union, UnionType} else (response,)


def decode_response(response: Any, value: Any) -> Any:
    """Read an answer strictly as its type; of a union, as the first member that fits.

    Raises:
        msgspec.ValidationError: It is none of them.
    """
    members = alternatives(response)
    for member in members[:-1]:
        try:
            return msgspec.convert(value, member)
        except msgspec.ValidationError:
            continue
    return msgspec.convert(value, members[-1])


def trace_of(error: BaseException) -> str:
    """Where an unexpected error arose: class, files, lines and functions, but no message.

    A message may quote data of a person; a log must not.
    """
    lines = []
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        lines.append(f"{type(cause).__module__}.{type(cause).__qualname__}")
        for frame in traceback.extract_tb(cause.__traceback__):
            lines.append(f"  {_short(frame.filename)}:{frame.lineno} in {frame.name}")
        cause = cause.__cause__ or cause.__context__
    return "\n".join(lines)


def _short(filename: str) -> str:
    """The last three parts of a path: enough to find the line, without a home folder's name."""
    return "/".join(Path(filename).parts[-3:])
