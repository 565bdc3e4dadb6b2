"""A shop that never was: planted interests, position bias, late purchases, drift and seasons, all by one seed.

What real logs cannot show, because nobody knows the truth behind them, can be shown here, and is reported apart.

Letters: U users, N items, P topics, K slots. Item and user numbers run from 0 here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penchant.core import DAY, Event, EventKind, Floats, Ints, rng
from penchant.testing._toys import START

ITEM, USER = "item-{}", "user-{}"


@dataclass(frozen=True)
class World:
    """What is planted. Every default is a mild version; 0 turns an effect off.

    ``position_bias`` is the power of the slot: it is looked at with chance (slot + 1) ** -position_bias.
    ``cascade`` instead lets a person read from the top and leave after the first click. ``delay`` is the mean
    of the exponential wait from click to purchase, in microseconds. At ``drift_at`` (microseconds after the
    start) the share ``drift`` of the people change to interests they did not have. ``season`` is how far a
    topic rises and falls around its mean, in log-odds, over ``season_period``. ``hidden`` is the share of
    every person's interests that their history does not show.
    """

    users: int = 500
    items: int = 300
    topics: int = 12
    interests: int = 3  # topics a person likes
    base: float = -3.5  # log-odds of a click on an examined item of no interest
    pull: float = 3.0  # added by an interest
    quality: float = 0.5  # standard deviation of the items' own appeal, in log-odds
    position_bias: float = 1.0
    cascade: bool = False
    purchase: float = 0.3  # chance that a click ends in a purchase
    delay: float = 2.0 * DAY
    drift: float = 0.0
    drift_at: int = 30 * DAY
    season: float = 0.0
    season_period: int = 28 * DAY
    hidden: float = 1 / 3


@dataclass(frozen=True, eq=False)
class Response:
    """What became of one slate: who looked, who clicked, and when (after the slate) a purchase comes, -1 = never."""

    examined_K: npt.NDArray[np.bool_]
    clicked_K: npt.NDArray[np.bool_]
    bought_after_K: npt.NDArray[np.int64]


class ShopSimulator:
    """A seeded shop whose true chances are known.

    Args:
        world: What is planted.
        seed: Same seed, same shop; responses draw from a generator of their own.

    Example:
        >>> shop = ShopSimulator(World(users=5, items=20, topics=4, interests=2), seed=0)
        >>> shop.chance_UN(shop.start).shape
        (5, 20)
        >>> shop.respond(0, [3, 1, 2], shop.start).clicked_K.shape
        (3,)
    """

    def __init__(self, world: World | None = None, *, seed: int = 0) -> None:
        self.world = world or World()
        self.start = START
        made, w = rng(seed, "shop"), self.world
        if not 0 < w.interests < w.topics:
            raise ValueError(
                f"people like at least one topic and not all: interests {w.interests} of {w.topics}"
            )
        self.topic_N: npt.NDArray[np.int64] = made.integers(w.topics, size=w.items)
        self.quality_N: Floats = made.normal(0, w.quality, w.items)
        order_UP = np.argsort(made.random((w.users, w.topics)), axis=1)
        self.likes_UP = _one_hot(order_UP[:, : w.interests], w.topics)  # before the drift
        shown = max(1, round(w.interests * (1 - w.hidden)))
        self.shown_UP = _one_hot(order_UP[:, :shown], w.topics)  # those that histories show
        other_UP = _one_hot(order_UP[:, -w.interests :], w.topics)
        moved_U = made.random(w.users) < w.drift
        self.later_UP = np.where(moved_U[:, None], other_UP, self.likes_UP)
        self.phase_P = made.uniform(0, 2 * np.pi, w.topics)
        self._respond = rng(seed, "responses")
        self._histories = rng(seed, "histories")

    @property
    def users(self) -> list[str]:
        """Ids of the people."""
        return [USER.format(u) for u in range(self.world.users)]

    @property
    def items(self) -> list[str]:
        """Ids of the items."""
        return [ITEM.format(n) for n in range(self.world.items)]

    def likes(self, now: int) -> npt.NDArray[np.bool_]:
        """Who likes which topic at a time: (U, P)."""
        return self.likes_UP if now < self.start + self.world.drift_at else self.later_UP

    def chance_UN(self, now: int, users: Ints | Sequence[int] | None = None) -> Floats:
        """True chance that each person clicks each item they look at: (U, N), or the rows of ``users``."""
        w = self.world
        likes_UP = self.likes(now) if users is None else self.likes(now)[np.asarray(users)]
        turn = 2 * np.pi * (now - self.start) / w.season_period
        topic_UP = w.base + w.pull * likes_UP + w.season * np.sin(turn + self.phase_P)
        return 1.0 / (1.0 + np.exp(-(topic_UP[:, self.topic_N] + self.quality_N)))

    def examined_K(self, k: int) -> Floats:
        """Chance that each of k slots is looked at, where the slots above do not matter."""
        return (np.arange(k) + 1.0) ** -self.world.position_bias

    def respond(self, user: int, items_K: Sequence[int] | Ints, now: int) -> Response:
        """Show a slate to a person; the next call draws anew."""
        chance_K = self.chance_UN(now, [user])[0, np.asarray(items_K, np.int64)]
        k = len(chance_K)
        if self.world.cascade:
            wants_K = self._respond.random(k) < chance_K
            first = int(wants_K.argmax()) if wants_K.any() else k
            examined_K = np.arange(k) <= first
        else:
            examined_K = self._respond.random(k) < self.examined_K(k)
            wants_K = self._respond.random(k) < chance_K
        clicked_K = wants_K & examined_K
        bought_K = clicked_K & (self._respond.random(k) < self.world.purchase)
        wait_K = self._respond.exponential(self.world.delay, k).astype(np.int64)
        return Response(examined_K, clicked_K, np.where(bought_K, wait_K, -1))

    def catalog(self) -> pa.Table:
        """The items as a catalogue: id, title, category (the topic)."""
        topics = [f"Topic {p}" for p in self.topic_N.tolist()]
        titles = [f"{topic}, item {n}" for n, topic in enumerate(topics)]
        return pa.table({"id": self.items, "title": titles, "category": topics})

    def history(self, events: int, *, days: float = 30.0) -> list[Event]:
        """Purchases before the start, of what histories show of people's interests and by the items' appeal."""
        draw, w = self._histories, self.world
        weight_N = np.exp(self.quality_N)
        who = draw.integers(w.users, size=events)
        when = np.sort(self.start - draw.integers(1, int(days * DAY), size=events))
        made = []
        for number, (user, ts) in enumerate(zip(who.tolist(), when.tolist(), strict=True)):
            odds_N = weight_N * (self.shown_UP[user, self.topic_N] + 0.02)
            item = int(draw.choice(w.items, p=odds_N / odds_N.sum()))
            made.append(
                Event(
                    kind=EventKind.PURCHASE,
                    event_id=f"h{number}",
                    ts=int(ts),
                    user_id=USER.format(user),
                    item_id=ITEM.format(item),
                )
            )
        return made


def _one_hot(chosen_UI: Ints, topics: int) -> npt.NDArray[np.bool_]:
    """Which topics are among the chosen: (U, P)."""
    out_UP = np.zeros((len(chosen_UI), topics), np.bool_)
    np.put_along_axis(out_UP, chosen_UI, True, axis=1)
    return out_UP
