"""The language of filters and rules: what it means, what it refuses in words, and that it never runs as code."""

import json
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.core import CATALOG_SCHEMA
from penchant.core.errors import InputError
from penchant.engine._expression import MAX_LENGTH, parse
from penchant.engine._rules import filter_mask


def catalog(*rows):
    return pa.Table.from_pylist([{n: r.get(n) for n in CATALOG_SCHEMA.names} for r in rows], CATALOG_SCHEMA)


SHELF = catalog(
    {
        "id": "a",
        "price": 100.0,
        "cost": 40.0,
        "brand": "Own",
        "category": "Food > Bread",
        "labels": ["vegan", "new"],
        "currency": "EUR",
        "attributes": json.dumps({"sale_price": "0.75 EUR"}),
    },
    {
        "id": "b",
        "price": 300.0,
        "cost": 290.0,
        "brand": "Big's",
        "category": "Food > Milk",
        "labels": [],
        "availability": "out_of_stock",
    },
    {
        "id": "c",
        "attributes": json.dumps({"season": "summer", "stock": 3, "颜色": "红", "shelf-life": "4"}),
        "available_quantity": 0.0,
    },
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
        ("category ^= 'Food > Milk'", "b"),
        ("category ~= milk", "b"),
        ("labels ~= vegan", "a"),
        ("labels != vegan", "bc"),
        ("season = summer", "c"),
        ("attributes.stock = 3", "c"),
        ("stock + 1 >= 4", "c"),
        ("颜色 = 红", "c"),
        ("attributes.shelf-life=4", "c"),
        ("margin >= 60", "a"),
        ("margin / price < 0.1", "b"),
        ("price - cost = margin", "ab"),
        ("in_stock", "a"),
        ("not in_stock", "bc"),
        ("in_stock = false", "bc"),
        ("discount >= 0.25", "a"),
        ("brand in [Own, 'Nobody']", "a"),
        ("brand not in [Own]", "bc"),
        ("labels in [new, old]", "a"),
        ("price < 200 or season = summer", "ac"),
        ("not (price < 200 or season = summer)", "b"),
        ("price < 200 and not brand = Own", ""),
        ("price > 10 * -1 + 2 * 100", "b"),
        ("price / 0 > 1", ""),
        ("true", "abc"),
    ],
)
def test_conditions(text, met):
    mask = filter_mask(SHELF, [text])
    assert "".join(i for i, m in zip(SHELF["id"].to_pylist(), mask, strict=True) if m) == met


def test_all_conditions_must_hold():
    assert filter_mask(SHELF, ["category ^= Food", "price > 100"]).tolist() == [False, True, False]
    assert filter_mask(SHELF, []).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "breaks off at character 1"),
        ("price >", "breaks off at character 8"),
        ("price", "it is a number"),
        ("price < cheap", "cheap"),
        ("brand < Own", "use = !="),
        ("prise = 1", "did you mean price"),
        ("price ^= 1", "^= does not fit price, a number"),
        ("labels < 1", "has"),
        ("brand + 1 = 2", "cannot be computed with"),
        ("price and brand", "price is a number, not yes or no"),
        ("bought", "no item has the field bought"),
        ("price @ 3", "character 7"),
        ("x" * 2001, "too long"),
        ("not " * 60 + "in_stock", "nested too deep"),
        ("1" + "+1" * 60 + " = 2", "nested too deep"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(text, words):
    with pytest.raises(InputError) as caught:
        filter_mask(SHELF, [text])
    assert words in str(caught.value)
    assert caught.value.hint


@given(st.text(max_size=60))
def test_any_text_is_a_condition_or_an_input_error(text):
    try:
        mask = filter_mask(SHELF, [text])
    except InputError:
        return
    assert mask.shape == (3,)
    assert mask.dtype == np.bool_


PIECES = [
    "price",
    "brand",
    "labels",
    "in_stock",
    "3",
    "'x'",
    "(",
    ")",
    "and",
    "or",
    "not",
    "+",
    "/",
    "<",
    "=",
    "in",
]


@given(st.lists(st.sampled_from([*PIECES, "[", "]", ",", "-", "~=", "nonsense"]), max_size=14))
def test_any_words_are_a_condition_or_an_input_error(words):
    text = " ".join(words)
    try:
        assert filter_mask(SHELF, [text]).dtype == np.bool_
    except InputError as error:
        path = error.path
    else:
        path = "$.filters"
    assert path == "$.filters"


def test_a_list_may_hold_what_the_same_item_says_of_itself():
    shelf = catalog(
        {"id": "a", "brand": "Own", "labels": ["new", "Own"]},
        {"id": "b", "brand": "Own", "labels": ["new"]},
        {"id": "c", "labels": ["Own"]},
        {"id": "d", "brand": "Own"},
    )
    assert filter_mask(shelf, ["labels = brand"]).tolist() == [True, False, False, False]
    assert filter_mask(shelf, ["labels != brand"]).tolist() == [False, True, True, True]


def test_code_in_a_filter_is_only_text():
    assert not filter_mask(SHELF, ["brand = \"__import__('os').system('true')\""]).any()
    with pytest.raises(InputError):
        filter_mask(SHELF, ["__import__('os').system('true')"])


LONG = {"brackets": "(", "names": "a.", "choices": "a or ", "quote": "'"}


@pytest.mark.parametrize("piece", LONG.values(), ids=LONG)
def test_the_longest_texts_are_read_at_once(piece):
    text = (piece * MAX_LENGTH)[:MAX_LENGTH]
    started = time.process_time()
    with pytest.raises(InputError):
        parse(text)
    assert time.process_time() - started < 0.5
