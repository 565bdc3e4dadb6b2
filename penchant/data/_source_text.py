"""Text files as UTF-8, whatever they were written in."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

HEAD = 1 << 20  # bytes of a file that are looked at before it is read
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_MULTIBYTE = re.compile(rb"[\xc3-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_NOT_CP1252 = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")


def sniff_encoding(head: bytes) -> tuple[str, list[str]]:
    """Tell the encoding of a text from its first bytes, and what to remark about it.

    UTF-8 unless a byte order mark, alternating zero bytes, or bytes that UTF-8 cannot have say otherwise.
    Text that is UTF-8 in one place and not in another stays UTF-8: its damaged rows are refused one by one.

    Example:
        >>> sniff_encoding("Café".encode("cp1252"))[0]
        'cp1252'
    """
    for mark, name in _BOMS:
        if head.startswith(mark):
            remark = [] if name == "utf-8-sig" else ["the file is UTF-16; it was read as such"]
            return name, remark
    start = head[:4096]
    if start.count(0) > 0.3 * len(start):
        name = "utf-16-le" if start[1::2].count(0) > start[0::2].count(0) else "utf-16-be"
        return name, ["the file is UTF-16 without a byte order mark; it was read as such"]
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) < HEAD)
    except UnicodeDecodeError:
        if not _MULTIBYTE.search(head):
            name = "latin-1" if _NOT_CP1252.search(head) else "cp1252"
            return name, [f"the file is not UTF-8; it was read as {name}: check names with accents"]
    return "utf-8", []


@dataclass(frozen=True)
class TextFile:
    """A text file, perhaps compressed, that opens as a stream of UTF-8 bytes."""

    path: Path
    compression: str | None
    encoding: str

    def open(self) -> Recoded | pa.NativeFile:
        """A stream with ``read(n)`` and ``close()``."""
        stream = pa.input_stream(str(self.path), compression=self.compression)
        return stream if self.encoding == "utf-8" else Recoded(stream, self.encoding)


class Recoded:
    """A stream decoded from another encoding; what cannot be decoded becomes U+FFFD, which is counted."""

    def __init__(self, stream: Any, encoding: str) -> None:
        self._stream = stream
        # A byte order mark is dropped; bytes that are not UTF-8 pass, to be refused row by row.
        self._plain = encoding == "utf-8-sig"
        self._first = True
        self._decoder = codecs.getincrementaldecoder("utf-8" if self._plain else encoding)(errors="replace")

    def read(self, size: int) -> bytes:
        """At most about ``size`` bytes; empty at the end."""
        while True:
            raw: bytes = self._stream.read(size)
            if self._plain:
                out = raw.removeprefix(codecs.BOM_UTF8) if self._first else raw
                self._first = False
            else:
                out = self._decoder.decode(raw, final=not raw).encode("utf-8", "replace")
            if out or not raw:
                return out

    def close(self) -> None:
        """Close the file below."""
        self._stream.close()
