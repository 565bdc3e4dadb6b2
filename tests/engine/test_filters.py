import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.core import CATALOG_SCHEMA
from penchant.core.errors import InputError
from penchant.engine._filters import filter_mask, parse_filter


def catalog(*rows):
    return pa.Table.from_pylist([{n: r.get(n) for n in CATALOG_SCHEMA.names} for r in rows], CATALOG_SCHEMA)


SHELF = catalog(
    {"id": "a", "price": 100.0, "brand": "Own", "category": "Food > Bread", "labels": ["vegan", "new"]},
    {"id": "b", "price": 300.0, "brand": "Big's", "category": "Food > Milk", "labels": []},
    {"id": "c", "attributes": json.dumps({"season": "summer", "stock": 3, "颜色": "红", "shelf-life": "4"})},
)


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("price <= 100", "a"),
        ("price>100", "b"),
        ("price != 100", "bc"),
        ("brand = Own", "a"),
        ('brand = "Big\'s"', "b"),
        ("category ^= Food", "ab"),
        ("category ~= milk", "b"),
        ("labels ~= vegan", "a"),
        ("labels != vegan", "bc"),
        ("season = summer", "c"),
        ("attributes.stock = 3", "c"),
        ("颜色 = 红", "c"),
        ("attributes.shelf-life=4", "c"),
    ],
)
def test_conditions(text, met):
    mask = filter_mask(SHELF, [text])
    assert "".join(i for i, m in zip(SHELF["id"].to_pylist(), mask, strict=True) if m) == met


def test_all_conditions_must_hold():
    assert filter_mask(SHELF, ["category ^= Food", "price > 100"]).tolist() == [False, True, False]
    assert filter_mask(SHELF, []).all()


@pytest.mark.parametrize(
    "text",
    ["", "price", "price < cheap", "brand < Own", "nosuchfield = 1", "price ^= 1", "labels < 1", "x" * 2000],
)
def test_what_is_no_condition_is_refused_in_words(text):
    with pytest.raises(InputError) as caught:
        filter_mask(SHELF, [text])
    assert caught.value.hint


@given(st.text(max_size=60))
def test_any_text_is_a_condition_or_an_input_error(text):
    try:
        field, operator, _ = parse_filter(text)
    except InputError:
        return
    assert field
    assert operator in {"=", "!=", "<", "<=", ">", ">=", "^=", "~="}


def test_code_in_a_filter_is_only_text():
    mask = filter_mask(SHELF, ["brand = __import__('os').system('true')"])
    assert not mask.any()
