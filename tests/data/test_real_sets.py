"""Real logs come in with at most a proposed mapping, and the reports are right about them."""

from __future__ import annotations

import pytest

from penchant.core.errors import UnknownColumns
from penchant.data import Settings, clean_events, open_source, read_catalog, read_users, recognise

NOW = 1_730_000_000_000_000


def recognised(path, what=None, **changes):
    source = open_source(path)
    try:
        return source, recognise(source, what=what)
    except UnknownColumns as error:
        proposal = error.proposal
        own = {n: getattr(proposal, n) for n in proposal.__struct_fields__}
        mapping = type(proposal)(**{**own, **changes})
        return source, recognise(source, [mapping], what=what)


def taken(path, settings=None, **changes):
    source, found = recognised(path, **changes)
    stream = clean_events(source, found, settings or Settings(), NOW)
    batches = list(stream.accepted())
    ids = {i for b in batches for i in b["event_id"].to_pylist()}
    return stream.report, ids


def test_uci_online_retail(real):
    path = real("uci-online-retail/transactions.parquet")
    report, ids = taken(path, Settings(currency="GBP"))
    assert report.rows == report.events == 541_909
    assert {r.reason: r.count for r in report.refusals} == {"missing_user": 135_080}
    assert report.kinds == {"purchase": 397_924, "refund": 8_905}
    assert report.accepted - len(ids) == 5_227  # exact repeats: the store will refuse them as duplicates
    assert report.ignored == ["Description", "Country"]


@pytest.mark.slow
def test_uci_postage_and_fees_can_be_left_out(real):
    path = real("uci-online-retail/transactions.parquet")
    report, _ = taken(path, not_items=["POST", "DOT", "D", "M", "BANK CHARGES", "CRUK", "C2", "PADS"])
    assert {r.reason: r.count for r in report.refusals}["not_a_product"] > 1_000


@pytest.mark.slow
def test_uci_catalogue_from_the_same_file(real):
    path = real("uci-online-retail/transactions.parquet")
    source, found = recognised(path, what="catalog")
    table, _, report = read_catalog(source, found, Settings(currency="GBP"))
    assert report.accepted == table.num_rows == 4_070
    assert "CustomerID" in report.ignored


def test_tmall_keeps_repeats_of_a_day(real):
    report, ids = taken(real("alibaba-tmall-2014/events.parquet"))
    assert report.kinds == {"cart_add": 153, "click": 174_539, "purchase": 6_984, "wishlist": 1_204}
    assert len(ids) == report.accepted == 182_880


def test_retailrocket_without_times(real):
    report, _ = taken(real("retailrocket-small/events.parquet"))
    assert report.kinds == {"cart_add": 9_028, "purchase": 5_088, "view": 78_371}
    assert [r.code for r in report.remarks] == ["ordinal_time"]


def test_trivago_with_impressions_and_queries(real):
    report, ids = taken(real("trivago-2019-val100k/events.parquet"))
    assert report.accepted == len(
        ids
    )  # 52,614 looks differ from another of the same second by their step alone
    assert report.rows == 100_003
    assert report.kinds["click"] == 13_597
    assert report.kinds["impression"] == 312_539
    assert report.refused == 0


@pytest.mark.slow
def test_complete_journey(real):
    report, _ = taken(real("complete-journey/transactions.parquet"))
    assert (report.rows, report.kinds) == (1_469_307, {"purchase": 1_460_438})
    assert {r.reason: r.count for r in report.refusals} == {"zero_quantity": 8_869}
    source, found = recognised(real("complete-journey/products.parquet"))
    assert read_catalog(source, found, Settings())[0].num_rows == 92_331
    source, found = recognised(real("complete-journey/demographics.parquet"))
    assert read_users(source, found, Settings())[0].num_rows == 801
