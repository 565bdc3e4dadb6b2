"""Snapshots on disk: order, vocabularies, currencies, cache, damage, a full disk."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from penchant.core import CATALOG_SCHEMA, DAY, KIND_CODES, Event, Snapshot
from penchant.core.errors import StorageError
from penchant.data import (
    FeatureOptions,
    Settings,
    SnapshotOptions,
    drop_snapshots,
    make_snapshot,
    open_snapshot,
    sequence_batch,
)
from penchant.store import ShopStore, open_store

START = 1_700_000_000_000_000
AS_OF = START + 30 * DAY


def event(number: int, user: str, item: str | None, day: float, kind: str = "view", **more: object) -> Event:
    who = {"anonymous_id": user[5:]} if user.startswith("anon:") else {"user_id": user}
    return Event(kind=kind, event_id=f"e{number}", ts=START + round(day * DAY), item_id=item, **who, **more)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ShopStore]:
    with open_store(tmp_path / "shop") as opened:
        opened.put_catalog(
            pa.Table.from_pylist(
                [{"id": "zz", "category": "Toys"}, {"id": "b", "category": "Food > Bread"}], CATALOG_SCHEMA
            )
        )
        opened.put_users(pa.table({"user_id": ["v", "never came"], "age": [40, 50]}))
        opened.append(
            [
                event(1, "v", "b", 2, "purchase", value=500.0, currency="EUR"),
                event(2, "v", "a", 1),
                event(3, "anon:guest", "b", 3),
                event(4, "Ünal", None, 4, "search", query="bread"),
                event(5, "v", "c", 2, "purchase", value=900.0, currency="USD"),
                event(6, "v", "b", 2, "purchase", value=1.0, currency="EUR"),
                event(7, "late", "later", 31),
            ]
        )
        yield opened


def snapshot_of(store: ShopStore, tmp_path: Path, **options: object) -> Snapshot:
    return make_snapshot(store, AS_OF, tmp_path / "snapshots", settings=SnapshotOptions(**options))


def test_arrays_hold_what_happened_in_order(store: ShopStore, tmp_path: Path) -> None:
    seen: list[str] = []
    snapshot = make_snapshot(
        store, AS_OF, tmp_path / "snapshots", progress=lambda task, done, total, figures: seen.append(task)
    )
    assert snapshot.users.ids == ["anon:guest", "v", "Ünal"]
    assert snapshot.items.ids == ["a", "b", "c", "zz"]
    assert snapshot.ptr.tolist() == [0, 1, 5, 6]
    assert snapshot.item.tolist() == [2, 1, 2, 3, 2, 0]  # ties in order of arrival
    assert snapshot.kind.tolist() == [KIND_CODES[k] for k in ("view", "view", *["purchase"] * 3, "search")]
    assert ((snapshot.ts - START) / DAY).tolist() == [3, 1, 2, 2, 2, 4]
    assert np.nan_to_num(snapshot.value).tolist() == [0, 0, 500, 900, 1, 0]
    assert snapshot.foreign.tolist() == [3]
    assert snapshot.facts["currency"] == "EUR"
    assert snapshot.attributes.to_pylist() == [{"age": None}, {"age": 40}, {"age": None}]
    assert snapshot.catalog.table["id"].to_pylist() == ["b", "zz"]
    assert {"share of Food", "age", "spend"} <= set(snapshot.feature_names)
    assert snapshot.features.shape == (3, len(snapshot.feature_names))
    assert {"reading events", "placing events", "making features"} == set(seen)
    with pytest.raises(ValueError, match="read-only"):
        snapshot.item[0] = 1


def test_a_snapshot_is_made_once_and_opens_again(store: ShopStore, tmp_path: Path) -> None:
    one = snapshot_of(store, tmp_path)
    made = (tmp_path / "snapshots" / one.fingerprint / "item.npy").stat().st_mtime_ns
    again = snapshot_of(store, tmp_path)
    opened = open_snapshot(tmp_path / "snapshots" / one.fingerprint)
    assert (tmp_path / "snapshots" / one.fingerprint / "item.npy").stat().st_mtime_ns == made
    for name in ("ptr", "item", "kind", "ts", "value", "features"):
        assert getattr(again, name).tobytes() == getattr(opened, name).tobytes()
    store.append([event(8, "v", "a", 5)])
    newer = snapshot_of(store, tmp_path)
    assert newer.fingerprint != one.fingerprint
    assert newer.num_events == one.num_events + 1
    fewer = snapshot_of(store, tmp_path, features=FeatureOptions(num_categories=0, attributes=False))
    assert fewer.fingerprint not in {one.fingerprint, newer.fingerprint}
    assert drop_snapshots(tmp_path / "snapshots", keep=frozenset([newer.fingerprint])) == 2
    assert [place.name for place in (tmp_path / "snapshots").iterdir()] == [newer.fingerprint]
    assert drop_snapshots(tmp_path / "nowhere") == 0


def test_bots_and_barred_people_are_left_out_with_their_items_kept_apart(
    store: ShopStore, tmp_path: Path
) -> None:
    store.append([event(100 + n, "crawler", f"only-{n}", 5 + n / 1e6) for n in range(300)])
    assert "crawler" in snapshot_of(store, tmp_path).users.ids
    clean = snapshot_of(store, tmp_path, bots=Settings(), exclude=("Ünal",))
    assert clean.users.ids == ["anon:guest", "v"]
    assert not any(item.startswith("only-") for item in clean.items.ids)


def test_an_empty_shop_gives_an_empty_snapshot(tmp_path: Path) -> None:
    with open_store(tmp_path / "shop") as store:
        snapshot = make_snapshot(store, AS_OF, tmp_path / "snapshots")
    assert (snapshot.num_users, snapshot.num_items, snapshot.num_events) == (0, 0, 0)
    assert sequence_batch(snapshot, np.zeros(0, np.int64), 5).item_BT.shape == (0, 1)


def test_damage_is_noticed_and_mended(store: ShopStore, tmp_path: Path) -> None:
    good = snapshot_of(store, tmp_path)
    place = tmp_path / "snapshots" / good.fingerprint
    items = good.item.tolist()
    (place / "item.npy").write_bytes(b"")
    with pytest.raises(StorageError, match="train again"):
        open_snapshot(place)
    assert snapshot_of(store, tmp_path).item.tolist() == items
    (place / "manifest.json").write_text("{}")
    with pytest.raises(StorageError):
        open_snapshot(place)
    with pytest.raises(StorageError):
        open_snapshot(tmp_path / "nowhere")


def test_what_a_killed_process_left_goes_away(store: ShopStore, tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / "snapshots" / f".0123-{dead.pid}"
    left.mkdir(parents=True)
    (left / "item.part").write_bytes(b"half")
    other = tmp_path / "snapshots" / f".0123-{os.getppid()}"
    other.mkdir()
    snapshot_of(store, tmp_path)
    assert not left.exists()
    assert other.exists()  # its maker is still at work


def test_a_full_disk_leaves_nothing_half_done(store: ShopStore, tmp_path: Path) -> None:
    store.append([event(1000 + n, f"u{n % 50}", f"i{n % 30}", n / 1000) for n in range(3000)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, before[1]))
    try:
        with pytest.raises(StorageError, match="nothing was changed"):
            snapshot_of(store, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "snapshots").iterdir()) == []
    assert snapshot_of(store, tmp_path).num_events == 3006
