"""People who are none: rates that no human has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import DAY, SECOND, Store
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
MINUTE, HOUR = 60 * SECOND, 3600 * SECOND
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
    for table in buckets(store, ["subject", "ts", "kind"]):
        found.update(bots_in(table, settings))
    return frozenset(found)


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
