"""The map of interests: what it is made of, what it is called, and which interest comes after which."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from penchant.core import Catalog
from penchant.core.errors import ModelError
from penchant.models import InterestMap, InterestsConfig, Taken, fit_interests
from penchant.models._interest_map import _choose, _Meta, interests_taken
from penchant.models._interest_vectors import cluster
from penchant.testing import toy_snapshot

KINDS = ("beer", "snack", "soap", "pen")


def shop(people=120, labels=True, titles=True, seed=0):
    """Forty items of four kinds; who begins with beer goes on to snacks, then soap; the others in any order."""
    draw, events = np.random.default_rng(seed), []
    for person in range(people):
        order = ["beer", "snack", "soap"] if person % 2 else list(draw.permutation(KINDS))
        for day, kind in enumerate(order):
            events += [(f"u{person}", f"{kind}{draw.integers(10)}", day + person / 50) for _ in range(3)]
    made = toy_snapshot(events, items=[f"{kind}{n}" for kind in KINDS for n in range(10)])
    table = made.catalog.table
    rows = table["id"].to_pylist()
    for name, there, value in (
        ("labels", labels, [[i[:-1].title()] for i in rows]),
        ("title", titles, [f"Fine {i[:-1]} number" for i in rows]),
        ("category", not labels, [f"All > Class {i[:2]}" for i in rows]),
    ):
        if there:
            at = table.schema.get_field_index(name)
            table = table.set_column(
                at, table.schema.field(name), pa.array(value, table.schema.field(name).type)
            )
    return replace(made, catalog=Catalog(table))


def test_labels_are_interests_where_they_tell():
    drawn, _ = fit_interests(shop())
    assert drawn.by == "labels"
    assert drawn.names == ("Beer", "Pen", "Snack", "Soap")
    assert [drawn.names[g] for g in drawn.of_item(1)] == ["Beer"]


def test_clusters_find_the_kinds_and_get_their_names_from_words_that_tell():
    snapshot = shop(labels=False)
    drawn, _ = fit_interests(snapshot, InterestsConfig(by="clusters", most=4))
    assert drawn.by == "clusters"
    assert len(set(drawn.names)) == len(drawn.names) == 4
    assert not any("fine" in name or "number" in name for name in drawn.names)
    for kind in KINDS:
        numbers = snapshot.items.numbers([f"{kind}{n}" for n in range(10)])
        (own,) = {g for n in numbers for g in drawn.of_item(n)}
        assert kind in drawn.names[own]


def test_what_comes_next_is_learned_and_is_better_told_than_by_base_rate():
    drawn, test = fit_interests(shop(400))
    place = {name: g for g, name in enumerate(drawn.names)}
    after_beer = drawn.next_chances(np.array([place["Beer"]]))
    assert after_beer.argmax() == place["Snack"]
    assert after_beer[place["Beer"]] == 0
    assert after_beer.sum() == pytest.approx(1)
    assert drawn.because(np.array([place["Beer"]]), place["Snack"]) == place["Beer"]
    assert drawn.because(np.array([], int), place["Snack"]) is None
    assert test.log_loss_C.mean() < test.base_log_loss_C.mean()


def test_only_what_was_held_before_counts():
    """Law 1: an interest taken up later never speaks for one taken up earlier."""
    events = [("u", "beer0", 0), ("u", "pen0", 1), ("u", "soap0", 2), ("u", "beer1", 3)]
    snapshot = toy_snapshot(events, items=["beer0", "beer1", "pen0", "soap0"])
    member_NL = np.array([[0], [1], [1], [2], [3]])
    taken = interests_taken(snapshot, member_NL)
    assert taken.next_C.tolist() == [1, 2]
    assert [held.tolist() for held in taken.held] == [[0], [0, 1]]


def test_interests_of_one_event_do_not_follow_one_another():
    snapshot = toy_snapshot([("u", "a", 0), ("u", "b", 1)], items=["a", "b"])
    taken = interests_taken(snapshot, np.array([[0, 0], [1, 2], [3, 4]]))
    assert taken.next_C.tolist() == [2, 3]
    assert [held.tolist() for held in taken.held] == [[0, 1], [0, 1]]


@pytest.mark.parametrize(("offered", "taken_up"), [(("wrong", "right"), "right"), (("wrong",), "")])
def test_likeness_of_names_speaks_where_it_helps(offered, taken_up):
    """A hundred interests in pairs that follow one another; the log is too short to know all of them."""
    draw, num = np.random.default_rng(0), 100
    held = [np.array([g]) for g in draw.integers(num, size=600)]
    next_C = np.array([(h[0] ^ 1) if draw.random() < 0.9 else (h[0] + 2) % num for h in held])
    taken = Taken(np.repeat(np.arange(300), 2), np.arange(600), next_C, held)
    pairs = np.kron(np.eye(num // 2), 1 - np.eye(2)).astype(np.float32)
    likes = {"right": pairs, "wrong": np.roll(pairs, 8, axis=1)}
    square, line = np.zeros((num, num), np.float32), np.full(num, 1 / num, np.float32)
    none = np.zeros((num + 1, 1), np.int32), np.zeros((num + 1, 1), np.float32)
    meta = _Meta(names=tuple(f"i{g}" for g in range(num)), by="labels")
    blank = InterestMap(InterestsConfig(), meta, *none, square, line, square, line)
    chosen, _ = _choose(blank, {name: likes[name] for name in offered}, taken, 0)
    assert chosen.meta.likeness == taken_up
    assert (chosen.meta.tau > 0) is bool(taken_up)
    np.testing.assert_array_equal(chosen.like_GG, likes.get(taken_up, square))


def test_names_are_read_by_what_is_given():
    vec = {"Beer": [1, 0], "Snack": [0.95, 0.1], "Soap": [0, 1], "Pen": [0.1, 0.9]}
    read = []

    def made(names):
        read.append(list(names))
        return np.array([vec[name] for name in names], float)

    drawn, _ = fit_interests(shop(), name_vectors={"made": made})
    assert read == [list(drawn.names)]
    assert drawn.meta.likeness in {"", "made"}


def test_it_is_the_same_after_it_was_stored():
    drawn, _ = fit_interests(shop())
    again = InterestMap.restore(drawn.config, drawn.arrays())
    assert again.names == drawn.names
    held = np.array([2, 0])
    np.testing.assert_array_equal(again.next_chances(held), drawn.next_chances(held))


def test_same_seed_same_map():
    one, two = (fit_interests(shop(labels=False), InterestsConfig(by="clusters"), 3)[0] for _ in range(2))
    np.testing.assert_array_equal(one.vec_ND, two.vec_ND)
    np.testing.assert_array_equal(one.member_NL, two.member_NL)


def test_labels_that_are_none_are_refused_with_what_to_do():
    with pytest.raises(ModelError, match="labels"):
        fit_interests(shop(labels=False), InterestsConfig(by="labels"))


@pytest.mark.parametrize("places", [1, 2, 5])
def test_items_that_are_all_alike_share_their_groups(places):
    angle = np.repeat(np.arange(places), 60 // places)
    vec = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    group = cluster(np.concatenate([np.zeros((1, 2), np.float32), vec]), most=8, fewest=3)
    assert group[0] == 0
    for place in range(places):
        assert len(set(group[1:][angle == place])) == 1
    assert len(set(group[1:])) == places
