"""Choices of people: the newest holds, everywhere within a second, and nobody's id is in the file."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Literal

import pytest

from penchant.core import Purpose
from penchant.core.errors import ShopError, StorageError
from penchant.privacy import ConsentBook


@pytest.fixture
def book(tmp_path: Path) -> ConsentBook:
    return ConsentBook(tmp_path / "consent.db", "opt_out")


def test_the_rule_holds_where_nothing_was_chosen(book: ConsentBook, tmp_path: Path) -> None:
    assert book.trivial
    assert book.allowed("u1") == ["personalise", "analytics"]
    assert not book._path.exists()  # asking makes no file
    strict = ConsentBook(tmp_path / "consent.db", "opt_in")
    assert not strict.trivial
    assert strict.allowed("u1") == []
    strict.choose("u1", ["analytics"], granted=True, ts=1, source="banner")
    assert strict.allowed("u1") == ["analytics"]
    assert strict.allowed("u2") == []


def test_the_newest_choice_holds(book: ConsentBook) -> None:
    book.choose("u1", ["personalise"], granted=False, ts=10, source="banner")
    book.choose("u1", ["personalise"], granted=True, ts=5, source="an old list")  # told late
    assert not book.allows("u1", "personalise")
    book.choose("u1", ["personalise"], granted=True, ts=11, source="banner")
    assert book.allows("u1", "personalise")
    assert [(c.ts, c.granted, c.source) for c in book.history("u1")] == [
        (5, True, "an old list"),
        (10, False, "banner"),
        (11, True, "banner"),
    ]


def test_what_events_say_is_noted_when_it_is_news(book: ConsentBook) -> None:
    for ts in (10, 11, 12):
        book.state_of("u1", ["analytics"], ts=ts, source="event")
    assert book.allowed("u1") == ["analytics"]
    assert len(book.history("u1")) == 1
    book.state_of("u1", ["personalise", "analytics"], ts=9, source="event")  # older: no news
    assert book.allowed("u1") == ["analytics"]
    book.state_of("u1", ["personalise", "analytics"], ts=20, source="event", lifts=True)
    assert book.allowed("u1") == ["personalise", "analytics"]


@pytest.mark.parametrize("rule", ["opt_out", "opt_in"])
@pytest.mark.parametrize("reread", [False, True])
def test_an_event_says_no_for_anybody_and_yes_only_where_nobody_said_no(
    tmp_path: Path, rule: Literal["opt_out", "opt_in"], reread: bool
) -> None:
    book = ConsentBook(tmp_path / "consent.db", rule)
    both: list[Purpose] = ["personalise", "analytics"]

    def say(subject: str, purposes: list[Purpose], ts: int, *, lifts: bool) -> list[Purpose]:
        nonlocal book
        book.state_of(subject, purposes, ts=ts, source="event", lifts=lifts)
        book = ConsentBook(tmp_path / "consent.db", rule) if reread else book
        return book.allowed(subject)

    assert say("new", both, 1, lifts=False) == both  # the first word may be a yes
    assert say("new", ["analytics"], 2, lifts=False) == ["analytics"]
    assert say("new", both, 3, lifts=False) == ["analytics"]  # whoever has the key of a page says so
    assert say("anon:new", [], 2, lifts=True) == []
    assert say("anon:new", both, 3, lifts=True) == both  # the banner of that device
    book.choose("anon:new", both, granted=False, ts=4, source="letter")
    assert say("anon:new", both, 5, lifts=True) == []
    book.choose("anon:new", both, granted=True, ts=6, source="letter")
    assert say("anon:new", both, 7, lifts=True) == both


def test_others_see_it_within_a_second(book: ConsentBook) -> None:
    other = ConsentBook(book._path, "opt_out")
    assert other.allows("u1", "personalise")
    book.choose("u1", ["personalise"], granted=False, ts=10, source="banner")
    deadline = time.monotonic() + 1
    while other.allows("u1", "personalise"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_file_holds_no_id_and_forgets(book: ConsentBook) -> None:
    book.choose("ann@example.com", ["analytics"], granted=False, ts=10, source="banner")
    person = book.person("ann@example.com")
    content = book._path.read_bytes()
    assert b"ann@example.com" not in content
    assert person in content
    assert book._path.stat().st_mode & 0o077 == 0
    assert book.forget("ann@example.com") == 1
    assert person not in book._path.read_bytes()
    assert book.history("ann@example.com") == []
    assert book.allows("ann@example.com", "analytics")


def test_nobody_is_named_without_the_key_of_the_file(book: ConsentBook) -> None:
    assert book.person("ann@example.com") == b""
    assert book.forget("ann@example.com") == book.forget_people([b""]) == 0
    ConsentBook(book._path, "opt_out").choose("u1", ["analytics"], granted=False, ts=10, source="banner")
    assert book.forget("u1") == 1  # at once: the file is of another process
    assert book.history("u1") == []


def test_newer_and_damaged_files_are_refused(book: ConsentBook) -> None:
    book.choose("u1", ["analytics"], granted=False, ts=10, source="banner")
    db = sqlite3.connect(book._path)
    db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(ShopError, match="newer version"):
        ConsentBook(book._path, "opt_out")
    book._path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(StorageError, match=r"consent\.db"):
        ConsentBook(book._path, "opt_out")


def test_a_choice_does_not_read_all_others_again(book: ConsentBook, monkeypatch: pytest.MonkeyPatch) -> None:
    book.choose("u1", {"personalise"}, granted=False, ts=5, source="banner")
    with monkeypatch.context() as patch:
        patch.setattr(book, "_refresh", lambda: pytest.fail("everything was read again"))
        book.choose("u1", {"personalise"}, granted=True, ts=4, source="late")
        book.choose("u1", {"analytics"}, granted=False, ts=6, source="banner")
        book.choose("u2", {"analytics"}, granted=False, ts=6, source="banner")
        seen = [book.allowed(person) for person in ("u1", "u2")]
    assert seen == [[], ["personalise"]]
    again = ConsentBook(book._path, "opt_out")
    assert [again.allowed(person) for person in ("u1", "u2")] == seen


def test_a_choice_takes_in_what_others_wrote_just_before(book: ConsentBook) -> None:
    book.choose("u1", {"personalise"}, granted=False, ts=5, source="banner")
    ConsentBook(book._path, "opt_out").choose("u2", {"personalise"}, granted=False, ts=5, source="banner")
    book.choose("u3", {"personalise"}, granted=False, ts=5, source="banner")
    assert [book.allows(person, "personalise") for person in ("u1", "u2", "u3")] == [False] * 3
