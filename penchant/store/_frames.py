"""Catalogue and user attributes: one Parquet file each, replaced whole."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import CATALOG_SCHEMA, USER_KEY, Cipher
from penchant.core.errors import InputError, StorageError
from penchant.store._files import atomic_write, guard

_ROW = "attributes"  # the column of sealed rows
_TYPES = b"penchant.types"  # the metadata that holds the schema of what is sealed
USER_SCHEMA = pa.schema([pa.field(USER_KEY, pa.string(), nullable=False)])


class Frame:
    """A table in one file, sorted by its text key, one row a key.

    Args:
        path: The file; its folder is made when first written.
        key: The key column.
        empty: The schema while nothing was written.
        cipher: Seals each row under the key of the person it is about, whose id is the row's key.
    """

    def __init__(self, path: Path, key: str, empty: pa.Schema, cipher: Cipher | None = None) -> None:
        self._path, self._key, self._empty, self._cipher = path, key, empty, cipher
        self._cached: tuple[tuple[int, int, int], pa.Table] | None = None

    def read(self) -> pa.Table:
        """The whole table; cached until the file is replaced."""
        import pyarrow.parquet as pq

        mark = self.stamp()
        if mark == (0, 0, 0):
            return self._empty.empty_table()
        if self._cached is None or self._cached[0] != mark:
            safe = "the other files are untouched"
            with guard("a file of the shop cannot be read", self._path, safe), open(self._path, "rb") as raw:
                table = pq.ParquetFile(raw, page_checksum_verification=True).read()
                self._cached = mark, self._unsealed(table)
        return self._cached[1]

    def stamp(self) -> tuple[int, int, int]:
        """A mark that changes whenever the file is replaced; zeros without a file."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return (0, 0, 0)
        return (stat.st_ino, stat.st_mtime_ns, stat.st_size)

    def write(self, table: pa.Table) -> None:
        """Replace the file."""
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        table = self._sealed(table)
        pq.write_table(table, sink, compression="zstd", compression_level=3, write_page_checksum=True)
        with guard("a file of the shop cannot be written", self._path, "it is as it was before"):
            self._path.parent.mkdir(exist_ok=True)
        atomic_write(self._path, sink.getvalue())

    def _sealed(self, table: pa.Table) -> pa.Table:
        """Two columns, the key and the sealed rest of each row as JSON; the types stand in the file's metadata."""
        if self._cipher is None:
            return table
        names = [name for name in table.column_names if name != self._key]
        keys = table[self._key].to_pylist()
        rows = [
            self._cipher.encrypt(key, _ROW, msgspec.json.encode(row))
            for key, row in zip(keys, table.select(names).to_pylist(), strict=True)
        ]
        self._cipher.flush()
        schema = pa.schema([pa.field(self._key, pa.string(), nullable=False), pa.field(_ROW, pa.binary())])
        types = table.schema.remove_metadata().serialize().to_pybytes()
        return pa.table([keys, rows], schema=schema.with_metadata({_TYPES: types}))

    def _unsealed(self, table: pa.Table) -> pa.Table:
        """What was sealed; rows whose key was destroyed are gone."""
        types = (table.schema.metadata or {}).get(_TYPES)
        if types is None or self._cipher is None:
            return table
        schema = pa.ipc.read_schema(pa.py_buffer(types))
        rows = []
        for key, sealed in zip(table[self._key].to_pylist(), table[_ROW].to_pylist(), strict=True):
            with contextlib.suppress(StorageError):
                rows.append({self._key: key, **msgspec.json.decode(self._cipher.decrypt(key, _ROW, sealed))})
        return pa.Table.from_pylist(rows, schema=schema)

    def merge(self, new: pa.Table, *, whole_rows: bool) -> None:
        """Put rows by key: of ``new`` the last row of a key counts.

        Args:
            new: Rows with the key column; its key must not be empty.
            whole_rows: Replace rows; otherwise only the columns that ``new`` has.
        """
        keys = new[self._key]
        if keys.null_count or pc.any(pc.equal(pc.utf8_length(keys), 0)).as_py():
            raise InputError(f"column {self._key} must not be empty")
        old = self.read()
        distinct = pa.array(sorted(set(old[self._key].to_pylist()) | set(keys.to_pylist())), pa.string())
        at_old = pc.index_in(distinct, value_set=old[self._key].combine_chunks())
        at_new = _last_index(distinct, keys)
        columns, fields = [distinct], [pa.field(self._key, pa.string(), nullable=False)]
        names = [*old.column_names, *(n for n in new.column_names if n not in old.column_names)]
        for name in names:
            if name == self._key:
                continue
            column = _combine(name, old, new, at_old, at_new, whole_rows)
            columns.append(column)
            fields.append(pa.field(name, column.type))
        self.write(pa.table(columns, schema=pa.schema(fields)))


def _last_index(distinct: pa.Array, keys: pa.ChunkedArray) -> pa.Array:
    """For every distinct key the last row of ``keys`` that has it; null without one."""
    backwards = keys.combine_chunks().take(pa.array(np.arange(len(keys))[::-1]))
    found = pc.index_in(distinct, value_set=backwards)
    return pc.subtract(pa.scalar(len(keys) - 1, pa.int32()), found)


def _combine(
    name: str, old: pa.Table, new: pa.Table, at_old: pa.Array, at_new: pa.Array, whole_rows: bool
) -> pa.ChunkedArray:
    """One column after a merge: from the new row where there is one, else from the old row."""
    if name not in new.column_names and not whole_rows:
        return old[name].take(at_old)
    old_part = old[name] if name in old.column_names else pa.chunked_array([pa.nulls(len(old))])
    new_part = new[name] if name in new.column_names else pa.chunked_array([pa.nulls(len(new))])
    kind = _wider(name, old_part.type, new_part.type)
    both = pa.chunked_array([*old_part.cast(kind).chunks, *new_part.cast(kind).chunks], kind)
    shifted = pc.add(at_new.cast(pa.int64()), pa.scalar(len(old), pa.int64()))
    return both.take(pc.coalesce(shifted, at_old.cast(pa.int64())))


def _wider(name: str, old: pa.DataType, new: pa.DataType) -> pa.DataType:
    """The type that holds values of both; text and numbers do not mix."""
    if old == new or pa.types.is_null(new):
        return old
    if pa.types.is_null(old):
        return new
    if pa.types.is_list(old) and pa.types.is_list(new):
        return pa.list_(_wider(name, old.value_type, new.value_type))
    if _is_number(old) and _is_number(new):
        return pa.int64() if pa.types.is_integer(old) and pa.types.is_integer(new) else pa.float64()
    raise InputError(
        f"column {name} holds {old} in the shop",
        value=str(new),
        hint="send the same type, or rename the column",
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _plain(kind: pa.DataType) -> pa.DataType | None:
    """The type in which the shop keeps a column of this type; None when it keeps no such thing."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return kind
    if pa.types.is_uint64(kind) or pa.types.is_decimal(kind):
        return pa.float64()
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_floating(kind):
        return pa.float64()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = _plain(kind.value_type)
        return None if inner is None else pa.list_(inner)
    return None


def conform_users(table: pa.Table) -> pa.Table:
    """User attributes in the types that the shop keeps: text, integers, decimals, booleans, lists of these.

    Raises:
        InputError: naming the column that is missing or of another kind.
    """
    if USER_KEY not in table.column_names:
        raise InputError("user attributes need a column user_id", value=table.column_names)
    if len(set(table.column_names)) != len(table.column_names):
        raise InputError("user attributes name a column twice", value=table.column_names)
    fields = []
    for field in table.schema:
        kind = pa.string() if field.name == USER_KEY else _plain(field.type)
        if kind is None:
            raise InputError(
                f"column {field.name} must be text, numbers or lists of these", value=str(field.type)
            )
        fields.append(pa.field(field.name, kind))
    return _cast(table, fields)


def conform_catalog(table: pa.Table) -> pa.Table:
    """The catalogue in CATALOG_SCHEMA; missing columns are empty.

    Raises:
        InputError: naming the column that is missing, unknown or of another type.
    """
    if "id" not in table.column_names:
        raise InputError("a catalogue needs a column id", value=table.column_names)
    unknown = sorted(set(table.column_names) - set(CATALOG_SCHEMA.names))
    if unknown:
        raise InputError(
            "the catalogue has unknown columns", value=unknown, hint="put them into `attributes`"
        )
    given = [field for field in CATALOG_SCHEMA if field.name in table.column_names]
    table = _cast(table, given)
    for field in CATALOG_SCHEMA:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(CATALOG_SCHEMA.names)


def _cast(table: pa.Table, fields: list[pa.Field]) -> pa.Table:
    columns = []
    for field in fields:
        column = table[field.name]
        try:
            if pa.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
            whole = pa.types.is_uint64(column.type)  # beyond 2^53 not every one fits a decimal exactly
            columns.append(column.cast(field.type, safe=not whole))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(f"column {field.name} must be {field.type}", value=str(column.type)) from error
    nullable = [pa.field(field.name, field.type) for field in fields]
    return pa.table(columns, schema=pa.schema(nullable))
