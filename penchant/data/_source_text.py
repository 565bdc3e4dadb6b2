"""Text files as UTF-8, whatever they were written in."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

HEAD = 1 << 20  # bytes of a file that are looked at before it is read
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_MULTIBYTE = re.compile(rb"[\xc3-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
UNKNOWN = "unknown"  # neither Unicode nor Western European: nobody may guess which of a dozen it is
_WORD = re.compile(
    r"[^\W\d_]*[^\x00-\x7f](?:[^\W\d_]|[^\x00-\x7f])*"
)  # a run of letters and marks with one odd one
_BETWEEN = frozenset("’·–—­´‘“”")  # marks that may stand between letters
_BESIDE = frozenset("‘“”„«»‹›¡¿…™®©ªº°²³")  # marks that may touch a word on one side
# Letters of Iceland and the Faroes, where none of those stands that are as common there: it is Turkish, in cp1254.
_NORTHERN, _BESIDE_THEM = frozenset("ðþýÐÞÝ"), frozenset("áíúæÁÍÚÆ")
_ALONE = frozenset("€£¥¢§½¼¾×±•µ\xa0¶¦¬÷")  # marks that touch no word


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_western(head: bytes) -> bool:
    """Whether bytes, read as cp1252, look like the words of a Western European language.

    There most letters beyond ASCII have plain ones around them, as in Größe, and marks stand between words. In other
    encodings the same bytes are words of nothing but accented letters, capitals within words, or marks within them.

    Example:
        >>> [_is_western("Größe: 12 €".encode("cp1252")), _is_western("赤い靴".encode("shift_jis"))]
        [True, False]
    """
    try:
        text = head.decode("cp1252")
    except UnicodeDecodeError:
        return False
    if not _NORTHERN.isdisjoint(text) and _BESIDE_THEM.isdisjoint(text):
        return False
    good = total = 0
    for found in _WORD.finditer(text):
        word = found.group()
        odd = [at for at, character in enumerate(word) if character > "\x7f"]
        total += len(odd)
        good += sum(_fits(word, at) for at in odd) if _is_plain(word) else 0
    return good >= 0.8 * total


def _is_plain(word: str) -> bool:
    """Whether at most about half of a word's letters are accented: à, Ærø, Größe."""
    accented = sum(c > "\x7f" and c.isalpha() for c in word)
    return 2 * accented <= sum(c.isalpha() for c in word) + 1


def _fits(word: str, at: int) -> bool:
    """Whether the character at a place of a word stands where such a character does."""
    character, before, after = word[at], word[at - 1 : at], word[at + 1 : at + 2]
    if character.isalpha() and character not in _BESIDE:
        return not (character.isupper() and before.islower())
    if before.isalpha() and after.isalpha():
        return character in _BETWEEN
    touches = before.isalpha() or after.isalpha()
    return character in (_BETWEEN | _BESIDE) or (character in _ALONE and not touches)


def sniff_encoding(head: bytes) -> tuple[str, list[str]]:
    """Tell the encoding of a text from its first bytes, and what to remark about it.

    UTF-8 unless a byte order mark, alternating zero bytes, or bytes that UTF-8 cannot have say otherwise: then cp1252
    where they look like words in it, else ``UNKNOWN``. Text that is UTF-8 in one place and not in another, or plain
    but for a few lines, stays UTF-8: its damaged rows are refused one by one.

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
        lines = head.splitlines()
        odd = [line for line in lines if not line.isascii()]
        damaged = sum(not _is_utf8(line) for line in odd)
        if _MULTIBYTE.search(head) and 2 * damaged <= len(odd):
            return "utf-8", []
        if _is_western(head):
            return "cp1252", ["the file is not UTF-8; it was read as cp1252: check names with accents"]
        return (UNKNOWN if damaged > max(1, 0.1 * len(lines)) else "utf-8"), []
    return "utf-8", []


@dataclass(frozen=True)
class TextFile:
    """A text file, perhaps compressed, that opens as a stream of UTF-8 bytes."""

    path: Path
    compression: str | None
    encoding: str
    _opened: list[pa.NativeFile] = field(default_factory=list, repr=False, compare=False)

    def open(self) -> Recoded | pa.NativeFile:
        """A stream with ``read(n)`` and ``close()``."""
        file = pa.OSFile(str(self.path))
        self._opened[:] = [file]
        stream = file if self.compression is None else pa.CompressedInputStream(file, self.compression)
        return stream if self.encoding == "utf-8" else Recoded(stream, self.encoding)

    def position(self) -> int:
        """Bytes of the file, as it lies on disk, that the stream opened last has taken."""
        file = next(iter(self._opened), None)
        return 0 if file is None or file.closed else file.tell()


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
