"""People who are none: rates that no human has, and crowds that came for nothing but to praise one product."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import DAY, HOUR, SECOND, Store
from penchant.data._settings import Settings

# What a person does by hand, one at a time. A whole basket is bought, and a whole list is shown, in one moment.
BROWSING = (
    "click",
    "view",
    "search",
    "filter",
    "wishlist",
    "cart_add",
    "cart_remove",
    "cart_view",
    "promo_click",
)
MINUTE = 60 * SECOND
_SLEEPLESS_EVENTS = 200  # so many in a day, besides being awake all of it


def bots_in(events: pa.Table, settings: Settings) -> dict[str, str]:
    """Bots among the people of some events, and why: subject -> reason.

    Args:
        events: All events of these people: subject, ts and kind.
        settings: The limits. Events exactly at midnight have no time of day and only count towards the day.

    Example:
        >>> log = pa.table({"subject": ["b"] * 200, "ts": [10**15 + n for n in range(200)], "kind": ["view"] * 200})
        >>> bots_in(log, Settings())
        {'b': '200 events in one minute'}
    """
    browsing = events.filter(pc.is_in(events["kind"], pa.array(BROWSING)))
    if not browsing.num_rows:
        return {}
    people = pc.dictionary_encode(browsing["subject"].combine_chunks())
    person = people.indices.to_numpy().astype(np.int64)
    ts = browsing["ts"].to_numpy().astype(np.int64)
    timed = ts % DAY != 0
    per_minute = _most(person[timed], ts[timed] // MINUTE, len(people.dictionary))
    per_day = _most(person, ts // DAY, len(people.dictionary))
    hours = _hours(person[timed], ts[timed], len(people.dictionary))
    found: dict[str, str] = {}
    for number in np.flatnonzero(
        (per_minute > settings.bot_events_per_minute)
        | (per_day > settings.bot_events_per_day)
        | (hours >= settings.bot_hours_per_day)
    ):
        if per_minute[number] > settings.bot_events_per_minute:
            why = f"{per_minute[number]} events in one minute"
        elif per_day[number] > settings.bot_events_per_day:
            why = f"{per_day[number]} events in one day"
        else:
            why = f"active in {hours[number]} hours of one day"
        found[people.dictionary[int(number)].as_py()] = why
    return found


def bot_subjects(store: Store, settings: Settings) -> frozenset[str]:
    """Everyone in the store whose rate no human has; a snapshot can leave them out.

    Memory stays flat: one bucket of people at a time.
    """
    found: set[str] = set()
    bursts = ReviewBursts(settings)
    for bucket in range(store.num_buckets):
        table = store.scan(bucket=bucket, columns=["subject", "ts", "kind"])
        found.update(bots_in(table, settings))
        if pc.any(pc.equal(table["kind"], "review")).as_py():
            bursts.add(store.scan(bucket=bucket, columns=["subject", "ts", "kind", "item_id"]))
    return frozenset(found | bursts.found().keys())


class ReviewBursts:
    """Finds reviews by accounts made for them: people who bought nothing and turned to nothing but the one item that
    they reviewed, many of them within an hour.

    Args:
        settings: How many are a burst.

    Example:
        >>> people = [f"u{n}" for n in range(20)]
        >>> log = pa.table({"subject": people, "ts": range(20), "kind": ["review"] * 20, "item_id": ["pushed"] * 20})
        >>> bursts = ReviewBursts(Settings())
        >>> bursts.add(log)
        >>> len(bursts.found()), bursts.found()["u7"]
        (20, 'one of 20 reviews of pushed within an hour, by people who did nothing else')
    """

    def __init__(self, settings: Settings) -> None:
        self._least = settings.burst_reviews
        self._first: dict[str, dict[str, int]] = {}  # item -> reviewer -> moment of the first review

    def add(self, events: pa.Table) -> None:
        """Take note of some people; ``events`` are all of theirs: subject, ts, kind and item_id."""
        reviews = events.filter(pc.equal(events["kind"], "review"))
        if not reviews.num_rows:
            return
        theirs = events.filter(pc.is_in(events["subject"], value_set=pc.unique(reviews["subject"])))
        theirs = theirs.append_column("bought", pc.equal(theirs["kind"], "purchase"))
        people = theirs.group_by("subject").aggregate([("item_id", "count_distinct"), ("bought", "any")])
        lone = pc.and_(pc.equal(people["item_id_count_distinct"], 1), pc.invert(people["bought_any"]))
        lone_people = people.filter(lone)["subject"].combine_chunks()
        for row in reviews.filter(pc.is_in(reviews["subject"], value_set=lone_people)).to_pylist():
            first = self._first.setdefault(row["item_id"], {})
            first[row["subject"]] = min(row["ts"], first.get(row["subject"], row["ts"]))

    def found(self) -> dict[str, str]:
        """Who wrote in a burst, and why it is one: subject -> reason."""
        told: dict[str, str] = {}
        for item, first in self._first.items():
            people = sorted(first, key=first.__getitem__)
            ts_R = np.sort(np.fromiter(first.values(), np.int64))
            crowd_R = np.searchsorted(ts_R, ts_R + HOUR, side="right") - np.arange(len(ts_R))
            done = 0
            for start in np.flatnonzero(crowd_R >= self._least).tolist():
                end = start + int(crowd_R[start])
                why = f"one of {end - start} reviews of {item} within an hour, by people who did nothing else"
                told |= dict.fromkeys(people[max(start, done) : end], why)
                done = end
        return told


def buckets(store: Store, columns: list[str]) -> Iterator[pa.Table]:
    """The events of the store, bucket by bucket."""
    for bucket in range(store.num_buckets):
        table = store.scan(bucket=bucket, columns=columns)
        if table.num_rows:
            yield table


def _most(person: npt.NDArray[np.int64], slot: npt.NDArray[np.int64], count: int) -> Any:
    """The fullest slot of each person, (count,) int64."""
    out = np.zeros(count, np.int64)
    if len(person):
        low = slot.min()
        pair, times = np.unique(person * (slot.max() - low + 1) + (slot - low), return_counts=True)
        np.maximum.at(out, pair // (slot.max() - low + 1), times)
    return out


def _hours(person: npt.NDArray[np.int64], ts: npt.NDArray[np.int64], count: int) -> Any:
    """The most hours with events in one day of each person who was busy on it, (count,) int64."""
    out = np.zeros(count, np.int64)
    if not len(person):
        return out
    day = ts // DAY
    day -= day.min()
    width = int(day.max()) + 1
    key = person * width + day
    days, events = np.unique(key, return_counts=True)
    hour = np.unique(key * 24 + ts % DAY // HOUR) // 24
    _, hours = np.unique(hour, return_counts=True)
    busy = events >= _SLEEPLESS_EVENTS
    np.maximum.at(out, days[busy] // width, hours[busy])
    return out
