"""Interests that are new to a person: planned, offered, explained, learned from, rejected, and never against a wish."""

import numpy as np
import pytest

from penchant import Engine
from penchant.core.errors import InputError, NotFound, PenchantError

NOW = 1_750_000_000_000_000
KINDS = ("tea", "cups", "bread", "jam", "soap")


@pytest.fixture
def engine(shop_with_map, tmp_path):
    import shutil

    shutil.copytree(shop_with_map, tmp_path / "shop", symlinks=True)
    text = (tmp_path / "shop" / "shop.toml").read_text()
    (tmp_path / "shop" / "shop.toml").write_text(text.replace("\nshare = 0.0", "\nshare = 0.5"))
    with Engine.open(tmp_path / "shop", clock=lambda: NOW) as engine:
        yield engine


def offers(engine, user, draws=40, **given):
    """The new interests that answers name, and how often each comes."""
    found = {}
    for seed in range(draws):
        for item in engine.recommend(user_id=user, k=2, seed=seed, **given).items:
            for reason in item.reasons:
                if reason.interest is not None:
                    found.setdefault(reason.interest, []).append(reason.text)
    return found


def test_the_map_says_what_comes_after_what(engine):
    report = engine.interests()
    assert report.by == "labels"
    assert {row.name for row in report.interests} == set(KINDS)
    (tea,) = (row for row in report.interests if row.name == "tea")
    assert tea.next[0].name == "cups"
    assert tea.next[0].lift > 1.5
    assert tea.items == 6
    assert all(example.startswith("tea number") for example in tea.examples)


def test_a_new_interest_is_offered_with_its_reason(engine):
    found = offers(engine, "new")
    assert "because people who like tea often come to like cups" in found["cups"]
    assert "tea" not in found
    profile = engine.profile(user_id="new").interests
    assert profile.held == ["tea"]
    assert profile.planned[0].name == "cups"
    assert profile.planned[0].because == "tea"


def test_the_odds_of_offers_are_those_of_the_draw(engine):
    """Law 3 with planned interests, reranking and a floor together."""
    count, said = {}, {}
    for seed in range(600):
        (item,) = engine.recommend(user_id="new", k=1, seed=seed, mmr=0.2).items
        count[item.item_id] = count.get(item.item_id, 0) + 1
        said[item.item_id] = item.odds
    for item_id, odds in said.items():
        assert abs(count[item_id] / 600 - odds) <= 4.5 * np.sqrt(odds * (1 - odds) / 600) + 1e-9
    assert sum(said.values()) > 0.9


def test_off_means_off_for_a_request_and_for_a_person(engine):
    assert offers(engine, "new", 5, explore="off") == {}
    own = engine.prefer(user_id="new", explore="off")
    assert own.explore == "off"
    slate = engine.recommend(user_id="new", k=3)
    assert slate.odds == [1.0] * 3
    assert slate.explore_reason == "off: the person asked for no exploring"
    assert engine.recommend(user_id="u1", k=3).explore
    engine.prefer(user_id="new", explore="low")
    slate = engine.recommend(user_id="new", k=3)
    assert slate.explore
    assert "a little" in slate.explore_reason
    engine.prefer(user_id="new", explore="auto")
    assert engine.profile(user_id="new").interests.explore == "auto"


def test_not_interested_acts_on_the_very_next_request_and_after_a_restart(engine):
    first = engine.recommend(user_id="new", k=30, explore="off").item_ids
    told = engine.observe(events=[{"kind": "not_interested", "user_id": "new", "item_id": first[0]}])
    assert told.stored == 1
    assert first[0] not in engine.recommend(user_id="new", k=30, explore="off").item_ids
    engine.prefer(user_id="new", reject=["cups"])
    after = engine.recommend(user_id="new", k=30).item_ids
    assert not [item for item in after if item.startswith("cups")]
    assert any(
        item.startswith("cups") for item in engine.recommend(user_id="u0", k=30, seen="allow").item_ids
    )
    assert "cups" not in offers(engine, "new", 10)
    engine.close()
    with Engine.open(engine.path, clock=lambda: NOW) as again:
        assert not [i for i in again.recommend(user_id="new", k=30).item_ids if i.startswith("cups")]
        own = again.profile(user_id="new").interests
        assert own.rejected == ["cups"]
        assert own.rejected_items == [first[0]]
        own = again.prefer(user_id="new", accept=["cups"], accept_items=[first[0]])
        assert own.rejected == own.rejected_items == []
        assert first[0] in again.recommend(user_id="new", k=30, explore="off").item_ids


def test_wishes_go_with_the_person(engine):
    engine.prefer(user_id="new", reject=["cups"], explore="off")
    assert any(event["kind"] == "preference" for event in engine.export_user(user_id="new").events)
    assert engine.erase_user(user_id="new").remaining == []
    own = engine.profile(user_id="new").interests
    assert own.rejected == []
    assert own.explore == "auto"


def test_offers_in_vain_end_and_are_told_in_the_profile(engine):
    shown, seed = 0, 0
    while shown < 3:
        seed += 1
        slate = engine.recommend(user_id="new", k=1, seed=seed)
        (item,) = slate.items
        if any(reason.interest == "cups" for reason in item.reasons):
            shown += 1
            engine.observe(
                events=[
                    {
                        "kind": "impression",
                        "user_id": "new",
                        "item_id": item.item_id,
                        "recommendation_id": slate.recommendation_id,
                        "ts": NOW - 7200_000_000 + shown,
                    }
                ]
            )
        assert seed < 300
    engine.recommend(user_id="new", k=1)  # by now they have waited long enough
    (explored,) = engine.profile(user_id="new").interests.explored
    assert (explored.name, explored.outcomes, explored.rewards) == ("cups", 3, 0)
    assert "cups" not in offers(engine, "new", 10)
    engine.close()
    with Engine.open(engine.path, clock=lambda: NOW) as again:
        again.recommend(user_id="new", k=1)
        assert again.profile(user_id="new").interests.explored == [explored]


def test_dials_of_reranking_change_the_answer_and_not_its_honesty(engine):
    def kinds(**dials):
        slate = engine.recommend(user_id="u0", k=5, explore="off", seen="allow", **dials)
        assert slate.odds == [1.0] * 5
        return [item.rstrip("0123456789") for item in slate.item_ids]

    assert len(set(kinds(mmr=0.95))) > len(set(kinds(mmr=0.0)))
    assert len(set(kinds(dpp=0.9))) > len(set(kinds(dpp=0.0)))
    assert set(kinds(calibration=0.99)) == {"tea", "cups", "soap"}
    with pytest.raises(InputError, match="use one"):
        engine.recommend(user_id="u0", mmr=0.5, dpp=0.5)


def test_what_does_not_exist_is_refused_in_words(engine, tmp_path):
    with pytest.raises(InputError, match="no such interest"):
        engine.prefer(user_id="new", reject=["shoes"])
    with pytest.raises(InputError, match="whom"):
        engine.prefer(explore="off")
    assert engine.prefer(user_id="new").held == ["tea"]
    with pytest.raises(PenchantError, match="ranks no items"):
        engine.promote(artifact=engine.interests().artifact)
    with Engine.open(tmp_path / "empty") as empty:
        empty.init()
        with pytest.raises(NotFound, match="no map"):
            empty.interests()
        with pytest.raises(InputError, match="none is trained"):
            empty.recommend(user_id="u", mmr=0.5)
