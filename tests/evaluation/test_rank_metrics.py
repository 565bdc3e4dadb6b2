import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.core import Run
from penchant.core.errors import InputError, ModelError, NotFound
from penchant.data import leave_one_out
from penchant.evaluation import _metrics, paired_difference, rank_metrics, validation_metric
from penchant.evaluation._ranks import top_items
from penchant.models import Popularity, PopularityConfig, Transitions, TransitionsConfig
from penchant.testing import markov_snapshot


def slow_metrics(scores, targets, seen, ks):
    """The obvious twin: list all orders of the items that the scores allow and average what each gives."""
    shown = [item for item in range(1, len(scores)) if scores[item] > -np.inf and item not in seen]
    wanted = [item for item in targets if item not in seen]
    if not wanted:
        return None
    orders = [
        order
        for order in itertools.permutations(shown)
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    totals = {f"{name}@{k}": 0.0 for name in ("HR", "NDCG", "recall") for k in ks} | {"MRR": 0.0}
    for order in orders:
        ranks = sorted(order.index(item) + 1 for item in wanted if item in order)
        totals["MRR"] += 1 / ranks[0] if ranks else 0.0
        for k in ks:
            hits = [rank for rank in ranks if rank <= k]
            best = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(wanted)) + 1))
            totals[f"HR@{k}"] += bool(hits)
            totals[f"recall@{k}"] += len(hits) / len(wanted)
            totals[f"NDCG@{k}"] += sum(1 / math.log2(rank + 1) for rank in hits) / best
    return {name: total / len(orders) for name, total in totals.items()}


level = st.sampled_from([0.0, 1.0, 2.0, 3.0, -math.inf])
item = st.integers(1, 6)


@settings(deadline=None, max_examples=80)
@given(
    cases=st.lists(
        st.tuples(
            st.lists(level, min_size=7, max_size=7),
            st.lists(st.integers(0, 6), min_size=1, max_size=4, unique=True),
            st.lists(item, max_size=3),
        ),
        min_size=1,
        max_size=4,
    ),
    seen=st.sampled_from(["exclude", "allow"]),
    size=st.integers(1, 3),
)
def test_metrics_equal_their_slow_twin(fixed, cases_of, cases, seen, size):
    table = [scores for scores, _, _ in cases]
    made = cases_of([history for _, _, history in cases], [targets for _, targets, _ in cases], 6)
    ks = (1, 2, 5)
    twin = [
        slow_metrics(scores, targets, set(history) if seen == "exclude" else set(), ks)
        for scores, targets, history in cases
    ]
    asked = [found for found in twin if found is not None]
    if not asked:
        with pytest.raises(InputError, match="seen before"):
            rank_metrics(fixed(table), made, ks=ks, seen=seen)
        return
    found = rank_metrics(fixed(table), made, ks=ks, seen=seen, batch_size=size)
    assert found.protocol.cases == len(asked)
    assert found.protocol.left_out == len(cases) - len(asked)
    for name in asked[0]:
        np.testing.assert_allclose(
            found.per_case[name], [one[name] for one in asked], atol=1e-9, err_msg=name
        )
        assert found.metrics[name].low <= found.metrics[name].value <= found.metrics[name].high
    for measure in ("NDCG@2", "MRR", "recall@5"):
        quick = validation_metric(made, measure=measure, seen=seen)(fixed(table))
        assert quick == pytest.approx(np.mean([one[measure] for one in asked]), abs=1e-9)


@pytest.mark.parametrize("seen", ["exclude", "allow"])
def test_a_gain_is_paired(fixed, cases_of, seen):
    """The same difference and interval as of two full evaluations, whatever the blocks."""
    draw = np.random.default_rng(5)
    targets = [[int(item)] for item in draw.integers(1, 40, size=60)]
    made = cases_of([[int(item)] for item in draw.integers(1, 40, size=60)], targets, 40)
    one, other = draw.normal(size=(2, 60, 41))
    judge = validation_metric(made, measure="NDCG@10", seen=seen)
    wanted = paired_difference(*(rank_metrics(fixed(t), made, ks=(10,), seen=seen) for t in (one, other)))[
        "NDCG@10"
    ]
    found = judge.gain(fixed(one), fixed(other), 0.95)
    for name in ("value", "low", "high"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name))
    assert (found.n, found.method) == (wanted.n, wanted.method)
    assert found.low < found.value < found.high
    wider = judge.gain(fixed(one), fixed(other), 0.99)
    assert wider.low < found.low
    assert found.value == pytest.approx(judge(fixed(one)) - judge(fixed(other)))
    few = validation_metric(made.take(np.arange(4)), seen=seen)
    assert few.gain(fixed(one[:4]), fixed(other[:4]), 0.95).method == "wilson"


def test_by_hand(fixed, cases_of):
    """Two people and five items, worked out on paper."""
    table = [[0, 5, 4, 3, 2, 1], [0, 1, 2, 3, 4, 5]]
    made = cases_of([[1], [5]], [[3], [4, 1]], 5)
    found = rank_metrics(fixed(table), made, ks=(1, 2), seen="exclude")
    # Person 0 saw item 1: the order is 2 3 4 5, target 3 at rank 2.
    # Person 1 saw item 5: the order is 4 3 2 1, targets 4 and 1 at ranks 1 and 4.
    assert found.per_case["HR@1"].tolist() == [0, 1]
    assert found.per_case["HR@2"].tolist() == [1, 1]
    assert found.per_case["recall@2"].tolist() == [1, 0.5]
    assert found.per_case["MRR"].tolist() == [0.5, 1]
    np.testing.assert_allclose(found.per_case["NDCG@2"], [1 / math.log2(3), 1 / (1 + 1 / math.log2(3))])
    assert found.metrics["HR@1"].value == 0.5
    assert found.metrics["HR@1"].method == "wilson"
    assert found.metrics["coverage@1"].value == 2 / 5  # items 2 and 4
    assert found.metrics["coverage@2"].value == 3 / 5  # 2 3 and 4 3
    # Two people had one item each: log2(3 / 2) bits for those, log2(3) for the items nobody had.
    assert found.metrics["novelty@1"].value == pytest.approx(math.log2(3))


def test_one_scorer_for_all_items_gets_what_chance_gets(fixed, cases_of):
    made = cases_of([[]] * 3, [[1], [7], [20]], 20)
    found = rank_metrics(fixed(np.zeros((3, 21))), made, ks=(5,), seen="allow")
    assert found.metrics["HR@5"].value == pytest.approx(5 / 20)
    assert found.metrics["recall@5"].value == pytest.approx(5 / 20)
    assert found.metrics["MRR"].value == pytest.approx(np.mean(1 / np.arange(1, 21)))


def test_cold_and_unrankable_targets(fixed, cases_of):
    table = np.tile(np.arange(6.0), (3, 1))
    table[1, 2] = -np.inf
    made = cases_of([[1], [1], [1]], [[5], [2], [0]], 5)
    found = rank_metrics(fixed(table), made, ks=(1,), seen="exclude")
    assert found.per_case["HR@1"].tolist() == [1, 0, 0]  # nobody had item 5: it counts at its rank
    assert found.per_case["MRR"].tolist() == [1, 0, 0]
    assert found.protocol.cold_targets == 3
    assert "3 targets nobody had turned to before are kept" in found.protocol.text


def test_scores_that_are_no_scores(fixed, cases_of):
    made = cases_of([[1]], [[2]], 3)
    with pytest.raises(ModelError, match="not numbers"):
        rank_metrics(fixed([[0, 1, math.nan, 2]]), made)
    with pytest.raises(ModelError, match="scores must be"):
        rank_metrics(fixed([[0, 1, 2]]), made)


@pytest.mark.parametrize(
    "change", [{"ks": ()}, {"ks": (0,)}, {"ks": (100_000,)}, {"seen": "auto"}], ids=lambda c: str(c)
)
def test_questions_without_an_answer(fixed, cases_of, change):
    with pytest.raises(InputError):
        rank_metrics(fixed([[0, 1, 2, 3]]), cases_of([[1]], [[2]], 3), **change)
    with pytest.raises(InputError):
        validation_metric(cases_of([[1]], [[2]], 3), measure="accuracy")


def test_no_cases(fixed, cases_of):
    with pytest.raises(InputError, match="no cases"):
        rank_metrics(fixed([[0, 1]]), cases_of([[1]], [[1]], 1).take(np.array([], int)))


def test_groups(fixed, cases_of):
    attributes = pa.table({"age": ["old", "young", None, "old"]})
    made = cases_of([[1]] * 4, [[2], [3], [2], [2]], 3, attributes=attributes)
    table = np.tile([0.0, 0, 2, 1], (4, 1))
    found = rank_metrics(fixed(table), made, ks=(1,))
    assert list(found.by_group) == ["age=old", "age=unknown", "age=young"]
    assert found.by_group["age=old"]["HR@1"].value == 1
    assert found.by_group["age=old"]["HR@1"].n == 2
    assert found.by_group["age=young"]["HR@1"].value == 0
    own = rank_metrics(fixed(table), made, ks=(1,), groups={"vip": [True, False, False, False]})
    assert list(own.by_group) == ["vip=False", "vip=True"]
    assert rank_metrics(fixed(table), made, ks=(1,), groups=[]).by_group == {}
    with pytest.raises(NotFound, match="age"):
        rank_metrics(fixed(table), made, groups=["shoe size"])
    with pytest.raises(InputError, match="one value a case"):
        rank_metrics(fixed(table), made, groups={"vip": [True]})


def test_groups_follow_the_cases_that_are_left(fixed, cases_of):
    made = cases_of([[1], [2]], [[1], [1]], 3)  # the first asks only for what was seen
    found = rank_metrics(fixed(np.tile([0.0, 3, 2, 1], (2, 1))), made, ks=(1,), groups={"g": ["a", "b"]})
    assert list(found.by_group) == ["g=b"]
    assert found.protocol.left_out == 1
    assert "1 cases ask only for such items" in found.protocol.text


def test_history_lengths(fixed, cases_of):
    made = cases_of([[], [1], [1] * 2, [1] * 4, [1] * 7, [1] * 15, [1] * 30, [1] * 60], [[2]] * 8, 3)
    found = rank_metrics(fixed(np.tile([0.0, 0, 2, 1], (8, 1))), made, ks=(1,))
    assert list(found.by_length) == ["0", "1-2", "3-5", "6-10", "11-20", "21-50", "51+"]
    assert [part["MRR"].n for part in found.by_length.values()] == [1, 2, 1, 1, 1, 1, 1]


def test_several_cases_of_one_person_are_one_cluster(fixed, cases_of):
    made = cases_of([[1], [1]], [[2], [3]], 3)
    twice = made.take(np.array([0, 0, 1]))
    found = rank_metrics(fixed(np.tile([0.0, 0, 2, 1], (2, 1))), twice, ks=(1,))
    assert found.metrics["HR@1"].n == 2
    assert found.metrics["HR@1"].value == pytest.approx(2 / 3)


def test_the_block_size_changes_nothing():
    snapshot = markov_snapshot(users=120, items=25)
    train, made = leave_one_out(snapshot)
    model = Transitions.fit(train, TransitionsConfig(), Run())
    one, two = (rank_metrics(model, made, batch_size=size) for size in (7, 1000))
    assert one.metrics == two.metrics
    assert one.by_length == two.by_length


def test_order_readers_beat_popularity_on_walks():
    train, made = leave_one_out(markov_snapshot(users=300, items=30))
    transitions = rank_metrics(Transitions.fit(train, TransitionsConfig(), Run()), made, seen="allow")
    popular = rank_metrics(Popularity.fit(train, PopularityConfig(), Run()), made, seen="allow")
    assert transitions.metrics["NDCG@10"].low > popular.metrics["NDCG@10"].high
    assert transitions.metrics["coverage@5"].value > 5 * popular.metrics["coverage@5"].value
    assert popular.metrics["popularity_share@5"].value == pytest.approx(
        1 / 5
    )  # one item of thirty is the head
    assert transitions.renamed("mine").name == "mine"


def test_memory_stays_bounded(monkeypatch):
    """However many cases, a block of scores never exceeds its budget."""
    monkeypatch.setattr(_metrics, "BLOCK_CELLS", 26 * 10)
    train, made = leave_one_out(markov_snapshot(users=200, items=25))
    model = Transitions.fit(train, TransitionsConfig(), Run())
    sizes = []

    class Watched:
        config = model.config

        def scores(self, batch):
            sizes.append(len(batch.item_BT))
            return model.scores(batch)

    seen = []
    rank_metrics(Watched(), made, progress=lambda *said: seen.append(said[:3]))
    assert max(sizes) == 10
    assert seen[-1] == ("evaluate Watched", len(made), len(made))


@settings(deadline=None, max_examples=80)
@given(
    scores=st.lists(st.lists(level, min_size=8, max_size=8), min_size=1, max_size=4),
    k=st.integers(1, 10),
)
def test_top_items_equal_a_sort(scores, k):
    table = np.array([[-math.inf, *row] for row in scores])
    found = top_items(table, k)
    for row, shown in zip(table, found, strict=True):
        order = sorted((i for i in range(1, 9) if row[i] > -math.inf), key=lambda i: (-row[i], i))[:k]
        assert shown.tolist() == order + [0] * (min(k, 8) - len(order))


def test_repeats_are_told_from_new_items(fixed, cases_of):
    # Person 0 had 1 and 2 and asks for 1 and 3; person 1 had 4 and asks for 4 alone; person 2 had nothing.
    cases = cases_of([[1, 2], [4], []], [[1, 3], [4], [2]], 5)
    table = [[0, 9, 8, 7, 1, 2], [0, 9, 8, 7, 1, 2], [0, 9, 8, 7, 1, 2]]
    found = rank_metrics(fixed(table), cases, ks=(2,), seen="allow", groups=(), repeats=True)
    share = found.metrics
    assert share["repeat_recall@2"].value == pytest.approx((1 + 0) / 2)
    assert share["new_recall@2"].value == pytest.approx((0 + 1) / 2)
    assert (share["repeat_recall@2"].n, share["new_recall@2"].n) == (2, 2)
    assert share["repeat_share"].value == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert share["repeat_share@2"].value == pytest.approx((1 + 0 + 0) / 3)
    worse = rank_metrics(
        fixed(np.array(table)[:, ::-1]), cases, ks=(2,), seen="allow", groups=(), repeats=True
    )
    gap = paired_difference(found, worse)
    for name in ("recall@2", "new_recall@2", "repeat_recall@2"):
        assert gap[name].value == pytest.approx(share[name].value - worse.metrics[name].value)
    assert "repeat_recall@2" not in rank_metrics(fixed(table), cases, ks=(2,), seen="allow").metrics
