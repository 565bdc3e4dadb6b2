"""The doctor: it finds what is wrong, says what it costs, and never names anybody."""

from __future__ import annotations

import html.parser

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from penchant.core import CATALOG_SCHEMA, EVENT_SCHEMA, iso
from penchant.core.errors import UnknownColumns
from penchant.data import (
    Health,
    Quarantine,
    Settings,
    bot_subjects,
    clean_events,
    diagnose,
    open_source,
    read_catalog,
    recognise,
    render_health_html,
    render_health_text,
)
from penchant.store import open_store

NOW = 1_730_000_000_000_000
DAY = 86_400_000_000
MINUTE = 60_000_000
START = NOW - 100 * DAY - NOW % DAY


def event(user, ts, kind="view", item="i1", **more):
    return {"user_id": user, "ts": int(ts), "kind": kind, "item_id": item, **more}


def load(store, rows, source="test"):
    items = [{**r, "event_id": f"{source}{n}", "subject": r["user_id"], "row": n} for n, r in enumerate(rows)]
    schema = EVENT_SCHEMA.append(pa.field("row", pa.int64()))
    store.load(pa.Table.from_pylist(items, schema=schema).to_batches(), source=source)


@pytest.fixture
def shop(tmp_path):
    store = open_store(tmp_path / "shop", clock=lambda: NOW)
    yield store, Quarantine(tmp_path / "quarantine")
    store.close()


def found(health: Health) -> dict[str, int]:
    return {f.code: f.count for f in health.findings}


def test_an_empty_shop_is_told_what_to_do(shop):
    health = diagnose(shop[0], Settings(), shop[1], NOW)
    assert found(health) == {"no_events": 0}
    assert health.worst == "error"
    assert "nothing is stored yet" in render_health_text(health)
    assert "No events yet" in render_health_html(health)


def test_turning_to_a_product_again_is_not_called_a_return(shop):
    load(shop[0], [event("u1", START + n) for n in range(4)])
    health = diagnose(shop[0], Settings(), shop[1], NOW)
    text, page = " ".join(render_health_text(health).split()), render_health_html(health)
    assert "75.0 % of turns to a product are by somebody who had turned to it before" in text
    assert "coming back to it" in page
    assert "returns to" not in text + page


def test_too_little_to_learn_from_takes_the_place_of_praise(shop):
    store, quarantine = shop
    load(store, [event("u1", START + DAY + n, "purchase") for n in (1, 2, 3)])
    store.put_catalog(pa.Table.from_pylist([{"id": "i1"}], schema=CATALOG_SCHEMA))
    assert "sound" in found(diagnose(store, Settings(), quarantine, NOW))
    health = diagnose(store, Settings(), quarantine, NOW, refusal="too few people")
    assert "too_little" in found(health)
    assert "sound" not in found(health)
    assert "too few people" in render_health_text(health)


def test_bots_are_flagged_by_rates_no_human_has(shop):
    store, quarantine = shop
    rows = [event("robot", START + DAY + n * 1000 + 1) for n in range(200)]
    rows += [event("tireless", START + DAY + n * MINUTE * 4 + 1) for n in range(360)]
    rows += [event("daily", START + DAY) for n in range(150)]  # no time of day: only the day counts
    rows += [event("wholesale", START + DAY + 7, kind="purchase", item=f"i{n}") for n in range(500)]
    rows += [event("human", START + DAY + n * MINUTE + 3) for n in range(60)]
    load(store, rows)
    assert bot_subjects(store, Settings()) == {"robot", "tireless"}
    health = diagnose(store, Settings(), quarantine, NOW)
    (bots,) = [f for f in health.findings if f.code == "bots"]
    assert (bots.count, bots.severity) == (2, "warning")
    assert any("200 events in one minute" in e for e in bots.examples)
    text = render_health_text(health) + render_health_html(health) + msgspec.json.encode(health).decode()
    assert "robot" not in text.replace("robots can outvote", "")
    assert "tireless" not in text


def test_25_a_burst_of_reviews_by_accounts_made_for_it(shop):
    store, quarantine = shop
    fakes = [event(f"fake{n}", START + n * MINUTE, kind="review", item="pushed", value=5) for n in range(30)]
    buyers = [event(f"buyer{n}", START + n, kind="review", item="loved", value=5) for n in range(30)]
    buyers += [event(f"buyer{n}", START - DAY, kind="purchase", item="loved") for n in range(15)]
    buyers += [event(f"buyer{n}", START - DAY, item="other") for n in range(15, 30)]
    slow = [
        event(f"slow{n}", START + n * 10 * MINUTE, kind="review", item="slow", value=5) for n in range(30)
    ]
    load(store, fakes + buyers + slow)
    assert bot_subjects(store, Settings()) == {f"fake{n}" for n in range(30)}
    assert bot_subjects(store, Settings(burst_reviews=31)) == set()
    assert len(bot_subjects(store, Settings(burst_reviews=7))) == 60  # slow ones come seven in an hour
    (burst,) = [f for f in diagnose(store, Settings(), quarantine, NOW).findings if f.code == "review_bursts"]
    assert burst.count == 30
    assert "30 reviews of pushed within an hour" in burst.examples[0]


def test_what_stands_out_is_counted(shop):
    store, quarantine = shop
    noon = START + 12 * 3_600_000_000
    rows = [event(f"u{n}", noon + n * MINUTE + 1, item=f"sku-{n}") for n in range(50)]
    rows += [
        event("u1", noon + 40 * DAY + n, "purchase", "sku-1", value=100.0, currency="EUR") for n in (5, 6)
    ]
    rows += [event("u1", noon + 41 * DAY + 9, "purchase", "sku-2", value=0.0, currency="USD")]
    rows += [event("u2", noon + 42 * DAY + 9, "search", None, query="CafÃ©")]
    rows += [event("u3", noon + 43 * DAY + 9, "purchase", "POST", value=100.0)]
    rows += [event("u4", noon + 44 * DAY + 7), event("u4", noon + 44 * DAY + 7)]
    rows += [event("u5", NOW + DAY // 2 + 1)]
    load(store, rows)
    load(store, [event("u1", START + 5, item="old-1")], "late")
    known = [{"id": f"sku-{n}"} for n in range(40)] + [{"id": "never-1"}]
    store.put_catalog(pa.Table.from_pylist(known, schema=CATALOG_SCHEMA))
    health = diagnose(store, Settings(currency="EUR"), quarantine, NOW)
    counts = found(health)
    assert counts["future"] == 1
    assert counts["out_of_order"] == 1
    assert counts["late"] == 1
    assert counts["mixed_currencies"] == 3
    assert counts["encoding_damage"] == 1
    assert counts["twins"] == 1
    assert counts["zero_value"] == 1
    assert counts["service_items"] == 1
    assert counts["never_seen"] == 1
    assert (
        counts["orphans"]
        == sum(r["item_id"] not in {k["id"] for k in known} for r in rows if r["item_id"]) + 1
    )
    assert health.currencies == {"EUR": 2, "USD": 1}
    assert {s.kind: (s.events, s.people) for s in health.funnel}["purchase"] == (4, 2)
    assert health.repeat_share == pytest.approx(
        1 - len({(r["user_id"], r["item_id"]) for r in rows}) / len(rows), abs=0.02
    )
    assert msgspec.json.decode(msgspec.json.encode(health), type=Health) == health


def test_order_and_twins_are_counted_by_what_they_say(shop):
    store, quarantine = shop
    days = [9, 1, 2, 3, 9, 8]  # four events come after the one of day 9
    load(store, [event("u1", START + d * DAY + 1, item=f"i{d}") for d in days])
    load(store, [event("u2", START + 4 * DAY + 1)], "b")  # late, though its own person has nothing newer
    load(store, [event("u3", START + 50 * DAY + 7, item=i) for i in ("a", "b", "a", "b", "a")], "c")
    counts = found(diagnose(store, Settings(), quarantine, NOW))
    assert counts["out_of_order"] == 4
    assert counts["late"] == 4
    assert counts["twins"] == 4  # a a a, b b, and i9 i9 of u1


def test_findings_show_a_few_of_their_events_and_never_who_it_was(shop):
    store, quarantine = shop
    rows = [event("anna-77", START + n * DAY, "purchase", "tea", value=0.0) for n in range(1, 9)]
    rows += [event("anna-77", START + 9 * DAY + 7, item="cup") for _ in range(2)]
    rows += [event("bert-88", NOW + 5), event("carl-99", START + 11 * DAY + 5)]
    load(store, rows)
    load(store, [event("anna-77", START + DAY + 5, item="old")], "late")
    health = diagnose(store, Settings(), quarantine, NOW)
    shown = {f.code: f.examples for f in health.findings}
    for code in ("out_of_order", "late", "twins", "zero_value", "days_only", "future", "single_event_people"):
        assert 1 <= len(shown[code]) <= 5, code
    assert shown["zero_value"][0].endswith(": purchase tea at " + iso(START + DAY))
    newest = f"when one of {iso(NOW + 5)} was there"
    assert set(shown["late"]) == {f"of {iso(START + d * DAY)}, {newest}" for d in (1, 11)}
    assert shown["out_of_order"][0].endswith("view old at " + iso(START + DAY + 5))
    assert not any(name in str(shown) for name in ("anna", "bert", "carl"))


def test_examples_of_refusals_name_the_file_where_several_have_the_problem(shop, tmp_path):
    store, quarantine = shop
    for name, count in (("a.csv", 3), ("b.csv", 1)):
        path = tmp_path / name
        path.write_text("user_id,item_id,kind,ts\n" + f"u1,i,{name[0]}{name[0]},2024-05-01\n" * count)
        source = open_source(path)
        stream = clean_events(source, recognise(source), Settings(), NOW)
        store.load(stream.accepted(), source=path.name)
        quarantine.add(path.name, source.sha256, stream.refused(), report=stream.report)
    (refused,) = diagnose(store, Settings(), quarantine, NOW).refusals
    assert refused.count == 4
    told = {"row 1 of a.csv: aa", "row 2 of a.csv: aa", "row 3 of a.csv: aa", "row 1 of b.csv: bb"}
    assert set(refused.examples) == told
    assert {e.partition(" of ")[2][:5] for e in refused.examples[:2]} == {"a.csv", "b.csv"}


def test_an_excerpt_of_one_hour_says_nothing_of_zones(shop):
    store, quarantine = shop
    ten = START + 10 * 3_600_000_000
    load(store, [event(f"u{n % 50}", ten + n % 20 * DAY + n * 1_000_000 + 1) for n in range(2500)])
    assert "zone" not in found(diagnose(store, Settings(), quarantine, NOW))


def test_late_events_are_found_among_very_many_arrivals(monkeypatch):
    from penchant.data import _doctor

    monkeypatch.setattr(_doctor._Arrivals, "_MOST", 64)
    ts = np.arange(1000) * DAY
    ts[900] = 0
    table = pa.table({"ts": ts, "seq": np.arange(1000)})

    class Log:
        num_buckets = 1

        def scan(self, *, bucket, columns):
            return table

    arrivals = _doctor._Arrivals()
    arrivals.add(ts[:500], np.arange(500))
    arrivals.add(ts[500:], np.arange(500, 1000))
    assert len(arrivals._newest) <= 64
    assert arrivals.late(Log()) == 1


def test_rounded_and_shifted_times_are_suspected(shop):
    store, quarantine = shop
    draw = np.random.default_rng(0)
    hour = draw.choice([22, 23, 0, 1, 2, 3, 4, 5, 6, 7], 3000)  # busy while Europe sleeps
    rows = [
        event(f"u{n % 50}", START + n % 40 * DAY + h * 3_600_000_000) for n, h in enumerate(hour.tolist())
    ]
    load(store, rows)
    counts = found(diagnose(store, Settings(), quarantine, NOW))
    assert {"whole_hours", "zone"} <= set(counts)


def test_refusals_show_with_their_words_and_are_escaped(shop, tmp_path):
    store, quarantine = shop
    path = tmp_path / "log.csv"
    path.write_text(
        "user_id,item_id,kind,ts,<b>\nu1,i,<script>alert(1)</script>,2024-05-01,x\nu1,i,view,2024-05-01,x\n"
    )
    source = open_source(path)
    stream = clean_events(source, recognise(source), Settings(), NOW)
    store.load(stream.accepted(), source=path.name)
    quarantine.add(path.name, source.sha256, stream.refused(), report=stream.report)
    health = diagnose(store, Settings(), quarantine, NOW)
    assert [(r.reason, r.count, r.examples) for r in health.refusals] == [
        ("unknown_kind", 1, ["row 1: <script>alert(1)</script>"])
    ]
    page = render_health_html(health)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert found(health)["ignored_columns"] == 1
    Checker().feed(page)
    assert "http" not in page


class Checker(html.parser.HTMLParser):
    """Every tag that is opened is closed."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.slow
def test_the_doctor_is_right_about_a_real_shop(shop, real):
    store, quarantine = shop
    path = real("uci-online-retail/transactions.parquet")
    source = open_source(path)
    mappings = []
    for what in ("events", "catalog"):
        with pytest.raises(UnknownColumns) as caught:
            recognise(source, what=what)
        mappings.append(caught.value.proposal)
    settings = Settings(currency="GBP")
    stream = clean_events(source, recognise(source, mappings), settings, NOW)
    loaded = store.load(stream.accepted(), source=path.name)
    quarantine.add(path.name, source.sha256, [*stream.refused(), loaded.refused], report=stream.report)
    store.put_catalog(read_catalog(source, recognise(source, mappings, what="catalog"), settings)[0])
    health = diagnose(store, settings, quarantine, NOW)
    assert {r.reason: r.count for r in health.refusals} == {"missing_user": 135_080, "duplicate": 5_227}
    assert all(len(r.examples) == 5 for r in health.refusals)
    assert health.events == 401_602
    assert health.people == 4_372
    assert {s.kind for s in health.funnel} == {"purchase", "refund"}
    counts = found(health)
    assert "orphans" not in counts
    assert "bots" not in counts
    assert counts["service_items"] > 1_000
    assert counts["silent_days"] > 50  # closed on Saturdays
    assert counts["twins"] == 4_999
