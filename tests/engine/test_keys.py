"""API keys and the access log: what is kept, what is told, and what acts at once."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from penchant.core.errors import Forbidden, InputError, NotFound, ShopError
from penchant.engine import CALLER, Caller, Engine, Keyring
from penchant.engine._keys import KEY_PATTERN

DAY = 86_400_000_000


class Clock:
    now = 1_700_000_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    with Engine.open(tmp_path / "shop") as engine:
        engine.init(name="s")
    return tmp_path / "shop"


def test_a_key_is_shown_once_and_kept_as_a_hash(shop: Path) -> None:
    with Engine.open(shop) as engine:
        made = engine.keys(action="create", name="site", scopes=["write", "serve"])
        assert made.secret is not None
        assert KEY_PATTERN.fullmatch(made.secret)
        assert "once" in (made.note or "")
        listed = engine.keys()
        assert listed.secret is None
        assert [(key.name, key.scopes, key.state) for key in listed.keys] == [
            ("site", ["serve", "write"], "active")
        ]
    random = made.secret.rpartition("_")[2]
    for path in shop.rglob("*"):
        if path.is_file():
            assert random.encode() not in path.read_bytes(), path
    for name in ("keys.json", "keys.pepper"):
        assert (shop / name).stat().st_mode & 0o077 == 0


def test_keys_are_random_and_looked_up_by_their_id(shop: Path, clock: Clock) -> None:
    ring = Keyring(shop, clock)
    made = [ring.create("", ["serve"]) for _ in range(20)]
    assert len({secret for _, secret in made}) == 20
    for key_id, secret in made:
        found = ring.find(secret)
        assert found is not None
        assert found.key == key_id
    key_id, secret = made[0]
    for wrong in ("", "pk_", secret[:-1], secret + "A", secret.replace(key_id, made[1][0]), "pk_" + "é" * 60):
        assert ring.find(wrong) is None, wrong


def test_a_key_ends_after_its_days(shop: Path, clock: Clock) -> None:
    ring = Keyring(shop, clock)
    _, secret = ring.create("", ["serve"], days=2)
    assert ring.find(secret) is not None
    clock.now += 2 * DAY
    assert ring.find(secret) is None
    assert ring.all()[0].state == "expired"


def test_rotation_leaves_the_old_key_its_grace(shop: Path, clock: Clock) -> None:
    ring = Keyring(shop, clock)
    key_id, old = ring.create("site", ["serve"], rate=7)
    new_id, new = ring.rotate(key_id, grace=1)
    assert ring.find(old) is not None
    grant = ring.find(new)
    assert grant is not None
    assert (grant.scopes, grant.rate) == ({"serve"}, 7)
    clock.now += DAY // 24
    assert ring.find(old) is None
    assert ring.find(new) is not None
    assert {key.id: key.replaced_by for key in ring.all()}[key_id] == new_id
    with pytest.raises(InputError, match="expired"):
        ring.rotate(key_id, grace=1)


def test_a_revocation_acts_on_other_rings_at_once(shop: Path, clock: Clock) -> None:
    serving, operator = Keyring(shop, clock), Keyring(shop, clock)
    key_id, secret = operator.create("", ["serve"])
    assert serving.find(secret) is not None
    operator.revoke(key_id)
    assert serving.find(secret) is None
    assert len(serving) == 1  # the shop goes on asking for keys
    with pytest.raises(NotFound, match="no such key"):
        operator.revoke("ffffffffffff")


def test_another_pepper_takes_no_key(shop: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    _, secret = Keyring(shop, clock).create("", ["serve"])
    monkeypatch.setenv("PENCHANT_PEPPER", "x" * 32)
    assert Keyring(shop, clock).find(secret) is None
    monkeypatch.setenv("PENCHANT_PEPPER", "short")
    with pytest.raises(ShopError, match="too short"):
        Keyring(shop, clock).find(secret)


def test_a_damaged_file_lets_nobody_in(shop: Path, clock: Clock) -> None:
    ring = Keyring(shop, clock)
    _, secret = ring.create("", ["serve"])
    (shop / "keys.json").write_text('{"keys": 5}')
    with pytest.raises(ShopError, match="damaged"):
        ring.find(secret)


def test_requests_that_do_not_go_together_are_refused(shop: Path) -> None:
    with Engine.open(shop) as engine:
        for fields in (
            {"action": "create"},
            {"action": "rotate"},
            {"action": "revoke"},
            {"scopes": ["serve"]},
            {"action": "create", "scopes": ["root"]},
        ):
            with pytest.raises(InputError):
                engine.keys(**fields)
    with Engine.open(shop / "nothing") as engine, pytest.raises(ShopError, match="not a shop"):
        engine.keys()


def test_a_key_gives_no_more_than_it_has(shop: Path) -> None:
    with Engine.open(shop) as engine:
        manager = engine.keys(action="create", scopes=["manage"]).keys[0].id
        token = CALLER.set(Caller(key="k", scopes=frozenset({"govern", "serve"})))
        try:
            for fields in (
                {"action": "create", "scopes": ["serve", "manage"]},
                {"action": "rotate", "key": manager},
                {"action": "revoke", "key": manager},
            ):
                with pytest.raises(Forbidden, match="does not have"):
                    engine.keys(**fields)
            assert engine.keys(action="create", scopes=["serve"]).secret
        finally:
            CALLER.reset(token)


def test_the_access_log_says_who_did_what(shop: Path) -> None:
    with Engine.open(shop) as engine:
        token = CALLER.set(Caller(key="abc", request_id="r-1"))
        try:
            engine.keys(action="create", name="somebody", scopes=["serve"])
        finally:
            CALLER.reset(token)
        with pytest.raises(NotFound):
            engine.keys(action="revoke", key="none")
        entries = engine.access_log(operation="keys").entries
        assert [(e.outcome, e.key, e.request_id) for e in entries] == [
            ("not_found", None, None),
            ("ok", "abc", "r-1"),
        ]
        assert len(engine.access_log(k=1).entries) == 1
        assert [e.operation for e in engine.access_log(key="abc").entries] == ["keys"]
        assert engine.access_log(since=engine.clock() + 10**9).entries == []
        engine.recommend(user_id="u1")
        assert "recommend" not in {e.operation for e in engine.access_log(k=1000).entries}
    lines = (shop / "access.log").read_text()
    assert "somebody" not in lines
    assert re.search(r"20\d\d-\d\d-\d\dT", lines)


def test_a_long_access_log_is_read_from_its_end(shop: Path) -> None:
    row = {"ts": "2026-01-01T00:00:00Z", "operation": "x" * 50, "outcome": "ok", "seconds": 0.0}
    with (shop / "access.log").open("a") as file:
        file.writelines(json.dumps({**row, "outcome": str(n)}) + "\n" for n in range(5000))
        file.write('{"ts": "cut off')
    with Engine.open(shop) as engine:
        entries = engine.access_log(k=4000, operation="x" * 50).entries
    assert [int(entry.outcome) for entry in entries] == list(range(4999, 999, -1))


def test_a_key_is_rotated_once_however_many_try(shop: Path, clock: Clock) -> None:
    """Two rotations at a time must not leave two successors, nor a revocation be undone by one."""
    import threading

    key_id, _ = Keyring(shop, clock).create("site", ["serve"])
    words: list[str] = []

    def rotate() -> None:
        try:
            Keyring(shop, clock).rotate(key_id, grace=1)
            words.append("rotated")
        except InputError as error:
            words.append(error.message)

    threads = [threading.Thread(target=rotate) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(words) == ["rotated"] + ["this key was replaced already"] * 7
    assert len(Keyring(shop, clock).all()) == 2
