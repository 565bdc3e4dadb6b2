"""From a file to events: ids, duplicates, mappings, quarantine, and that nothing is lost."""

from __future__ import annotations

import errno
import random
import tempfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant.core.errors import InputError, StorageError, UnknownColumns
from penchant.data import (
    DRAFT_SCHEMA,
    Mapping,
    Quarantine,
    Settings,
    clean_events,
    clean_expression,
    limits_of,
    mappings_from,
    open_source,
    recognise,
    settings_from,
)

HEADER = "user_id,item_id,kind,ts\n"


def test_identical_rows_have_one_id_or_numbered_ones(clean, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(HEADER + "u1,i,view,2024-05-01\n" * 3 + "u2,i,view,2024-05-01\n")
    once = clean(path)
    assert len({e["event_id"] for e in once.events}) == 2  # the store refuses the repeats as duplicates
    kept = clean(path, settings=Settings(duplicates="keep"))
    first = once.events[0]["event_id"]
    assert [e["event_id"] for e in kept.events[:3]] == [first, f"{first}#2", f"{first}#3"]
    assert kept.events == clean(path, settings=Settings(duplicates="keep")).events
    assert {r.code: r.count for r in kept.report.remarks} == {"repeated_rows": 2}


def test_repeats_are_counted_across_chunks_of_a_file(clean, tmp_path, monkeypatch):
    from penchant.data import _repeats, _source_parquet

    monkeypatch.setattr(_source_parquet, "CHUNK_ROWS", 50)
    monkeypatch.setattr(_repeats, "_ON_DISK", 64)
    draw = random.Random(0)
    users = [f"u{draw.randrange(40)}" for _ in range(1000)]
    table = pa.table(
        {"user_id": users, "item_id": ["i"] * 1000, "kind": ["view"] * 1000, "ts": [10**15] * 1000}
    )
    pq.write_table(table, tmp_path / "log.parquet")
    done = clean(tmp_path / "log.parquet", settings=Settings(duplicates="keep"))
    assert len({e["event_id"] for e in done.events}) == 1000
    by_user: dict[str, int] = {}
    for event in done.events:
        by_user[event["user_id"]] = n = by_user.get(event["user_id"], 0) + 1
        assert event["event_id"].partition("#")[2] == ("" if n == 1 else str(n))


def test_ids_do_not_depend_on_the_form_of_the_file(clean, tmp_path):
    (tmp_path / "a.csv").write_text(HEADER.strip() + ",value\nu1,7,purchase,2024-05-01,1999\n")
    (tmp_path / "a.jsonl").write_text(
        '{"kind":"purchase","value":1999.0,"user_id":"u1","item_id":7,"timestamp":"2024-05-01T00:00:00Z"}\n'
    )
    ids = {clean(tmp_path / name).events[0]["event_id"] for name in ("a.csv", "a.jsonl")}
    assert len(ids) == 1


def test_columns_nobody_asked_for_are_named(clean, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,kind,ts,device,shop\nu1,i,view,2024-05-01,phone,7\n")
    assert clean(path).report.ignored == ["device", "shop"]
    kept = clean(path, settings=Settings(props=["device"]))
    assert kept.events[0]["props"] == '{"device":"phone"}'
    assert kept.report.ignored == ["shop"]
    assert "columns left out: shop" in kept.report.notes[-1]


def test_an_unknown_file_comes_with_a_proposal_that_works(clean, tmp_path):
    path = tmp_path / "orders.csv"
    path.write_text(
        "Customer;Article No;Date;Qty;Price;Colour\n17850.0;85123A;31/12/2023 08:26;6;2,55;red\n"
        "17851.0;71053;01/01/2024 09:00;-2;3,39;blue\n"
    )
    with pytest.raises(UnknownColumns) as caught:
        recognise(open_source(path))
    proposal = caught.value.proposal
    assert "--write-mapping" in str(caught.value)
    assert proposal.time == "%d/%m/%Y %H:%M"
    assert proposal.integer_ids
    import tomllib

    (again,) = mappings_from(tomllib.loads(proposal.toml())["mapping"])
    assert again == proposal
    fixed = Mapping(
        **{n: getattr(proposal, n) for n in proposal.__struct_fields__ if n != "fields"},
        fields={
            **proposal.fields,
            "item_id": "Article No",
        },
    )
    done = clean(path, (fixed,), Settings(currency="EUR"))
    assert done.report.dialect == "mapping:orders"
    assert [(e["user_id"], e["kind"], e["quantity"], e["value"]) for e in done.events] == [
        ("17850", "purchase", 6.0, 1530.0),
        ("17851", "refund", 2.0, 678.0),
    ]
    assert done.report.ignored == ["Colour"]


def test_money_follows_the_currency_of_each_row(clean, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(
        "user,sku,day,price,currency\nu,i,2024-05-01,500,JPY\nu,i,2024-05-01,1.5,KWD\nu,i,2024-05-01,$2.50,\n"
    )
    mapping = Mapping(
        name="m",
        fields={"user_id": "user", "item_id": "sku", "ts": "day", "price": "price", "currency": "currency"},
        kind="purchase",
    )
    assert [e["value"] for e in clean(path, (mapping,)).events] == [500.0, 1500.0, 250.0]


def test_kinds_can_be_mapped_left_out_or_unknown(clean, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(
        "u,i,t,a\n1,1,2024-05-01,99\n1,1,2024-05-01,scroll\n1,1,2024-05-01,dance\n1,1,2024-05-01,Add To Cart\n"
    )
    mapping = Mapping(
        name="m",
        fields={"user_id": "u", "item_id": "i", "ts": "t", "kind": "a"},
        kinds={"99": "purchase", "scroll": "-"},
    )
    done = clean(path, (mapping,))
    assert [e["kind"] for e in done.events] == ["purchase", "cart_add"]
    assert [(r["row"], r["reason"], r["detail"]) for r in done.refused] == [
        (2, "left_out", "scroll"),
        (3, "unknown_kind", "dance"),
    ]


def test_time_zones_and_formats(clean, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("u,i,t\n1,1,2024-07-01 12:00:00\n1,1,2024-07-01T12:00:00Z\n1,1,2024-01-01 12:00:00\n")
    mapping = Mapping(
        name="m", fields={"user_id": "u", "item_id": "i", "ts": "t"}, kind="view", timezone="Europe/Berlin"
    )
    hour = 3_600_000_000
    assert [e["ts"] // hour % 24 for e in clean(path, (mapping,)).events] == [10, 12, 11]
    with pytest.raises(InputError, match="time zone"):
        clean(path, (Mapping(name="m", fields=mapping.fields, kind="view", timezone="Mars/Base"),))


def test_an_order_can_stand_for_time(clean, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item\nu1,a\nu1,b\n")
    with pytest.raises(UnknownColumns) as caught:
        recognise(open_source(path))
    done = clean(path, (caught.value.proposal,))
    assert [b["ts"] - a["ts"] for a, b in zip(done.events, done.events[1:], strict=False)] == [1_000_000]
    assert done.report.remarks[0].code == "ordinal_time"


@pytest.mark.parametrize(
    "table",
    [
        {"name": "m", "fields": {"nobody": "x"}},
        {"name": "m", "fields": {}, "kinds": {"a": "dance"}},
        {"name": "m", "fields": {}, "typo": 1},
        {"name": "m", "fields": {"user_id": ["a", "b"]}},
    ],
)
def test_a_wrong_mapping_is_refused_by_name(table):
    with pytest.raises(InputError, match="mapping"):
        mappings_from([table])


@pytest.mark.parametrize(
    "table", [{"typo": 1}, {"currency": "euro"}, {"max_value": -1}, {"duplicates": "maybe"}]
)
def test_a_wrong_setting_is_refused_by_name(table):
    with pytest.raises(InputError, match="data"):
        settings_from(table)


def test_reports_and_examples_never_show_who_it_was(clean, tmp_path):
    path = tmp_path / "log.csv"
    secret = "anna.secret@example.com"
    path.write_text(
        HEADER + f"{secret},,view,2024-05-01\n{secret},i,dance,2024-05-01\n{secret * 40},i,view,2024-05-01\n"
    )
    done = clean(path)
    assert len(done.refused) == 3
    assert secret not in str(done.report)
    assert all(r["subject"].startswith(secret) for r in done.refused)


def test_quarantine_is_the_same_after_the_second_time_and_can_forget(clean, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(
        HEADER + 'u1,,view,2024-05-01\nu2,,view,2024-05-01\nu10,"lost,view,2024-05-01\nu1,i,view,2024-05-01\n'
    )
    kept = Quarantine(tmp_path / "quarantine")

    def ingest(duplicates):
        source = open_source(path)
        stream = clean_events(source, recognise(source), Settings(), 1_730_000_000_000_000)
        accepted = list(stream.accepted())
        tables = list(stream.refused())
        if duplicates:
            rows = {
                "row": [4],
                "reason": ["duplicate"],
                "detail": [None],
                "subject": ["u1"],
                "user_id": ["u1"],
            }
            tables.append(
                pa.table({**rows, "event_id": ["e"], "ts": [1], "kind": ["view"], "item_id": ["i"]})
            )
        assert accepted
        return kept.add(source.name, source.sha256, tables, report=stream.report)

    first = ingest(True)
    content = pq.read_table(first).to_pylist()
    assert sorted((r["row"], r["reason"]) for r in content) == [
        (1, "missing_item"),
        (2, "missing_item"),
        (3, "damaged_row"),
        (4, "duplicate"),
    ]
    assert ingest(False) == first  # the store knows the duplicate by now and is silent
    assert pq.read_table(first).to_pylist() == content
    assert kept.counts() == {"damaged_row": 1, "missing_item": 2, "duplicate": 1}
    assert [r.refused for r in kept.reports()] == [3]
    assert kept.erase("u1") == 2
    assert kept.erase("u10") == 1
    assert [r["subject"] for b in kept.batches() for r in b.to_pylist()] == ["u2"]
    assert b"u10" not in first.read_bytes()
    source = open_source(path)
    stream = clean_events(source, recognise(source), Settings(), 1_730_000_000_000_000)
    assert list(stream.accepted())
    kept.add(source.name, source.sha256, stream.refused(), erased=lambda subject: subject == "u1")
    assert {r["subject"] for b in kept.batches() for r in b.to_pylist()} == {"u2", None}


def test_rules_run_on_any_table_that_ibis_can_bind(now):
    import ibis

    draft = pa.Table.from_pylist(
        [
            {"row": 1, "part": 0, "user_id": "u1", "kind": "view", "item_id": "i", "ts": 10**15},
            {
                "row": 2,
                "part": 0,
                "anonymous_id": "c",
                "kind": "purchase",
                "item_id": "i",
                "ts": 10**15,
                "quantity": -1.0,
            },
            {"row": 3, "part": 0, "kind": "view", "item_id": "i", "ts": 10**15},
        ],
        schema=DRAFT_SCHEMA,
    )
    engine = ibis.duckdb.connect()
    table = engine.create_table("draft", draft)
    done = clean_expression(table, limits_of(Settings(), now)).order_by("row").to_pyarrow().to_pylist()
    assert [(r["subject"], r["kind"], r["reason"]) for r in done] == [
        ("u1", "view", None),
        ("anon:c", "refund", None),
        (None, "view", "missing_user"),
    ]
    plain = clean_expression(
        table, limits_of(Settings(), now), odd=False, empty=frozenset({"props", "fault"})
    )
    assert plain.order_by("row").to_pyarrow().to_pylist() == done


def test_serving_does_not_load_the_engines(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; from penchant.data import check_event, Settings, sequence_batch\n"
        "from penchant.core import Event\n"
        "check_event(Event(kind='view', user_id='u', item_id='i'), Settings(), 1_730_000_000_000_000)\n"
        "bad = {'ibis', 'duckdb', 'pandas', 'torch'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_step_that_alone_tells_rows_apart_is_proposed_as_a_prop(clean, tmp_path):
    path = tmp_path / "looks.csv"
    rows = [f"ann,{step},look,shoe,2024-05-01 10:00:00" for step in range(4)]
    path.write_text("\n".join(["member,step,action_type,reference,time", *rows]) + "\n")
    with pytest.raises(UnknownColumns) as caught:
        clean(path)
    proposal = caught.value.proposal
    assert proposal.props == ["step"]
    assert proposal.ignore == []


def test_an_order_column_that_starts_again_is_not_proposed_as_time(clean, tmp_path):
    path = tmp_path / "log.csv"
    rows = [f"u{n},a,view,{n}\n" for n in range(4)] + [f"u{n},a,transaction,{n // 2}\n" for n in range(2, 4)]
    path.write_text("user,item,event,row\n" + "".join(rows))
    with pytest.raises(UnknownColumns) as caught:
        recognise(open_source(path))
    assert caught.value.proposal.fields["ts"] == "#row"
    events = clean(path, (caught.value.proposal,)).events
    assert [e["kind"] for e in sorted(events, key=lambda e: e["ts"]) if e["user_id"] == "u3"] == [
        "view",
        "purchase",
    ]


def test_unreadable_rows_of_an_erased_person_do_not_come_back(clean, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(
        HEADER + 'u1,"lost,view,2024-05-01\nu10,i,view,2024-05-01,too,many\nu1,i,view,2024-05-01\n'
    )
    kept = Quarantine(tmp_path / "quarantine")
    source = open_source(path)
    stream = clean_events(source, recognise(source), Settings(), 1_730_000_000_000_000)
    assert list(stream.accepted())
    kept.add(source.name, source.sha256, stream.refused(), erased=lambda subject: subject == "u1")
    assert [r["row"] for b in kept.batches() for r in b.to_pylist()] == [2]


def test_refused_rows_of_the_store_are_written_piece_by_piece(tmp_path, monkeypatch):
    from penchant.data import _quarantine

    sizes = []
    shaped = _quarantine._shaped
    monkeypatch.setattr(_quarantine, "_shaped", lambda t, *a: sizes.append(t.num_rows) or shaped(t, *a))
    count = 150_000
    refused = pa.table({"row": range(count), "reason": ["duplicate"] * count, "event_id": ["e"] * count})
    kept = Quarantine(tmp_path / "quarantine")
    kept.add("log.csv", "0" * 64, [refused])
    assert kept.counts() == {"duplicate": count}
    assert max(sizes) <= 65_536


def test_a_full_temporary_folder_is_named(clean, tmp_path, monkeypatch):
    """It is often not on the disk of the shop: a bare "the disk is full" would send people to the wrong one."""

    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "log.csv"
    path.write_text(HEADER + ",i,view,2024-05-01\n")
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(StorageError, match=tempfile.gettempdir()) as caught:
        clean(path)
    assert "TMPDIR" in caught.value.hint


def test_rows_kept_before_are_merged_without_reading_them_all(tmp_path, monkeypatch):
    def refused(rows):
        count = len(rows)
        return pa.table({"row": rows, "reason": ["duplicate"] * count, "event_id": ["e"] * count})

    kept = Quarantine(tmp_path / "quarantine")
    path = kept.add("log.csv", "0" * 64, [refused(range(1, 50_001))])
    monkeypatch.setattr(pq, "read_table", None)
    kept.add("log.csv", "0" * 64, [refused(range(1, 30_001)), refused(range(60_000, 60_010))])
    monkeypatch.undo()
    rows = pq.read_table(path)["row"].to_pylist()
    assert sorted(rows) == [*range(1, 50_001), *range(60_000, 60_010)]
