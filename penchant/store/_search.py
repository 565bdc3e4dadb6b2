"""Looks into every file of a shop for a person's id, as the last step of an erasure.

Files whose form is known are decoded, because a byte search sees nothing in compressed pages and too much in
concatenated strings: Parquet and Arrow files by their text columns, JSON by its strings. All others are
searched byte by byte for the id with no letter, digit, `-` or `_` beside it. Short ids turn up by chance: those of
fewer than 6 bytes do not count in binary files, and in texts, where they are not of letters and digits together, only
as a whole cell, line, quoted or tagged value; those of fewer than 4 count only in columns of persons. Item
vocabularies and the catalogue are passed over: an item may bear the same id as a person. The journal and the live
histories are the eraser's. What the quarantine made is searched by its own room, which alone knows whose a refused
row is; here only the names of its files are.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import GUEST_PREFIX

_WORD = rb"[0-9A-Za-z_\-]"
_ANYWHERE, _WHOLE = 6, 4  # bytes of an id
_QUARANTINED = re.compile(r"quarantine/[0-9a-f]{12}-[^/]+\.(parquet|json)")
_ITEM_COLUMNS = {"item_id", "id", "item_group_id", "gtin"}
_OWN_COLUMNS = (
    "subject",
    "user_id",
    "anonymous_id",
)  # in the event table an id elsewhere is somebody else's word


class Needle:
    """A person to look for, ready for columns, bytes, text and JSON.

    A guest is found by the bare device id too, but not in columns of users: a user may bear the same id.
    """

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.device = subject.removeprefix(GUEST_PREFIX) if subject.startswith(GUEST_PREFIX) else None
        self.ids = sorted({subject, self.device or subject})
        self._plain = [i.encode() for i in self.ids] + [msgspec.json.encode(i)[1:-1] for i in self.ids]
        raw = b"|".join(re.escape(plain) for plain in self._plain)
        shortest = min(self.ids, key=lambda i: len(i.encode()))
        self.in_binary, self.in_texts = len(shortest.encode()) >= _ANYWHERE, len(shortest.encode()) >= _WHOLE
        mixed = any(c.isdigit() for c in shortest) and not shortest.isdigit()
        self._alone = re.compile(rb"(?<!" + _WORD + rb")(?:" + raw + rb")(?!" + _WORD + rb")")
        whole = re.compile(rb"(?:(?<=[\"'>,;|\t\r\n])|^)(?:" + raw + rb")(?=[\"'<,;|\t\r\n]|$)")
        self._bounded = self._alone if self.in_binary or mixed else whole

    def in_bytes(self, content: Any) -> bool:
        """Whether an id stands in the bytes, on its own."""
        if not self.in_texts or all(content.find(p) < 0 for p in self._plain):  # faster than the pattern
            return False
        return self._bounded.search(content) is not None

    def in_name(self, path: str) -> bool:
        """Whether an id stands in the name of a file, on its own."""
        return self.in_texts and self._alone.search(path.encode()) is not None

    def in_text(self, text: str) -> bool:
        """Whether an id stands in a text, on its own."""
        return self.in_bytes(text.encode("utf-8", "surrogatepass"))

    def in_column(self, name: str, column: pa.ChunkedArray, *, exact: bool) -> bool:
        """Whether an id is a cell of a text column or, unless ``exact``, stands within one."""
        ids = self._of_persons(name) if name in _OWN_COLUMNS else self.ids
        exact = exact or name in _OWN_COLUMNS
        if pa.types.is_dictionary(column.type):
            column = pa.chunked_array([chunk.dictionary for chunk in column.chunks], column.type.value_type)
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            column = pc.list_flatten(column)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            return False
        if (exact or self.in_texts) and pc.any(
            pc.is_in(column, value_set=pa.array(ids, column.type))
        ).as_py():
            return True
        if exact or not self.in_texts:
            return False
        for needle in self.ids:
            within = column.filter(pc.match_substring(column, needle))
            if any(self.in_text(cell) for cell in within.to_pylist() if cell is not None):
                return True
        return False

    def _of_persons(self, name: str) -> Collection[str]:
        if name == "anonymous_id":
            return [] if self.device is None else [self.device]
        return [self.subject]


def search_folder(root: Path, needle: Needle, skip: Iterable[str] = ()) -> tuple[int, list[str]]:
    """Search all files under a folder.

    Args:
        root: The shop.
        needle: The person.
        skip: Paths below ``root`` that are not searched: files, or folders with a slash at the end.

    Returns:
        Bytes of the files searched, and the paths below ``root`` of those that hold an id.
    """
    skipped, total, found = tuple(skip), 0, []
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            path = Path(folder, name)
            relative = path.relative_to(root).as_posix()
            if path.is_symlink() or any(
                relative == s or (s[-1:] == "/" and relative.startswith(s)) for s in skipped
            ):
                continue
            try:
                size = path.stat().st_size
                held = size > 0 and _holds(path, relative, needle)
            except FileNotFoundError:  # removed while we looked
                continue
            total += size
            if held or needle.in_name(relative):
                found.append(relative)
    return total, found


def _holds(path: Path, relative: str, needle: Needle) -> bool:
    if path.name.startswith(("item", "catalog")) or _QUARANTINED.fullmatch(relative):
        return False
    try:
        if path.suffix == ".parquet":
            return _in_parquet(path, needle, own=relative.startswith("events/bucket="))
        if path.suffix in {".arrow", ".feather", ".ipc"}:
            with pa.memory_map(str(path)) as mapped:
                return _in_table(pa.ipc.open_file(mapped).read_all(), needle)
        if path.suffix == ".json":
            return _in_json(path, needle, numbers=relative.startswith("events/"))
    except (pa.ArrowException, msgspec.DecodeError):
        pass  # not what its name says: search the bytes
    return _in_raw(path, needle)


def _in_parquet(path: Path, needle: Needle, *, own: bool) -> bool:
    import pyarrow.parquet as pq

    with open(path, "rb") as raw:
        file = pq.ParquetFile(raw, read_dictionary=list(_OWN_COLUMNS) if own else None)  # each id once
        names = [c for c in _OWN_COLUMNS if c in file.schema_arrow.names] if own else None
        for group in range(file.metadata.num_row_groups):
            table = file.read_row_group(group, columns=names)
            if _in_table(table, needle, exact=own):
                return True
    return False


def _in_table(table: pa.Table, needle: Needle, *, exact: bool = False) -> bool:
    return any(
        needle.in_column(name, table[name], exact=exact)
        for name in table.column_names
        if name not in _ITEM_COLUMNS
    )


def _in_json(path: Path, needle: Needle, *, numbers: bool) -> bool:
    """Look at the strings of one or several JSON documents, not at their numbers."""
    for line in path.read_bytes().splitlines() if numbers else [path.read_bytes()]:
        if line.strip() and _in_value(msgspec.json.decode(line), needle, exact=numbers):
            return True
    return False


def _in_value(value: Any, needle: Needle, *, exact: bool) -> bool:
    if isinstance(value, str):
        return needle.in_texts and value in needle.ids if exact else needle.in_text(value)
    if isinstance(value, dict):
        return any(_in_value(part, needle, exact=exact) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return any(_in_value(part, needle, exact=exact) for part in value)
    return False


def _in_raw(path: Path, needle: Needle) -> bool:
    with open(path, "rb") as file:
        if not needle.in_binary and b"\x00" in file.read(8192):
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return needle.in_bytes(content)
