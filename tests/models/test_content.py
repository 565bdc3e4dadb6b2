"""What items say: encoders, the store of their vectors, neighbours, and items that nobody has met."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from penchant.core import CATALOG_SCHEMA, Run
from penchant.core.errors import InputError, MissingExtra
from penchant.data import ContentStore, is_english, item_content, item_images, item_texts, sequence_batch
from penchant.models import Content, Sequence, beginnings, encoder_installed, encoder_kinds, load_encoder
from penchant.testing import markov_snapshot, toy_snapshot
from penchant.training import fit_model, update_model


class Letters:
    """A tiny encoder: how often each letter occurs; a text without letters cannot be read."""

    name, modality, width, id = "letters", "text", 26, "letters-1"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, contents: list[str]) -> np.ndarray:
        self.asked += contents
        count = np.array(
            [[text.lower().count(chr(97 + n)) for n in range(26)] for text in contents], np.float32
        )
        return count / np.maximum(np.linalg.norm(count, axis=1, keepdims=True), 1e-9)


def catalog(*rows: dict) -> pa.Table:
    full = [dict.fromkeys(CATALOG_SCHEMA.names) | row for row in rows]
    return pa.Table.from_pylist(full, schema=CATALOG_SCHEMA)


def test_an_item_speaks_by_its_title_and_more() -> None:
    shown = catalog(
        {"id": "a", "title": "Boots", "brand": "Fell", "category": "Shoes > Hiking", "description": "Warm."},
        {"id": "b", "category": "Shoes"},
        {"id": "c", "title": "x" * 3000},
    )
    first, second, third = item_texts(shown)
    assert first == "Boots. Fell. Hiking. Shoes. Warm."
    assert second is None
    assert third is not None
    assert len(third) == 1000


@pytest.mark.parametrize(
    ("rows", "english"),
    [
        ([{"title": "Red shoes"}, {"title": "Blue hat"}], True),
        ([{"title": "红色的鞋子"}, {"title": "Blue hat"}], False),
        ([{"title": "Red shoes", "language": "de"}], False),
        ([{"title": "Schuhe", "language": "en-GB"}], True),
        ([{"title": None}], True),
    ],
)
def test_the_language_of_a_catalogue(rows: list[dict], english: bool) -> None:
    assert is_english(catalog(*({"id": str(n)} | row for n, row in enumerate(rows)))) is english


def test_pictures_are_local_files(tmp_path: Path) -> None:
    links = ["pictures/a.jpg", (tmp_path / "b c.png").as_uri(), "https://shop.example/d.jpg", None]
    found = item_images(
        catalog(*({"id": str(n), "image_link": link} for n, link in enumerate(links))), tmp_path
    )
    assert found == [tmp_path / "pictures/a.jpg", tmp_path / "b c.png", None, None]


def test_each_content_is_encoded_once(tmp_path: Path) -> None:
    encoder, store = Letters(), ContentStore(tmp_path / "letters")
    first = store.encode(encoder, ["abc", None, "abc", "123"])
    assert encoder.asked == ["abc", "123"]
    assert first.new == 2
    assert first.unread == [3]
    assert not first.vector_ND[1].any()
    again = store.encode(encoder, ["abc", "xyz"])
    assert encoder.asked == ["abc", "123", "xyz"]
    np.testing.assert_array_equal(again.vector_ND[0], first.vector_ND[0])
    found = store.find(["xyz", "never read", None])
    np.testing.assert_array_equal(found[0], again.vector_ND[1])
    assert not found[1:].any()


def test_a_damaged_file_of_vectors_is_made_again(tmp_path: Path) -> None:
    encoder, store = Letters(), ContentStore(tmp_path)
    wanted = store.encode(encoder, ["abc"]).vector_ND
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:20])
    np.testing.assert_array_equal(store.encode(encoder, ["abc"]).vector_ND, wanted)


def pairs() -> np.ndarray:
    """Content of 30 items in which i and i + 1 are alike, around a circle."""
    angle = 2 * np.pi * np.arange(30) / 30
    content = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1).astype(np.float32)
    return np.concatenate([np.zeros((1, 3), np.float32), content])


def test_an_unmet_item_borrows_from_its_nearest() -> None:
    met = np.ones(31, np.bool_)
    met[[0, 7]] = False
    content = Content.of(pairs(), met)
    lent = content.lent(np.arange(31, dtype=np.float32) + 100)
    assert lent[7] == pytest.approx(107, abs=0.01)
    assert np.delete(lent, 7).tolist() == np.delete(np.arange(31) + 100, 7).tolist()
    assert content.borrower_J.tolist() == [7]
    assert content.lenders[[7], [7]] == 0
    assert content.unmet.matrix[7, 8] > content.unmet.matrix[7, 12] > 0
    assert content.unmet.matrix[8, 7] == content.unmet.matrix[7, 8]
    assert content.unmet.matrix[7, 7] == 0
    assert content.unmet.matrix[8, 9] == 0, "what does not concern the unmet item is not computed"


def test_neighbours_of_met_items_are_their_own_affair() -> None:
    met = np.ones(31, np.bool_)
    met[[0, 7]] = False
    content = Content.of(pairs(), met)
    assert content.neighbours.matrix.nnz == 0
    whole = content.with_neighbours(pairs(), met).neighbours.matrix
    assert whole[8, 9] > whole[8, 12] > 0
    assert whole[[7]].nnz == whole[:, [7]].nnz == 0


def test_items_can_be_added_later() -> None:
    content_NC, met = pairs(), np.r_[False, np.ones(30, np.bool_)]
    before = met & (np.arange(31) < 29)
    short = Content.of(content_NC[:29], met[:29]).with_neighbours(content_NC[:29], met[:29])
    long = short.with_unmet(content_NC, np.array([29, 30]), before)
    whole = Content.of(content_NC, before).with_neighbours(content_NC, before)
    for name in ("unmet", "neighbours"):
        one, other = (getattr(content, name).matrix.toarray() for content in (long, whole))
        np.testing.assert_allclose(one, other, atol=1e-6)
    np.testing.assert_allclose(long.lenders.toarray(), whole.lenders.toarray(), atol=1e-6)
    again = Content.restore(long.arrays())
    np.testing.assert_array_equal(again.lenders.toarray(), long.lenders.toarray())
    np.testing.assert_array_equal(again.unmet.matrix.toarray(), long.unmet.matrix.toarray())
    recounted = long.recounted(met & (np.arange(31) != 29))
    assert recounted.borrower_J.tolist() == [29]
    assert recounted.unmet.matrix[30, 1] == 0
    assert recounted.unmet.matrix[29, 1] == recounted.unmet.matrix[1, 29] == long.unmet.matrix[29, 1] > 0


TINY = {"size": "tiny", "epochs": 2, "counts_weight": 4.0, "neighbours_weight": 0.5, "repeats_weight": 0.0}
SAID = {"content_weight": 1.0, "unmet_content_weight": 1.0, "lending": 1.0}


@pytest.fixture(scope="module")
def walks():
    """Walks around a circle; item 12 is in the catalogue, and nobody has met it."""
    whole = markov_snapshot(200, 30)
    kept = np.asarray(whole.item) != 12
    row = np.repeat(np.arange(whole.num_users), np.diff(whole.ptr))
    ptr = np.r_[0, np.cumsum(np.bincount(row[kept], minlength=whole.num_users))]
    cut = {name: getattr(whole, name)[kept] for name in ("item", "kind", "ts", "value")}
    vectors = {"text/letters-1": pairs()[1:]}
    return replace(whole, ptr=ptr, **cut, catalog=replace(whole.catalog, vectors=vectors))


@pytest.fixture(scope="module")
def model(walks) -> Sequence:
    return fit_model("sequence", walks, TINY | SAID, Run())


def rank_of(model: Sequence, snapshot, item: int, after: int) -> int:
    """Rank of an item for somebody who turned to another one last."""
    rows = np.flatnonzero([snapshot.item[end - 1] == after for end in snapshot.ptr[1:]])[:1]
    score = model.scores(sequence_batch(snapshot, rows, 50))[0]
    return int((score > score[item]).sum()) + 1


def test_an_item_that_nobody_met_is_recommended(walks, model) -> None:
    without = fit_model("sequence", walks, TINY | {"content": False}, Run())
    assert rank_of(model, walks, 12, 11) <= 5
    assert rank_of(without, walks, 12, 11) > 10
    assert without.content is None


def test_what_lending_says(walks, model) -> None:
    """A half takes the weight of the counts times log 2 off; nothing at all leaves the item as it was learned."""
    batch = sequence_batch(walks, np.arange(5), 50)
    whole = model.scores(batch)
    half = fit_model("sequence", walks, TINY | SAID | {"lending": 0.5}, Run()).scores(batch)
    np.testing.assert_allclose(half[:, 12] - whole[:, 12], 4 * np.log(0.5), rtol=1e-4)
    np.testing.assert_array_equal(np.delete(half, 12, axis=1), np.delete(whole, 12, axis=1))
    alone = fit_model("sequence", walks, TINY | SAID | {"lending": 0.0}, Run())
    without = fit_model("sequence", walks, TINY | {"content": False}, Run())
    np.testing.assert_array_equal(alone.item_ND, without.item_ND)
    np.testing.assert_array_equal(alone.prior_N, without.prior_N)
    assert not np.array_equal(model.item_ND[12], without.item_ND[12])
    newcomer, other = model.prior_N[12], without.prior_N[12]
    assert newcomer > other, "whoever is new is shown it as the items that are like it"


def test_the_model_travels_with_its_content(walks, model) -> None:
    again = Sequence.restore(model.config, model.arrays())
    batch = sequence_batch(walks, np.arange(5), 50)
    np.testing.assert_array_equal(again.scores(batch), model.scores(batch))


def test_an_item_that_entered_later_is_recommended_at_once(walks, model) -> None:
    content_NC = item_content(walks)
    assert content_NC is not None
    wider = model.extended(np.concatenate([content_NC, content_NC[[12]]]))
    batch = sequence_batch(walks, np.arange(20), 50)
    before, after = model.scores(batch), wider.scores(batch)
    np.testing.assert_allclose(after[:, 1:31], before[:, 1:], rtol=1e-4, atol=1e-4)
    assert rank_of(wider, walks, 31, 11) <= 6
    # Who clicks on the new item is understood too.
    batch = replace(batch, item_BT=np.where(batch.item_BT == 11, 31, batch.item_BT))
    assert np.isfinite(wider.scores(batch)[:, 1:]).all()


def test_an_update_keeps_what_items_say(walks, model) -> None:
    since = int(np.sort(walks.ts)[-200])
    updated = update_model("sequence", model, walks.items, walks, since, Run())
    assert rank_of(updated, walks, 12, 11) <= 5


def test_a_recount_lets_a_met_item_stand_on_its_own(walks, model) -> None:
    whole = markov_snapshot(200, 30)
    assert model.content is not None
    assert model.content.borrower_J.tolist() == [12]
    recounted = model.recounted(whole)
    assert recounted.content is not None
    assert not len(recounted.content.borrower_J)


def test_newcomers_get_what_people_begin_with() -> None:
    """Everybody begins with tea and then buys rum again and again."""
    events = [(f"u{n}", "tea" if day == 0 else "rum", n + day) for n in range(20) for day in range(30)]
    toy = toy_snapshot([*events, ("u0", "ink", 99)])
    share = np.exp(beginnings(toy)[1:])
    ink, rum, tea = share
    assert share.sum() == pytest.approx(1, abs=1e-3)
    assert tea > 2 * 20 / 620
    assert rum > tea > ink


def test_an_encoder_that_does_not_exist() -> None:
    with pytest.raises(InputError, match="no such text encoder"):
        load_encoder("efficientnet_lite0", "text")
    assert set(encoder_kinds()) >= {"minilm", "e5", "efficientnet_lite0"}


def test_an_encoder_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penchant.models._encoders.find_spec", lambda name: None)
    load_encoder.cache_clear()
    try:
        assert not encoder_installed("minilm")
        with pytest.raises(MissingExtra, match=r"penchant\[text\]"):
            load_encoder("minilm", "text")
        with pytest.raises(MissingExtra, match=r"penchant\[image\]"):
            load_encoder("efficientnet_lite0", "image")
    finally:
        load_encoder.cache_clear()


def real(name: str, modality: str):
    if not encoder_installed(name):
        pytest.skip(f"the {modality} encoder {name} is not installed: pip install 'penchant[{modality}]'")
    return load_encoder(name, modality)


ENGLISH = ["waterproof hiking boots", "leather walking shoes", "chocolate biscuits with nuts"]
CHINESE = ["防水登山靴", "户外徒步鞋", "巧克力坚果饼干"]


@pytest.mark.parametrize(("name", "texts"), [("minilm", ENGLISH), ("e5", CHINESE)])
def test_like_texts_are_near(name: str, texts: list[str]) -> None:
    encoder = real(name, "text")
    vector_ND = encoder.encode(texts)
    assert vector_ND.shape == (3, encoder.width)
    np.testing.assert_allclose(np.linalg.norm(vector_ND, axis=1), 1, atol=1e-3)
    assert vector_ND[0] @ vector_ND[1] > vector_ND[0] @ vector_ND[2] + 0.02
    assert encoder.id.startswith(name)


def test_pictures_and_what_is_none() -> None:
    encoder = real("efficientnet_lite0", "image")
    from PIL import Image

    def picture(colour: str) -> bytes:
        data = io.BytesIO()
        Image.new("RGBA", (60, 40), colour).save(data, "PNG")
        return data.getvalue()

    vector_ND = encoder.encode([picture("red"), b"no picture", picture("red"), b"", picture("red")[:50]])
    assert vector_ND.shape == (5, 1280)
    np.testing.assert_allclose(vector_ND[0], vector_ND[2])
    assert vector_ND[0].any()
    assert not vector_ND[[1, 3, 4]].any()


def test_31_pictures_that_are_none_or_too_large(tmp_path: Path) -> None:
    """A bomb, a script, a program and a file that is far too large are no pictures: no vector, and no crash."""
    from PIL import Image

    from penchant.data._content import _MOST_BYTES, _content
    from penchant.models._encode_image import _pixels

    def bomb(side: int) -> bytes:
        data = io.BytesIO()
        Image.new("1", (side, side)).save(data, "PNG")
        return data.getvalue()

    good = io.BytesIO()
    Image.new("RGB", (30, 20), "green").save(good, "JPEG")
    assert _pixels(good.getvalue()) is not None
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(/tmp/x) (w) file\n%%EOF\n"
    for wrong in (
        bomb(8_000),
        bomb(11_000),
        bomb(20_000),
        svg,
        eps,
        b"GIF89a" + good.getvalue(),
        b"\x89PNG\r\n\x1a\n",
    ):
        assert _pixels(wrong) is None
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.write(good.getvalue())
        file.truncate(_MOST_BYTES + 1)
    assert _content(large) == b""
    assert _content(Path("/dev/zero")) == b""  # no file that ends
