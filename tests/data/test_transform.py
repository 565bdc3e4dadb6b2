"""Normalisation: what each rule does, and that it depends on training rows alone."""

from __future__ import annotations

import datetime as dt
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.core.errors import InputError
from penchant.data import FeatureTransform

number = st.one_of(st.none(), st.floats(-1e6, 1e6), st.sampled_from([math.nan, math.inf]))


@given(st.lists(number, min_size=1, max_size=50))
def test_numbers_come_out_standardised(values: list[float | None]) -> None:
    raw = pa.table({"x": pa.array(values, pa.float64())})
    transform = FeatureTransform.fit(raw)
    known = [v for v in values if v is not None and math.isfinite(v)]
    if not known:
        assert transform.names == ()
        return
    features = transform.apply(raw)
    assert np.isfinite(features).all()
    assert abs(features[:, 0]).max() <= 10
    missing = np.array([v is None or not math.isfinite(v) for v in values])
    assert (transform.names == ("x", "x missing")) == missing.any()
    if missing.any():
        assert np.array_equal(features[:, 1].astype(bool), missing)
    assert not features[missing, 0].any()
    scaled = features[~missing, 0]
    if scaled.any() and abs(scaled).max() < 10:
        assert scaled.mean() == pytest.approx(0, abs=1e-4)
        assert scaled.std() == pytest.approx(1, abs=1e-3)


def test_skewed_counts_take_the_logarithm() -> None:
    raw = pa.table({"views": [0, 0, 1, 1, 2, 3, 900], "age": [20, 30, 40, 50, 60, 70, 80]})
    views, age = FeatureTransform.fit(raw).rules
    assert (views.log, age.log) == (True, False)
    assert views.mean == pytest.approx(np.log1p([0, 0, 1, 1, 2, 3, 900]).mean())


def test_statistics_come_from_the_rows_it_was_fitted_on() -> None:
    train = pa.table({"x": [1.0, 2.0, 3.0], "city": ["Rome", "Oslo", "Rome"]})
    later = pa.table({"x": [2.0, None, 1e9], "city": ["Lima", None, "Oslo"]})
    features = FeatureTransform.fit(train).apply(later)
    assert features[:, 0].tolist() == [0.0, 0.0, 10.0]
    assert features[:, 1:].tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]  # Oslo, Rome, other


def test_rare_values_share_a_column_and_ids_get_none() -> None:
    cities = [f"city {n % 25:02d}" for n in range(100)]
    raw = pa.table({"city": cities, "email": [f"{n}@example.org" for n in range(100)]})
    transform = FeatureTransform.fit(raw)
    assert len(transform.names) == 21
    assert transform.names[-1] == "city = other"
    assert transform.apply(raw).sum() == 100
    assert transform.apply(raw)[:, -1].sum() == 20


def test_lists_dates_and_booleans() -> None:
    raw = pa.table(
        {
            "tags": pa.array([["a", "b"], ["b"], None, []], pa.list_(pa.string())),
            "born": pa.array([dt.date(1970, 1, 2), dt.date(1970, 1, 4), None, None]),
            "joined": pa.array([dt.datetime(1970, 1, 3), None, None, None], pa.timestamp("us", tz="UTC")),
            "member": [True, False, True, False],
            "blob": pa.array([b"x"] * 4),
        }
    )
    transform = FeatureTransform.fit(raw)
    assert transform.names == (
        "tags = a", "tags = b", "tags = other", "born", "born missing", "joined", "joined missing", "member",
    )  # fmt: skip
    assert transform.rules[1].mean == 2.0
    assert transform.apply(raw)[:, :3].tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert transform.apply(raw)[:, 7].tolist() == [1, -1, 1, -1]


def test_arrays_restore_the_same_transform() -> None:
    raw = pa.table({"x": [1.0, 2.0, None], "city": ["Rome", "Oslo", "Rome"]})
    transform = FeatureTransform.fit(raw, leave_out=frozenset({"nothing"}))
    again = FeatureTransform.restore(transform.arrays() | {"other": np.zeros(3)})
    assert again == transform
    assert np.array_equal(again.apply(raw), transform.apply(raw))


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_one_row_alone_gives_what_it_gives_among_many(kind: pa.DataType) -> None:
    draw = np.random.default_rng(0)
    spend = [None if chance < 0.1 else 100 * chance**4 for chance in draw.random(5000).tolist()]
    city = draw.choice(["Oslo", "Rome", None], 5000).tolist()
    raw = pa.table({"spend": pa.array(spend, kind), "city": city, "age": draw.integers(1, 90, 5000)})
    transform = FeatureTransform.fit(raw)
    whole = transform.apply(raw)
    assert transform.rules[0].log
    assert transform.rules[0].missing
    for row in (0, 4095, 4096, 4999):
        assert transform.apply(raw.slice(row, 1)).tobytes() == whole[row].tobytes()
    assert transform.apply(raw.slice(0, 0)).shape == (0, 6)


def test_wrong_columns_are_refused_by_name() -> None:
    transform = FeatureTransform.fit(pa.table({"x": [1.0, 2.0]}))
    with pytest.raises(InputError, match="'x'"):
        transform.apply(pa.table({"y": [1.0]}))
    with pytest.raises(InputError, match="numeric"):
        transform.apply(pa.table({"x": ["one"]}))
    assert transform.apply(pa.table({"x": pa.nulls(2)})).tolist() == [[0.0], [0.0]]
