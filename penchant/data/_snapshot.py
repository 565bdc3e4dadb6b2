"""Everything known strictly before a moment, read from the store once and kept as memory-mapped arrays.

One pass over the buckets of the event table writes the columns of each bucket to scratch files, in the
bucket's own order and with provisional item numbers; when all ids are known, the events move to their places
in order of (subject, time, arrival). Beside the arrays themselves, memory holds one bucket.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import (
    KIND_CODES,
    USER_KEY,
    Catalog,
    Noun,
    Progress,
    Snapshot,
    Store,
    Vocabulary,
    no_progress,
)
from penchant.core.errors import StorageError
from penchant.data._bots import bots_in
from penchant.data._features import RECIPE, FeatureOptions, fit_recipe
from penchant.data._ragged import Int64s, offsets, ragged_range
from penchant.data._settings import Settings
from penchant.data._snapshot_files import (
    new_array,
    open_array,
    open_part,
    open_table,
    publish,
    save_array,
    save_table,
    scratch_folder,
)

FORMAT = 1  # of the files below; part of the fingerprint
MANIFEST = "manifest.json"
_SCANNED = ["subject", "ts", "kind", "item_id", "value", "currency"]
_COLUMNS: dict[str, Any] = {"item": np.int32, "kind": np.uint8, "ts": np.int64, "value": np.float32}
_SCRATCH: dict[str, Any] = _COLUMNS | {"currency": np.int16}
_TABLES = ("users", "items", "catalog", "attributes")


class SnapshotOptions(Noun, frozen=True):
    """What becomes part of a snapshot.

    Example:
        >>> SnapshotOptions(exclude=("crawler-1",)).features.num_categories
        24
    """

    exclude: tuple[str, ...] = ()  # subjects left out, such as test accounts
    bots: Settings | None = None  # leave out whom these limits call a bot, judged by events before `as_of`
    features: FeatureOptions = FeatureOptions()


def make_snapshot(
    store: Store,
    as_of: int,
    folder: Path,
    *,
    settings: SnapshotOptions | None = None,
    progress: Progress = no_progress,
) -> Snapshot:
    """Make the snapshot of everything that happened strictly before ``as_of``, or open it if made already.

    Users are the subjects with at least one event, in order of their ids; items are those of the catalogue
    and of the events, in order of their ids (by code point). Neither depends on events at or after ``as_of``.

    Args:
        store: What happened. Must not be written to meanwhile.
        as_of: Microseconds since 1970, UTC.
        folder: Where snapshots are kept, each under its fingerprint.
        settings: Whom to leave out and which features to make.
        progress: Told of each bucket read and placed.

    Raises:
        StorageError: The disk refused; nothing half done is left behind.
    """
    settings = settings or SnapshotOptions()
    catalog, users = store.catalog(), store.users()
    fingerprint = _fingerprint(store, as_of, settings, catalog, users)
    place = folder / fingerprint
    if (place / MANIFEST).exists():
        try:
            return open_snapshot(place)
        except StorageError:  # damaged: it can be made again
            shutil.rmtree(place)
    with scratch_folder(folder, fingerprint) as scratch:
        events = _read(store, as_of, settings, scratch, progress)
        facts = {"as_of": as_of, "fingerprint": fingerprint, "settings": msgspec.to_builtins(settings)}
        _place(events, scratch, catalog, users, facts, progress)
        _describe(scratch, facts, settings.features, progress)
        publish(scratch, place, MANIFEST)
    return open_snapshot(place)


def open_snapshot(folder: Path) -> Snapshot:
    """Open a snapshot that ``make_snapshot`` made; its arrays stay on disk until they are looked at.

    Raises:
        StorageError: A file is missing, cut short or unreadable.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        for name, size in manifest["files"].items():
            if (folder / name).stat().st_size != size:
                raise ValueError(f"{name} has not its size of {size} bytes")
        return _load(folder, manifest)
    except (OSError, ValueError, KeyError, pa.ArrowInvalid) as error:
        raise StorageError(
            f"the snapshot cannot be read: {error}",
            value=str(folder),
            hint="delete that folder and train again",
        ) from error


def drop_snapshots(folder: Path, *, keep: frozenset[str] = frozenset()) -> int:
    """Delete all snapshots in a folder but those with the given fingerprints; returns how many went.

    After an erasure none may stay: they hold the ids and events of everyone.
    """
    gone = 0
    for place in sorted(folder.iterdir()) if folder.is_dir() else []:
        if place.is_dir() and place.name not in keep:
            shutil.rmtree(place)
            gone += 1
    return gone


def _fingerprint(
    store: Store, as_of: int, settings: SnapshotOptions, catalog: pa.Table, users: pa.Table
) -> str:
    """A name for the state of the store and everything else that a snapshot depends on."""
    status = store.status()
    told = {
        "format": FORMAT,
        "as_of": as_of,
        "settings": msgspec.to_builtins(settings),
        "events": status.events,
        "journal": status.journal_events,
        "version": status.table_version,
        "span": [status.first_ts, status.last_ts],
        "erased": status.detail.get("erased_subjects"),
        "links": [status.detail.get("links"), status.detail.get("links_seen")],
    }
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for table in (catalog, users):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        digest.update(sink.getvalue())
    return digest.hexdigest()[:32]


@dataclass
class _Events:
    """What the pass over the buckets has found; the columns themselves lie in scratch files."""

    subjects: list[pa.Array] = field(default_factory=list)  # of each bucket, in order
    counts: list[Int64s] = field(default_factory=list)  # events of each of them
    items: pa.Array = field(default_factory=lambda: pa.array([], pa.string()))  # in order of appearance
    currencies: list[str] = field(default_factory=list)
    with_currency: dict[int, int] = field(default_factory=dict)  # index into `currencies` -> events

    @property
    def num_events(self) -> int:
        return sum(int(count.sum()) for count in self.counts)

    @property
    def main_currency(self) -> int | None:
        """The currency of most events with money; the first in the alphabet where counts tie."""
        if not self.with_currency:
            return None
        return min(self.with_currency, key=lambda code: (-self.with_currency[code], self.currencies[code]))


def _read(store: Store, as_of: int, settings: SnapshotOptions, scratch: Path, progress: Progress) -> _Events:
    events = _Events()
    files = {name: (scratch / f"{name}.part").open("wb") for name in _SCRATCH}
    try:
        for bucket in range(store.num_buckets):
            table = store.scan(bucket=bucket, columns=_SCANNED, as_of=as_of)
            barred = {*settings.exclude, *(bots_in(table, settings.bots) if settings.bots else ())}
            if barred and table.num_rows:
                values = pa.array(sorted(barred), pa.string())
                table = table.filter(pc.invert(pc.is_in(table["subject"], value_set=values)))
            for name, column in _bucket_columns(table, events).items():
                column.astype(_SCRATCH[name], copy=False).tofile(files[name])
            progress("reading events", bucket + 1, store.num_buckets, {"events": events.num_events})
    finally:
        for file in files.values():
            file.close()
    return events


def _bucket_columns(table: pa.Table, events: _Events) -> dict[str, npt.NDArray[Any]]:
    """One bucket as numpy columns; its ids are added to ``events``."""
    if not table.num_rows:
        events.subjects.append(pa.array([], pa.string()))
        events.counts.append(np.zeros(0, np.int64))
        return {}
    runs = pc.run_end_encode(_plain(table["subject"]), run_end_type=pa.int64())
    events.subjects.append(_plain(runs.values))
    events.counts.append(np.diff(runs.run_ends.to_numpy(), prepend=0))
    value = table["value"].to_numpy().astype(np.float32)
    return {
        "item": _item_numbers(table["item_id"], events),
        "kind": _codes(table["kind"], KIND_CODES, missing=0),
        "ts": table["ts"].to_numpy(),
        "value": value,
        "currency": _currency_codes(table["currency"], ~np.isnan(value), events),
    }


def _plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One string array, whatever the form a store hands out."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # combine_chunks may keep more than one when it is very large
        array = pa.concat_arrays(array.chunks)
    return array.cast(pa.string())


def _item_numbers(column: pa.ChunkedArray, events: _Events) -> npt.NDArray[np.int64]:
    """Provisional item numbers, 1 for the first id ever met; 0 = no item."""
    encoded = _plain(column).dictionary_encode()
    ids = encoded.dictionary
    new = ids.filter(pc.is_null(pc.index_in(ids, value_set=events.items)))
    events.items = pa.concat_arrays([events.items, new])
    number = pc.index_in(ids, value_set=events.items).to_numpy(zero_copy_only=False).astype(np.int64) + 1
    place = pc.fill_null(encoded.indices, len(ids)).to_numpy(zero_copy_only=False)
    numbers: Int64s = np.append(number, 0)[place]
    return numbers


def _codes(column: pa.ChunkedArray, codes: dict[str, int], missing: int) -> npt.NDArray[np.int64]:
    encoded = _plain(column).dictionary_encode()
    keys = encoded.dictionary.to_pylist()
    of_code = np.array([codes.get(key, missing) for key in keys] + [missing], np.int64)
    place = pc.fill_null(encoded.indices, len(keys)).to_numpy(zero_copy_only=False)
    found: Int64s = of_code[place]
    return found


def _currency_codes(column: pa.ChunkedArray, has_money: npt.NDArray[np.bool_], events: _Events) -> Int64s:
    """Index into ``events.currencies`` of each event; -1 = none named."""
    known = {name: code for code, name in enumerate(events.currencies)}
    for name in pc.unique(column).drop_null().to_pylist():
        known.setdefault(name, len(known))
    events.currencies = list(known)
    codes = _codes(column, known, missing=-1)
    met, count = np.unique(codes[has_money], return_counts=True)
    for code, number in zip(met.tolist(), count.tolist(), strict=True):
        if code >= 0:
            events.with_currency[code] = events.with_currency.get(code, 0) + number
    return codes


def _place(
    events: _Events,
    scratch: Path,
    catalog: pa.Table,
    users: pa.Table,
    facts: dict[str, Any],
    progress: Progress,
) -> None:
    """Move the events from the order of buckets to the order of users, with final item numbers."""
    subjects = pa.concat_arrays(events.subjects)
    counts = np.concatenate(events.counts)
    order = pc.sort_indices(subjects).to_numpy()
    ptr = offsets(counts[order])
    start = np.empty(len(counts), np.int64)  # where the events of each subject go
    start[order] = ptr[:-1]
    items = _sorted_ids(pa.concat_arrays([events.items, _plain(catalog["id"])]))
    number = np.zeros(len(events.items) + 1, np.int32)
    number[1:] = pc.index_in(events.items, value_set=items).to_numpy(zero_copy_only=False) + 1
    save_table(scratch, "users", pa.table({"id": subjects.take(pa.array(order))}))
    save_table(scratch, "items", pa.table({"id": items}))
    save_table(scratch, "catalog", catalog)
    save_table(scratch, "attributes", _attributes(users, subjects.take(pa.array(order))))
    save_array(scratch, "ptr", ptr)
    _move(events, scratch, start, number, progress)
    main = events.main_currency
    facts["currency"] = None if main is None else events.currencies[main]
    facts["num_users"], facts["num_items"], facts["num_events"] = len(subjects), len(items), events.num_events


def _move(
    events: _Events, scratch: Path, start: Int64s, number: npt.NDArray[np.int32], progress: Progress
) -> None:
    total = events.num_events
    final = {name: new_array(scratch, name, dtype, (total,)) for name, dtype in _COLUMNS.items()}
    parts = {name: open_part(scratch, name, dtype) for name, dtype in _SCRATCH.items()}
    foreign: list[Int64s] = [np.zeros(0, np.int64)]
    main = events.main_currency
    mixed = len(events.with_currency) > 1
    done = subject = 0
    for bucket, count in enumerate(events.counts):
        rows = slice(subject, subject + len(count))
        place = ragged_range(start[rows], start[rows] + count)
        part = slice(done, done + len(place))
        for name, array in final.items():
            column = parts[name][part]
            array[place] = number[column] if name == "item" else column
        if mixed:
            code = parts["currency"][part]
            foreign.append(place[(code >= 0) & (code != main)])
        done, subject = part.stop, rows.stop
        progress("placing events", bucket + 1, len(events.counts), {"events": done})
    save_array(scratch, "foreign", np.sort(np.concatenate(foreign)))
    for array in final.values():
        if isinstance(array, np.memmap):
            array.flush()
    for name in _SCRATCH:
        (scratch / f"{name}.part").unlink()


def _sorted_ids(ids: pa.Array) -> pa.Array:
    unique = pc.unique(ids.drop_null())
    return unique.take(pc.sort_indices(unique))


def _attributes(users: pa.Table, subjects: pa.Array) -> pa.Table:
    """What the shop says of its users, a row a subject, without the key; nulls where it says nothing."""
    if not users.num_rows or USER_KEY not in users.column_names:
        return pa.table({"_": pa.nulls(len(subjects))}).select([])
    place = pc.index_in(subjects, value_set=_plain(users[USER_KEY]))
    return users.drop_columns([USER_KEY]).take(place)


def _describe(scratch: Path, facts: dict[str, Any], options: FeatureOptions, progress: Progress) -> None:
    """Make the features and the manifest."""
    progress("making features", 0, 1, {})
    manifest = {"format": FORMAT, "facts": facts, "feature_names": [], "files": {}}
    save_array(scratch, "features", np.zeros((facts["num_users"], 0), np.float32))
    recipe, raw = fit_recipe(_load(scratch, manifest), options)
    features = new_array(scratch, "features", np.float32, (facts["num_users"], len(recipe.transform.names)))
    recipe.transform.apply(raw, features)
    if isinstance(features, np.memmap):
        features.flush()
    facts[RECIPE] = msgspec.to_builtins(recipe)
    manifest["feature_names"] = list(recipe.transform.names)
    manifest["files"] = {path.name: path.stat().st_size for path in sorted(scratch.iterdir())}
    (scratch / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
    progress("making features", 1, 1, {"features": len(recipe.transform.names)})


def _load(folder: Path, manifest: dict[str, Any]) -> Snapshot:
    facts = manifest["facts"]
    arrays = {name: open_array(folder, name) for name in (*_COLUMNS, "ptr", "features", "foreign")}
    tables = {name: open_table(folder, name) for name in _TABLES}
    return Snapshot(
        as_of=facts["as_of"],
        users=Vocabulary(tables["users"]["id"].combine_chunks()),
        items=Vocabulary(tables["items"]["id"].combine_chunks()),
        ptr=arrays["ptr"],
        item=arrays["item"],
        kind=arrays["kind"],
        ts=arrays["ts"],
        value=arrays["value"],
        features=arrays["features"],
        feature_names=tuple(manifest["feature_names"]),
        catalog=Catalog(tables["catalog"], as_of=facts["as_of"]),
        fingerprint=facts["fingerprint"],
        attributes=tables["attributes"] if tables["attributes"].num_columns else None,
        foreign=arrays["foreign"],
        facts=facts,
    )
