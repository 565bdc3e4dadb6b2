"""The operation table: one decorated method is a Python call, a CLI command, a REST route and a client call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, Protocol, TypeVar, get_type_hints, overload

import msgspec
from msgspec import Meta

from penchant.core.errors import InputError
from penchant.engine._json import strict_json
from penchant.engine._refusal import refusal

Scope = Literal["write", "serve", "manage", "govern"]
QUICK: frozenset[Scope] = frozenset({"write", "serve"})  # what a shop's pages call: answered in milliseconds

# Markers on request fields. A file field is a path in Python and on the command line; over HTTP an input
# file travels as a multipart part of the field's name, and an output file as the body of the answer.
InFile = Annotated[str, Meta(description="path of a file to read", extra={"file": "in"})]
OutFile = Annotated[str, Meta(description="path of a file to write", extra={"file": "out"})]
POSITIONAL = {"positional": True}

Req = TypeVar("Req", bound=msgspec.Struct)
Res = TypeVar("Res")


@dataclass(frozen=True)
class Operation:
    """One row of the table.

    ``job`` operations may take longer than a request should: over HTTP they answer 202 with a job id.
    ``creates_shop`` marks the one that works on a folder that is no shop yet. ``isolated`` jobs only read the
    store and may load heavy libraries: a server runs them in a process of their own, on a read-only engine.
    ``reads`` is what a request is read as where that is wider than ``request``, because parts of it are judged
    one by one. ``together`` names a method of the engine that answers several requests at once, for less.
    """

    name: str
    scope: Scope
    request: type[msgspec.Struct]
    response: Any
    summary: str
    description: str
    job: bool
    creates_shop: bool
    isolated: bool = False
    reads: type[msgspec.Struct] | None = None
    together: str | None = None

    def parse(self, body: bytes) -> msgspec.Struct:
        """Read a JSON request strictly; an error names the field.

        Raises:
            Malformed: The body is no JSON of one meaning.
            InputError: A field is unknown, missing or of the wrong type, or a number cannot be kept.
        """
        given = strict_json(body or b"{}", wide=True)
        try:
            return _checked(msgspec.convert(given, self.reads or self.request))
        except msgspec.ValidationError as error:
            raise refusal(self.name, self.request, error, given) from None

    def build(self, **fields: Any) -> msgspec.Struct:
        """Make a request from keyword arguments, converting strictly.

        Raises:
            InputError: A field is unknown, missing or of the wrong type.
        """
        try:
            return _checked(msgspec.convert(fields, type=self.reads or self.request))
        except msgspec.ValidationError as error:
            raise refusal(self.name, self.request, error, fields) from None

    def file_fields(self, direction: Literal["in", "out"]) -> list[str]:
        """Names of the request fields that are files to read ("in") or to write ("out")."""
        found = []
        for field in msgspec.inspect.type_info(self.request).fields:  # type: ignore[attr-defined]
            if any(extra.get("file") == direction for extra in _extras(field.type)):
                found.append(field.encode_name)
        return found

    @cached_property
    def names_people(self) -> bool:
        """Whether its request may name one person."""
        return "anonymous_id" in self.request.__struct_fields__

    @cached_property
    def outputs(self) -> list[str]:
        """Names of the fields that are files to write, looked up once: every call asks."""
        return self.file_fields("out")

    def prepare_outputs(self, request: msgspec.Struct) -> None:
        """Make the folders of the files to write, and refuse what is no file, before any work is done.

        Raises:
            InputError: A path names no file, or its folder cannot be made.
        """
        for name in self.outputs:
            given = getattr(request, name)
            if given is None:
                continue
            path = Path(given)
            try:
                if not path.name or path.is_dir():
                    raise InputError(
                        "this names no file to write",
                        value=given,
                        path=f"$.{name}",
                        hint="give the path of a file",
                    )
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(
                    f"the folder of this file cannot be made: {error.strerror}",
                    value=given,
                    path=f"$.{name}",
                    hint="give another path",
                ) from None

    def file_words(self) -> dict[str, tuple[str, ...]]:
        """Texts that an input file field takes in place of a path, such as ``all``."""
        fields = msgspec.inspect.type_info(self.request).fields  # type: ignore[attr-defined]
        words = {f.encode_name: [w for e in _extras(f.type) for w in e.get("words", ())] for f in fields}
        return {name: tuple(found) for name, found in words.items() if found}


def _checked(request: Any) -> msgspec.Struct:
    """Apply what a request asks of its fields together."""
    if hasattr(request, "check"):
        request.check()
    return request  # type: ignore[no-any-return]


def _extras(kind: Any) -> Iterator[dict[str, Any]]:
    """All ``Meta.extra`` dictionaries on a field's type, through unions and lists."""
    if isinstance(kind, msgspec.inspect.Metadata):
        if kind.extra:
            yield kind.extra
        yield from _extras(kind.type)
    elif isinstance(kind, msgspec.inspect.UnionType):
        for member in kind.types:
            yield from _extras(member)
    elif isinstance(kind, msgspec.inspect.ListType):
        yield from _extras(kind.item_type)


class Remote(Protocol):
    """Sends an operation to a server (implemented by the remote client)."""

    def call(self, operation: Operation, request: msgspec.Struct) -> Any:
        """Run it there and give back the response, or raise the error the server gave."""
        ...


OPERATIONS: dict[str, Operation] = {}
"""Every operation that exists, in order of definition."""


class OperationMethod(Generic[Req, Res]):
    """A method of the engine that is in the table. Call it with a request, or with the request's fields.

    Example:
        ``engine.recommend(RecommendRequest(user_id="u1"))`` equals ``engine.recommend(user_id="u1")``.
    """

    def __init__(self, function: Callable[[Any, Req], Res], operation: Operation) -> None:
        self.function = function
        self.operation = operation
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__

    @overload
    def __get__(self, engine: None, owner: type) -> OperationMethod[Req, Res]: ...
    @overload
    def __get__(self, engine: object, owner: type) -> BoundOperation[Req, Res]: ...
    def __get__(
        self, engine: object | None, owner: type
    ) -> OperationMethod[Req, Res] | BoundOperation[Req, Res]:
        return self if engine is None else BoundOperation(self, engine)


class BoundOperation(Generic[Req, Res]):
    """An operation of one engine."""

    def __init__(self, method: OperationMethod[Req, Res], engine: object) -> None:
        self._method = method
        self._engine = engine
        self.__doc__ = method.__doc__

    def __repr__(self) -> str:
        return f"<operation {self._method.operation.name}: {self._method.operation.summary}>"

    @property
    def __signature__(self) -> inspect.Signature:
        """The request's fields, for notebooks and editors that ask."""
        return inspect.Signature(
            [
                inspect.Parameter(
                    field.name, inspect.Parameter.KEYWORD_ONLY, default=_default(field), annotation=field.type
                )
                for field in msgspec.structs.fields(self._method.operation.request)
            ]
        )

    def __call__(self, request: Req | None = None, /, **fields: Any) -> Res:
        operation = self._method.operation
        if request is None:
            request = operation.build(**fields)  # type: ignore[assignment]
        elif fields:
            raise InputError(
                f"{operation.name} takes a request or fields, not both", hint="drop one of the two"
            )
        else:
            _checked(request)
        return self._engine._run(operation, self._method.function, request)  # type: ignore[attr-defined,no-any-return]


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is msgspec.NODEFAULT else field.default


def operation(
    *,
    scope: Scope,
    job: bool = False,
    creates_shop: bool = False,
    isolated: bool = False,
    reads: type[msgspec.Struct] | None = None,
    together: str | None = None,
) -> Callable[[Callable[[Any, Req], Res]], OperationMethod[Req, Res]]:
    """Enter a method of the engine into the table. Its annotations give the request and response types.

    Args:
        scope: Which keys may call it: ``write`` (events), ``serve``, ``manage`` or ``govern``.
        job: Whether it may run long (HTTP answers 202 and a job id).
        creates_shop: Whether it works on a folder that is no shop yet.
        isolated: Whether a server runs the job in its own process, because it only reads the store.
        reads: A wider kind of the request, in which parts that do not fit are refused one by one.
        together: The method that takes a list of requests and gives a list of answers, or errors in their place.
    """

    def enter(function: Callable[[Any, Req], Res]) -> OperationMethod[Req, Res]:
        hints = get_type_hints(function, include_extras=True)
        response = hints.pop("return")
        (request,) = (hints[name] for name in inspect.signature(function).parameters if name != "self")
        doc = inspect.getdoc(function) or ""
        summary, _, description = doc.partition("\n")
        row = Operation(
            function.__name__,
            scope,
            request,
            response,
            summary.strip(),
            description.strip(),
            job,
            creates_shop,
            isolated,
            reads,
            together,
        )
        OPERATIONS[row.name] = row
        return OperationMethod(function, row)

    return enter
