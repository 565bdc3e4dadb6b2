"""``collect``: messages of other systems, live, by the same dialects and rules as files of them."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from penchant.core.errors import InputError
from penchant.engine import Engine

NOW = 1_750_000_000_000_000
SECOND = 1_000_000


@pytest.fixture
def engine(tmp_path):
    with Engine.open(tmp_path / "shop", clock=lambda: NOW) as engine:
        engine.init(name="tea", currency="EUR")
        yield engine


def track(event, number, **fields):
    """A Segment call of a guest."""
    return {"type": "track", "event": event, "messageId": f"m{number}", "anonymousId": "phone", **fields}


def view(number, item="tea", **fields):
    return track("Product Viewed", number, properties={"product_id": item}, **fields)


def order(number, *items, **fields):
    products = [{"product_id": item, "price": 2.5} for item in items]
    return track("Order Completed", number, properties={"order_id": "o", "products": products}, **fields)


def collect(engine, *messages, form="segment"):
    report = engine.collect(form=form, messages=list(messages))
    return [result.status for result in report.results]


def items(engine, subject):
    return engine.shop.store.history(subject).item


def test_each_message_has_its_own_result(engine):
    report = engine.collect(
        form="segment",
        messages=[
            view(1),
            order(2, "tea", "cup", "pot"),
            track("Button Pressed", 3),
            {"type": "page", "messageId": "m4", "anonymousId": "phone"},
            track("Product Viewed", 5, properties={}),
            view(6, anonymousId=None),
            7,
            view(8, item="\x00"),
            track("Product Viewed", 9, properties={"product_id": "x", "price": -3}),
        ],
    )
    assert [(r.message_id, r.status, r.events) for r in report.results] == [
        ("m1", "stored", 1),
        ("m2", "stored", 3),
        ("m3", "ignored", 0),
        ("m4", "ignored", 0),
        ("m5", "refused", 0),
        ("m6", "refused", 0),
        (None, "refused", 0),
        ("m8", "refused", 0),
        ("m9", "refused", 0),
    ]
    assert report.stored == 4
    errors = [r.error or "" for r in report.results]
    assert "missing_item" in errors[4]
    assert "missing_user" in errors[5]
    assert "bad_id" in errors[7]
    assert "negative_value" in errors[8]
    letters = engine.dead_letters()
    assert letters.kept == 5
    assert letters.letters[0].event["item_id"] == "x"
    assert "negative_value" in letters.letters[0].reason


def test_the_same_message_again_counts_once_and_another_of_its_id_is_kept_aside(engine):
    sent = [view(1), order(2, "tea", "cup")]
    assert collect(engine, *sent) == ["stored", "stored"]
    assert collect(engine, *sent) == ["duplicate", "duplicate"]
    assert collect(engine, view(1, item="cup"), view(3)) == ["conflict", "stored"], "the good one is stored"
    for other in (order(2, "tea"), order(2, "tea", "cup", "pot"), order(2, "tea", "pot")):
        assert collect(engine, other) == ["conflict"], other
    assert collect(engine, order(4, "tea"), order(4, "tea", "cup"), order(4, "tea")) == [
        "stored",
        "conflict",
        "duplicate",
    ]
    assert items(engine, "anon:phone").count("pot") == 0
    kept = engine.dead_letters().letters
    assert {letter.reason for letter in kept} == {"another event has this id"}
    assert kept[-1].event["item_id"] == "cup"


def test_the_clock_skew_rule_and_a_retry(tmp_path):
    clock = [NOW]
    with Engine.open(tmp_path / "shop", clock=lambda: clock[0]) as engine:
        engine.init()
        made, sent = "2031-01-01T12:00:00Z", "2031-01-01T12:00:20Z"  # a phone whose clock is years ahead
        message = view(1, timestamp=made, sentAt=sent)
        assert collect(engine, message) == ["stored"]
        assert engine.shop.store.scan()["ts"].to_pylist() == [NOW - 20 * SECOND]
        clock[0] += 3 * SECOND
        assert collect(engine, copy.deepcopy(message)) == ["duplicate"], (
            "its corrected time is another by now"
        )
        engine.shop.store.compact()
        assert collect(engine, view(1, timestamp=made, sentAt="2031-01-01T12:00:23Z")) == ["duplicate"]
        assert collect(engine, view(1, timestamp="2031-01-01T12:00:01Z", sentAt=sent)) == ["conflict"]


def test_observed_events_without_a_time_may_be_sent_again(tmp_path):
    clock = [NOW]
    with Engine.open(tmp_path / "shop", clock=lambda: clock[0]) as engine:
        engine.init()
        event = {"kind": "view", "event_id": "e1", "user_id": "u1", "item_id": "tea"}
        assert engine.observe(events=[event]).results[0].status == "stored"
        clock[0] += SECOND
        assert engine.observe(events=[event]).results[0].status == "duplicate"
        assert engine.observe(events=[{**event, "item_id": "cup"}, {"kind": "dance"}]).stored == 0
        kept = {letter.reason.partition(":")[0]: letter.event for letter in engine.dead_letters().letters}
        assert kept["another event has this id"]["item_id"] == "cup"
        assert kept["observe"] == {"kind": "dance"}


def test_identify_and_alias_join_guests_in_both_directions_of_time(engine):
    collect(engine, view(1, "before"))
    told = collect(
        engine,
        {"type": "identify", "messageId": "i", "anonymousId": "phone", "userId": "anna"},
        {"type": "alias", "messageId": "a", "previousId": "laptop", "userId": "anna"},
        {"type": "identify", "messageId": "n", "userId": "anna", "traits": {"plan": "gold"}},
        {"type": "identify", "messageId": "x"},
        {"type": "identify", "messageId": "y", "anonymousId": "p\nq", "userId": "anna"},
    )
    assert told == ["identified", "identified", "ignored", "refused", "refused"]
    collect(engine, view(2, "after"), view(3, "late", anonymousId="laptop"))
    assert sorted(items(engine, "anna")) == ["after", "before", "late"]
    engine.erase_user(user_id="anna")
    assert engine.export_user(user_id="anna").events == []
    assert collect(engine, view(4), view(5, userId="anna")) == ["erased", "erased"]


def test_consent_of_consent_managers_is_kept(engine):
    def consenting(number, **preferences):
        context = {"consent": {"categoryPreferences": preferences}}
        return view(number, anonymousId=f"phone-{number}", context=context)

    told = collect(
        engine,
        consenting(1, Analytics=True, Functional=False, Advertising=True),
        consenting(2, analytics=False, personalization=False),
        consenting(3, Advertising=True),
    )
    assert told == ["stored", "withheld", "stored"]
    rows = engine.shop.store.scan().to_pylist()
    assert {row["anonymous_id"]: row["consent"] for row in rows} == {"phone-1": "analytics", "phone-3": None}
    assert collect(engine, view(4, anonymousId="phone-2")) == ["withheld"], "the choice holds"
    identify = {"type": "identify", "messageId": "i", "anonymousId": "x", "userId": "anna"}
    engine.consent(user_id="anna", withdraw=["personalise", "analytics"])
    assert collect(engine, identify) == ["withheld"]
    assert engine.shop.store.status().detail["links"] == 0


def test_pseudonyms_stand_for_ids_in_links_and_letters_too(tmp_path):
    with Engine.open(tmp_path / "shop") as engine:
        engine.init()
        settings = tmp_path / "shop" / "shop.toml"
        settings.write_text(settings.read_text().replace("pseudonymise = false", "pseudonymise = true"))
    with Engine.open(tmp_path / "shop") as engine:
        who = {"anonymousId": "phone-of-anna", "userId": "anna-the-first"}
        collect(engine, view(1, anonymousId="phone-of-anna"), {"type": "identify", "messageId": "i", **who})
        collect(engine, track("Product Viewed", 2, **who), view(1, item="cup", anonymousId="phone-of-anna"))
        engine.observe(events=[{"kind": "view", "user_id": "anna-the-first"}])
        assert engine.dead_letters().kept == 3
        assert len(engine.export_user(user_id="anna-the-first").events) == 1
        assert len(engine.export_user(user_id="anna-the-first").letters) == 2
    for file in (tmp_path / "shop").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert b"of-anna" not in content, file
            assert b"anna-the-first" not in content, file


def test_measurement_protocol_events(engine):
    around = {"client_id": "c1", "user_id": "anna", "timestamp_micros": str(NOW - 60 * SECOND)}
    item = {"item_id": "tea", "price": 4.5, "quantity": 2, "index": 3}

    def event(name, **params):
        return {**around, "event": {"name": name, "params": params}}

    told = collect(
        engine,
        event("view_item", items=[item], currency="EUR", session_id="s1", recommendation_id="r1"),
        event("purchase", transaction_id="T1", currency="EUR", items=[item, {"item_id": "cup", "price": 9}]),
        event("search", search_term="green tea"),
        event("page_view"),
        event("view_item"),
        {**event("view_item", items=[item], event_id="own"), "consent": {"ad_personalization": "DENIED"}},
        form="ga4-measurement",
    )
    assert told == ["stored", "stored", "stored", "ignored", "refused", "stored"]
    rows = {r["event_id"]: r for r in engine.shop.store.scan().to_pylist()}
    bought = rows["T1#purchase#0"]
    assert (bought["value"], bought["quantity"], bought["user_id"]) == (900.0, 2.0, "anna")
    assert rows["own"]["consent"] == "analytics"
    (seen,) = [r for r in rows.values() if r["recommendation_id"] == "r1"]
    assert (seen["session_id"], seen["position"], seen["ts"]) == ("s1", 3, NOW - 60 * SECOND)
    again = event(
        "purchase", transaction_id="T1", currency="EUR", items=[item, {"item_id": "cup", "price": 9}]
    )
    assert collect(engine, again, form="ga4-measurement") == ["duplicate"]


@pytest.mark.parametrize(
    ("form", "fixture"),
    [("segment", "segment"), ("ga4", "ga4"), ("google-retail", "google_retail"), ("shopify", "shopify")],
)
def test_live_messages_become_the_events_of_a_file_of_them(tmp_path, form, fixture):
    file = Path(__file__).parent.parent / "data" / "fixtures" / f"{fixture}.jsonl"
    names = ["subject", "ts", "kind", "item_id", "value", "quantity", "currency", "query", "text", "position"]
    tables = []
    for way in ("file", "live"):
        with Engine.open(tmp_path / way, clock=lambda: NOW) as engine:
            engine.init()
            if way == "file":
                engine.ingest(files=[str(file)])
            else:
                messages = [json.loads(line) for line in file.read_text().splitlines()]
                engine.collect(form=form, messages=messages)
            tables.append(engine.shop.store.scan(columns=names).to_pylist())
    assert tables[0]
    assert sorted(map(str, tables[0])) == sorted(map(str, tables[1]))


def test_a_dry_run_stores_nothing(engine):
    report = engine.collect(form="segment", messages=[view(1), track("Product Viewed", 2)], dry_run=True)
    assert [result.status for result in report.results] == ["stored", "refused"]
    assert report.stored == engine.shop.store.status().events == engine.dead_letters().kept == 0


def test_several_requests_share_a_commit_and_keep_their_answers(engine):
    from penchant.engine import CollectRequest

    requests = [
        CollectRequest(form="segment", messages=[view(1), view(2)]),
        CollectRequest(form="segment", messages=[view(3)], dry_run=True),
        CollectRequest(form="segment", messages=[order(1, "tea", "cup"), view(4)]),
    ]
    told = [[result.status for result in report.results] for report in engine.collect_all(requests)]
    assert told == [["stored", "stored"], ["stored"], ["conflict", "stored"]]
    assert engine.shop.store.status().events == 3


def test_a_message_that_cannot_be_stored_fails_its_own_request_alone(engine, monkeypatch):
    from penchant.engine import _collect
    from penchant.engine._collect_requests import CollectRequest

    take = _collect.take

    def picky(shop, serving, events, **more):
        if any(event.item_id == "odd" for event in events):
            raise InputError("this cannot be stored")
        return take(shop, serving, events, **more)

    monkeypatch.setattr(_collect, "take", picky)
    seen = {"type": "track", "event": "Product Viewed", "anonymousId": "phone"}
    asked = [
        CollectRequest(
            form="segment", messages=[{**seen, "messageId": item, "properties": {"product_id": item}}]
        )
        for item in ("tea", "odd", "cup")
    ]
    first, second, third = engine.collect_all(asked)
    assert (first.stored, third.stored) == (1, 1)
    assert isinstance(second, InputError)


@pytest.mark.parametrize("odd", [{"id": "ann"}, ["ann"], {}, []])
def test_an_id_that_is_an_object_or_a_list_is_none(engine, odd):
    seen = {"type": "track", "event": "Product Viewed", "userId": odd, "properties": {"product_id": "tea"}}
    both = {"type": "identify", "userId": odd, "anonymousId": "phone"}
    report = engine.collect(form="segment", messages=[seen, both])
    assert [result.status for result in report.results] == ["refused", "ignored"]
    assert "ann" not in str(engine.dead_letters().letters)
