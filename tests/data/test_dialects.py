"""Every known form of event log: a file in the vendor's own shape, and exactly the events it must become."""

from __future__ import annotations

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant.data import open_source, recognise

MAY = 1_714_557_600_000_000  # 2024-05-01T10:00:00Z
SESSION = {"session_id": "1714557590", "anonymous_id": "1234567.7654321"}


def without_ids(events, *, keep_id=()):
    """Events without derived ids, subject and row, which other tests cover."""
    out = []
    for event in events:
        own = {k: v for k, v in event.items() if k not in {"subject", "row"}}
        if event["event_id"] not in keep_id and len(event["event_id"]) == 32 and "-" not in event["event_id"]:
            own.pop("event_id")
        out.append(own)
    return out


def test_ga4_export(clean, fixtures):
    done = clean(fixtures / "ga4.jsonl")
    assert done.report.dialect == "ga4"
    assert without_ids(done.events) == [
        {
            **SESSION,
            "kind": "view",
            "ts": MAY + 1_000_000,
            "item_id": "SKU_12345",
            "value": 1999.0,
            "quantity": 1.0,
            "currency": "USD",
        },
        {**SESSION, "kind": "search", "ts": MAY + 2_000_000, "query": "t-shirts"},
        {**SESSION, "kind": "impression", "ts": MAY + 3_000_000, "item_id": "SKU_12345", "position": 0},
        {**SESSION, "kind": "impression", "ts": MAY + 3_000_000, "item_id": "SKU_12346", "position": 1},
        {
            **SESSION,
            "event_id": "T_12345#purchase#0",
            "user_id": "customer-9",
            "kind": "purchase",
            "ts": MAY + 60_000_000,
            "item_id": "SKU_12345",
            "value": 1998.0,
            "quantity": 2.0,
            "currency": "USD",
        },
        {
            **SESSION,
            "event_id": "T_12345#purchase#1",
            "user_id": "customer-9",
            "kind": "purchase",
            "ts": MAY + 60_000_000,
            "item_id": "SKU_12346",
            "value": 2999.0,
            "quantity": 1.0,
            "currency": "USD",
        },
    ]
    assert [(r["row"], r["reason"], r["detail"]) for r in done.refused] == [(1, "left_out", "page_view")]
    assert (done.report.rows, done.report.events) == (5, 7)
    assert done.report.ignored == ["platform"]


def test_ga4_nested_parquet_gives_the_same_events(clean, fixtures, tmp_path):
    source = open_source(fixtures / "ga4.jsonl")
    rows = source.sample().objects
    table = pa.Table.from_pylist([{k: r.get(k) for k in source.columns} for r in rows])
    pq.write_table(table, tmp_path / "ga4.parquet")
    assert clean(tmp_path / "ga4.parquet").events == clean(fixtures / "ga4.jsonl").events


def test_segment(clean, fixtures):
    done = clean(fixtures / "segment.jsonl")
    assert done.report.dialect == "segment"
    order = {
        "user_id": "AiUGstSDIg",
        "anonymous_id": "507f191e810c19729de860ea",
        "kind": "purchase",
        "ts": MAY + 120_000_000,
        "currency": "USD",
        "props": '{"order_id":"50314b8e9bcf000000000000"}',
    }
    assert without_ids(done.events, keep_id={"022bb90c-bbac-11e4-8dfc-aa07a5b093db"}) == [
        {
            "event_id": "022bb90c-bbac-11e4-8dfc-aa07a5b093db",
            "anonymous_id": "507f191e810c19729de860ea",
            "kind": "view",
            # the phone's clock is two hours ahead: received 10:00:03, less the second between making and sending
            "ts": MAY + 2_000_000,
            "item_id": "507f1f77bcf86cd799439011",
            "value": 1899.0,
            "quantity": 1.0,
            "currency": "USD",
            "position": 3,
        },
        {
            "event_id": "m-search",
            "anonymous_id": "507f191e810c19729de860ea",
            "kind": "search",
            "ts": MAY + 60_000_000,
            "query": "blue roses",
        },
        {
            **order,
            "event_id": "m-order#0",
            "item_id": "507f1f77bcf86cd799439011",
            "value": 1900.0,
            "quantity": 1.0,
        },
        {
            **order,
            "event_id": "m-order#1",
            "item_id": "505bd76785ebb509fc183733",
            "value": 600.0,
            "quantity": 2.0,
        },
        {
            "event_id": "m-review",
            "user_id": "AiUGstSDIg",
            "kind": "review",
            "ts": MAY + 3_600_000_000,
            "item_id": "507f1f77bcf86cd799439011",
            "value": 5.0,
            "text": "I love this product",
        },
    ]
    assert [(r["row"], r["reason"]) for r in done.refused] == [(3, "left_out")]


def test_google_retail(clean, fixtures):
    done = clean(fixtures / "google_retail.jsonl")
    assert done.report.dialect == "google-retail"
    who = {"user_id": "user_1", "anonymous_id": "visitor_1"}
    assert without_ids(done.events) == [
        {**who, "kind": "view", "ts": MAY, "item_id": "product_123", "recommendation_id": "token_abc"},
        {
            "anonymous_id": "visitor_1",
            "kind": "search",
            "ts": MAY + 30_000_000,
            "query": "shoes",
            "recommendation_id": "token_abc",
        },
        {
            **who,
            "event_id": "order_7#purchase",
            "kind": "purchase",
            "ts": MAY + 300_000_000,
            "item_id": "product_123",
            "value": 3000.0,
            "quantity": 3.0,
            "currency": "USD",
        },
    ]


def test_shopify(clean, fixtures):
    done = clean(fixtures / "shopify.jsonl")
    assert done.report.dialect == "shopify"
    guest = {"anonymous_id": "ffac04fa-8ad8-48fd-8a3a-59ad06a7518a"}
    bread = {"item_id": "7714902540501", "currency": "HKD", "props": '{"variant_id":"43661439271125"}'}
    assert without_ids(done.events) == [
        {**guest, **bread, "event_id": "sh-1", "kind": "view", "ts": MAY + 123_000, "value": 3400.0},
        {
            **guest,
            **bread,
            "event_id": "sh-3",
            "kind": "cart_add",
            "ts": MAY + 10_000_000,
            "value": 6800.0,
            "quantity": 2.0,
        },
        {**guest, "event_id": "sh-4", "kind": "search", "ts": MAY + 20_000_000, "query": "rye"},
        {
            **guest,
            **bread,
            "event_id": "sh-5#0",
            "user_id": "207119551",
            "kind": "purchase",
            "ts": MAY + 60_000_000,
            "value": 6000.0,
            "quantity": 2.0,
        },
        {
            **guest,
            "event_id": "sh-5#1",
            "user_id": "207119551",
            "kind": "purchase",
            "ts": MAY + 60_000_000,
            "item_id": "7714902540502",
            "currency": "HKD",
            "props": '{"variant_id":"43661439271126"}',
            "value": 3700.0,
            "quantity": 1.0,
        },
    ]


def test_amazon_personalize_with_impressions(clean, fixtures):
    done = clean(fixtures / "personalize.csv")
    assert done.report.dialect == "amazon-personalize"
    shown = {"user_id": "35", "kind": "impression", "ts": 1_586_731_606_000_000}
    assert without_ids(done.events) == [
        {**shown, "item_id": "73", "position": 0},
        {**shown, "item_id": "70", "position": 1},
        {**shown, "item_id": "17", "position": 2},
        {"user_id": "35", "kind": "click", "ts": 1_586_731_606_000_000, "item_id": "73"},
        {"user_id": "54", "kind": "view", "ts": 1_586_735_164_000_000, "item_id": "35"},
        {
            "user_id": "9",
            "kind": "purchase",
            "ts": 1_586_735_158_000_000,
            "item_id": "33",
            "props": '{"EVENT_VALUE":"10.5"}',
        },
    ]


def test_gorse(clean, fixtures):
    done = clean(fixtures / "gorse.jsonl")
    assert done.report.dialect == "gorse"
    assert without_ids(done.events) == [
        {"user_id": "bob", "kind": "wishlist", "ts": 1_645_660_800_000_000, "item_id": "vuejs:vue"},
        {"user_id": "bob", "kind": "view", "ts": 1_645_747_200_000_000, "item_id": "d3:d3", "text": "nice"},
    ]


def test_canonical_with_times_of_every_habit(clean, fixtures):
    done = clean(fixtures / "canonical.csv")
    assert done.report.dialect == "canonical"
    assert without_ids(done.events) == [
        {
            "event_id": "e1",
            "user_id": "u1",
            "kind": "view",
            "item_id": "shoe-7",
            "ts": MAY,
            "session_id": "s1",
        },
        {
            "event_id": "e2",
            "user_id": "u1",
            "kind": "search",
            "ts": MAY + 5_000_000,
            "query": "red, shoes",
            "session_id": "s1",
        },
        {
            "event_id": "e3",
            "anonymous_id": "c9",
            "kind": "click",
            "item_id": "shoe-8",
            "ts": MAY + 10_000_000,
            "session_id": "s2",
            "position": 4,
        },
        {
            "event_id": "e4",
            "user_id": "u1",
            "kind": "purchase",
            "item_id": "shoe-7",
            "ts": MAY + 20_000_000,
            "value": 5998.0,
            "quantity": 2.0,
            "currency": "EUR",
            "session_id": "s1",
        },
    ]
    assert [e["subject"] for e in done.events] == ["u1", "u1", "anon:c9", "u1"]


@pytest.mark.parametrize(
    "name",
    [
        "ga4.jsonl",
        "segment.jsonl",
        "google_retail.jsonl",
        "shopify.jsonl",
        "personalize.csv",
        "canonical.csv",
    ],
)
def test_counts_add_up_and_ids_are_stable(clean, fixtures, tmp_path, name):
    done, again = clean(fixtures / name), clean(fixtures / name)
    report = done.report
    assert report.events == report.accepted + report.refused == len(done.events) + len(done.refused)
    assert done.events == again.events
    assert len({e["event_id"] for e in done.events}) == len(done.events)
    copy = tmp_path / f"other-{name}"
    shutil.copy(fixtures / name, copy)
    assert open_source(copy).sha256 == report.sha256


def test_a_known_form_keeps_the_extra_fields_the_shop_asked_for(clean, fixtures):
    from penchant.data import Settings

    done = clean(fixtures / "ga4.jsonl", settings=Settings(props=["platform"]))
    assert {e["props"] for e in done.events} == {'{"platform":"WEB"}'}
    assert done.report.ignored == []


def test_catalogue_and_users_are_told_from_events(fixtures):
    assert recognise(open_source(fixtures / "google_merchant.tsv")).what == "catalog"
    assert recognise(open_source(fixtures / "ucp.json")).what == "catalog"
