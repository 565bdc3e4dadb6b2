"""Shelves: the rows of items that shops name, such as trending or bought together, as a source of candidates.

Some are rules about what the model ranks (``buy_again``, ``on_sale``, ``new``); the others bring scores of their own.
Filters, rules, reranking and the draw are the same for all, and so are the odds.

Letters: N + 1 item numbers, B baskets.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from penchant.core import DAY, TARGET_KINDS, Floats, History, Vocabulary, micros
from penchant.core.errors import InputError, NotFound
from penchant.engine import _requests as rq
from penchant.engine._people import willing
from penchant.engine._rules import Person

if TYPE_CHECKING:
    from penchant.engine._serving import Ranker, Serving
    from penchant.engine._shop import Shop

BY_RULES: dict[str, list[str]] = {
    "buy_again": ["only bought"],
    "on_sale": ["only discount > 0"],
    "new": ["only age_days < 60"],
}
_WEEK, _BEFORE = 7 * DAY, 28 * DAY  # what trends is seen by: the last days, beside those before
_FRESH = 300.0  # seconds that counts are used
_LARGEST = 100  # items of a basket; more are not one shopping trip


@dataclass(frozen=True, eq=False)
class Counts:
    """What was counted from all events for the shelves."""

    basket_BN: sparse.csr_matrix  # who bought what on one day
    of_late_N: Floats  # how often people turned to each item in the last week
    before_N: Floats  # and in the four weeks before
    made: float  # on the monotonic clock


def count(shop: Shop, items: Vocabulary, now: int) -> Counts:
    """Read all events of people who allow it."""
    size = len(items) + 1
    of_late_N, before_N = np.zeros(size), np.zeros(size)
    rows, columns, baskets = [], [], 0
    kinds = pa.array(sorted(str(kind) for kind in TARGET_KINDS))
    for bucket in range(shop.store.num_buckets):
        table = willing(shop, shop.store.scan(bucket=bucket, columns=["subject", "kind", "item_id", "ts"]))
        table = table.filter(pc.is_in(table["kind"], value_set=kinds))
        if not table.num_rows:
            continue
        item_M = items.numbers_in(table["item_id"])
        ts_M = table["ts"].to_numpy()
        of_late_N += np.bincount(item_M[(ts_M > now - _WEEK) & (ts_M <= now)], minlength=size)
        earlier_M = (ts_M > now - _WEEK - _BEFORE) & (ts_M <= now - _WEEK)
        before_N += np.bincount(item_M[earlier_M], minlength=size)
        bought_M = np.asarray(pc.equal(table["kind"], "purchase")) & (item_M > 0)
        person_M = np.asarray(table["subject"].combine_chunks().dictionary_encode().indices)[bought_M]
        days = np.stack([person_M, ts_M[bought_M] // DAY])
        _, basket_M = np.unique(days, axis=1, return_inverse=True)
        basket_M = basket_M.ravel()
        rows.append(basket_M + baskets)
        columns.append(item_M[bought_M])
        baskets += int(basket_M.max(initial=-1)) + 1
    row = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    column = np.concatenate(columns) if columns else np.zeros(0, np.int64)
    basket_BN = sparse.csr_matrix((np.ones(len(row)), (row, column)), shape=(baskets, size))
    basket_BN.data[:] = 1.0
    basket_BN = basket_BN[np.diff(basket_BN.indptr) <= _LARGEST]
    of_late_N[0] = before_N[0] = 0
    return Counts(basket_BN, of_late_N, before_N, time.monotonic())


def trending(counts: Counts) -> Floats:
    """How far above its usual each item is: standard deviations of a count, by the four weeks before, (N + 1,).

    The whole shop's rise or fall is taken out. What is not above its usual has no score (-inf).
    """
    late, before = counts.of_late_N.sum(), counts.before_N.sum()
    usual_N = counts.before_N * (late / before) if before else np.zeros_like(counts.of_late_N)
    z_N = (counts.of_late_N - usual_N) / np.sqrt(usual_N + 1)
    return np.where(z_N > 0, z_N, -np.inf)


def bought_together(counts: Counts, numbers: list[int]) -> Floats:
    """How often items shared a basket with some, by the cosine of their baskets, (N + 1,); -inf where never."""
    basket_NB = counts.basket_BN.T.tocsr()
    shared_NQ = (basket_NB @ counts.basket_BN[:, numbers]).toarray()
    often_N = np.asarray(counts.basket_BN.sum(axis=0)).ravel()
    scale_NQ = np.sqrt(np.outer(often_N, often_N[numbers]))
    score_N = np.divide(shared_NQ, scale_NQ, out=np.zeros_like(shared_NQ), where=scale_NQ > 0).sum(axis=1)
    score_N[numbers] = 0.0
    return np.where(score_N > 0, score_N, -np.inf)


def with_shelf(request: rq.RecommendRequest) -> rq.RecommendRequest:
    """A request with the rules of its shelf."""
    rules = BY_RULES.get(request.shelf)
    if rules is None:
        return request
    seen = "allow" if request.shelf == "buy_again" else request.seen
    return msgspec.structs.replace(request, rules=[*request.rules, *rules], seen=seen)


def shelf_scores(
    shop: Shop, serving: Serving, ranker: Ranker, request: rq.RecommendRequest, history: History
) -> Floats | None:
    """The scores of a shelf that has its own, (N + 1,), -inf for what does not stand on it; None: the model's.

    Raises:
        InputError: It needs items, and none are named.
        NotFound: An item is not in the catalogue.
    """
    now = shop.clock() if request.now is None else micros(request.now)
    if request.shelf == "trending":
        return trending(_counts(serving, ranker, now))
    if request.shelf not in ("similar", "bought_together", "complete_cart"):
        return None
    numbers = [_number(ranker, item_id) for item_id in request.items]
    if request.shelf == "complete_cart" and not numbers:
        cart_N = Person(shop, ranker.items, ranker.shelf.table, history, now)("in_cart")
        numbers = np.flatnonzero(cart_N).tolist()
        if not numbers:
            return np.full(len(ranker.items) + 1, -np.inf)
    if not numbers:
        raise InputError(
            f"the shelf {request.shelf} is of some items", hint="name them in items", path="$.items"
        )
    together_N = bought_together(_counts(serving, ranker, now), numbers)
    if request.shelf == "bought_together":
        return together_N
    if request.shelf == "complete_cart" and np.isfinite(together_N).any():
        return together_N
    return _alike(serving, ranker, numbers)


def _alike(serving: Serving, ranker: Ranker, numbers: list[int]) -> Floats:
    """What the model that knows companions says goes with some items."""
    score_N = np.full(len(ranker.items) + 1, -np.inf)
    other = serving.companions
    if other.model is None:
        return score_N
    theirs = [n for n in other.items.numbers([ranker.items.id(number) for number in numbers]).tolist() if n]
    if not theirs:
        return score_N
    related_N = other.model.related(np.array(theirs)).mean(axis=0)
    if other.items is not ranker.items:
        place_N = other.items.renumbering(ranker.items)
        related_N = np.where(place_N > 0, related_N[place_N], 0.0)
    score_N = np.where(related_N > 0, related_N, -np.inf)
    score_N[numbers] = -np.inf
    return score_N


def _number(ranker: Ranker, item_id: str) -> int:
    number = ranker.items.number(item_id)
    if number == 0:
        raise NotFound("no such item", value=item_id, hint="name ids of the catalogue", path="$.items")
    return number


def _counts(serving: Serving, ranker: Ranker, now: int) -> Counts:
    """Counted at most every five minutes, and anew when the vocabulary is another one."""
    kept = serving.counts
    if kept is None or kept[0] is not ranker.items or time.monotonic() - kept[1].made > _FRESH:
        serving.counts = kept = (ranker.items, count(serving.shop, ranker.items, now))
    return kept[1]
