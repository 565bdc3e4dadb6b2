"""The catalogue's texts in a shop: encoded once, learned from, and what is new in them recommended at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from penchant import Engine
from penchant.core import Run, no_progress
from penchant.core.errors import InputError, MissingExtra
from penchant.engine._content import CONTENT, with_content
from penchant.engine._protocol import take_snapshot
from penchant.models import encoder_kinds, load_encoder
from penchant.training import fit_model, save_artifact

DAY = 86_400


class Words:
    """A tiny encoder: a title's number on a circle; counts what it is asked."""

    name, modality, width, id = "words", "text", 3, "words-1"
    asked = 0

    def encode(self, contents: list[str]) -> np.ndarray:
        Words.asked += len(contents)
        angle = np.array([2 * np.pi * int(text.split()[1].rstrip(".")) / 12 for text in contents])
        return np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1).astype(np.float32)


def write_items(path: Path, numbers: range) -> str:
    path.write_text("id,title\n" + "".join(f"i{n:02d},Item {n}\n" for n in numbers))
    return str(path)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory):
    """Walks around twelve items, of which the last entered the catalogue after training."""
    folder = tmp_path_factory.mktemp("content")
    kinds = encoder_kinds()
    kinds["words"] = Words  # type: ignore[assignment]
    draw = np.random.default_rng(0)
    rows = ["user_id,item_id,ts,kind"]
    for user in range(60):
        at = int(draw.integers(11))
        for step in range(8):
            rows.append(f"u{user},i{at:02d},{1_700_000_000 + (user % 9 + 5 * step) * DAY},purchase")
            at = (at + 1) % 11
    (folder / "events.csv").write_text("\n".join(rows))
    try:
        with Engine.open(folder / "shop") as engine:
            engine.init(name="Walks")
            toml = folder / "shop" / "shop.toml"
            toml.write_text(toml.read_text().replace('text = "auto"', 'text = "words"'))
        with Engine.open(folder / "shop") as engine:
            engine.ingest(files=[str(folder / "events.csv")])
            first = engine.catalog(files=[write_items(folder / "items.csv", range(11))])
            assert Words.asked == 0, "nothing is encoded before a model can use it"
            assert first.files[0].notes == [] or "encoded" not in str(first.files[0].notes)
            shop_toml = folder / "shop" / "shop.toml"
            assert "[content]" in shop_toml.read_text()
            snapshot = with_content(engine.shop, take_snapshot(engine.shop, no_progress), no_progress)
            settings = {
                "size": "tiny",
                "epochs": 2,
                "counts_weight": 4.0,
                "content_weight": 1.0,
                "lending": 1.0,
            }
            artifact = save_artifact(
                engine.shop.artifacts,
                fit_model("sequence", snapshot, settings, Run()),
                kind="sequence",
                as_of=snapshot.as_of,
                items=snapshot.items,
                facts={CONTENT: list(snapshot.catalog.vectors)},
            )
            engine.promote(artifact=artifact.id)
            yield engine, folder
    finally:
        kinds.pop("words")
        load_encoder.cache_clear()


def test_new_in_the_catalogue_is_recommended_at_once(shop) -> None:
    engine, folder = shop
    asked = Words.asked
    assert asked == 11
    before = engine.recommend(explore="off", user_id="u1", k=50, seen="allow")
    assert "i11" not in {item.item_id for item in before.items}
    report = engine.catalog(files=[write_items(folder / "more.csv", range(9, 12))])
    assert Words.asked == asked + 1
    assert "1 texts encoded with words" in report.files[0].notes
    engine.serving.refresh()
    engine.observe(events=[{"kind": "purchase", "user_id": "new", "item_id": "i10"}])
    found = [
        item.item_id for item in engine.recommend(explore="off", user_id="new", k=50, seen="allow").items
    ]
    assert "i11" in found
    assert found.index("i11") < len(found) // 2
    assert {item.item_id for item in engine.similar(item_id="i11", k=4).items} & {"i10", "i00", "i09", "i01"}


def test_exploring_can_show_what_nobody_has_met(shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """However low it ranks, the best new item is among the candidates, below all that reached them by their score."""
    engine, folder = shop
    engine.catalog(files=[write_items(folder / "again.csv", range(9, 12))])
    engine.serving.refresh()
    ranker = engine.serving.ranker
    history = engine.shop.store.history("u1", 50)
    allowed_N = np.arange(len(ranker.items) + 1) > 0
    new = ranker.items.number("i11")
    score_N = ranker.scores([history], "any")[0].copy()
    score_N[new] = score_N[1:].min() - 50
    found = ranker.candidates(history, allowed_N, 4, "any", False, score_N)
    assert found.item_N.tolist() == sorted({*(np.argsort(-score_N)[:4]).tolist(), new})
    below = found.mean_N[found.item_N != new].min()
    assert found.mean_N[found.item_N == new] < below
    np.testing.assert_allclose(found.mean_N[found.item_N == new], below, rtol=1e-4)
    monkeypatch.setattr(type(ranker), "searches", True)
    searched = ranker.candidates(history, allowed_N, 4, "any", False)
    assert new in searched.item_N
    assert len(searched.item_N) <= 5
    allowed_N[new] = False
    assert new not in ranker.candidates(history, allowed_N, 4, "any", False, score_N).item_N


def test_an_encoder_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine.open(tmp_path / "shop") as engine:
        engine.init(name="S")
    toml = tmp_path / "shop" / "shop.toml"
    plain = toml.read_text()
    events = [{"kind": "purchase", "user_id": f"u{n % 5}", "item_id": f"i{n % 7}"} for n in range(30)]
    (tmp_path / "items.csv").write_text("id,title\ni1,One\n")

    def train(text: str) -> None:
        toml.write_text(plain.replace('text = "auto"', f'text = "{text}"'))
        with Engine.open(tmp_path / "shop") as engine:
            engine.observe(events=events)
            engine.catalog(files=[str(tmp_path / "items.csv")])
            engine.train(models=["popularity"])

    with pytest.raises(InputError, match=r"no such text encoder .*content\.text"):
        train("word2vec")
    monkeypatch.setattr("penchant.models._encoders.find_spec", lambda name: None)
    load_encoder.cache_clear()
    with pytest.raises(MissingExtra, match=r"penchant\[text\]"):
        train("minilm")
    load_encoder.cache_clear()
