"""The shop's own policy: what it expects of every candidate, how it chooses, and how it learns from what is observed.

Nothing of it is kept on disk beside the shop's two logs. When a model is promoted, when a server starts and after
an erasure it is made again from the events (what items are like) and from decisions and outcomes (what became of
answers), so what was learned of a person goes with the person.
"""

from __future__ import annotations

import hashlib
import heapq
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import (
    DAY,
    SECOND,
    TARGET_KINDS,
    Bools,
    Candidates,
    Choice,
    Event,
    Floats,
    Ints,
    Query,
    Slate,
    Vocabulary,
)
from penchant.engine._answer_ids import is_drawn, is_taught
from penchant.engine._attention import BySlot, Cascade, Known
from penchant.engine._explore_settings import ExploreSettings
from penchant.engine._facts import Facts
from penchant.engine._sight import LearnerKind, OfItems, Seen, Sight, learner_of
from penchant.models import best_of
from penchant.policy import (
    Best,
    Changes,
    Limited,
    Reserved,
    Rule,
    Steer,
    draw_slate,
    reach_of,
    sampled,
)

if TYPE_CHECKING:
    from penchant.engine._rules import Worth
    from penchant.engine._shop import Shop

BY_VALUE = f"value/1+{Best().id}"  # the policy where expected value ranks
_OPEN = 20_000  # answers whose outcomes are waited for
_EARLY = 1_000  # answers that are not logged yet, of which something is known already
log = logging.getLogger("penchant.exploring")
_COULD_EVERY = 500  # outcomes between two looks for items that could be best
_AT_ONCE = 20_000  # items of such a look
_TOO_DEAR = "off: exploring may cost"


@dataclass(eq=False, slots=True)
class _Open:
    """An answer whose outcomes may still come: thousands are kept, and of most of them nothing more is heard."""

    subject: str
    item_K: tuple[str, ...]  # slot by slot
    standing: dict[str, float]  # item id -> how the model's score stood among the candidates
    offers: dict[str, str] | None  # item id -> the new interest that it was to offer
    seen: Seen | None = None  # of the person when it was made
    heard: _Heard | None = None

    @property
    def told(self) -> _Heard:
        """What was heard of it."""
        self.heard = self.heard or _Heard()
        return self.heard


@dataclass(eq=False, slots=True)
class _Heard:
    """What became of an answer's items so far."""

    rewarded: set[str] = field(default_factory=set)
    shown: dict[str, int] = field(default_factory=dict)  # item id -> when
    denied: set[str] = field(default_factory=set)  # learned as a no


class _Ledger:
    """What exploring may have cost so far, of what the best would have brought (Kazerouni et al., NeurIPS 2017)."""

    def __init__(self) -> None:
        self._lost = self._best = 0.0

    @property
    def share(self) -> float:
        """Cost so far as a share."""
        return self._lost / self._best if self._best else 0.0

    def take(
        self, p_N: Floats, mean_N: Floats, std_N: Floats, most: float | None, *, book: bool = True
    ) -> bool:
        """Book an answer; False, and no cost, if it would bring the share above ``most``.

        What is shown in place of the best counts one standard deviation below what is expected of it. Without ``book``
        only the answer to that is given.
        """
        best = int(np.argmax(mean_N))
        lower_N = np.maximum(mean_N - std_N, 0.0)
        loss = float(p_N @ (mean_N[best] - lower_N)) - float(p_N[best] * (mean_N[best] - lower_N[best]))
        if not book:
            return most is None or self._lost + loss <= most * (self._best + float(mean_N[best]))
        self._best += float(mean_N[best])
        if most is not None and self._lost + loss > most * self._best:
            return False
        self._lost += loss
        return True


@dataclass(frozen=True, eq=False)
class Drawn:
    """A choice with everything that the decision log says of it."""

    choice: Choice
    mean_N: Floats
    std_N: Floats
    policy_id: str
    updates: int
    explore: bool
    reason: str
    standing_N: Floats | None = None  # how the model's scores stood; None where nothing is to be learned
    seen: Seen | None = None  # what the learner saw of the person
    space: str = ""  # what that means


class Exploration:
    """Expectations, choices and learning of one shop and one promoted model.

    Args:
        settings: The ``[explore]`` table.
        items: What is chosen from.
        facts: What is known of them.
        outcome: Told what became of an offer: person, interest, whether it was taken.
        follows: Learn and move on by the shop's log alone (``logged``, ``observed``), as other processes do, and not by
            the answers of this one.
    """

    def __init__(
        self,
        settings: ExploreSettings,
        items: Vocabulary,
        facts: Facts,
        outcome: Callable[[str, str, bool], None] | None = None,
        sight: tuple[LearnerKind, Sight] | None = None,
        *,
        follows: bool = False,
    ) -> None:
        self.follows = follows
        self.learning = threading.Lock()  # held by who reads the log for it
        self.position = -1  # of the log: everything up to here is learned, where it is followed
        self._early: OrderedDict[str, list[tuple[str, str, int]]] = (
            OrderedDict()
        )  # events before their answer
        self.settings, self.items, self.facts = settings, items, facts
        self._rule = settings.rule()
        self.kind, self.sight = sight or ("hybrid", OfItems(facts))
        self.learner = learner_of(self.kind, facts, self.sight)
        every = settings.change_every
        self._changes = None if every is None else Changes(len(items), every)
        self._could: tuple[int, Bools] | None = None  # outcomes when it was made
        self._outcome = outcome
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._due: list[tuple[int, str, str]] = []  # (moment, recommendation, item)
        self._spent: dict[str, tuple[int, int]] = {}  # subject -> (day, answers that explored)
        self._hashes: dict[str, str] = {}  # policy id -> of it with the settings
        self._known = Known(BySlot() if settings.attention == "slots" else Cascade())
        self._ledger = _Ledger()
        self._day: int | None = None  # up to which things have been forgotten
        self._lock = threading.Lock()

    def choose(
        self,
        candidates: Candidates,
        query: Query,
        rng: np.random.Generator,
        *,
        allowed: bool,
        by_value: bool = False,
        worth: Worth | None = None,
        steer: Steer = Steer(),  # noqa: B008 (immutable)
        seen: Seen | None = None,
    ) -> Drawn:
        """Draw a slate; with exploring refused, the best by expectation.

        Args:
            candidates: With the model's scores as means.
            query: Whom it is for and when.
            rng: Of this request.
            allowed: Whether the request leaves exploring to the shop.
            by_value: The means are what items bring: the best of them, for certain.
            worth: What the shop's rules say of the candidates.
            steer: New interests, reranking and how much exploring the person wants.
            seen: What the learner's sight shows of the person.
        """
        if by_value:
            return _dearest(candidates, query, rng, worth, steer)
        with self._lock:
            if not self.follows:
                self._settle(query.now)
            standing_N = standing_of(candidates.mean_N, candidates.source)
            feature_NF = self.sight.features(candidates.item_N, standing_N, seen)
            asked = self._rule
            about = query.subject, candidates.item_N, feature_NF
            mean_N, std_N = self.learner.expect(*about, reach_of(asked))
            updates = self.learner.updates
            if worth is not None:
                mean_N, std_N = worth.applied(mean_N, std_N)
            factor_N = 1.0 if steer.factor_N is None else steer.factor_N
            weighed_N = factor_N if worth is None else factor_N * worth.factor_N
            sampled_rule = sampled(asked, self.learner, *about, weighed_N)
            rule, floor = self._exploring(sampled_rule, steer, candidates.item_N, mean_N, std_N)
            expected = Candidates(candidates.item_N, mean_N * factor_N, std_N * factor_N, candidates.source)
            reason = self._refusal(query, allowed, steer.level) or self._too_dear(rule, floor, expected)
            if reason is None and self.settings.per_day is not None and not self.follows:
                self._spend(query.subject, query.now)
        explore = reason is None
        if not explore:
            rule, floor = Best(), 0.0
            expected = Candidates(candidates.item_N, mean_N, std_N, candidates.source)
        choice = _drawn(rule, expected, query.k, floor, rng, updates, worth, steer)
        return Drawn(
            choice=choice,
            mean_N=mean_N,
            std_N=std_N,
            policy_id="+".join(
                [
                    f"{self.kind}/1+{rule.id}",
                    *([f"floor{floor:g}"] if floor else []),
                    *(stage.id for stage in steer.rerank),
                    *(["rules"] if worth else []),
                ]
            ),
            updates=updates,
            explore=explore,
            reason=reason or self._told(steer.level),
            standing_N=standing_N,
            seen=seen,
            space=self.sight.space,
        )

    def lifted(self, pool: Candidates, limit: int, subject: str, seen: Seen | None) -> Candidates:
        """The candidates of the highest upper bounds, at most ``limit``, in item order."""
        if len(pool.item_N) <= limit:
            return pool
        feature_NF = self.sight.features(pool.item_N, standing_of(pool.mean_N, pool.source), seen)
        with self._lock:
            bound_N = self._bounds(subject, pool.item_N, feature_NF)
        kept_K, _ = best_of(np.arange(len(bound_N)), bound_N, limit)
        return Candidates(pool.item_N[kept_K], pool.mean_N[kept_K], pool.std_N[kept_K], pool.source)

    def could_N(self, limit: int) -> Bools:
        """The items that could be best for anybody, whatever a model says of them: (N + 1,); made anew at times.

        Those of the highest bounds where the scores stand in the middle, ``limit`` of them.
        """
        with self._lock:
            if self._could is None or self.learner.updates - self._could[0] >= _COULD_EVERY:
                bound_N = np.full(len(self.items) + 1, -np.inf)
                for start in range(1, len(bound_N), _AT_ONCE):
                    item_N = np.arange(start, min(start + _AT_ONCE, len(bound_N)))
                    feature_NF = self.sight.features(item_N, np.zeros(len(item_N)), None)
                    bound_N[item_N] = self._bounds("", item_N, feature_NF)
                could_N = np.zeros(len(bound_N), np.bool_)
                could_N[best_of(np.arange(1, len(bound_N)), bound_N[1:], limit)[0]] = True
                self._could = self.learner.updates, could_N
            return self._could[1]

    def _bounds(self, subject: str, item_N: Ints, feature_NF: Floats) -> Floats:
        reach = reach_of(self._rule)
        mean_N, std_N = self.learner.expect(subject, item_N, feature_NF, reach)
        return mean_N + reach * std_N

    def _told(self, level: float) -> str:
        """What an answer that explores says of how."""
        missing = f", hybrid: nothing is trained for {self.settings.learner}"
        return "".join(
            [
                f"on: {self.settings.method}",
                missing if self.kind != self.settings.learner else "",
                ", a little" if level < 1 else "",
            ]
        )

    def _exploring(
        self, rule: Rule, steer: Steer, item_N: Ints, mean_N: Floats, std_N: Floats
    ) -> tuple[Rule, float]:
        """The rule of an answer that explores, with the shares kept, and the floor under it."""
        floor, share = self.settings.floor * steer.level, self.settings.fresh_share * steer.level
        may_N = self._may(item_N)
        fresh_N = (
            self.facts.fresh_N[item_N] & (self.learner.shown_N[item_N] < self.settings.fresh_until) & may_N
        )
        # Where nothing has a history nothing is fresh: the method itself explores.
        if share and fresh_N.any() and not self.facts.fresh_N[1:].all():
            rule = Reserved(rule, share, np.where(fresh_N, mean_N + 0.3 * std_N, -np.inf))
        rule = steer.over(rule, mean_N + 0.3 * std_N)
        return (rule, floor) if may_N.all() else (Limited(rule, floor, may_N), 0.0)

    def _may(self, item_N: Ints) -> Bools:
        """Which items lie in a category that may be explored, or below one."""
        if self.settings.categories is None:
            return np.ones(len(item_N), np.bool_)
        below = tuple(f"{category} > " for category in self.settings.categories)
        own = (self.facts.category_N[number] for number in item_N.tolist())
        return np.array([c is not None and f"{c} > ".startswith(below) for c in own], np.bool_)

    def _too_dear(self, rule: Rule, floor: float, expected: Candidates) -> str | None:
        """Why exploring would cost more than it may; decided before anything is drawn, so that odds stay true."""
        most, mean_N, std_N = self.settings.max_loss, expected.mean_N, expected.std_N
        if most is None or not len(mean_N):
            return None
        free_N = np.ones(len(mean_N), np.bool_)
        p_N = (1 - floor) * rule.begin(mean_N, std_N, self.learner.updates)(free_N) + floor / len(mean_N)
        if self._ledger.take(p_N, mean_N, std_N, most, book=not self.follows):
            return None
        return f"{_TOO_DEAR} {most:.2%} of expected rewards, and {self._ledger.share:.2%} are spent"

    def _book(self, slate: Slate) -> None:
        """Take up what a logged answer cost, or what it would have cost too much."""
        if slate.explore and self.settings.per_day is not None:
            self._spend(slate.subject, slate.ts)
        told = slate.candidates
        if told is None or not told.mean:
            return
        mean_N, std_N = np.array(told.mean), np.array(told.std)
        if slate.explore and told.odds:
            self._ledger.take(np.array(told.odds), mean_N, std_N, None)
        elif slate.explore_reason.startswith(_TOO_DEAR):
            self._ledger.take((mean_N == mean_N.max()) * 1.0, mean_N, std_N, None)

    def hash_of_policy(self, policy_id: str) -> str:
        """Short hash of a policy with the settings that it ran with."""
        found = self._hashes.get(policy_id)
        if found is None:
            found = self._hashes[policy_id] = hash_of([policy_id, str(self.settings)])
        return found

    def _refusal(self, query: Query, allowed: bool, level: float) -> str | None:
        """Why this answer may not explore, whatever it would cost; None when it may."""
        if not self.settings.on:
            return "off: [explore] on = false in shop.toml"
        if not allowed:
            return "off: the request asks for the best"
        if not level:
            return "off: the person asked for no exploring"
        if query.purpose != "personalise":
            return f"off: the purpose is {query.purpose}"
        if self.settings.per_day is not None:
            day, spent = self._spent.get(query.subject, (0, 0))
            spent = spent if day == query.now // DAY else 0
            if spent >= self.settings.per_day:
                return f"off: the person's {self.settings.per_day} exploring answers of the day are used up"
        return None

    def _spend(self, subject: str, now: int) -> None:
        """Count an answer that explored towards what the person and day may have."""
        day, spent = self._spent.get(subject, (0, 0))
        self._spent[subject] = (now // DAY, spent + 1 if day == now // DAY else 1)

    def logged(self, slate: Slate) -> None:
        """Take up an answer from the log, and what became of it before it stood there."""
        self.answered(slate)
        self._book(slate)
        with self._lock:
            for kind, item_id, ts in self._early.pop(slate.recommendation_id, ()):
                self._one(kind, slate.recommendation_id, item_id, ts)

    def answered(
        self, slate: Slate, standing: dict[str, float] | None = None, seen: Seen | None = None
    ) -> None:
        """Wait for the outcomes of a logged answer.

        Args:
            slate: The answer.
            standing: How the model's score of each of its items stood; None to take it, and what was seen of the
                person, from the slate's candidates.
            seen: What was seen of the person.
        """
        if slate.policy_id == BY_VALUE or not is_drawn(slate):
            return  # what an item brings does not say how the model's score stood
        if standing is None:
            if slate.candidates is None or not slate.candidates.score:
                return
            standing_N = standing_of(np.array(slate.candidates.score), slate.model_id)
            among = dict(zip(slate.candidates.item_ids, standing_N.tolist(), strict=True))
            standing = {item.item_id: among[item.item_id] for item in slate.items if not item.pinned}
            if slate.candidates.seen and slate.candidates.space == self.sight.space:
                seen = np.array(slate.candidates.seen, np.float32)
        with self._lock:
            self._open[slate.recommendation_id] = _Open(
                slate.subject,
                tuple(slate.item_ids),
                standing,
                {i.item_id: r.interest for i in slate.items for r in i.reasons if r.interest is not None}
                or None,
                seen,
            )
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)

    def observed(self, events: Iterable[Event]) -> None:
        """Learn from stored events that name the answer they came from."""
        with self._lock:
            for event in events:
                if event.recommendation_id is not None and event.item_id is not None and event.ts is not None:
                    self._one(str(event.kind), event.recommendation_id, event.item_id, event.ts)

    def _one(self, kind: str, recommendation_id: str, item_id: str, ts: int) -> None:
        self._settle(ts)
        self._fade(ts // DAY)
        answer = self._open.get(recommendation_id)
        if answer is None and self.follows and is_taught(recommendation_id):  # logged later, or forgotten
            self._early.setdefault(recommendation_id, []).append((kind, item_id, ts))
            if len(self._early) > _EARLY:
                self._early.popitem(last=False)
        if answer is None or item_id not in answer.standing:
            return
        heard = answer.told
        if kind == "impression":
            if item_id not in heard.shown:
                heard.shown[item_id] = ts
                due = ts + self.settings.wait_minutes * 60 * SECOND
                heapq.heappush(self._due, (due, recommendation_id, item_id))
        elif kind in TARGET_KINDS and item_id not in heard.rewarded:
            heard.rewarded.add(item_id)
            if item_id in heard.shown:
                self._known.came(late=item_id in heard.denied)
            self._learn(answer, item_id, reward=True)

    def _settle(self, now: int) -> None:
        """Impressions that have waited long enough are a no."""
        while self._due and self._due[0][0] <= now:
            _, recommendation_id, item_id = heapq.heappop(self._due)
            answer = self._open.get(recommendation_id)
            if answer is not None and item_id not in answer.told.rewarded:
                answer.told.denied.add(item_id)
                self._learn(answer, item_id, reward=False)

    def _fade(self, day: int) -> None:
        """Forget for the days that have passed. Only what is observed moves time on, never a request's ``now``."""
        if self.settings.half_life_days is not None and self._day is not None and day > self._day:
            self.learner.forget(0.5 ** ((day - self._day) / self.settings.half_life_days))
        self._day = day if self._day is None else max(day, self._day)

    def _learn(self, answer: _Open, item_id: str, *, reward: bool) -> None:
        number = self.items.number(item_id)
        if number:
            slot_of = {own: slot for slot, own in enumerate(answer.item_K)}
            slot, heard = slot_of[item_id], answer.told
            rewarded = {slot_of[other] for other in heard.rewarded if other != item_id}
            standing_N = np.array([answer.standing[item_id]])
            feature_NF = self.sight.features(np.array([number]), standing_N, answer.seen)
            known = self._known.seen(slot, rewarded)
            chance = self.learner.learn(answer.subject, number, feature_NF[0], reward, known)
            again = reward and item_id in heard.denied
            self._known.looked.learned(slot, rewarded, 0.0 if again else chance, reward)
            # What was hardly looked at is expected to bring less; a reward that came late was counted as a no.
            expected = chance if reward else chance * known
            if self._changes is not None and not again and self._changes.called(number, expected, reward):
                log.info("item %s is not what it was: what its outcomes said is forgotten", item_id)
                self.learner.reset(number)
        if self._outcome is not None and answer.offers is not None and item_id in answer.offers:
            self._outcome(answer.subject, answer.offers[item_id], reward)

    def outcomes(self, rows: Sequence[tuple[str, str, str, int]], now: int) -> None:
        """Learn from outcomes, as ``outcomes_of`` gives them, and from what has waited long enough by ``now``."""
        with self._lock:
            for kind, recommendation_id, item_id, ts in rows:
                self._one(kind, recommendation_id, item_id, ts)
            self._settle(now)

    def replay(self, shop: Shop, up_to: int | None = None) -> None:
        """Learn anew from the decision log and the events that name its answers, up to a number of the log."""
        for slate in shop.store.decisions(newest=_OPEN, up_to=up_to):
            self.answered(slate)
            self._book(slate)
        self.position = -1 if up_to is None else up_to
        rows = outcomes_of(shop, list(self._open), up_to) if self._open else []
        if rows:
            self.outcomes(rows, rows[-1][3])


def outcomes_of(
    shop: Shop, recommendation_ids: list[str], up_to: int | None = None
) -> list[tuple[str, str, str, int]]:
    """What became of answers: kind, recommendation, item and moment, in order of time."""
    table = shop.store.scan(columns=["ts", "kind", "item_id", "recommendation_id"], up_to=up_to)
    table = table.filter(pc.is_in(table["recommendation_id"], value_set=pa.array(recommendation_ids)))
    table = table.filter(pc.is_valid(table["item_id"]))
    # An impression and its outcome may bear the same moment: the impression came first.
    kind = table["kind"].to_pylist()
    order = np.lexsort([np.array([k != "impression" for k in kind], bool), table["ts"].to_numpy()])
    names = ("recommendation_id", "item_id", "ts")
    found = list(zip(kind, *(table[name].to_pylist() for name in names), strict=True))
    return [found[at] for at in order.tolist()]


def hash_of(texts: Sequence[str]) -> str:
    """A short hash of some texts in their order."""
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=8).hexdigest()


def _drawn(
    rule: Rule,
    candidates: Candidates,
    k: int,
    floor: float,
    rng: np.random.Generator,
    updates: int,
    worth: Worth | None,
    steer: Steer,
) -> Choice:
    """Draw a slate; what is buried is drawn from only when nothing else is left."""
    if worth is None or not worth.buried_N.any():
        return draw_slate(rule, candidates, k, floor, rng, updates, steer.rerank)
    above_N = np.where(worth.buried_N, -np.inf, candidates.mean_N)
    first = draw_slate(rule, replace(candidates, mean_N=above_N), k, floor, rng, updates, steer.rerank)
    below_N = np.where(worth.buried_N, candidates.mean_N, -np.inf)
    left, others = k - len(first.index_K), replace(candidates, mean_N=below_N)
    rest = draw_slate(rule, others, left, floor, rng, updates, steer.rerank)
    return Choice(
        np.r_[first.index_K, rest.index_K],
        np.r_[first.odds_K, rest.odds_K],
        np.r_[first.explored_K, rest.explored_K],
        rest.first_N if first.first_N is None else first.first_N,
    )


def _dearest(
    candidates: Candidates, query: Query, rng: np.random.Generator, worth: Worth | None, steer: Steer
) -> Drawn:
    """The items that bring most, for certain: chances of outcomes alone say nothing of that."""
    if worth is not None:
        candidates = replace(candidates, mean_N=worth.applied(candidates.mean_N, candidates.std_N)[0])
    return Drawn(
        choice=_drawn(Best(), candidates, query.k, 0.0, rng, 0, worth, steer),
        mean_N=candidates.mean_N,
        std_N=candidates.std_N,
        policy_id=BY_VALUE,
        updates=0,
        explore=False,
        reason="off: value ranks",
    )


def standing_of(score_N: Floats, source: str) -> Floats:
    """How scores stand among each other: standard deviations from their mean, 0 where all are equal.

    Far ones are drawn in (``arcsinh``: 1 becomes .9, 10 becomes 3), which keeps their order. Counts, which
    ``popularity`` gives, are taken by their logarithm.
    """
    score_N = np.log1p(score_N) if source == "popularity" else score_N
    finite_N = np.isfinite(score_N)
    if not finite_N.all():
        if not finite_N.any():
            return np.zeros(len(score_N))
        score_N = np.where(finite_N, score_N, score_N[finite_N].min())
    elif not len(score_N):
        return np.zeros(0)
    apart_N = score_N.astype(np.float64)
    apart_N -= np.add.reduce(apart_N) / len(apart_N)
    spread = float(np.sqrt(np.add.reduce(apart_N * apart_N) / len(apart_N)))
    if spread <= 1e-12:
        return np.zeros(len(score_N))
    apart_N /= spread
    return np.asarray(np.arcsinh(apart_N, out=apart_N))


__all__: Sequence[str] = ["Drawn", "Exploration"]
