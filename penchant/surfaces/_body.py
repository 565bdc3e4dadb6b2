"""What a client sends, received within limits: a JSON body, or multipart parts written straight to files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import Receive, Scope

from penchant.core.errors import InputError, Malformed, TooLarge

MEGABYTE = 1_000_000
REQUEST_PART = "request"
_MOST_PARTS = 1000


@dataclass(frozen=True)
class Limits:
    """What a server takes from one request.

    Args:
        body: Bytes of a JSON request.
        upload: Bytes of a request with files.
        seconds: How long a client may pause while it sends.
        waiting: Requests of visitors that may wait for an answer; the next is refused with 429. Sixteen times as
            many requests with events may wait, for they share their commits.
        patience: Seconds after which a visitor's request that still waits is refused instead of answered late.
    """

    body: int = 5 * MEGABYTE
    upload: int = 4000 * MEGABYTE
    seconds: float = 30.0
    waiting: int = 64
    patience: float = 1.0


class RefusedError(Exception):
    """A request that HTTP itself forbids: too slow, of the wrong kind."""

    def __init__(self, status: int, error: InputError) -> None:
        super().__init__(str(error))
        self.status = status
        self.error = error


def header(scope: Scope, name: bytes) -> str:
    """The first value of a header, "" when there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return ""


async def chunks(scope: Scope, receive: Receive, most: int, seconds: float) -> AsyncIterator[bytes]:
    """The body piece by piece, never more than ``most`` bytes of it.

    Raises:
        TooLarge: It is.
        RefusedError: The client pauses too long (408).
    """
    announced = header(scope, b"content-length")
    if announced.isdigit() and int(announced) > most:
        raise _too_large(most)
    total = 0
    while True:
        try:
            async with asyncio.timeout(seconds):
                message = await receive()
        except TimeoutError:
            raise RefusedError(
                408, InputError("the request did not arrive in time", hint="send it again")
            ) from None
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        body: bytes = message.get("body", b"")
        total += len(body)
        if total > most:
            raise _too_large(most)
        if body:
            yield body
        if not message.get("more_body", False):
            return


async def read_body(scope: Scope, receive: Receive, limits: Limits) -> bytes:
    """A whole small body."""
    return b"".join([chunk async for chunk in chunks(scope, receive, limits.body, limits.seconds)])


def _too_large(most: int) -> TooLarge:
    return TooLarge(
        "the request is too large", value=f"more than {most:,} bytes", hint="send it in smaller parts"
    )


@dataclass
class Parts:
    """A multipart request: its JSON part, and its files by field."""

    request: bytes = b""
    files: dict[str, list[Path]] = field(default_factory=dict)


class _Writer:
    """Takes the parser's events and writes file parts to ``folder/<field>/<number>/<name>``."""

    def __init__(self, folder: Path, fields: frozenset[str], most_json: int) -> None:
        self.folder = folder
        self.fields = fields
        self.most_json = most_json
        self.parts = Parts()
        self.count = 0
        self._json = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._key = b""
        self._value = b""
        self._file: IO[bytes] | None = None

    def callbacks(self) -> dict[str, Callable[..., Any]]:
        """What the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        self.count += 1
        if self.count > _MOST_PARTS:
            raise InputError(
                "the request has too many parts", value=self.count, hint="send fewer files at a time"
            )
        self._headers = {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._key += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._key.lower()] = self._value
        self._key = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = str(options.get(b"name", b""), "utf-8", "replace")
        if name == REQUEST_PART:
            return
        if name not in self.fields:
            wanted = ", ".join([REQUEST_PART, *sorted(self.fields)])
            raise InputError(
                "the request has a part of an unknown name", value=name, hint=f"parts are: {wanted}"
            )
        found = self.parts.files.setdefault(name, [])
        path = (
            self.folder
            / name
            / str(len(found))
            / safe_name(str(options.get(b"filename", b""), "utf-8", "replace"))
        )
        path.parent.mkdir(parents=True)
        self._file = path.open("wb")
        found.append(path)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
            return
        self._json += data[start:end]
        if len(self._json) > self.most_json:
            raise _too_large(self.most_json)

    def _end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def close(self) -> Parts:
        """The parts, all files closed."""
        self._end()
        self.parts.request = bytes(self._json)
        return self.parts


async def read_parts(
    scope: Scope, receive: Receive, *, folder: Path, fields: frozenset[str], limits: Limits, pool: Executor
) -> Parts:
    """Receive a multipart request; its files go to disk as they come, outside the event loop.

    Args:
        folder: Where the files go.
        fields: Names that file parts may have.
        pool: Threads that write.

    Raises:
        Malformed: It is not well-formed multipart.
        InputError: A part has an unknown name.
        TooLarge: It is.
        RefusedError: It is too slow.
    """
    _, options = parse_options_header(header(scope, b"content-type"))
    boundary = options.get(b"boundary", b"")
    writer = _Writer(folder, fields, limits.body)
    loop = asyncio.get_running_loop()
    try:
        parser = MultipartParser(boundary, writer.callbacks())  # type: ignore[arg-type]
        async for chunk in chunks(scope, receive, limits.upload, limits.seconds):
            await loop.run_in_executor(pool, parser.write, chunk)
        parser.finalize()
    except MultipartParseError as error:
        raise Malformed(
            "the request is not well-formed multipart/form-data", value=str(error)[:100], hint="use a library"
        ) from None
    finally:
        parts = writer.close()
    return parts


def safe_name(name: str) -> str:
    """The last part of a path that a client gave, fit to be a file name here.

    Example:
        >>> safe_name("../../etc/pass wd"), safe_name("C:\\\\logs\\\\may.csv"), safe_name(".."), safe_name("")
        ('pass wd', 'may.csv', 'file', 'file')
    """
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(char for char in last if char.isprintable())
    while len(kept.encode()) > 200:  # the suffix tells the format: shorten from the front
        kept = kept[1:]
    kept = kept.strip()
    return kept if kept.strip(".") else "file"
