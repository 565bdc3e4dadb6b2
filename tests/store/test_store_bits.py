"""Bits that flip on the disk are found, and what they hit is set aside; a shop of the version before is taken over."""

import random
import sqlite3
from pathlib import Path

import pytest

from penchant.core.errors import ShopError, StorageError
from penchant.store import open_store
from penchant.testing._store import batch_of, event, slate


def flip(path: Path, at: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def damage_row(shop: Path, event_id: str) -> None:
    """Flip a bit in the body of one event, where SQLite has no checksum."""
    path = shop / "journal.db"
    at = path.read_bytes().index(f'"event_id":"{event_id}"'.encode())
    flip(path, at + 13, 2)


def test_a_damaged_event_is_set_aside(tmp_path: Path) -> None:
    """Fault 17: it is never served, never moved to the table, and counted."""
    shop = tmp_path / "shop"
    with open_store(shop) as store:
        store.append([event(n, f"u{n}") for n in range(5)])
        store.log_decision(slate(0))
    damage_row(shop, "e3")
    with open_store(shop) as store:
        assert store.scan()["event_id"].to_pylist() == ["e0", "e1", "e2", "e4"]
        assert store.status().detail["damaged_events"] == 1
        assert store.compact() == 4
        assert store.append([event(3, "u3")]) == ["stored"], "its sender may send it again"
        store.erase("u3")
        assert store.status().detail["damaged_events"] == 0, "whose it was can no longer be told"


def test_every_flipped_bit_is_found_or_harmless(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    with open_store(shop) as store:
        store.append([event(n, f"u{n % 3}", text="words " * 20) for n in range(60)])
    good = (shop / "journal.db").read_bytes()
    rnd = random.Random(0)
    told = set_aside = 0
    for _ in range(40):
        (shop / "journal.db").write_bytes(good)
        flip(shop / "journal.db", rnd.randrange(len(good)), rnd.randrange(8))
        try:
            with open_store(shop) as store:
                rows = store.scan(columns=["event_id", "text"]).to_pylist()
                lost = store.status().detail["damaged_events"]
                assert len(rows) + lost == 60
                assert all(row["text"] == "words " * 20 for row in rows)
                assert len({row["event_id"] for row in rows}) == len(rows)
                set_aside += lost
        except (StorageError, ShopError):
            told += 1
    assert told
    assert set_aside


def test_a_flipped_bit_that_makes_another_type(tmp_path: Path) -> None:
    """SQLite keeps the type of every value beside it: that can be hit too."""
    shop = tmp_path / "shop"
    with open_store(shop) as store:
        store.append([event(n) for n in range(3)])
        store.log_decision(slate(0))
        store.log_decision(slate(1))
    db = sqlite3.connect(shop / "journal.db")
    db.execute("UPDATE journal SET body = 5 WHERE seq = 1")
    db.execute("UPDATE decisions SET body = 5 WHERE number = 1")
    db.commit()
    db.close()
    with open_store(shop) as store:
        assert store.scan(columns=["event_id"]).num_rows == 2
        assert store.status().detail["damaged_events"] == 1
        assert list(store.decisions()) == [slate(1)]


def test_a_damaged_event_file_is_told(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    with open_store(shop) as store:
        store.load(
            [batch_of([event(n, text=random.Random(n).randbytes(400).hex()) for n in range(200)])], source="a"
        )
    (file,) = (shop / "events").glob("bucket=*/*.parquet")
    flip(file, file.stat().st_size // 2, 0)
    with open_store(shop) as store, pytest.raises(StorageError, match="event file"):
        store.scan()


def test_a_damaged_id_index_is_made_anew(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    with open_store(shop) as store:
        store.load([batch_of([event(n) for n in range(50)])], source="a")
    (run,) = (shop / "ids").glob("*.ids")
    flip(run, 16, 3)
    with open_store(shop) as store:
        assert store.append([event(n) for n in range(50)]) == ["duplicate"] * 50


def test_a_journal_of_the_version_before(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    with open_store(shop) as store:
        store.append([event(n) for n in range(3)])
        store.log_decision(slate(0))
    db = sqlite3.connect(shop / "journal.db")
    for statement in (
        "ALTER TABLE journal DROP COLUMN sum",
        "ALTER TABLE decisions DROP COLUMN sum",
        "DROP TABLE damaged",
        "DROP TABLE links",
        "DROP TABLE letters",
        "DROP TABLE positions",
        "UPDATE meta SET value = 1 WHERE key = 'schema'",
        "UPDATE meta SET value = 3 WHERE key = 'next_seq'",
    ):
        db.execute(statement)
    db.commit()
    db.close()
    with pytest.raises(ShopError, match="older version"):
        open_store(shop, readonly=True)
    with open_store(shop) as store:
        assert store.append([event(n) for n in range(4)]) == ["duplicate"] * 3 + ["stored"]
        assert list(store.decisions()) == [slate(0)]
        assert store.compact() == 4
    with open_store(shop) as store:
        assert len(store.history("u1").event_id) == 4
