"""The fast, vectorised hash equals its slow twin, and buckets are the same everywhere."""

import duckdb
import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

import penchant.store._hashing as hashing
from penchant.core import EVENT_SCHEMA, NUM_BUCKETS, bucket_of

NULL = hashing.hash_texts(pa.array([None], pa.string()))[0]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(st.lists(st.none() | texts, max_size=30), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_texts(values: list[str | None], start: int) -> None:
    array = pa.array(values, pa.string()).slice(start)
    expected = [NULL if v is None else hashing.hash_text(v) for v in array.to_pylist()]
    got = hashing.hash_texts(array).tolist()
    for value, want, have in zip(array.to_pylist(), expected, got, strict=True):
        assert want == have, value


numbers = st.floats(allow_nan=True, allow_infinity=True)
columns = {
    "ts": st.integers(-(1 << 63), (1 << 63) - 1),
    "value": st.none() | numbers,
    "quantity": st.none() | numbers,
    "position": st.none() | st.integers(0, 1 << 31 - 1),
}
row = st.fixed_dictionaries(
    {name: columns.get(name, st.none() | texts) for name in hashing.CONTENT_COLUMNS}
    | {"event_id": texts, "subject": texts, "kind": texts}
)


@given(st.lists(row, min_size=1, max_size=8))
@settings(deadline=None, max_examples=60)
def test_contents(rows: list[dict]) -> None:
    batch = pa.RecordBatch.from_pylist(rows, schema=EVENT_SCHEMA)
    assert hashing.hash_contents(batch).tolist() == [
        hashing.hash_content([r[name] for name in hashing.CONTENT_COLUMNS]) for r in rows
    ]


def test_every_column_matters() -> None:
    base = dict.fromkeys(hashing.CONTENT_COLUMNS) | {"ts": 1, "kind": "view"}
    seen = {hashing.hash_content(list(base.values()))}
    for name in hashing.CONTENT_COLUMNS:
        other = base | {
            name: {"ts": 2, "kind": "click", "value": 1.0, "quantity": 1.0, "position": 1}.get(name, "x")
        }
        seen.add(hashing.hash_content([other[n] for n in hashing.CONTENT_COLUMNS]))
    assert len(seen) == len(hashing.CONTENT_COLUMNS) + 1


def test_minus_zero_and_nan() -> None:
    blank = [None] * len(hashing.CONTENT_COLUMNS)
    at = hashing.CONTENT_COLUMNS.index("value")

    def with_value(value: float | None) -> int:
        return hashing.hash_content([*blank[:at], value, *blank[at + 1 :]])

    assert with_value(0.0) == with_value(-0.0)
    assert with_value(float("nan")) == with_value(None)
    assert with_value(0.0) != with_value(None)


def test_no_collisions_among_a_million_like_ids() -> None:
    ids = pa.array([f"order-{n}" for n in range(500_000)] + [f"{n:032x}" for n in range(500_000)])
    hashed = hashing.hash_texts(ids)
    assert len(np.unique(hashed)) == len(ids)
    high = np.bincount((hashed >> np.uint64(56)).astype(int), minlength=256)
    assert high.min() > 0.9 * len(ids) / 256
    assert high.max() < 1.1 * len(ids) / 256


@given(st.lists(texts.filter(lambda s: "\x00" not in s), min_size=1, max_size=20))
@settings(deadline=None, max_examples=20)
def test_buckets_agree_with_duckdb(subjects: list[str]) -> None:
    table = pa.table({"s": subjects})
    sql = f"SELECT (md5_number_lower(s) % {NUM_BUCKETS})::INT FROM table"
    connection = duckdb.connect()
    connection.register("events", table)
    found = [b for (b,) in connection.execute(sql.replace("FROM table", "FROM events")).fetchall()]
    connection.close()
    assert found == [bucket_of(s) for s in subjects] == hashing.buckets_of(subjects).tolist()


def test_persons_depend_on_the_salt() -> None:
    assert hashing.Persons(b"a")("u1") == hashing.Persons(b"a")("u1") != hashing.Persons(b"b")("u1")
