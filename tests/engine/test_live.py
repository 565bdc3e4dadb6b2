"""What a shop sees: fresh events act at once, whoever the person is, and nothing fails for want of a model."""

import inspect
import shutil

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant import Engine
from penchant.core import DAY, Event, EventKind
from penchant.core.errors import (
    ErasureIncomplete,
    InputError,
    ModelError,
    NotFound,
    PenchantError,
    ShopError,
    StorageError,
    UnknownColumns,
)
from penchant.engine import _recount, _tags
from penchant.engine._batch import read_users
from penchant.engine._profile import item_tags
from penchant.engine._promotion import read_pointer, write_pointer
from penchant.models import Tags
from penchant.surfaces._render import render

NOW = 1_750_000_000_000_000
ITEMS = 12


def clock():
    return NOW


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    rows = [
        {
            "event_id": f"{user}-{step}",
            "user_id": f"u{user}",
            "kind": "view" if step % 2 else "purchase",
            "item_id": f"i{(user + step) % ITEMS}",
            "ts": NOW - (10 - step) * DAY - user,
            "value": 500.0,
            "currency": "EUR",
        }
        for user in range(60)
        for step in range(6)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "events.parquet")
    catalog = [
        {
            "id": f"i{n}",
            "title": f"Item {n}",
            "category": f"Even > C{n % 4}" if n % 2 == 0 else f"Odd > C{n % 4}",
            "price": f"{n + 1}.00 EUR",
            "availability": "out_of_stock" if n == 11 else "in_stock",
        }
        for n in range(ITEMS)
    ]
    pq.write_table(pa.Table.from_pylist(catalog), folder / "items.parquet")
    with Engine.open(folder / "shop", clock=clock) as engine, pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            _tags, "nothing_learned", lambda *_: None
        )  # nobody buys on the last day: tags prove nothing
        engine.init(currency="EUR")
        engine.catalog(files=[str(folder / "items.parquet")])
        engine.ingest(files=[str(folder / "events.parquet")])
        engine.promote(artifact=engine.train(models=["transitions"]).artifacts["transitions"])
    return folder / "shop"


@pytest.fixture
def engine(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "shop")
    with Engine.open(tmp_path / "shop", clock=clock) as engine:
        yield engine


def ids(slate):
    return [item.item_id for item in slate.items]


@pytest.mark.parametrize("who", [{"user_id": "u3"}, {"anonymous_id": "guest"}, {"user_id": "brand-new"}])
def test_an_event_changes_the_very_next_answer(engine, who):
    before = engine.recommend(explore="off", **who, k=3, seen="allow")
    told = engine.observe(events=[{"kind": "view", "item_id": "i5", **who}])
    assert told.stored == 1
    after = engine.recommend(explore="off", **who, k=3, seen="allow")
    assert ids(after)[0] == "i6", "i6 follows i5 everywhere"
    assert after.items[0].reasons[0].item_id == "i5"
    assert ids(before) != ids(after)


def test_an_answer_carries_what_it_needs(engine):
    slate = engine.recommend(explore="off", user_id="u1", k=4)
    assert slate.recommendation_id
    assert slate.policy_id == "hybrid/1+greedy/1"
    assert slate.model_id == engine.status().serving
    assert all(item.odds == 1 and item.reasons for item in slate.items)
    engine.shop.store.flush()
    assert [d.recommendation_id for d in engine.shop.store.decisions("u1")] == [slate.recommendation_id]


def test_allow_deny_filters_and_stock(engine):
    assert set(ids(engine.recommend(explore="off", user_id="u1", k=12, seen="allow"))) == {
        f"i{n}" for n in range(11)
    }
    assert set(
        ids(engine.recommend(explore="off", user_id="u1", k=9, allow=["i1", "i2", "i11"], seen="allow"))
    ) == {
        "i1",
        "i2",
    }
    assert "i2" not in ids(engine.recommend(explore="off", user_id="u1", k=12, deny=["i2"], seen="allow"))
    even = engine.recommend(explore="off", user_id="u1", k=12, filters=["category ^= Even"], seen="allow")
    assert {int(i[1:]) % 2 for i in ids(even)} == {0}
    cheap = engine.recommend(explore="off", user_id="u1", k=12, filters=["price <= 300"], seen="allow")
    assert set(ids(cheap)) == {"i0", "i1", "i2"}


def test_seen_items_can_be_excluded(engine):
    own = {f"i{(7 + step) % ITEMS}" for step in range(6)}
    assert not own & set(ids(engine.recommend(explore="off", user_id="u7", k=12, seen="exclude")))


def test_nothing_to_show_is_an_empty_slate_with_a_note(engine):
    slate = engine.recommend(explore="off", user_id="u1", filters=["price > 999999"])
    assert slate.items == []
    assert "filters" in slate.note


def test_the_purpose_analytics_uses_no_history(engine):
    engine.observe(events=[{"kind": "view", "item_id": "i5", "user_id": "u3"}])
    plain = engine.recommend(explore="off", user_id="u3", k=3, purpose="analytics", seen="allow")
    nobody = engine.recommend(explore="off", k=3, seen="allow")
    assert ids(plain) == ids(nobody)


@pytest.mark.parametrize("seen", ["allow", "exclude"])
def test_the_purpose_analytics_uses_no_history_for_many_people_either(engine, tmp_path, seen):
    out = tmp_path / "recs.parquet"
    engine.recommend(explore="off", users="all", k=3, purpose="analytics", seen=seen, out=str(out))
    for user in ("u1", "u7"):
        mine = [row["item_id"] for row in pq.read_table(out).to_pylist() if row["user_id"] == user]
        assert mine == ids(engine.recommend(explore="off", user_id=user, k=3, purpose="analytics", seen=seen))


def test_a_warm_profile_reads_neither_the_whole_shop_nor_the_model_again(engine, monkeypatch):
    pytest.importorskip("torch")
    first = engine.profile(user_id="u3")
    assert first.predicted
    assert first.predicted[0].because
    with monkeypatch.context() as patch:
        for place in ("penchant.store.ShopStore.status", "penchant.training.load_artifact"):
            patch.setattr(place, lambda *_: pytest.fail("it was read again"))
        assert engine.profile(user_id="u3") == first
    pointer = read_pointer(engine.shop.artifacts)
    write_pointer(engine.shop.artifacts, msgspec.structs.replace(pointer, tags=None))
    assert engine.profile(user_id="u3").predicted == []
    write_pointer(engine.shop.artifacts, pointer)
    assert engine.profile(user_id="u3") == first


@pytest.mark.parametrize("wrong", ["", ".", "/", "shop.toml/x/y.html"])
def test_a_file_that_cannot_be_written_is_refused_before_any_work(engine, wrong):
    wrong = str(engine.path / wrong) if "x" in wrong else wrong
    with pytest.raises(InputError, match="file") as told:
        engine.doctor(html=wrong)
    assert told.value.path == "$.html"
    with pytest.raises(InputError, match="file"):
        engine.recommend(explore="off", users="all", out=wrong)


def test_folders_of_written_files_are_made(engine, tmp_path):
    engine.export_user(user_id="u1", out=str(tmp_path / "new" / "u1.json"))
    assert (tmp_path / "new" / "u1.json").exists()


def test_an_answer_for_one_person_is_not_written_to_a_file(engine, tmp_path):
    with pytest.raises(InputError, match="many people") as told:
        engine.recommend(explore="off", user_id="u1", out=str(tmp_path / "x.parquet"))
    assert told.value.path == "$.out"


def test_bad_events_are_refused_alone(engine):
    told = engine.observe(
        events=[
            {"kind": "view", "item_id": "i1", "user_id": "u1", "event_id": "x"},
            {"kind": "view", "item_id": "i1"},
            {"kind": "view", "item_id": "i1", "user_id": "u1", "event_id": "x"},
            {"kind": "view", "item_id": "i2", "user_id": "u1", "event_id": "x"},
            {"kind": "purchase", "item_id": "i1", "user_id": "u1", "value": -5.0},
        ]
    )
    assert [r.status for r in told.results] == ["stored", "refused", "duplicate", "conflict", "refused"]
    assert told.stored == 1
    assert engine.observe(events=[]).results == []


_FINE = {"kind": "view", "item_id": "i1", "user_id": "u1"}


@pytest.mark.parametrize(
    ("wrong", "place", "words"),
    [
        ({**_FINE, "kind": "vieww", "event_id": "mine"}, ".kind", "'vieww' one of impression, click"),
        ({"item_id": "i1", "user_id": "u1"}, "", "missing required field `kind`"),
        ({**_FINE, "ts": "yesterday"}, ".ts", "got (got 'yesterday') microseconds since 1970"),
        ({**_FINE, "item": "i1"}, "", "unknown field `item` fields: kind, event_id"),
        ({**_FINE, "item_id": 7}, ".item_id", "got `int` (got 7)"),
        ({**_FINE, "event_id": 7}, ".event_id", "got `int` (got 7)"),
        ({**_FINE, "currency": "euro"}, ".currency", "matching regex"),
        ({**_FINE, "position": -1}, ".position", "`int` >= 0"),
        ({**_FINE, "consent": ["all"]}, ".consent[0]", "'all' one of analytics, personalise"),
        ({**_FINE, "user_id": "u" * 513}, ".user_id", "length <= 512"),
        ({**_FINE, "ts": 7}, ".ts", "too_early"),
        ({"kind": "view", "item_id": "i1"}, ".user_id", "missing_user"),
        ("view", "", "`object` got `str`"),
        (None, "", "`object` got `null`"),
        (Event(kind="vieww", user_id="u1"), ".kind", "'vieww' one of impression, click"),
        (Event(kind=EventKind.VIEW, user_id="u1", ts="x"), ".ts", "got `str` microseconds since 1970"),
    ],
)
def test_whatever_is_wrong_with_an_event_it_is_refused_alone_with_the_reason(engine, wrong, place, words):
    told = engine.observe(events=[_FINE, wrong, {**_FINE, "item_id": "i2"}])
    assert [r.status for r in told.results] == ["stored", "refused", "stored"]
    reason = told.results[1].error
    assert f" at $.events[1]{place}:" in reason
    for word in words.split():
        assert word in reason
    given = wrong.get("event_id") if isinstance(wrong, dict) else None
    assert told.results[1].event_id == (given if isinstance(given, str) else None)


def test_similar(engine):
    answer = engine.similar(item_id="i4", k=1)
    assert answer.items[0].item_id == "i5"
    (row,) = [r for r in engine.shop.store.decisions() if r.recommendation_id == answer.recommendation_id]
    assert (row.item_ids, row.odds, row.policy_id) == (["i5"], [1.0], "similar/1")
    assert row.num_candidates == len(row.candidates.item_ids) > 1
    with pytest.raises(NotFound, match="no such item"):
        engine.similar(item_id="nothing")


def test_profile(engine):
    found = engine.profile(user_id="u2")
    assert found.events == 6
    tags = {interest.tag for interest in found.lifetime}
    assert tags <= {f"{a} > C{n}" for a in ("Even", "Odd") for n in range(4)}
    assert sum(interest.weight for interest in found.lifetime) == pytest.approx(1, abs=0.01)
    assert found.lifetime[0].evidence[0].title.startswith("Item")
    assert engine.profile(user_id="stranger").events == 0
    with pytest.raises(InputError, match="whom"):
        engine.profile()


def test_a_profile_is_as_long_as_was_asked_for_and_names_a_product_once(engine):
    engine.observe(
        events=[{"kind": "view", "item_id": "i5", "user_id": "u2", "ts": NOW - n} for n in range(4)]
    )
    found = engine.profile(user_id="u2", k=2)
    assert [len(found.now), len(found.month), len(found.lifetime), len(found.predicted)] == [2, 2, 2, 2]
    for interest in (*found.now, *found.month, *found.lifetime):
        titles = [event.title for event in interest.evidence]
        assert len(titles) == len(set(titles))
    assert found.now[0].evidence[0].title == "Item 5"
    assert found.now[0].evidence[0].ts == NOW, "the newest of its events"


def test_a_profile_reads_only_what_it_needs_and_once(engine, monkeypatch):
    calls = []
    normalise = Tags.normalise
    monkeypatch.setattr(Tags, "normalise", lambda self, row: calls.append(row) or normalise(self, row))
    found = engine.profile(user_id="u1")
    assert len(found.predicted) > 2
    assert len(calls) <= 2, "the chances and the evidence of all tags"
    assert item_tags(engine.shop, pa.array(["i1", "none"])).keys() == {"i1"}


def test_a_broken_model_means_popularity_not_an_error(engine):
    pointer = engine.status().serving
    for folder in (engine.path / "artifacts").iterdir():
        if folder.is_dir():
            (folder / "tensors.safetensors").write_bytes(b"broken")
    engine.serving._stamp = None
    engine.serving.refresh()
    slate = engine.recommend(explore="off", user_id="u1", k=3)
    assert slate.degraded
    assert slate.note
    assert len(slate.items) == 3
    assert engine.status().degraded
    companions = engine.similar(item_id="i4")
    assert companions.degraded
    assert not companions.items
    assert "popular" not in companions.note, "nothing answers in place of the model here"
    with pytest.raises(ModelError):
        engine.promote(artifact=pointer)


def test_promote_and_rollback_act_at_once(engine):
    models = {m.kind: m.id for m in engine.status().models}
    first = engine.status().serving
    assert engine.promote(artifact=models["popularity"][:12]).previous == first
    engine.serving.refresh()
    assert engine.recommend(explore="off", user_id="u1").model_id == models["popularity"]
    assert engine.rollback().promoted == first
    engine.serving.refresh()
    assert engine.recommend(explore="off", user_id="u1").model_id == first
    with pytest.raises(NotFound):
        engine.promote(artifact="zzzz")


def test_many_people_at_once(engine, tmp_path):
    (tmp_path / "users.txt").write_text("u1\nu2\n\nnobody\nu1\n")
    out = tmp_path / "recs.parquet"
    report = engine.recommend(
        explore="off", users=str(tmp_path / "users.txt"), k=3, seen="allow", out=str(out)
    )
    assert (report.users, report.unknown_users, report.rows) == (3, 1, 9)
    table = pq.read_table(out)
    for user in ("u1", "u2", "nobody"):
        mine = [row for row in table.to_pylist() if row["user_id"] == user]
        assert [row["rank"] for row in mine] == [1, 2, 3]
        assert [row["item_id"] for row in mine] == ids(
            engine.recommend(explore="off", user_id=user, k=3, seen="allow")
        )
    everybody = engine.recommend(explore="off", users="all", k=2, out=str(out))
    assert everybody.users == 60
    with pytest.raises(InputError, match="where shall"):
        engine.recommend(explore="off", users="all")
    with pytest.raises(NotFound):
        engine.recommend(explore="off", users=str(tmp_path / "none.txt"), out=str(out))


def test_erase_and_export(engine, tmp_path):
    engine.observe(events=[{"kind": "view", "item_id": "i1", "user_id": "u9", "text": "secret"}])
    engine.recommend(explore="off", user_id="u9")
    engine.recommend(explore="off", users="all", k=2, out=str(tmp_path / "all.parquet"))
    kept = engine.export_user(user_id="u9", out=str(tmp_path / "u9.json"))
    assert len(kept.events) == 7
    assert sorted(len(slate.items) for slate in kept.decisions) == [2, 6]
    assert "secret" in (tmp_path / "u9.json").read_text()
    receipt = engine.erase_user(user_id="u9")
    assert receipt.remaining == []
    assert receipt.bytes_searched > 0
    assert engine.export_user(user_id="u9").events == []
    assert (
        engine.observe(events=[{"kind": "view", "item_id": "i1", "user_id": "u9"}]).results[0].status
        == "erased"
    )
    again = engine.recommend(explore="off", users="all", k=2, out=str(tmp_path / "all.parquet"))
    assert again.users == 59


def test_evaluate_keeps_the_baselines_beside_it(engine):
    report = engine.evaluate(share=0.2)
    assert {"popularity", "recent_popularity", "item_knn", "transitions"} <= {r.model for r in report.rows}
    assert report.rows[0].metrics["NDCG@10"].low <= report.rows[0].metrics["NDCG@10"].value
    with pytest.raises(InputError, match="no such model kind"):
        engine.evaluate(models=["magic"])


def test_a_folder_that_is_no_shop(tmp_path):
    with Engine.open(tmp_path / "no") as engine, pytest.raises(ShopError, match="not a shop"):
        engine.status()
    with Engine.open(tmp_path / "yes") as engine:
        engine.init()
        with pytest.raises(ShopError, match="already"):
            engine.init()
        with pytest.raises(ModelError, match="nothing to learn"):
            engine.train()
        assert engine.recommend(explore="off", user_id="u").items == []


def test_a_mistyped_setting_is_named(tmp_path):
    with Engine.open(tmp_path / "shop") as engine:
        engine.init()
    file = tmp_path / "shop" / "shop.toml"
    file.write_text(file.read_text().replace("max_history", "max_histroy"))
    with Engine.open(tmp_path / "shop") as engine, pytest.raises(ShopError, match="max_histroy"):
        engine.status()


def test_a_printed_proposal_can_be_added_at_the_end_of_the_settings(tmp_path):
    (tmp_path / "odd.csv").write_text("who,what_id,when\nu1,tea,2025-05-03T10:00:00Z\n")
    with Engine.open(tmp_path / "shop", clock=clock) as engine:
        engine.init()
        with pytest.raises(UnknownColumns) as told:
            engine.ingest(files=[str(tmp_path / "odd.csv")])
    fields = 'user_id = "who"\nitem_id = "what_id"\nts = "when"\n'
    proposal = '[[mapping]]\nname = "odd"\nkind = "view"\n[mapping.fields]\n' + fields
    assert told.value.proposal.toml().startswith("[[mapping]]")
    with (tmp_path / "shop" / "shop.toml").open("a") as settings:
        settings.write("\n" + proposal)
    with Engine.open(tmp_path / "shop", clock=clock) as engine:
        assert engine.ingest(files=[str(tmp_path / "odd.csv")]).accepted == 1


def test_every_error_is_of_the_tree(engine):
    with pytest.raises(PenchantError):
        engine.recommend(explore="off", user_id="u1", k=0)
    with pytest.raises(PenchantError):
        engine.recommend(explore="off", user_id="u1", colour="red")


def test_a_batch_counts_what_others_did_since(engine, tmp_path):
    """Forty people go from i2 to i9 after training; the answer for a person at i2 follows in the next batch."""
    (tmp_path / "users.txt").write_text("u2000\n")
    ask = {
        "users": str(tmp_path / "users.txt"),
        "out": str(tmp_path / "out.parquet"),
        "k": 1,
        "seen": "allow",
    }
    when = NOW - 3600 * 1_000_000
    news = [
        {"kind": "view", "item_id": item, "user_id": f"u{1000 + n}", "ts": when + place}
        for n in range(40)
        for place, item in enumerate(["i2", "i9"])
    ]
    engine.observe(events=[*news, {"kind": "view", "item_id": "i2", "user_id": "u2000"}])
    before = engine.recommend(explore="off", user_id="u2000", k=1)
    assert ids(before) == ["i3"]
    report = engine.recommend(explore="off", **ask)
    assert pq.read_table(tmp_path / "out.parquet")["item_id"].to_pylist() == ["i9"]
    after = engine.recommend(explore="off", user_id="u2000", k=1)
    assert ids(after) == ["i9"], "whoever asks next gets the same model"
    assert report.model_id == after.model_id != before.model_id
    assert engine.recommend(explore="off", **ask).model_id == report.model_id, (
        "nothing new: nothing is counted again"
    )
    assert engine.rollback().previous == report.model_id  # to the model promoted before, not to older counts


def test_only_the_last_counts_are_kept(engine):
    kept = {engine.status().serving}
    for n in range(4):
        engine.observe(events=[{"kind": "view", "item_id": "i2", "user_id": f"u{n}"}])
        report = engine.recount()
        assert report.events == 361 + n
        kept.add(report.promoted)
    left = {model.id for model in engine.status().models if model.kind == "transitions"}
    assert len(kept) == 5
    assert len(left) == 3


def test_recount_needs_a_model(tmp_path):
    with Engine.open(tmp_path / "bare", clock=clock) as engine:
        engine.init()
        with pytest.raises(ModelError, match="no model serves"):
            engine.recount()


def test_refused_rows_of_an_erased_person_do_not_come_back(engine, tmp_path):
    file = tmp_path / "log.csv"
    file.write_text(
        "user_id,item_id,kind,ts\nu9,,view,2025-06-01\nu8,,view,2025-06-01\nu8,i1,view,2025-06-01\n"
    )
    engine.ingest(files=[str(file)])
    leftover = tmp_path / "shop" / "quarantine" / ".log.csv.parquet.1234.tmp"
    shutil.copy(next((tmp_path / "shop" / "quarantine").glob("*-log.csv.parquet")), leftover)
    assert engine.erase_user(user_id="u9").remaining == []
    assert not leftover.exists()
    (report,) = engine.ingest(files=[str(file)]).files
    assert set(pq.read_table(report.quarantine)["subject"].to_pylist()) == {"u8"}


def test_an_erasure_tells_a_person_from_a_product_code_and_a_row_number(engine, tmp_path):
    file = tmp_path / "orders.csv"
    file.write_text(
        "user_id,anonymous_id,item_id,kind,ts\n"
        ",,15030,view,2025-06-01\n"  # a product code that reads like somebody's id
        "u8,device-5,,view,2025-06-01\n"  # a known user's row that carries a guest's device
        "2,,15030,dance,2025-06-01\n"
    )
    engine.ingest(files=[str(file)])
    for user_id in ("15030", "1", "nobody"):
        assert engine.erase_user(user_id=user_id).remaining == []
    kept = next((engine.path / "quarantine").glob("*-orders.csv.parquet"))
    assert pq.read_table(kept)["row"].to_pylist() == [1, 2, 3]
    receipt = engine.erase_user(anonymous_id="device-5")
    assert (receipt.removed["quarantine"], receipt.remaining) == (1, [])
    table = pq.read_table(kept)
    assert table["row"].to_pylist() == [1, 2, 3]
    assert "device-5" not in str(table["raw"].to_pylist())
    assert "15030" in table["raw"][0].as_py()
    engine.ingest(files=[str(file)])
    assert "device-5" not in str(pq.read_table(kept)["raw"].to_pylist())


def test_what_is_left_in_the_quarantine_is_told(engine, tmp_path, monkeypatch):
    file = tmp_path / "odd.csv"
    file.write_text("user_id,item_id,kind,ts\nu9,,view,2025-06-01\nu8,i1,u9,2025-06-01\n")
    engine.ingest(files=[str(file)])
    with monkeypatch.context() as patch:
        patch.setattr("penchant.data.Quarantine.erase", lambda *_: 0)
        with pytest.raises(ErasureIncomplete) as caught:
            engine.erase_user(user_id="u9")  # shown as the kind, too, in an example of the report
    names = [path.name for path in (engine.path / "quarantine").glob("*-odd.csv.*")]
    assert caught.value.value == ", ".join(sorted(f"quarantine/{name}" for name in names))
    assert caught.value.hint
    assert engine.erase_user(user_id="u9").remaining == []


def test_a_guest_goes_from_rows_and_attributes_of_others(engine, tmp_path):
    events = tmp_path / "log.csv"
    events.write_text(
        "event_id,ts,user_id,anonymous_id,kind,item_id\na4,2025-06-01,member1,guestdevice77,view,\n"
        "a5,2025-06-01,,guestdevice77,view,\n"
    )
    users = tmp_path / "users.csv"
    users.write_text("user_id,age\nanon:guestdevice77,30\nmember1,40\n")
    engine.ingest(files=[str(events), str(users)])
    exported = engine.export_user(anonymous_id="guestdevice77")
    assert [(row["row"], row["reason"]) for row in exported.refused] == [(2, "missing_item")]
    assert exported.attributes == {"user_id": "anon:guestdevice77", "age": 30}
    assert len(engine.export_user(user_id="member1").refused) == 1
    receipt = engine.erase_user(anonymous_id="guestdevice77")
    assert receipt.remaining == []
    assert (receipt.removed["quarantine"], receipt.removed["users"]) == (2, 1)
    assert engine.shop.store.users()["user_id"].to_pylist() == ["member1"]
    again = engine.ingest(files=[str(events), str(users)])
    assert [(file.accepted, file.erased) for file in again.files] == [(0, 0), (1, 1)]
    assert again.erased == 1
    assert engine.shop.store.users()["user_id"].to_pylist() == ["member1"]
    kept = pq.read_table(again.files[0].quarantine)
    assert kept["row"].to_pylist() == [1]
    assert "guestdevice77" not in str(kept.to_pylist())


def test_a_guest_and_a_user_of_the_same_id_are_two_people(engine, tmp_path):
    events = tmp_path / "log.csv"
    events.write_text(
        "event_id,ts,user_id,anonymous_id,kind,item_id\n"
        "b1,2025-06-01,12,,view,\nb2,2025-06-01,,12,view,\nb3,2025-06-01,99,,view,12,too,many\n"
    )
    users = tmp_path / "users.csv"
    users.write_text("user_id,age\n12,30\n,31\n")
    engine.ingest(files=[str(events), str(users)])
    guest, user = engine.export_user(anonymous_id="12"), engine.export_user(user_id="12")
    assert ([row["row"] for row in guest.refused], guest.attributes) == ([2], {})
    assert ([row["row"] for row in user.refused], user.attributes) == ([1], {"user_id": "12", "age": 30})
    receipt = engine.erase_user(anonymous_id="12")
    assert (receipt.removed["users"], receipt.remaining) == (0, [])
    user = engine.export_user(user_id="12")
    assert ([row["row"] for row in user.refused], user.attributes) == ([1], {"user_id": "12", "age": 30})
    assert [file.erased for file in engine.ingest(files=[str(events), str(users)]).files] == [0, 0]


def test_the_progress_of_reading_has_an_end(tmp_path):
    file = tmp_path / "log.csv"
    file.write_text("user_id,item_id,kind,ts\n" + "u8,i1,view,2025-06-01\n" * 50)
    seen = []
    with Engine.open(tmp_path / "shop", clock=clock, progress=lambda *told: seen.append(told[:3])) as engine:
        engine.init()
        engine.ingest(files=[str(file)])
    size = file.stat().st_size
    assert seen[-1] == ("reading log.csv, bytes", size, size)


def test_rows_of_erased_people_are_counted(engine, tmp_path):
    file = tmp_path / "log.csv"
    file.write_text("user_id,item_id,kind,ts\nu8,i1,view,2025-06-01\nu9,i1,view,2025-06-01\n")
    engine.ingest(files=[str(file)])
    engine.erase_user(user_id="u9")
    report = engine.ingest(files=[str(file)])
    assert (report.files[0].already_stored, report.files[0].erased, report.erased, report.broken) == (
        1,
        1,
        1,
        0,
    )
    assert "1 of erased people, passed over" in render(report)


def test_rows_that_cannot_be_believed_are_told_apart_from_what_is_merely_missing(engine, tmp_path):
    def ingested(rows):
        file = tmp_path / "log.csv"
        file.write_text("user_id,item_id,kind,ts,value\n" + rows)
        (report,) = engine.ingest(files=[str(file)]).files
        return report.broken

    good, missing = "u8,i1,view,2025-06-01,\n", "u8,,view,2025-06-01,\n,i1,view,2025-06-01,\n"
    assert ingested(good + missing) == 0
    assert ingested(good + missing) == 0, "stored already"
    assert ingested(missing) == 2, "nothing of the file is of use"
    assert (
        ingested(good + missing + "u8,i1,view,1970-01-01,\nu8,i1,view,soon,\nu8,i1,view,2025-06-01,nan\n")
        == 3
    )


def test_a_file_of_users_may_come_from_windows(tmp_path):
    (tmp_path / "users.txt").write_bytes("\ufeffu1\r\nu2\r\n\r\n u1 \r\n".encode())
    assert read_users(str(tmp_path / "users.txt")) == ["u1", "u2"]


def test_a_batch_answers_although_the_model_cannot_be_counted_again(engine, tmp_path):
    engine.observe(events=[{"kind": "view", "user_id": "u1", "item_id": "i5"}])
    for folder in (engine.path / "artifacts").iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
    report = engine.recommend(explore="off", users="all", k=2, out=str(tmp_path / "all.parquet"))
    assert report.degraded
    assert report.model_id == "popularity"
    assert report.users == 60


def test_a_recount_gives_way_to_a_model_promoted_meanwhile(engine, monkeypatch):
    models = {m.kind: m.id for m in engine.status().models}
    counted = _recount.counted_again

    def slowly(*arguments):
        engine.promote(artifact=models["popularity"])
        return counted(*arguments)

    monkeypatch.setattr(_recount, "counted_again", slowly)
    with pytest.raises(ModelError, match="meanwhile"):
        engine.recount()
    assert engine.status().serving == models["popularity"]


def test_a_notebook_can_ask_what_an_operation_takes(engine):
    fields = inspect.signature(engine.recommend).parameters
    assert fields["k"].default is None
    assert fields["deny"].default == []
    assert inspect.signature(engine.similar).parameters["item_id"].default is inspect.Parameter.empty
    assert "for one person" in engine.recommend.__doc__
    assert repr(engine.status).startswith("<operation status: Ask how the shop stands")


def test_the_same_bytes_under_another_name_are_counted_once(engine, tmp_path):
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_text("user_id,item_id,kind,ts\n,i1,view,2025-06-01\nu8,i1,view,2025-06-01\n")
    before = engine.doctor().refused
    report = engine.ingest(files=[str(tmp_path / "one.csv"), str(tmp_path / "two.csv")])
    assert report.files[0].quarantine == report.files[1].quarantine
    assert engine.doctor().refused == before + 1


def test_what_was_stored_before_a_file_that_cannot_be_read_is_said(engine, tmp_path):
    good = tmp_path / "good.csv"
    good.write_text("user_id,item_id,kind,ts\nu8,i1,view,2025-06-01\n")
    with pytest.raises(NotFound) as caught:
        engine.ingest(files=[str(good), str(tmp_path / "missing.csv")])
    assert f"what came before it is stored: {good}" in caught.value.hint
    assert "u8" in engine.shop.store.scan(columns=["subject"])["subject"].to_pylist()


def test_what_is_not_the_quarantines_hinders_no_erasure_and_is_searched(engine, tmp_path):
    folder = engine.path / "quarantine"
    (tmp_path / "odd.csv").write_text("user_id,item_id,kind,ts\nuser-77,,view,2025-06-01\n")
    engine.ingest(files=[str(tmp_path / "odd.csv")])
    (folder / "foreign.json").write_text('{"x": 1}')
    pq.write_table(pa.table({"x": [1]}), folder / "foreign.parquet")
    (folder / "0123456789ab-broken.csv.json").write_text("{")
    with pytest.raises(ErasureIncomplete) as caught:
        engine.erase_user(user_id="user-77")
    assert caught.value.value == "quarantine/0123456789ab-broken.csv.json", "nobody can tell what it holds"
    assert engine.export_user(user_id="somebody").refused == []
    (folder / "0123456789ab-broken.csv.json").unlink()
    (folder / "note.txt").write_text("user-77 called")
    with pytest.raises(ErasureIncomplete) as caught:
        engine.erase_user(user_id="user-77")
    assert caught.value.value == "quarantine/note.txt"


def test_a_damaged_file_of_the_quarantine_is_named(engine, tmp_path):
    (tmp_path / "odd.csv").write_text("user_id,item_id,kind,ts\nuser-77,,view,2025-06-01\n")
    kept = engine.ingest(files=[str(tmp_path / "odd.csv")]).files[0].quarantine
    with open(kept, "wb") as file:
        file.write(b"PAR1 nothing")
    for ask in (engine.doctor, lambda: engine.export_user(user_id="user-77")):
        with pytest.raises(StorageError) as caught:
            ask()
        assert caught.value.path == kept


def test_a_source_named_after_a_person_is_told(engine, tmp_path):
    source = tmp_path / "alice-smith.csv"
    source.write_text("user_id,item_id,kind,ts\nuser-77,,view,2025-06-01\n")
    kept = engine.ingest(files=[str(source)]).files[0].quarantine
    with pytest.raises(ErasureIncomplete) as caught:
        engine.erase_user(user_id="alice-smith")
    name = kept.rpartition("/")[2].removesuffix(".parquet")
    assert f"quarantine/{name}.parquet" in caught.value.value
    assert f"quarantine/{name}.json" in caught.value.value


@pytest.mark.parametrize("person", ["auth0|5f7c1a2b", "urn:u:7712"])
def test_an_erased_person_does_not_come_back_in_a_row_that_cannot_be_read(engine, tmp_path, person):
    file = tmp_path / "log.csv"
    file.write_text(
        "event_id,ts,user_id,kind,item_id\n"
        f"c1,2025-06-01,{person},view,a\nc2,2025-06-01,{person},view,a,and,more\nc3,2025-06-01,u8,view,a,and,more\n"
    )
    kept = engine.ingest(files=[str(file)]).files[0].quarantine
    engine.erase_user(user_id=person)
    engine.ingest(files=[str(file)])
    assert pq.read_table(kept)["row"].to_pylist() == [3]


def test_an_erased_guest_leaves_the_rows_of_the_user_of_that_id(engine, tmp_path):
    file = tmp_path / "log.csv"
    file.write_text(
        "event_id,ts,user_id,anonymous_id,kind,item_id\nd1,2025-06-01,device-77,,view,a\n"
        "d2,nonsense,device-77,,view,b\nd3,2025-06-01,,device-77,view,c\n"
    )
    engine.ingest(files=[str(file)])
    own = engine.export_user(user_id="device-77").refused
    assert len(own) == 1
    engine.erase_user(anonymous_id="device-77")
    assert engine.export_user(user_id="device-77").refused == own
    engine.ingest(files=[str(file)])
    assert engine.export_user(user_id="device-77").refused == own


def test_an_erased_device_does_not_come_back_in_a_text(engine, tmp_path):
    file = tmp_path / "log.jsonl"
    file.write_text(
        '{"event_id":"f1","ts":"2025-06-01","anonymous_id":"device-99","kind":"view","item_id":"a"}\n'
        '{"event_id":"f2","ts":"bad","user_id":"dora","kind":"review","item_id":"a","text":"sent by device-99!"}\n'
    )
    kept = engine.ingest(files=[str(file)]).files[0].quarantine
    for _ in range(2):
        engine.erase_user(anonymous_id="device-99")
        (row,) = pq.read_table(kept)["raw"].to_pylist()
        assert "sent by !" in row
        engine.ingest(files=[str(file)])


def test_chances_of_all_items_sum_to_one(engine, tmp_path):
    slate = engine.recommend(user_id="u3", k=ITEMS, seen="allow", explore="off")
    chances = [item.probability for item in slate.items]
    assert chances == sorted(chances, reverse=True)
    assert all(0 < chance < 1 for chance in chances)
    assert 0.5 < sum(chances) < 1  # i11 is out of stock, and still may be what comes next
    few = engine.recommend(user_id="u3", k=1, seen="allow", allow=["i1"], explore="off")
    assert few.items[0].probability == chances[ids(slate).index("i1")], "what may be shown changes no chance"
    out = tmp_path / "all.parquet"
    engine.recommend(users="all", k=2, seen="allow", explore="off", out=str(out))
    rows = [row for row in pq.read_table(out).to_pylist() if row["user_id"] == "u3"]
    assert [row["probability"] for row in rows] == pytest.approx(chances[:2])
    assert "chance" in render(slate)
    assert engine.export_user(user_id="u3").decisions[-1].items[0].probability == pytest.approx(chances[0])


def test_nothing_is_said_of_chances_before_a_model_serves(tmp_path):
    with Engine.open(tmp_path / "empty", clock=clock) as engine:
        engine.init()
        engine.observe(events=[{"kind": "view", "item_id": "i5", "user_id": "u1"}])
        assert engine.recommend(user_id="u1", k=1).items[0].probability is None
