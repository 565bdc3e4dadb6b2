"""Backups: taken while events come in, refused when damaged, and nobody who was erased comes back."""

from __future__ import annotations

import base64
import contextlib
import io
import sqlite3
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from penchant.core.errors import ShopError, UnreadableFile
from penchant.engine import Engine

NOW = 1_718_000_000_000_000


def view(person: str, number: int, **more: Any) -> dict[str, Any]:
    return {
        "kind": "view", "user_id": person, "item_id": f"i{number % 5}", "event_id": f"e-{number}",
        "ts": NOW + number * 1_000_000, **more,
    }  # fmt: skip


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop"
    (tmp_path / "users.csv").write_text("user_id,city\nann,ann-city\nbob,bob-city\n")
    with Engine.open(path) as engine:
        engine.init(name="s")
        engine.observe(events=[view("ann" if n % 2 else "bob", n) for n in range(20)])
        engine.shop.store.compact()
        engine.observe(events=[view("ann" if n % 2 else "bob", n) for n in range(20, 30)])
        engine.ingest(files=[str(tmp_path / "users.csv")])
        engine.recommend(user_id="ann")
        engine.consent(user_id="ann", withdraw=["analytics"])
        engine.keys(action="create", scopes=["serve"])
    return path


def test_a_restored_shop_is_the_shop(shop: Path, tmp_path: Path) -> None:
    with Engine.open(shop) as engine:
        made = engine.backup(out=str(tmp_path / "b.tar"))
        assert made.events == 30
        before = engine.export_user(user_id="ann")
        answer = engine.recommend(user_id="bob", explore="off", seed=1)
    assert (tmp_path / "b.tar").stat().st_mode & 0o077 == 0
    with Engine.open(tmp_path / "new") as engine:
        report = engine.restore(file=str(tmp_path / "b.tar"))
        assert (report.events, report.erased, report.events_erased) == (30, 0, 0)
        assert engine.export_user(user_id="ann") == before
        assert engine.recommend(user_id="bob", explore="off", seed=1).item_ids == answer.item_ids
        assert engine.consent(user_id="ann").allows == ["personalise"]
        assert len(engine.keys().keys) == 1
        assert engine.observe(events=[view("bob", 4)]).results[0].status == "duplicate"
        with pytest.raises(ShopError, match="holds other files"):
            engine.restore(file=str(tmp_path / "b.tar"))


def test_the_erased_do_not_come_back(shop: Path, tmp_path: Path) -> None:
    with Engine.open(shop) as engine:
        engine.backup(out=str(tmp_path / "b.tar"))
        engine.erase_user(user_id="ann")
        assert "ann" not in (shop / "erasures.log").read_text()
    with Engine.open(tmp_path / "new") as engine:
        report = engine.restore(file=str(tmp_path / "b.tar"), erasures=str(shop / "erasures.log"))
        assert (report.erased, report.events, report.events_erased) == (1, 15, 15)
        export = engine.export_user(user_id="ann")
        assert (export.events, export.decisions, export.attributes, export.consent) == ([], [], {}, [])
        assert export.erased
        assert engine.observe(events=[view("ann", 99)]).results[0].status == "erased"
        assert engine.export_user(user_id="bob").attributes["city"] == "bob-city"
    for path in (tmp_path / "new").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b'"ann"' not in content, path
            assert b"ann-city" not in content, path


def test_a_backup_while_events_come_in(shop: Path, tmp_path: Path) -> None:
    acknowledged: list[str] = []
    stop = threading.Event()
    with Engine.open(shop) as engine:

        def write() -> None:
            number = 1000
            while not stop.is_set():
                number += 1
                told = engine.observe(events=[view("carl", number)])
                acknowledged.extend(r.event_id or "" for r in told.results if r.status == "stored")

        writer = threading.Thread(target=write)
        writer.start()
        try:
            while len(acknowledged) < 5:
                pass
            sure = list(acknowledged)
            made = engine.backup(out=str(tmp_path / "b.tar"))
        finally:
            stop.set()
            writer.join()
    with Engine.open(tmp_path / "new") as engine:
        report = engine.restore(file=str(tmp_path / "b.tar"))
        there = {event["event_id"] for event in engine.export_user(user_id="carl").events}
        assert set(sure) <= there <= set(acknowledged)
        assert report.events == 30 + len(there)
        assert abs(made.events - report.events) <= len(acknowledged)


def test_damaged_and_wicked_backups_are_refused(shop: Path, tmp_path: Path) -> None:
    good = tmp_path / "b.tar"
    with Engine.open(shop) as engine:
        engine.backup(out=str(good))
    content = bytearray(good.read_bytes())
    cases = {"cut": bytes(content[: len(content) // 2]), "empty": b"", "text": b"hello" * 500}
    place = content.find(b"bob-city") if b"bob-city" in content else content.find(b"PAR1") + 10
    content[place] ^= 1
    cases["flipped"] = bytes(content)
    for name, entry in {
        "slip": tarfile.TarInfo("../evil.txt"),
        "absolute": tarfile.TarInfo("/tmp/evil.txt"),
        "link": tarfile.TarInfo("evil"),
    }.items():
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            if name == "link":
                entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            entry.size = 0 if name == "link" else 4
            tar.addfile(entry, io.BytesIO(b"evil"))
        cases[name] = stream.getvalue()
    for name, wrong in cases.items():
        (tmp_path / "wrong.tar").write_bytes(wrong)
        with Engine.open(tmp_path / "new") as engine, pytest.raises(UnreadableFile, match="no backup"):
            engine.restore(file=str(tmp_path / "wrong.tar"))
        assert not (tmp_path / "new").exists(), name
        assert not (tmp_path / "evil.txt").exists()
    assert [path.name for path in tmp_path.iterdir() if "restoring" in path.name] == []


def test_a_sealed_shop_needs_its_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENCHANT_KEK", base64.b64encode(b"k" * 32).decode())
    path = tmp_path / "shop"
    with Engine.open(path) as engine:
        engine.init(name="s")
    file = path / "shop.toml"
    file.write_text(file.read_text().replace("encrypt = false", "encrypt = true"))
    with Engine.open(path) as engine:
        engine.observe(events=[view("ann", 1, text="zebra"), view("bob", 2, text="giraffe")])
        made = engine.backup(out=str(tmp_path / "b.tar"), keys_out=str(tmp_path / "keys"))
        assert made.keys_out is not None
        engine.erase_user(user_id="ann")
        engine.backup(
            out=str(tmp_path / "later.tar"), keys_out=str(tmp_path / "keys")
        )  # the old keys are gone
        assert engine.drill().events == 1
    assert b"vault.db" not in (tmp_path / "b.tar").read_bytes()
    with Engine.open(tmp_path / "new") as engine:
        with pytest.raises(ShopError, match="keys are needed"):
            engine.restore(file=str(tmp_path / "b.tar"))
        engine.restore(file=str(tmp_path / "b.tar"), keys=str(tmp_path / "keys"))
        assert engine.export_user(user_id="ann").events[0]["text"] is None  # its key is destroyed
        assert engine.export_user(user_id="bob").events[0]["text"] == "giraffe"


def test_the_drill(shop: Path, tmp_path: Path) -> None:
    with Engine.open(shop) as engine:
        engine.backup(out=str(tmp_path / "b.tar"))
        engine.erase_user(user_id="ann")
        old = engine.drill(file=str(tmp_path / "b.tar"))
        assert (old.events, old.erased, old.backup_seconds) == (15, 1, None)
        fresh = engine.drill()
        assert (fresh.events, fresh.erased, fresh.model_id) == (15, 0, "popularity")
        assert fresh.restore_seconds > 0
        (tmp_path / "b.tar").write_bytes(b"x" * 5000)
        with pytest.raises(UnreadableFile):
            engine.drill(file=str(tmp_path / "b.tar"))


def test_what_a_newer_version_wrote_is_refused(shop: Path, tmp_path: Path) -> None:
    import sqlite3

    file = shop / "shop.toml"
    text = file.read_text()
    file.write_text(text.replace("version = 1", "version = 2"))
    with Engine.open(shop) as engine, pytest.raises(ShopError, match="newer version"):
        engine.status()
    file.write_text(text)
    db = sqlite3.connect(shop / "journal.db")
    db.execute("UPDATE meta SET value = 999 WHERE key = 'schema'")
    db.commit()
    db.close()
    with Engine.open(shop) as engine, pytest.raises(ShopError, match="newer version"):
        engine.status()


def test_a_database_that_is_being_written_is_copied_whole(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "shop") as engine:
        engine.init()
        engine.consent(user_id="u1", withdraw=["analytics"], source="banner")
        with contextlib.closing(
            sqlite3.connect(tmp_path / "shop" / "consent.db", isolation_level=None)
        ) as db:
            db.execute("PRAGMA cache_size = 1")  # pages go into the file before the commit
            db.execute("BEGIN IMMEDIATE")
            rows = [(b"p" * 16, "analytics", 1, number, "s" * 3000) for number in range(30)]
            db.executemany(
                "INSERT INTO choices (person, purpose, granted, ts, source) VALUES (?, ?, ?, ?, ?)", rows
            )
            writer = threading.Thread(target=engine.backup, kwargs={"out": str(tmp_path / "shop.tar")})
            writer.start()
            time.sleep(0.5)
            db.execute("ROLLBACK")
            writer.join()
    with tarfile.open(tmp_path / "shop.tar") as tar:
        assert not [name for name in tar.getnames() if name.startswith("consent.db-")]
        (tmp_path / "copy.db").write_bytes(tar.extractfile("consent.db").read())
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert copy.execute("SELECT count(*) FROM choices").fetchall() == [(1,)]
