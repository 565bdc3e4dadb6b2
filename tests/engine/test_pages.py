"""Pages without repeats, cursors that cannot be forged, and every stage explained."""

import base64

import pytest

from penchant import Engine
from penchant.core.errors import InputError, InvalidCursor

NOW = 1_750_000_000_000_000


def made(folder):
    folder.mkdir(exist_ok=True)
    lines = ["id,title,price", *(f"i{n},Item {n},{n + 1}.00 EUR" for n in range(9))]
    (folder / "items.csv").write_text("\n".join(lines))
    engine = Engine.open(folder / "shop", clock=lambda: NOW)
    engine.init(currency="EUR")
    engine.catalog(files=[str(folder / "items.csv")])
    return engine


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    with made(tmp_path_factory.mktemp("pages")) as engine:
        yield engine


@pytest.mark.parametrize("explore", ["auto", "off"])
def test_pages_show_everything_once(engine, explore):
    shown, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        slate = engine.recommend(user_id="u1", k=4, explore=explore, cursor=cursor)
        shown += slate.item_ids
        cursor, pages = slate.cursor, pages + 1
    assert pages == 3
    assert sorted(shown) == [f"i{n}" for n in range(9)]


def test_a_guest_without_a_name_has_pages_too(engine):
    first = engine.recommend(k=4)
    assert not set(first.item_ids) & set(engine.recommend(k=4, cursor=first.cursor).item_ids)


def forged(cursor):
    raw = bytearray(base64.urlsafe_b64decode(cursor))
    raw[-1] ^= 1
    return base64.urlsafe_b64encode(bytes(raw)).decode()


@pytest.mark.parametrize(
    "damage", [forged, lambda c: c[:-8], lambda c: "", lambda c: "eyJhIjoxfQ==", lambda c: "é"]
)
def test_a_forged_cursor_is_refused(engine, damage):
    cursor = engine.recommend(user_id="u1", k=2).cursor
    with pytest.raises(InvalidCursor) as caught:
        engine.recommend(user_id="u1", k=2, cursor=damage(cursor))
    assert caught.value.status == 400


@pytest.mark.parametrize("other", [{"user_id": "u2"}, {"user_id": "u1", "surface": "cart"}, {}])
def test_a_cursor_of_somebody_else_is_refused(engine, other):
    cursor = engine.recommend(user_id="u1", k=2).cursor
    with pytest.raises(InvalidCursor):
        engine.recommend(k=2, cursor=cursor, **other)


def test_a_cursor_of_another_shop_is_refused(engine, tmp_path):
    cursor = engine.recommend(user_id="u1", k=2).cursor
    with made(tmp_path / "other") as other, pytest.raises(InvalidCursor):
        other.recommend(user_id="u1", k=2, cursor=cursor)


def test_every_stage_is_told(engine):
    rules = ["boost 2 when id = i3", "exclude id = i0", "pin id = i8 at 1"]
    slate = engine.recommend(user_id="u1", k=3, rules=rules, deny=["i1"], explain=True, explore="off")
    stages = {stage.name: stage for stage in slate.stages}
    assert list(stages) == ["score", "offered", "rule", "candidates", "expected", "boosted", "rerank", "draw"]
    assert (stages["score"].left, stages["offered"].left, stages["candidates"].left) == (9, 8, 7)
    assert [stage.says.split(":")[0] for stage in slate.stages if stage.name == "rule"] == rules
    assert stages["boosted"].values["i3"] == 2
    assert stages["draw"].values == dict(zip(slate.item_ids, slate.odds, strict=True))
    assert engine.recommend(user_id="u1").stages is None


def test_neither_is_kept_in_the_decision_log(engine):
    slate = engine.recommend(user_id="logged", k=2, explain=True)
    (kept,) = engine.shop.store.decisions("logged")
    assert slate.cursor
    assert slate.stages
    assert kept.cursor is None
    assert kept.stages is None


def test_many_people_have_no_pages(engine, tmp_path):
    with pytest.raises(InputError, match="pages"):
        engine.recommend(users="all", out=str(tmp_path / "o.parquet"), explain=True)
