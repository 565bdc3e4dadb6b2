"""Search: typing errors, personal order, filters, meaning, and what is refused."""

import time

import numpy as np
import pyarrow as pa
import pytest

from penchant import Engine
from penchant.core import DAY
from penchant.core.errors import InputError
from penchant.engine import _search
from penchant.engine._search_index import SearchIndex, words_of

NOW = 1_750_000_000_000_000
ITEMS = {
    "g": ("Green tea", "Leaf", "Drinks > Tea", "Tender leaves from Uji", "in_stock", 5),
    "b": ("Black tea", "Leaf", "Drinks > Tea", "Strong, from Assam", "in_stock", 9),
    "p": ("Teapot", "Clay", "Kitchen > Pots", "For a litre of tea", "in_stock", 30),
    "m": ("Chocolate milk", "Dairy", "Drinks > Milk", "Sweet", "in_stock", 2),
    "c": ("Crème brûlée", "Dairy", "Desserts", "Burnt sugar on cream", "in_stock", 4),
    "o": ("Oolong tea", "Leaf", "Drinks > Tea", "Half way", "out_of_stock", 7),
    "z": ("绿茶", "Leaf", "茶", "杭州龙井绿茶", "in_stock", 8),
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    lines = ["id,title,brand,category,description,availability,price"]
    lines += [f'{i},"{t}",{b},{c},"{d}",{a},{p}.00 EUR' for i, (t, b, c, d, a, p) in ITEMS.items()]
    (folder / "items.csv").write_text("\n".join(lines))
    with Engine.open(folder / "shop", clock=lambda: NOW) as engine:
        engine.init(currency="EUR")
        engine.catalog(files=[str(folder / "items.csv")])
        engine.observe(
            events=[
                {"kind": "view", "user_id": f"p{n}", "item_id": item, "ts": NOW - DAY - n}
                for item, count in (("b", 9), ("p", 4), ("g", 1))
                for n in range(count)
            ]
        )
        yield engine


def found(engine, query, **more):
    return [item.item_id for item in engine.search(query=query, **{"personal": 0, **more}).items]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("green tea", ["g"]),
        ("TEA green", ["g"]),
        ("gren tea", ["g"]),
        ("greeen te", ["g"]),
        ("chocolte", ["m"]),
        ("choclate mlik", ["m"]),
        ("choco", ["m"]),
        ("creme brulee", ["c"]),
        ("teap", ["p"]),
        ("绿茶", ["z"]),
        ("龙井", ["z"]),
        ("assam", ["b"]),
    ],
)
def test_it_is_found(engine, query, first):
    assert found(engine, query)[: len(first)] == first


def test_what_was_searched_for_instead_is_said(engine):
    assert engine.search(query="gren tea").corrected == "green tea"
    assert engine.search(query="green tea").corrected is None
    assert engine.search(query="choco").corrected is None, "an unfinished word is not wrong"


def test_what_is_out_of_stock_or_filtered_is_not_found(engine):
    assert found(engine, "oolong") == []
    assert set(found(engine, "tea", filters=["price <= 1000"])) == {"g", "b"}
    nothing = engine.search(query="zzzzzz")
    assert nothing.items == []
    assert "nothing that may be shown" in nothing.note


def test_what_people_like_comes_first(engine):
    assert found(engine, "tea")[0] in {"g", "b"}
    personal = engine.search(query="tea", user_id="p1", personal=1)
    assert personal.items[0].item_id == "b"
    assert personal.items[0].interest == 1
    assert [i.score for i in personal.items] == sorted((i.score for i in personal.items), reverse=True)


@pytest.mark.parametrize("query", ["", "   ", "?!*", "a" * 201, "a " * 30])
def test_what_is_no_query_is_refused(engine, query):
    with pytest.raises(InputError) as caught:
        engine.search(query=query)
    assert caught.value.path == "$.query"
    assert caught.value.hint


@pytest.mark.parametrize(
    "query", ["(a+)+$" * 20, "'; DROP TABLE items; --", "{{7*7}}", "*)(uid=*", "\u202eabc", "a\x00b"]
)
def test_signs_are_only_text(engine, query):
    assert isinstance(found(engine, query), list)


def test_the_longest_query_takes_milliseconds():
    draw = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(draw.choice(letters, 8)) for _ in range(20_000)]
    titles = [None, *(" ".join(draw.choice(words, 4)) for _ in range(5000))]
    index = SearchIndex(pa.table({"title": titles}))
    index.find(["warm"])
    started = time.process_time()
    index.find(["aaaaaaaa"] * 20)
    assert time.process_time() - started < 1.0


def test_words():
    assert words_of("Crème, brûlée! 2x") == ["creme", "brulee", "2x"]
    assert words_of("x" * 100) == ["x" * 32]
    assert words_of("") == []


def test_meaning_finds_what_words_do_not(engine, monkeypatch):
    class Meant:
        def near(self, query):
            near_N = np.zeros(len(ITEMS) + 1)
            near_N[engine.serving.ranker.items.number("m")] = 0.9
            return near_N

    with pytest.raises(InputError, match="encoded"):
        engine.search(query="cocoa", semantic="on")
    monkeypatch.setattr(_search, "meanings", lambda *_, **__: Meant())
    engine.serving._meanings = None
    assert found(engine, "cocoa") == ["m"]
    assert found(engine, "cocoa", semantic="off") == []
    engine.serving._meanings = None


def test_scores_are_shares_of_what_is_asked_for():
    index = SearchIndex(pa.table({"title": [None, "green tea", "green door", "cup for one"]}))
    assert index.find(["green", "tea"]).score_N[1] == pytest.approx(1.0, abs=0.1)
    alone, within = (index.find(words).score_N[3] for words in (["for"], ["something", "for", "newborns"]))
    assert 0 < within < alone / 9, "a little word of a long question is no answer to it"


def test_what_is_near_comes_before_what_shares_a_little_word(engine, monkeypatch):
    class Meant:
        def near(self, query):
            near_N = np.zeros(len(ITEMS) + 1)
            near_N[engine.serving.ranker.items.number("m")] = 0.5
            return near_N

    query = "something hot for bedtime"
    assert found(engine, query) == ["p"], "it is for a litre of tea"
    monkeypatch.setattr(_search, "meanings", lambda *_, **__: Meant())
    engine.serving._meanings = None
    assert found(engine, query)[0] == "m"
    engine.serving._meanings = None


def test_meanings_are_seen_from_their_middle():
    class Encoder:
        def encode(self, contents):
            return np.array([[1.0, 0.2, 0.0]], np.float32)

    vectors = np.array([[0, 0, 0], [1, 0.3, 0], [1, 0, 0.3], [0, 0, 0]], np.float32)
    near_N = _search.Meanings(Encoder(), vectors).near("tea")
    assert near_N.argmax() == 1
    assert near_N[2] < 0
    assert near_N[3] == 0
