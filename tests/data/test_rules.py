"""The rules: each refuses what it should, and the two sides of every rule agree."""

from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penchant.core import KINDS, Event, EventKind
from penchant.core.errors import InputError
from penchant.data import RULES, Settings, check_event, content_id
from penchant.data._rules import RULE

NOW = 1_730_000_000_000_000
GOOD = {"user_id": "u1", "item_id": "shoe", "kind": "purchase", "ts": 1_714_557_600_000_000}
DAY = 86_400_000_000

BAD = {
    "missing_user": {"user_id": None},
    "missing_item": {"item_id": None},
    "too_early": {"ts": 100_000_000_000_000},
    "too_late": {"ts": NOW + 2 * DAY},
    "unknown_kind": {"kind": "dance"},
    "bad_id": {"item_id": "sh\noe"},
    "reserved_id": {"user_id": "anon:77"},
    "id_too_long": {"user_id": "x" * 10_000},
    "impossible_value": {"value": math.nan},
    "zero_quantity": {"quantity": 0.0},
    "negative_quantity": {"kind": "view", "quantity": -3.0},
    "negative_value": {"value": -1.0},
    "absurd_value": {"value": 1e12},
    "bad_currency": {"currency": "EURO"},
    "bad_position": {"position": -1},
    "too_long_text": {"query": "q" * 5000},
    "bad_consent": {"consent": ["spam"]},
}


def write(path, rows):
    names = {n for row in rows for n in row}
    table = {n: [row.get(n) for row in rows] for n in sorted(names | {"anonymous_id"})}
    table["anonymous_id"] = pa.array(table["anonymous_id"], pa.string())
    pq.write_table(pa.table(table), path)


@pytest.mark.parametrize("code", sorted(BAD))
def test_each_rule_refuses_a_row_of_a_file_and_a_live_event(clean, tmp_path, code):
    bad = {**GOOD, **BAD[code]}
    write(tmp_path / "log.parquet", [GOOD, bad, GOOD | {"item_id": "hat"}])
    done = clean(tmp_path / "log.parquet")
    assert [(r["row"], r["reason"]) for r in done.refused] == [(2, code)]
    assert len(done.events) == 2
    with pytest.raises(InputError, match=code) as caught:
        check_event(Event(**bad), Settings(), NOW)
    assert caught.value.path.startswith("$")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"ts": None}, "missing_time"),
        ({"value": math.inf}, "impossible_value"),
        ({"quantity": math.nan}, "impossible_value"),
        ({"value": 0.0}, None),  # a gift is no mistake
        ({"quantity": 2.5}, None),
        ({"item_id": "emoji 🙂"}, None),
        ({"item_id": "right\u200fto left"}, "bad_id"),
        ({"item_id": "nul\x00"}, "bad_id"),
        ({"user_id": "   "}, "missing_user"),
    ],
)
def test_more_bad_values(clean, tmp_path, bad, reason):
    write(tmp_path / "log.parquet", [{**GOOD, **bad}, GOOD | {"item_id": "hat"}])
    done = clean(tmp_path / "log.parquet")
    assert [r["reason"] for r in done.refused] == ([reason] if reason else [])


@pytest.mark.parametrize(
    "moment", ["1970-01-01", "2100-01-01", "2038-01-19T03:14:08Z", "2034-10-27T00:00:00Z"]
)
def test_times_outside_the_window_are_refused(clean, tmp_path, moment):
    path = tmp_path / "log.csv"
    path.write_text(f"user_id,item_id,kind,ts\nu,i,view,{moment}\nu,i,view,2024-05-01\n")
    assert [r["reason"] for r in clean(path).refused] in (["too_early"], ["too_late"])


@pytest.mark.parametrize("text", ["2016-12-31T23:59:60Z", "yesterday", "2024-02-30", "12/31/2024", "9" * 30])
def test_unreadable_times_are_refused_and_shown(clean, tmp_path, text):
    path = tmp_path / "log.csv"
    path.write_text(f"user_id,item_id,kind,ts\nu,i,view,{text}\nu,i,view,2024-05-01\n")
    (row,) = clean(path).refused
    assert (row["reason"], row["detail"]) == ("unreadable_time", text)


def test_a_negative_quantity_is_a_refund_or_refused_as_the_shop_says(clean, tmp_path):
    bad = GOOD | {"quantity": -3.0, "value": 750.0}
    write(tmp_path / "log.parquet", [bad])
    (event,) = clean(tmp_path / "log.parquet").events
    assert (event["kind"], event["quantity"], event["value"]) == ("refund", 3.0, 750.0)
    live = check_event(Event(**bad), Settings(), NOW)
    assert (live.kind, live.quantity, live.value, live.event_id) == ("refund", 3.0, 750.0, event["event_id"])
    strict = Settings(negative_quantity="refuse")
    assert [r["reason"] for r in clean(tmp_path / "log.parquet", settings=strict).refused] == [
        "negative_quantity"
    ]
    with pytest.raises(InputError, match="negative_quantity"):
        check_event(Event(**bad), strict, NOW)


def test_unicode_twins_are_one_person(clean, tmp_path):
    twins = ["Zo\u00eb", "Zoe\u0308", " Zo\u00eb "]
    write(tmp_path / "log.parquet", [GOOD | {"user_id": u} for u in twins])
    done = clean(tmp_path / "log.parquet")
    assert {e["user_id"] for e in done.events} == {"Zo\u00eb"}
    assert {r.code: r.count for r in done.report.remarks} == {"ids_composed": 1, "ids_trimmed": 1}
    assert {check_event(Event(**GOOD | {"user_id": u}), Settings(), NOW).user_id for u in twins} == {
        "Zo\u00eb"
    }


def test_encoding_damage_is_told_and_not_changed(clean, tmp_path):
    write(tmp_path / "log.parquet", [GOOD | {"item_id": "CafÃ©"}, GOOD | {"item_id": "Caf\ufffd"}])
    done = clean(tmp_path / "log.parquet")
    assert [e["item_id"] for e in done.events] == ["CafÃ©", "Caf\ufffd"]
    (remark,) = done.report.remarks
    assert (remark.code, remark.count) == ("encoding_damage", 2)
    assert remark.examples == ["'CafÃ©' (surely 'Café')", "'Caf\ufffd' (lost)"]


def test_an_event_without_time_or_id_gets_both():
    event = check_event(Event(kind=EventKind.VIEW, user_id="u1", item_id="i"), Settings(), NOW)
    assert event.ts == NOW
    assert event.event_id == content_id({"user_id": "u1", "item_id": "i", "kind": "view", "ts": NOW})
    assert check_event(event, Settings(), NOW) == event


def test_every_rule_says_what_it_costs_and_what_to_do():
    assert len(RULE) == len(RULES)
    for rule in RULES:
        assert rule.says, rule.code
        assert rule.costs, rule.code
        assert rule.todo, rule.code
        assert (rule.breaks is None) == (rule.fails is None), rule.code
    assert set(BAD) <= set(RULE)


names = st.one_of(
    st.none(),
    st.sampled_from(["u1", "u2", "", " ", "a\x00b", "x" * 600, "é", "e\u0301", "\u202eabc", "ﬁ", "\x85"]),
    st.text(max_size=8),
)
amounts = st.one_of(
    st.none(), st.floats(), st.floats(-1e4, 1e4), st.sampled_from([0.0, -0.0, 1e10, 1e10 + 1, 0.0005])
)
events = st.fixed_dictionaries(
    {
        "kind": st.sampled_from([*KINDS, "dance"]),
        "event_id": names,
        "ts": st.one_of(st.integers(10**14, 10**16), st.integers(NOW - DAY, NOW + 2 * DAY)),
        "user_id": names,
        "anonymous_id": names,
        "session_id": names,
        "item_id": names,
        "value": amounts,
        "quantity": amounts,
        "currency": st.sampled_from([None, "EUR", "USD", "EURO", "E1R", "EU"]),
        "query": st.one_of(st.none(), st.text(max_size=5), st.just("q" * 4097)),
        "text": st.one_of(st.none(), st.text(max_size=5)),
        "recommendation_id": names,
        "position": st.one_of(st.none(), st.integers(-5, 200_000)),
        "consent": st.one_of(
            st.none(), st.lists(st.sampled_from(["personalise", "analytics", "spam"]), max_size=2)
        ),
        "props": st.one_of(st.none(), st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=2)),
    }
)


def judged(row, shop):
    """The event as it may be stored, or the code of the rule it breaks."""
    try:
        return check_event(Event(**row), shop, NOW)
    except InputError as error:
        return error.message.split(":")[0]


TYPES = {
    "ts": pa.int64(),
    "value": pa.float64(),
    "quantity": pa.float64(),
    "position": pa.int64(),
    "consent": pa.list_(pa.string()),
}


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(events, min_size=1, max_size=25), st.sampled_from(["refund", "refuse"]))
def test_live_rules_and_file_rules_agree(clean, tmp_path, rows, negative):
    import msgspec

    shop = Settings(negative_quantity=negative)
    columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if name == "props":
            values = [None if v is None else msgspec.json.encode(v).decode() for v in values]
        columns[name] = pa.array(values, TYPES.get(name, pa.string()))
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    done = clean(tmp_path / "log.parquet", settings=shop)
    accepted = {e["row"]: e for e in done.events}
    refused = {r["row"]: r["reason"] for r in done.refused}
    for number, row in enumerate(rows, start=1):
        live = judged(row, shop)
        if isinstance(live, str):
            assert refused.get(number) == live, row
            continue
        assert number in accepted, (row, refused[number])
        event = accepted[number]
        for name in (
            "event_id",
            "ts",
            "kind",
            "user_id",
            "item_id",
            "value",
            "quantity",
            "session_id",
            "position",
        ):
            assert event.get(name) == getattr(live, name), (name, row)
