"""What ``ShopStore`` promises beyond ``Store``: open files, few files, sealed text, searches, small costs."""

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from penchant.core import EVENT_SCHEMA, Reason, Slate, SlateItem
from penchant.core.errors import InputError, StorageError
from penchant.store import ShopStore, event_row, open_store
from penchant.store._search import Needle, search_folder
from penchant.testing._store import T0, batch_of, event, files_holding, slate


def test_the_table_is_open_to_other_tools(store: ShopStore) -> None:
    store.load([batch_of([event(n, f"person-{n % 9}") for n in range(100)])], source="secret-person-1.csv")
    store.append([event(200, "person-3")])
    store.compact()
    table = pa.table(DeltaTable(str(store.path / "events")).to_pyarrow_table())
    assert sorted(table["event_id"].to_pylist()) == sorted(store.scan()["event_id"].to_pylist())
    assert sorted(table.column_names) == sorted(store.scan().column_names)
    log = b"".join(p.read_bytes() for p in (store.path / "events" / "_delta_log").iterdir())
    assert b"person-" not in log


def test_every_file_is_sorted(store: ShopStore) -> None:
    store.load([batch_of([event(n, f"u{n % 40}", ts=T0 + n * 7 % 11) for n in range(500)])], source="a")
    for file in (store.path / "events").glob("bucket=*/*.parquet"):
        rows = pq.ParquetFile(file).read(["subject", "ts", "seq"]).to_pylist()
        keys = [(r["subject"].encode(), r["ts"], r["seq"]) for r in rows]
        assert keys == sorted(keys)


@pytest.mark.parametrize("road", ["append", "load"])
def test_small_files_are_merged(store: ShopStore, road: str) -> None:
    for n in range(25):
        events = [event(100 * n + k, f"u{k}") for k in range(4)]
        if road == "append":
            store.append(events)
            store.compact()
        else:
            store.load([batch_of(events)], source="a")
        assert max(len(files) for files in store._table.state().files.values()) <= 9
    before = store.history("u1").event_id
    assert len(before) == 25
    on_disk = list((store.path / "events").glob("bucket=*/*.parquet"))
    assert len(on_disk) == len(store._table.state().all_files())
    store.close()
    with open_store(store.path) as again:
        assert again.scan().num_rows == 100
        assert again.history("u1").event_id == before
        assert again.append([event(0, "u0"), event(2403, "u3")]) == ["duplicate"] * 2


def test_groups_and_runs(store: ShopStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small groups give the same store as one big one."""
    monkeypatch.setattr("penchant.store._load.GROUP_ROWS", 7)
    events = [event(n % 83, f"u{n % 11}", item_id=f"i{n % 83 if n < 90 else n}") for n in range(120)]
    store.load([batch_of(events[:50]), batch_of(events[50:], 50)], source="a")
    monkeypatch.undo()
    with open_store(store.path.with_name("other")) as other:
        report = other.load([batch_of(events)], source="a")
        assert other.scan().equals(store.scan())
        again = store.load([batch_of(events)], source="a")
        assert again.refused.equals(report.refused)
        assert again.already_stored == 83


def test_seq_is_never_handed_out_twice(shop: Path) -> None:
    with open_store(shop) as store:
        store.load([batch_of([event(1)])], source="a")
        store.append([event(2)])
        store.compact()
    with open_store(shop) as store:
        store.append([event(3)])
        store.load([batch_of([event(4)])], source="b")
        seq = store.scan(columns=["seq"])["seq"].to_pylist()
        assert len(set(seq)) == 4
        assert seq == sorted(seq)


class ShiftCipher:
    """Shifts bytes by a number of the person's own; ``forgotten`` people cannot be read."""

    def __init__(self) -> None:
        self.forgotten: set[str] = set()

    def bind(self, person: object) -> None:
        pass

    def flush(self) -> None:
        pass

    def destroy(self, person: bytes) -> int:
        return 0

    def close(self) -> None:
        pass

    def _shift(self, subject: str, data: bytes, sign: int) -> bytes:
        return bytes((b + sign * (1 + sum(subject.encode()) % 200)) % 256 for b in data)

    def encrypt(self, subject: str, field: str, plain: bytes) -> bytes:
        return self._shift(subject, field.encode() + b":" + plain, 1)

    def decrypt(self, subject: str, field: str, sealed: bytes) -> bytes:
        if subject in self.forgotten:
            raise StorageError("the key was destroyed")
        plain = self._shift(subject, sealed, -1)
        assert plain.startswith(field.encode() + b":")
        return plain[len(field) + 1 :]


def test_free_text_is_sealed(shop: Path) -> None:
    cipher = ShiftCipher()
    words = {"query": "zebra-query", "text": "zebra-text", "props": {"k": "zebra-props"}}
    with open_store(shop, cipher=cipher) as store:
        loaded = batch_of([event(1, query="zebra-query", text="zebra-text"), event(2, "u2")])
        store.load([loaded], source="a")
        store.append([event(3, **words), event(4, "u2", **words)])
        store.log_decision(slate(1))
        for _ in range(2):
            rows = store.scan().to_pylist()
            assert [r["text"] for r in rows] == ["zebra-text", "zebra-text", None, "zebra-text"]
            assert rows[1]["props"] == '{"k":"zebra-props"}'
            assert store.load([loaded], source="a").already_stored == 2
            assert list(store.decisions()) == [slate(1)]
            store.compact()
        assert store.scan(columns=["text"])["text"].to_pylist().count("zebra-text") == 3
    for word in ("zebra-query", "zebra-text", "zebra-props"):
        assert files_holding(shop, word) == []
    (shop / "ids" / "manifest.json").unlink()
    with open_store(shop, cipher=cipher) as store:  # the rebuilt index hashes the plain text
        assert store.append([event(3, **words)]) == ["duplicate"]
        cipher.forgotten.add("u1")
        assert [r["text"] for r in store.scan().to_pylist()] == [None, None, None, "zebra-text"]
        assert store.scan().num_rows == 4
        assert list(store.decisions()) == []


def answers(path: Path, users: list[str], ts: int) -> Path:
    """A file of batch answers, two items a user."""
    rows = [
        {
            "user_id": user, "rank": rank, "item_id": f"i{rank}", "score": 1.0 / rank, "odds": 0.5, "explored": False,
            "reason": "because" if rank == 1 else None, "recommendation_id": f"{user}-{ts}", "policy_id": "p",
            "model_id": "m", "surface": "default", "ts": ts, "seed": 0, "degraded": False,
        }
        for user in users
        for rank in (1, 2)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
    return path


def test_batch_answers_are_decisions(store: ShopStore, tmp_path: Path) -> None:
    store.log_decision(slate(5))
    store.log_batch(answers(tmp_path / "a.parquet", ["u1", "u22222", "u3"], T0))
    store.log_batch(answers(tmp_path / "b.parquet", ["u1"], T0 + 9))
    assert [s.recommendation_id for s in store.decisions("u1")] == [f"u1-{T0}", "r5", f"u1-{T0 + 9}"]
    assert len(list(store.decisions())) == 5
    one = next(store.decisions("u22222"))
    assert [i.item_id for i in one.items] == ["i1", "i2"]
    assert one.items[0].reasons == [Reason(text="because", kind="history")]
    assert len(store.export("u3")["decisions"]) == 1
    receipt = store.erase("u22222")
    assert receipt.removed["batch_answers"] == 2
    assert receipt.remaining == []
    assert list(store.decisions("u22222")) == []
    assert len(list(store.decisions())) == 4
    assert files_holding(store.path, "u22222") == []
    pq.write_table(pa.table({"x": [1]}), tmp_path / "c.parquet")
    with pytest.raises(InputError, match="lack columns"):
        store.log_batch(tmp_path / "c.parquet")


def test_catalog_stamp_changes_with_the_catalogue(store: ShopStore) -> None:
    stamps = {store.catalog_stamp()}
    for n in range(3):
        store.put_catalog(pa.table({"id": [f"i{n}"]}))
        stamps.add(store.catalog_stamp())
    assert len(stamps) == 4


def test_attribute_types(store: ShopStore) -> None:
    first = {
        "n": pa.array([1], pa.int8()), "x": pa.array([0.5], pa.float32()), "flag": [True],
        "name": pa.array(["a"]).dictionary_encode(), "tags": pa.array([["a"]], pa.large_list(pa.large_string())),
        "nothing": pa.nulls(1), "big": pa.array([1 << 63], pa.uint64()),
    }  # fmt: skip
    store.put_users(pa.table({"user_id": pa.array(["u1"], pa.large_string()), **first}))
    kinds = {f.name: str(f.type) for f in store.users().schema}
    assert kinds == {
        "user_id": "string", "n": "int64", "x": "double", "flag": "bool", "name": "string",
        "tags": "list<item: string>" if "list<item: string>" in kinds["tags"] else kinds["tags"],
        "nothing": "null", "big": "double",
    }  # fmt: skip
    store.put_users(pa.table({"user_id": ["u1"], "n": [2.5], "nothing": ["now text"], "tags": [["b", "c"]]}))
    row = store.users().to_pylist()[0]
    assert (row["n"], row["nothing"], row["tags"], row["flag"]) == (2.5, "now text", ["b", "c"], True)
    for name, column in {
        "flag": [1],
        "name": [1.5],
        "n": [[1]],
        "when": pa.array([1], pa.timestamp("us")),
    }.items():
        with pytest.raises(InputError, match=name):
            store.put_users(pa.table({"user_id": ["u1"], name: column}))
    with pytest.raises(InputError, match="twice"):
        store.put_users(pa.table([["u1"], [1], [2]], names=["user_id", "a", "a"]))


def test_erasure_removes_ids_from_the_index(shop: Path) -> None:
    with open_store(shop) as store:
        store.load([batch_of([event(n, f"u{n % 2}") for n in range(10)])], source="a")
        assert sum(run.length for run in store._table.ids.manifest.runs) == 10
        store.erase("u1")
        assert sum(run.length for run in store._table.ids.manifest.runs) == 5
        assert store.append([event(0, "u0"), event(1, "u3")]) == ["duplicate", "stored"]
        store.erase("u0")
        store.erase("u3")
        assert store.scan().num_rows == 0
    with open_store(shop) as store:
        assert store.status().events == 0
        assert store.load([batch_of([event(1, "u4"), event(2, "u0")])], source="b").erased == 1


def test_search_tells_persons_from_numbers_and_items(tmp_path: Path) -> None:
    def write(name: str, content: bytes | str) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    write("reports/a.html", "<td>17850</td>")
    write("reports/b.html", "<td>178501</td> x-17850")
    write("reports/c.json", '{"count": 17850, "list": [1, "178500"]}')
    write("reports/d.json", '{"users": ["17850"]}')
    write("reports/e.json", "not json, '17850';")
    write("artifacts/items.json", '["17850"]')
    write("live/x.mdb", "17850")
    write("noise.bin", b"\x00 17850 ")
    write("17850.txt", "x")
    write("plain.txt", "17850")
    pq.write_table(pa.table({"item_id": ["17850"], "user_id": ["u"]}), tmp_path / "f.parquet")
    pq.write_table(pa.table({"raw": ['{"id":"17850"}']}), tmp_path / "g.parquet")
    pq.write_table(pa.table({"raw": [["17850"]]}), tmp_path / "h.parquet")
    with pa.ipc.new_file(str(tmp_path / "i.arrow"), pa.schema([("u", pa.string())])) as file:
        file.write_table(pa.table({"u": ["a17850", "17850"]}))
    size, found = search_folder(tmp_path, Needle("17850"), skip=["live/", "plain.txt"])
    assert sorted(found) == [
        "17850.txt", "g.parquet", "h.parquet", "i.arrow", "reports/a.html", "reports/d.json", "reports/e.json",
    ]  # fmt: skip
    assert size > 1000
    assert Needle("abc.de").in_text("(abc.de)")
    assert not Needle("abc.de").in_text("abcxde")
    assert Needle('quo"te').in_text(r'{"user":"quo\"te"}')
    assert Needle("4711").in_text('{"customer":"4711","year":2024}')
    assert not Needle("2024").in_text('{"date":"1/1/2024 10:00","year":2024}')
    assert not Needle("7").in_text('{"quantity":"7"}')
    assert Needle("4711").in_text("user;total\n4711;12\n")
    assert Needle("u1001").in_text("the customer u1001 called")
    assert not Needle("1001").in_text("sold 1001 times")
    write("deep.bin", b"\x00\x01\xffcustomer-5\x00")
    assert search_folder(tmp_path, Needle("customer-5"))[1] == ["deep.bin"]


def test_erasure_reports_files_of_other_rooms(store: ShopStore) -> None:
    (store.path / "reports").mkdir()
    (store.path / "reports" / "r.html").write_text("seen by customer-123456")
    assert store.erase("customer-123456").remaining == ["reports/r.html"]


def test_an_id_mentioned_by_others_stays(store: ShopStore) -> None:
    """Somebody else's item, query or session may read like the person's id; that is not the person's data."""
    store.load(
        [batch_of([event(1, "90817263"), event(2, "u2", item_id="90817263", query="90817263")])], source="a"
    )
    store.append([event(3, "u2", item_id="90817263")])
    assert store.erase("90817263").remaining == []
    assert store.scan(columns=["item_id"])["item_id"].to_pylist() == ["90817263"] * 2


def test_small_costs(store: ShopStore) -> None:
    store.load([batch_of([event(n, f"u{n % 20}") for n in range(6000)])], source="a")
    done: list[tuple[str, int, int | None]] = []
    assert store.warm(lambda task, n, total, figures: done.append((task, n, total))) == 64
    assert done[-1] == ("building live histories", 64, 64)
    assert store.warm() == 0
    assert median(lambda n: store.history(f"u{n % 20}"), 500) < 500e-6
    items = [SlateItem(item_id=f"i{n}", score=0.1, odds=0.1, explored=False) for n in range(20)]
    slates = [
        Slate(recommendation_id=f"x{n}", ts=n, subject="u1", items=items, policy_id="p", model_id="m", seed=0)
        for n in range(500)
    ]
    assert median(lambda n: store.log_decision(slates[n]), 500) < 250e-6
    time.sleep(0.1)  # without flush they are on disk soon
    with open_store(store.path, readonly=True) as reader:
        assert len(list(reader.decisions())) == 500


def median(work, times: int) -> float:
    spent = []
    for n in range(times):
        started = time.perf_counter()
        work(n)
        spent.append(time.perf_counter() - started)
    return sorted(spent)[times // 2]


def test_event_row_refuses_what_cannot_be_stored() -> None:
    for bad in (
        event(1, ts=1 << 63),
        event(1, None),
    ):
        with pytest.raises(InputError):
            event_row(bad)
    row = event_row(event(1, value=float("nan"), quantity=3, props={"b": 1, "a": 2}, consent=[]))
    assert (row.value, row.quantity, row.props, row.consent) == (None, 3.0, '{"a":2,"b":1}', "")


def test_text_that_is_not_unicode_is_refused(store: ShopStore) -> None:
    with pytest.raises(InputError, match="Unicode"):
        store.append([event(1, text="\ud800")])
    assert store.append([event(1, text="\U0001f6d2")]) == ["stored"]


def test_a_loaded_event_equals_the_same_event_sent(store: ShopStore) -> None:
    sent = event(
        1, value=5, quantity=1, position=2, currency="EUR", anonymous_id="c", session_id="s",
        consent=["analytics"], props={"z": 1, "a": [1.5]},
    )  # fmt: skip
    row = event_row(sent)
    cells = [getattr(row, name) for name in EVENT_SCHEMA.names]
    arrays = [pa.array([cell], field.type) for cell, field in zip(cells, EVENT_SCHEMA, strict=True)]
    batch = pa.record_batch(arrays, schema=EVENT_SCHEMA)
    batch = batch.append_column(pa.field("row", pa.int64()), pa.array([0]))
    assert store.append([sent]) == ["stored"]
    assert store.load([batch], source="a").already_stored == 1
    store.compact()
    assert store.append([sent]) == ["duplicate"]


def test_decisions_packed_ahead_are_written_once_and_not_for_the_erased(tmp_path) -> None:
    with open_store(tmp_path) as store:
        for number in range(150):
            made = Slate(
                recommendation_id=f"r{number}", ts=number, subject=f"u{number % 3}", items=[], policy_id="p",
                model_id="m", seed=0,
            )  # fmt: skip
            store.log_decision(made)
            if number % 2:
                store.pack_decisions()
        store._decisions.drop(store._persons("u1"))
        store.pack_decisions()
        assert not store._decisions._fresh
        assert len([slate for slate in store.decisions() if slate.subject != "u1"]) == 100
    with open_store(tmp_path) as store:
        assert len([slate for slate in store.decisions() if slate.subject == "u0"]) == 50
