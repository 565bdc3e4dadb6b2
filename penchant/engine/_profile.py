"""What a person is interested in, as readable weighted tags with the events they rest on."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import DAY
from penchant.engine import _requests as rq
from penchant.engine._interests import own_interests
from penchant.engine._people import NOBODY, may
from penchant.engine._serving import Serving

if TYPE_CHECKING:
    from penchant.engine._shop import Shop

# How much an event of each kind says about an interest, in units of a look at an item. A purchase costs
# money, a look costs a second; a refund or a removal takes back most of what came before it.
KIND_WEIGHT = {
    "click": 1.0,
    "view": 1.0,
    "wishlist": 3.0,
    "cart_add": 4.0,
    "checkout": 4.0,
    "purchase": 6.0,
    "review": 3.0,
    "cart_remove": -3.0,
    "refund": -5.0,
}
HALF_LIFE = {"now": 2 * DAY, "month": 30 * DAY, "lifetime": None}
_EVIDENCE = 3


@dataclass
class _Tally:
    weight: float = 0.0
    events: list[int] = field(default_factory=list)


def profile(shop: Shop, serving: Serving, request: rq.ProfileRequest) -> rq.Profile:
    """Weigh a person's events by kind and age, per tag, beside the shop's own shares.

    The clock stands at the person's own last event: "now" means their latest days in the shop.
    """
    subject = request.subject
    allowed = may(shop, subject, "personalise")
    events = personal_events(shop, subject) if allowed else _nothing(shop)
    predicted = predicted_tags(shop, serving, subject, events, request.k)
    if not events.num_rows:
        return rq.Profile(
            subject=subject,
            events=0,
            first_ts=None,
            last_ts=None,
            now=[],
            month=[],
            lifetime=[],
            predicted=predicted,
            interests=own_interests(shop, serving, subject),
            note="no events of this person are stored" if allowed else "this person allows no profile",
        )
    ts = events["ts"].to_numpy()
    tags = item_tags(shop, pc.unique(events["item_id"]))
    usual = serving.usual(lambda: shop_shares(shop, item_tags(shop)))
    horizons = {
        name: _interests(events, tags, usual, half_life, int(ts[-1]), request.k)
        for name, half_life in HALF_LIFE.items()
    }
    return rq.Profile(
        subject=subject,
        events=events.num_rows,
        first_ts=int(ts[0]),
        last_ts=int(ts[-1]),
        predicted=predicted,
        interests=own_interests(shop, serving, subject),
        note=None if horizons["lifetime"] else "the catalogue has no categories or labels for these items",
        **horizons,
    )


def _nothing(shop: Shop) -> pa.Table:
    """The events of somebody who has none."""
    return personal_events(shop, NOBODY).slice(0, 0)


def personal_events(shop: Shop, subject: str) -> pa.Table:
    """All events of one person, oldest first: what interests are made of."""
    columns = ["subject", "ts", "kind", "item_id", "value", "currency"]
    return shop.store.scan(subject=subject, columns=columns)


def item_tags(shop: Shop, ids: pa.Array | None = None) -> dict[str, tuple[str | None, list[str]]]:
    """Title and tags of each catalogue item: its labels, or the most telling levels of its category.

    Args:
        shop: The shop.
        ids: The items wanted; None for all. A person knows few of them, and a request cannot wait for the others.
    """
    catalog = shop.store.catalog()
    if ids is not None:
        catalog = catalog.filter(pc.is_in(catalog["id"], value_set=ids))
    rows = catalog.select(["id", "title", "category", "labels"]).to_pylist()
    return {row["id"]: (row["title"], row["labels"] or _levels(row["category"])) for row in rows}


def _levels(category: str | None) -> list[str]:
    """The first two levels of a category path, as one tag: broad enough to share, narrow enough to say something."""
    levels = [level.strip() for level in (category or "").split(">") if level.strip()]
    return [" > ".join(levels[:2])] if levels else []


def shop_shares(shop: Shop, tags: dict[str, tuple[str | None, list[str]]]) -> dict[str, float]:
    """Share of each tag in the whole shop's weighted events."""
    weight: dict[str, float] = defaultdict(float)
    for bucket in range(shop.store.num_buckets):
        table = shop.store.scan(bucket=bucket, columns=["item_id", "kind"])
        for found in table.group_by(["item_id", "kind"]).aggregate([([], "count_all")]).to_pylist():
            mine = tags.get(found["item_id"], (None, []))[1]
            for tag in mine:  # an item's weight is shared out over its tags, as for a person
                weight[tag] += found["count_all"] * max(KIND_WEIGHT.get(found["kind"], 0.0), 0.0) / len(mine)
    total = sum(weight.values()) or 1.0
    return {tag: value / total for tag, value in weight.items()}


def _interests(
    events: pa.Table,
    tags: dict[str, tuple[str | None, list[str]]],
    usual: dict[str, float],
    half_life: int | None,
    until: int,
    k: int,
) -> list[rq.Interest]:
    """The strongest tags of one horizon: by share of attention times how unusual that share is."""
    ts, item, kind = events["ts"].to_numpy(), events["item_id"].to_pylist(), events["kind"].to_pylist()
    fade = np.ones(len(ts)) if half_life is None else 0.5 ** ((until - ts) / half_life)
    tallies: dict[str, _Tally] = defaultdict(_Tally)
    for place in range(len(ts)):
        mine = tags.get(item[place], (None, []))[1] if item[place] else []
        weight = KIND_WEIGHT.get(kind[place], 0.0) * fade[place]
        if abs(weight) < 1e-3:
            continue
        for tag in mine:
            tallies[tag].weight += weight / len(mine)
            tallies[tag].events.append(place)
    positive = {tag: tally for tag, tally in tallies.items() if tally.weight > 0}
    total = sum(tally.weight for tally in positive.values())
    if not total:
        return []
    # Shrunk towards the usual share, so that one event of a rare tag is no passion.
    found = []
    for tag, tally in positive.items():
        share, base = tally.weight / total, usual.get(tag, 1e-6)
        lift = (tally.weight + 6 * base) / ((total + 6) * base)
        found.append((share * np.log1p(lift), share, lift, tag, tally))
    found.sort(key=lambda row: (-row[0], row[3]))
    return [
        rq.Interest(
            tag=tag,
            weight=round(float(share), 4),
            lift=round(float(lift), 2),
            events=len(tally.events),
            evidence=[
                rq.Evidence(kind=kind[p], item_id=item[p], title=tags[item[p]][0], ts=int(ts[p]))
                for p in _telling(tally.events, item, tags)
            ],
        )
        for _, share, lift, tag, tally in found[:k]
    ]


def _telling(places: list[int], item: list[str], tags: dict[str, tuple[str | None, list[str]]]) -> list[int]:
    """The newest events, one for each product name: the same name twice says nothing more."""
    newest: dict[str, int] = {}
    for place in reversed(places):
        newest.setdefault(tags[item[place]][0] or item[place], place)
        if len(newest) == _EVIDENCE:
            break
    return list(newest.values())


def predicted_tags(
    shop: Shop, serving: Serving, subject: str, events: pa.Table, k: int
) -> list[rq.PredictedTag]:
    """What the tags model says of the person; empty where none is trained."""
    from penchant.engine._tags import predict_person

    loaded = serving.tags
    return [] if loaded is None else predict_person(shop, loaded.model, subject, events, k)
