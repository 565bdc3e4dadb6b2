"""Plans from names: of an answer known names alone survive, a plan costs so much and no more, and it must pay."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.models import (
    InterestMap,
    InterestsConfig,
    PlanRefusedError,
    Taken,
    Wording,
    choose_weight,
    recent_sets,
    spelled,
    tilted,
)
from penchant.models._interest_map import _Meta

WORDING = Wording(("tea", "cups", "soap", "jam"), 2)
names = st.sampled_from(["tea", "cups", "soap", "jam", " soap ", "gold", "TEA", ""]) | st.text(max_size=9)
answers = st.one_of(
    st.text(),
    st.builds(lambda found: json.dumps({"interests": found}), st.lists(names, max_size=6)),
    st.recursive(
        st.none() | st.booleans() | st.floats() | names,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["interests", "x"]), inner)
        ),
        max_leaves=8,
    ).map(json.dumps),
)


@given(text=answers, held=st.sets(st.integers(0, 3), max_size=3))
def test_of_any_answer_at_most_known_names_survive(text, held):
    try:
        planned, dropped = WORDING.read(text, sorted(held))
    except PlanRefusedError:
        return
    assert 1 <= len(planned) == len(set(planned)) <= 2
    assert set(planned) <= {0, 1, 2, 3} - held
    assert dropped >= 0


@given(listed=st.lists(st.text(max_size=120), min_size=1, max_size=8, unique=True))
def test_any_names_stay_apart_and_come_back_as_they_went(listed):
    wording = Wording(listed, len(listed))
    told = json.loads(wording.question([]))["interests"]
    assert len(set(told)) == len(listed)
    assert wording.read(json.dumps({"interests": told}), [])[0] == list(range(len(listed)))


@given(
    chances=st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda p: sum(p) > 0),
    planned=st.lists(st.integers(0, 3), max_size=4, unique=True),
    weight=st.sampled_from([0.0, 0.25, 2.0, 10.0]),
)
def test_a_plan_costs_at_most_its_weight_and_takes_nothing_from_the_sum(chances, planned, weight):
    chance_G = np.array(chances) / sum(chances)
    raised_G = tilted(chance_G, planned, weight)
    assert raised_G.sum() == pytest.approx(1)
    assert (raised_G >= chance_G / (1 + weight) - 1e-12).all()
    assert (raised_G <= chance_G * (1 + weight) + 1e-12).all()
    assert (raised_G[chance_G == 0] == 0).all()


def test_what_is_asked_about_are_the_newest_interests():
    assert recent_sets(np.array([3, 1, 2]), 5) == [(2,), (1, 2), (1, 2, 3)]
    assert recent_sets(np.array([], int), 3) == []


def test_another_map_or_another_length_is_another_wording():
    assert len({WORDING.id, Wording(("tea", "cups", "soap"), 2).id, Wording(WORDING.names, 3).id}) == 3
    assert Wording(WORDING.names, 2).id == WORDING.id


def test_a_schema_names_the_words_that_are_free_while_there_are_few():
    (listed,) = WORDING.schema([0])["properties"].values()
    assert listed["items"]["enum"] == ["cups", "soap", "jam"]
    (listed,) = Wording([f"i{n}" for n in range(300)], 2).schema([0])["properties"].values()
    assert listed["items"] == {"type": "string"}


@pytest.fixture(scope="module")
def drawn():
    """A map of six interests that has counted nothing."""
    names = tuple("abcdef")
    square, line = np.zeros((6, 6), np.float32), np.full(6, 1 / 6, np.float32)
    none = np.zeros((7, 1), np.int32), np.zeros((7, 1), np.float32)
    return InterestMap(InterestsConfig(), _Meta(names=names, by="labels"), *none, square, line, square, line)


def lower_end(gain_C, person_C):
    return float(gain_C.mean() - 2 * gain_C.std() / np.sqrt(len(np.unique(person_C))))


@pytest.mark.parametrize(("step", "helps"), [(1, True), (3, False)])
def test_plans_count_where_they_help_and_not_where_they_harm(drawn, step, helps):
    draw = np.random.default_rng(1)
    person_C = np.repeat(np.arange(300), 2)
    held = [np.array([g]) for g in draw.integers(6, size=600)]
    next_C = np.array([(int(h[0]) + 1) % 6 if draw.random() < 0.6 else (int(h[0]) + 2) % 6 for h in held])
    # The counted part tells nothing: there everything follows everything.
    next_C[:480] = [(int(h[0]) + 1 + draw.integers(5)) % 6 for h in held[:480]]
    taken = Taken(person_C, np.arange(600), next_C, held)
    test = choose_weight(drawn, taken, lambda held_H: [(int(held_H[0]) + step) % 6], lower_end)
    assert test is not None
    assert (test.weight > 0) is helps
    gained = (test.plain_log_loss_C - test.log_loss_C).mean()
    assert gained > 0.05 if helps else gained == 0


def test_of_too_few_people_nothing_is_concluded(drawn):
    taken = Taken(np.arange(50), np.arange(50), np.ones(50, int), [np.array([0])] * 50)
    assert choose_weight(drawn, taken, lambda held_H: [1], lower_end) is None


def test_names_that_share_words_are_alike():
    tea, pot, soap, odd = spelled(["Green tea", "teas", "soap", "!?"])
    assert tea @ pot > 0 == tea @ soap
    assert not odd.any()
