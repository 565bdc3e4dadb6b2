"""JSON lines, or one JSON array of objects, object by object."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np

from penchant.core.errors import UnreadableFile
from penchant.data._source_chunks import Chunk, Lines
from penchant.data._source_text import TextFile

BLOCK = 8 << 20
_MAX_LINE = 32 << 20
_CHUNK_ROWS = 50_000
_decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode


class JsonReader:
    """Reads objects one by one; what is no object, or is damaged, is refused with its row number."""

    def __init__(self, text: TextFile) -> None:
        self._text = text

    def open(self) -> list[str]:
        """The keys of the first objects, in order of appearance."""
        columns: dict[str, None] = {}
        damaged = None
        for chunk in self._chunks(1000):
            for item in chunk.objects:
                columns.update(dict.fromkeys(item))
            if columns:
                return list(columns)
            damaged = damaged or next(iter(chunk.damaged), None)
        if damaged is not None:
            raise UnreadableFile(
                f"no row of the file can be read; row {damaged.row}: {damaged.detail}",
                hint="give one JSON object a line, or one array of objects",
            )
        return []

    def empty(self) -> Chunk:
        """A chunk without rows."""
        return Chunk(np.zeros(0, np.int64), objects=[])

    def chunks(self) -> Iterator[Chunk]:
        """At most 50,000 objects at a time."""
        return self._chunks(_CHUNK_ROWS)

    def _chunks(self, size: int) -> Iterator[Chunk]:
        stream = self._text.open()
        lines = Lines()
        objects: list[dict[str, Any]] = []
        try:
            for raw, problem in _records(stream):
                item, wrong = (None, problem) if problem else _object(raw)
                if wrong or item is None:
                    lines.bad(wrong or "empty", raw)
                else:
                    lines.good()
                    objects.append(item)
                if len(objects) + len(lines.damaged) >= size:
                    yield Chunk(lines.rows(), objects=objects, damaged=lines.damaged)
                    lines, objects = Lines(lines.number), []
        finally:
            stream.close()
        if objects or lines.damaged:
            yield Chunk(lines.rows(), objects=objects, damaged=lines.damaged)


def _object(raw: bytes) -> tuple[dict[str, Any] | None, str | None]:
    try:
        item = _decode(raw)
    except RecursionError:
        return None, "nested too deeply"
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return None, str(error)[:200]
    if not isinstance(item, dict):
        return None, "not a JSON object"
    if raw.count(b'":') != _num_keys(item) and (twice := _repeated_key(raw)):
        return None, f"the key {twice!r} is given twice"
    return item, None


def _num_keys(item: Any) -> int:
    """Keys in all, nested ones included; cheap beside a second parse of every row."""
    if isinstance(item, dict):
        return len(item) + sum(_num_keys(v) for v in item.values() if isinstance(v, dict | list))
    return sum(_num_keys(v) for v in item if isinstance(v, dict | list))


def _repeated_key(raw: bytes) -> str | None:
    found: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> None:
        keys = [key for key, _ in items]
        if len(set(keys)) < len(keys):
            found.append(next(k for k in keys if keys.count(k) > 1))

    json.loads(raw, object_pairs_hook=pairs)
    return found[0] if found else None


def _records(stream: Any) -> Iterator[tuple[bytes, str | None]]:
    """The text of each object, and a problem when it cannot even be cut out."""
    first = b""
    while not first.strip():
        block = stream.read(BLOCK)
        if not block:
            return
        first = block.removeprefix(b"\xef\xbb\xbf")
    if first.lstrip()[:1] == b"[" and not _is_line_of_its_own(first):
        yield from _elements(stream, first)
    else:
        yield from _json_lines(stream, first)


def _is_line_of_its_own(first: bytes) -> bool:
    """Whether the first line is itself a whole array, so that the file is lines and not one array."""
    line, newline, rest = first.lstrip().partition(b"\n")
    if not newline or rest.lstrip()[:1] not in {b"{", b"["} or not line.rstrip().endswith(b"]"):
        return False
    try:
        _decode(line)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _json_lines(stream: Any, carry: bytes) -> Iterator[tuple[bytes, str | None]]:
    skipping = False
    while True:
        *whole, carry = carry.split(b"\n")
        for line in whole:
            if skipping:
                skipping = False
            elif line.strip():
                yield line.strip(), None
        if len(carry) > _MAX_LINE:
            if not skipping:
                yield carry[:4096], f"longer than {_MAX_LINE >> 20} MB"
            skipping, carry = True, b""
        block = stream.read(BLOCK)
        if not block:
            break
        carry += block
    if carry.strip() and not skipping:
        yield carry.strip(), None


def _elements(stream: Any, data: bytes) -> Iterator[tuple[bytes, str | None]]:
    """The elements of one big array; after a damaged one reading goes on at the next line that starts an object."""
    text = data.decode("utf-8", "surrogateescape")
    at = text.index("[") + 1
    scan = json.JSONDecoder().raw_decode
    ended = False
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        if at < len(text) and text[at] == "]":
            return
        problem = None
        if at < len(text):
            try:
                _, end = scan(text, at)
                if end < len(text) or ended:
                    yield text[at:end].encode("utf-8", "surrogateescape"), None
                    at = end
                    continue
            except RecursionError:
                problem = "nested too deeply"
            except ValueError as error:
                problem = f"not JSON: {str(error)[:100]}"
        if problem is None or (not ended and len(text) - at < _MAX_LINE and problem != "nested too deeply"):
            block = b"" if ended else stream.read(BLOCK)
            if block:
                text, at = text[at:] + block.decode("utf-8", "surrogateescape"), 0
                continue
            if at >= len(text) and ended:
                yield b"", "the array is not closed: the file is cut off"
                return
            ended = True
            continue
        nxt = text.find("\n{", at)
        stop = len(text) if nxt < 0 else nxt
        yield text[at : min(stop, at + 4096)].encode("utf-8", "surrogateescape"), problem
        at = stop
        if nxt < 0 and ended:
            return
