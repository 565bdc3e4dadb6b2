"""Consent, sealed texts and pseudonyms in a shop: what people allow is asked at every door."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from penchant.core.errors import InputError, ShopError
from penchant.engine import Engine
from penchant.engine._protocol import take_snapshot

NOW = 1_718_000_000_000_000


def make(path: Path, **privacy: Any) -> Path:
    with Engine.open(path) as engine:
        engine.init(name="s")
    file = path / "shop.toml"
    text = file.read_text()
    for name, value in privacy.items():
        new = f'"{value}"' if isinstance(value, str) else str(value).lower()
        old = next(line for line in text.splitlines() if line.startswith(f"{name} = "))
        text = text.replace(old, f"{name} = {new}")
    file.write_text(text)
    return path


def view(person: str, number: int, item: str = "tea", **more: Any) -> dict[str, Any]:
    return {
        "kind": "view", "user_id": person, "item_id": item, "event_id": f"{person}-{number}",
        "ts": NOW + number * 1_000_000, **more,
    }  # fmt: skip


def statuses(engine: Engine, *events: dict[str, Any]) -> list[str]:
    return [result.status for result in engine.observe(events=list(events)).results]


def test_nothing_is_kept_of_who_allows_nothing(tmp_path: Path) -> None:
    with Engine.open(make(tmp_path / "shop")) as engine:
        assert statuses(engine, view("u1", 1), view("u2", 1)) == ["stored"] * 2
        engine.consent(user_id="u1", withdraw=["personalise", "analytics"], source="banner")
        assert statuses(engine, view("u1", 2), view("u2", 2)) == ["withheld", "stored"]
        assert statuses(engine, view("u3", 1, consent=[])) == ["withheld"]  # an event may say so itself
        assert engine.consent(user_id="u3").allows == []
        assert engine.consent(user_id="u3").history[0].source == "event"
        assert statuses(engine, view("u3", 3, consent=["analytics"])) == ["withheld"]  # a page's key says so
        assert engine.consent(user_id="u3", grant=["analytics"]).allows == ["analytics"]
        assert statuses(engine, view("u3", 3)) == ["stored"]
        assert engine.tally["withheld"] == 3
        export = engine.export_user(user_id="u1")
        assert len(export.events) == 1
        assert [choice.purpose for choice in export.consent] == ["analytics", "personalise"]


def test_nothing_is_set_aside_of_who_allows_nothing(tmp_path: Path) -> None:
    wrong = {"kind": "dance", "item_id": "tea", "text": "zebra"}
    file = tmp_path / "events.csv"
    rows = ["e1,2024-03-01T10:00:00Z,closed,dance,i1", "e2,2024-03-01T10:00:00Z,u2,dance,i1"]
    rows += ["e3,2024-03-01T10:00:00Z,u2,view,i1"]
    file.write_text("\n".join(["event_id,ts,user_id,kind,item_id", *rows]) + "\n")
    with Engine.open(make(tmp_path / "shop")) as engine:
        both = ["personalise", "analytics"]
        engine.consent(user_id="closed", withdraw=both)
        engine.consent(anonymous_id="closed-guest", withdraw=both)
        people = ({"user_id": "closed"}, {"anonymous_id": "closed-guest"}, {"user_id": "open"})
        assert statuses(engine, *({**wrong, **who} for who in people)) == ["refused"] * 3
        assert [letter.event["user_id"] for letter in engine.dead_letters().letters] == ["open"]
        engine.ingest(files=[str(file)])
        assert engine.export_user(user_id="closed").refused == []
        assert len(engine.export_user(user_id="u2").refused) == 1


def test_opt_in_keeps_nothing_before_somebody_says_yes(tmp_path: Path) -> None:
    with Engine.open(make(tmp_path / "shop", consent="opt_in")) as engine:
        assert statuses(engine, view("u1", 1)) == ["withheld"]
        engine.consent(user_id="u1", grant=["personalise"])
        assert statuses(engine, view("u1", 2)) == ["stored"]
        with pytest.raises(InputError, match="at once"):
            engine.consent(user_id="u1", grant=["analytics"], withdraw=["analytics"])


def test_a_withdrawal_acts_on_answers_at_once(tmp_path: Path) -> None:
    with Engine.open(make(tmp_path / "shop")) as engine:
        statuses(engine, *(view(f"u{n}", m, f"i{m}") for n in range(3) for m in range(4)))
        statuses(engine, view("u1", 9, "mine"))
        before = engine.recommend(user_id="u1", seen="exclude", explore="off", seed=1)
        assert before.subject == "u1"
        assert engine.profile(user_id="u1").events == 5
        engine.consent(user_id="u1", withdraw=["personalise"])
        after = engine.recommend(user_id="u1", seen="exclude", explore="off", seed=1)
        assert after.subject == "anon:nobody"
        assert "mine" in after.item_ids  # its history is not looked at
        assert "mine" not in before.item_ids
        profile = engine.profile(user_id="u1")
        assert (profile.events, profile.note) == (0, "this person allows no profile")
        logged = [slate.subject for slate in engine.shop.store.decisions()]
        assert logged == ["u1", "anon:nobody"]
        engine.consent(user_id="u1", grant=["personalise"])
        assert engine.recommend(user_id="u1").subject == "u1"


def test_a_withdrawal_acts_on_training_at_the_next_cut(tmp_path: Path) -> None:
    with Engine.open(make(tmp_path / "shop")) as engine:
        statuses(engine, *(view(f"u{n}", m, f"i{n}") for n in range(4) for m in range(3)))
        before = take_snapshot(engine.shop, engine.progress)
        assert len(before.users) == 4
        engine.consent(user_id="u2", withdraw=["analytics"])
        after = take_snapshot(engine.shop, engine.progress)
        assert list(after.users.ids) == ["u0", "u1", "u3"]
        assert engine.recommend(user_id="u2").subject == "u2"  # the other purpose stands
        assert before.fingerprint != after.fingerprint


def test_files_pass_the_same_door(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    rows = [f"e{n}-{m},2024-03-0{m + 1}T10:00:00Z,u{n},view,i{m}" for n in range(3) for m in range(3)]
    file.write_text("\n".join(["event_id,ts,user_id,kind,item_id", *rows]) + "\n")
    (tmp_path / "users.csv").write_text("user_id,city\nu0,Berlin\nu1,Rome\nu2,Oslo\n")
    with Engine.open(make(tmp_path / "shop")) as engine:
        engine.consent(user_id="u1", withdraw=["personalise", "analytics"])
        report = engine.ingest(files=[str(file)])
        assert (report.accepted, report.withheld, report.broken) == (6, 3, 0)
        report = engine.ingest(files=[str(tmp_path / "users.csv")])
        assert (report.accepted, report.withheld) == (2, 1)
        assert engine.shop.store.users()["user_id"].to_pylist() == ["u0", "u2"]


def key() -> str:
    return base64.b64encode(b"k" * 32).decode()


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_free_texts_and_attributes_are_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "shop", encrypt=True)
    with Engine.open(path) as engine, pytest.raises(ShopError, match="PENCHANT_KEK"):
        engine.status()
    monkeypatch.setenv("PENCHANT_KEK", key())
    words = {"query": "zebra-query", "text": "zebra-text", "props": {"zebra-key": "zebra-props"}}
    (tmp_path / "users.csv").write_text("user_id,city,age\nu1,zebra-city,30\nu2,Rome,40\n")
    with Engine.open(path) as engine:
        statuses(engine, view("u1", 1, **words), view("u2", 1))
        engine.ingest(files=[str(tmp_path / "users.csv")])
        engine.recommend(user_id="u1")
        engine.shop.store.compact()
        export = engine.export_user(user_id="u1")
        assert export.attributes == {"user_id": "u1", "city": "zebra-city", "age": 30}
        assert "zebra-query" in str(export.events)
        assert len(export.decisions) == 1
    content = everything_in(path)
    assert b"zebra" not in content
    copy = {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    with Engine.open(path) as engine:  # a second time, from the files
        assert engine.shop.store.users()["city"].to_pylist() == ["zebra-city", "Rome"]
        receipt = engine.erase_user(user_id="u1")
        assert receipt.removed["keys"] == 1
        assert receipt.remaining == []
        assert engine.shop.store.users()["city"].to_pylist() == ["Rome"]
        vault = (path / "vault.db").read_bytes()
    # A copy of the events from before, with the keys of now: u1 stays closed.
    old = tmp_path / "old"
    for name, content in copy.items():
        (old / name).parent.mkdir(parents=True, exist_ok=True)
        (old / name).write_bytes(content)
    (old / "vault.db-wal").unlink(missing_ok=True)
    (old / "vault.db-shm").unlink(missing_ok=True)
    (old / "vault.db").write_bytes(vault)
    with Engine.open(old) as engine:
        export = engine.export_user(user_id="u1")
        assert "zebra" not in str(export)
        assert engine.export_user(user_id="u2").attributes["city"] == "Rome"


def test_sealing_is_for_good_and_may_begin_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "shop")
    with Engine.open(path) as engine:
        statuses(engine, view("u1", 1, text="plain-before"))
        engine.recommend(user_id="u1")
    monkeypatch.setenv("PENCHANT_KEK", key())
    plain = (path / "shop.toml").read_text()
    (path / "shop.toml").write_text(plain.replace("encrypt = false", "encrypt = true"))
    with Engine.open(path) as engine:
        statuses(engine, view("u1", 2, text="sealed-after"))
        texts = [event["text"] for event in engine.export_user(user_id="u1").events]
        assert texts == ["plain-before", "sealed-after"]
        assert len(list(engine.shop.store.decisions())) == 1
    (path / "shop.toml").write_text(plain)
    with Engine.open(path) as engine, pytest.raises(ShopError, match="for good"):
        engine.status()


def test_pseudonyms_stand_in_place_of_ids(tmp_path: Path) -> None:
    path = make(tmp_path / "shop", pseudonymise=True)
    ann, guest = "ann@example.com", "cookie-4711"
    rows = [f"e{m},2024-03-0{m + 1}T10:00:00Z,{ann},view,i{m}" for m in range(3)]
    (tmp_path / "events.csv").write_text("\n".join(["event_id,ts,user_id,kind,item_id", *rows]) + "\n")
    (tmp_path / "users.csv").write_text(f"user_id,city\n{ann},Rome\n")
    (tmp_path / "who.txt").write_text(f"{ann}\nsomebody@example.com\n")
    with Engine.open(path) as engine:
        engine.ingest(files=[str(tmp_path / "events.csv")])
        engine.ingest(files=[str(tmp_path / "users.csv")])
        told = {"kind": "view", "anonymous_id": guest, "item_id": "i9"}
        assert statuses(engine, view(f"  {ann} ", 1, event_id="own"), told) == ["stored"] * 2
        slate = engine.recommend(user_id=ann, k=2)
        assert slate.subject.startswith("~")
        assert engine.recommend(user_id=slate.subject).subject == slate.subject
        assert engine.recommend(anonymous_id=guest).subject.startswith("anon:~")
        export = engine.export_user(user_id=ann)
        assert len(export.events) == 4
        assert export.attributes["city"] == "Rome"
        out = tmp_path / "out.parquet"
        engine.recommend(users=str(tmp_path / "who.txt"), k=2, out=str(out))
        import pyarrow.parquet as pq

        assert set(pq.read_table(out)["user_id"].to_pylist()) == {ann, "somebody@example.com"}
        engine.consent(user_id=ann, withdraw=["personalise"])
        assert engine.recommend(user_id=ann).subject == "anon:nobody"
        engine.shop.store.compact()
        assert engine.observe(events=[{"kind": "view", "user_id": "anon:x", "item_id": "i"}]).stored == 0
    content = everything_in(path)
    held = [path.name for path in path.rglob("*") if path.is_file() and ann.encode() in path.read_bytes()]
    assert held == []
    assert guest.encode() not in content
    with Engine.open(path) as engine:
        assert engine.erase_user(user_id=ann).remaining == []
        assert engine.export_user(user_id=ann).erased


def test_an_id_written_in_two_ways_is_one_person(tmp_path: Path) -> None:
    with Engine.open(make(tmp_path / "shop")) as engine:
        statuses(engine, view("caf\u00e9", 1))
        assert engine.profile(user_id=" cafe\u0301 ").events == 1
        receipt = engine.erase_user(user_id="cafe\u0301")
        assert receipt.removed["journal"] == 1


def test_a_sealed_shop_learns_and_answers_through_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penchant.surfaces import create_app
    from penchant.testing import running_server

    monkeypatch.setenv("PENCHANT_KEK", key())
    path = make(tmp_path / "shop", encrypt=True)
    with running_server(create_app(Engine.open(path))) as url, Engine.connect(url) as engine:
        for person in range(12):
            events = [
                view(
                    f"u{person}",
                    step,
                    f"i{(person + step) % 20}",
                    text="zebra",
                    ts=NOW + step * 10**9 + person,
                )
                for step in range(8)
            ]
            assert engine.observe(events=events).stored == 8
        report = engine.train(
            models=["transitions"], device="cpu"
        )  # in a process of its own, which only reads
        assert report.promoted_kind is not None
        assert not engine.recommend(user_id="u1", k=3).degraded
        engine.erase_user(user_id="u1")
        assert engine.export_user(user_id="u1").events == []
        assert engine.export_user(user_id="u2").events[0]["text"] == "zebra"
    assert b"zebra" not in everything_in(path)


def test_a_later_withdrawal_holds_over_an_event_whose_clock_is_ahead(tmp_path: Path) -> None:
    with Engine.open(make(tmp_path / "shop"), clock=lambda: NOW) as engine:
        engine.consent(user_id="u1", withdraw=["personalise", "analytics"], source="banner")
        ahead = view("u1", 3600, consent=["personalise", "analytics"])
        engine.observe(events=[ahead])
        report = engine.consent(user_id="u1", withdraw=["personalise", "analytics"], source="banner")
        assert report.allows == []


def test_events_of_the_erased_leave_no_choice_behind(tmp_path: Path) -> None:
    with Engine.open(make(tmp_path / "shop")) as engine:
        engine.erase_user(user_id="u1")
        assert statuses(engine, view("u1", 1, consent=["analytics"])) == ["erased"]
        assert engine.consent(user_id="u1").history == []


@pytest.mark.parametrize("pseudonymise", [False, True])
def test_refused_events_whose_id_is_a_number_or_no_id_can_be_erased(
    tmp_path: Path, pseudonymise: bool
) -> None:
    with Engine.open(make(tmp_path / "shop", pseudonymise=pseudonymise)) as engine:
        engine.observe(events=[{"kind": "view", "user_id": 171717, "item_id": "tea"}])
        engine.observe(events=[{"kind": "view", "user_id": ["ann@example.com"], "item_id": "tea"}])
        kept = str(engine.dead_letters().letters)
        assert "ann@" not in kept
        assert not pseudonymise or "171717" not in kept
        assert engine.erase_user(user_id="171717").removed["letters"] == 1
        assert engine.dead_letters().kept == 1


def test_an_id_with_the_mark_of_guests_is_a_pseudonym_too(tmp_path: Path) -> None:
    path = make(tmp_path / "shop", pseudonymise=True)
    (tmp_path / "events.csv").write_text(
        "event_id,ts,kind,anonymous_id,item_id\ne2,2024-06-10T06:00:00Z,view,anon:ann,tea\n"
    )
    with Engine.open(path) as engine:
        guest = {"kind": "view", "anonymous_id": "anon:ann", "item_id": "tea", "event_id": "e1", "ts": NOW}
        other = {**view("anon:bob@example.com", 1), "event_id": "e3"}
        assert statuses(engine, guest, other) == ["stored", "refused"]
        engine.ingest(files=[str(tmp_path / "events.csv")])
        events = engine.export_user(anonymous_id="anon:ann").events
        assert {event["event_id"] for event in events} == {"e1", "e2"}
        assert "ann" not in str([event["anonymous_id"] for event in events])
        assert "bob" not in str(engine.dead_letters().letters)


@pytest.mark.parametrize("encrypt", [False, True])
def test_refused_events_that_name_the_erased_in_another_place_go_too(
    tmp_path: Path, encrypt: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id of an event is often made of that of its person, and what is refused may have no person at all."""
    monkeypatch.setenv("PENCHANT_KEK", base64.b64encode(b"k" * 32).decode())
    path = make(tmp_path / "shop", encrypt=encrypt)
    with Engine.open(path) as engine:
        nobody = {"kind": "view", "item_id": "tea", "event_id": "ann@example.com-17"}
        engine.observe(events=[nobody, {**nobody, "user_id": "bob", "kind": "dance"}])
        other = {"kind": "dance", "user_id": "bob", "event_id": "bob-3"}
        engine.observe(events=[other, view("ann@example.com", 1)])
        receipt = engine.erase_user(user_id="ann@example.com")
        assert (receipt.removed["letters"], receipt.remaining) == (2, [])
        assert [letter.event["event_id"] for letter in engine.dead_letters().letters] == ["bob-3"]
        assert b"ann@example.com" not in everything_in(path)
