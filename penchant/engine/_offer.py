"""What may be shown to one person, before anything is drawn: filters, rules, what they had, the best of the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from penchant.core import Bools, Candidates, Floats, History, Query, SeenRule, Target, micros, rng
from penchant.engine import _requests as rq
from penchant.engine._explore import Drawn
from penchant.engine._guide import Plan, RerankSettings
from penchant.engine._people import NOBODY
from penchant.engine._rules import Person, Verdict, Worth, people_fields
from penchant.engine._serving import Ranker, seen_numbers
from penchant.engine._sight import Seen
from penchant.policy import Steer

if TYPE_CHECKING:
    from penchant.engine._shop import Shop

_WIDER = 4  # times as many as become candidates are looked at, where bounds decide


@dataclass(frozen=True, eq=False)
class Offer:
    """Candidates for the drawn slots, and slots that are given away."""

    candidates: Candidates
    worth: Worth | None  # what rules say of the candidates
    pins: list[tuple[int, int]]  # slot from 0 and item number, first slot first
    k: int  # slots that are drawn
    steer: Steer
    plans: list[Plan]  # new interests to offer
    seen: Seen | None  # of the person, for the learner


def question(shop: Shop, ranker: Ranker, request: rq.RecommendRequest) -> tuple[Target, bool]:
    """What a request asks for: events of which kind, and whether value ranks.

    Raises:
        InputError: Value is to rank, and the catalogue has no prices.
    """
    by_value = (request.objective or shop.config.serve.objective) == "value"
    if by_value:
        ranker.check_prices()
    return request.target or shop.config.target, by_value


def allowed(ranker: Ranker, request: rq.RecommendRequest) -> Bools:
    """Which items may be shown to anybody: offered, allowed, not denied; (N + 1,)."""
    allowed_N = ranker.shelf.offered_N.copy()
    if request.allow is not None:
        listed_N = np.zeros_like(allowed_N)
        listed_N[ranker.items.numbers(request.allow)] = True
        allowed_N &= listed_N
    if request.deny:
        allowed_N[ranker.items.numbers(request.deny)] = False
    allowed_N[0] = False
    return allowed_N


def judged(shop: Shop, ranker: Ranker, request: rq.RecommendRequest, history: History) -> Verdict | None:
    """What filters and rules say of all items for one person; None where there are none.

    Raises:
        InputError: One of them cannot be read, or does not fit the catalogue.
    """
    if not request.filters and not request.rules:
        return None
    texts = [*request.filters, *request.rules]
    people = people_fields(shop.store.users()) if any("user." in text for text in texts) else {}
    book = ranker.shelf.rules(tuple(request.filters), tuple(request.rules), tuple(people.items()))
    person = Person(
        shop,
        ranker.items,
        ranker.shelf.table,
        history,
        shop.clock() if request.now is None else micros(request.now),
        request.surface,
        request.scenario or "",
        personal=request.purpose == "personalise" and history.subject != NOBODY,
    )
    return book.judge(person)


def offered(
    shop: Shop,
    ranker: Ranker,
    request: rq.RecommendRequest,
    history: History,
    allowed_N: Bools,
    rule: SeenRule,
    score_N: Floats | None,
    verdict: Verdict | None,
) -> Offer:
    """Choose the candidates of one person.

    Args:
        allowed_N: What filters and rules leave; what the person had is taken out of it where ``rule`` says so.
        score_N: The model's scores, where they are known.
        verdict: What the rules say.
    """
    assert request.k is not None, "as_asked() first"
    asked = question(shop, ranker, request)
    ranker.guide.forbid(history.subject, allowed_N)  # what somebody wants no more is not pinned either
    pins = [] if verdict is None else _pinned(ranker, history, allowed_N, asked[0], verdict, request.k)
    if rule == "exclude":
        allowed_N[seen_numbers(ranker, history)] = False
    allowed_N[[number for _, number in pins]] = False
    limit = max(shop.config.serve.candidates, request.k)
    seen = ranker.exploration.sight.person(history)
    best = ranker.candidates(history, allowed_N, limit, *asked, score_N)
    if ranker.exploration.settings.retrieval == "bound" and request.explore == "auto" and not asked[1]:
        best = _by_bound(ranker, history, allowed_N, limit, asked[0], score_N, seen)
    held_H = ranker.guide.held(history)
    plans: list[Plan] = []
    if request.explore == "auto" and not asked[1]:
        plans = ranker.guide.plan(history.subject, held_H)
        for plan in plans if ranker.guide.settings.candidates else ():
            inside_N = allowed_N & ranker.guide.inside(plan)
            more = ranker.candidates(history, inside_N, ranker.guide.settings.candidates, *asked, score_N)
            best = _joined(best, more)
    worth = None if verdict is None else verdict.worth
    if worth is not None and len(best.item_N) >= limit and (raised_N := worth.raised_N & allowed_N).any():
        # Of a large catalogue those that a rule lifts are candidates too, although the model would not name them.
        more = ranker.candidates(history, raised_N, max(limit // 10, request.k), *asked, score_N)
        best = _joined(best, more)
    steer = ranker.guide.steer(history.subject, history, held_H, plans, best.item_N, _dials(shop, request))
    of = None if worth is None else worth.of(best.item_N)
    return Offer(best, of, pins, request.k - len(pins), steer, plans, seen)


def _by_bound(
    ranker: Ranker,
    history: History,
    allowed_N: Bools,
    limit: int,
    target: Target,
    score_N: Floats | None,
    seen: Seen | None,
) -> Candidates:
    """Candidates by what could be expected of them at best: of many by score, and of those that could be best anyway.

    As the policy's bound would order a whole catalogue, without asking it about every item (after Jeunen et al. on
    retrieval from uncertain vectors, where draws take the place of bounds).
    """
    many = ranker.candidates(history, allowed_N, _WIDER * limit, target, False, score_N)
    could_N = allowed_N & ranker.exploration.could_N(_WIDER * limit)
    more = ranker.candidates(history, could_N, limit, target, False, score_N)
    pool = _joined(many, more) if len(more.item_N) else many
    return ranker.exploration.lifted(pool, limit, history.subject, seen)


def _joined(some: Candidates, more: Candidates) -> Candidates:
    """Two sets of candidates as one, in item order."""
    item_N, first_N = np.unique(np.r_[some.item_N, more.item_N], return_index=True)
    mean_N = np.r_[some.mean_N, more.mean_N][first_N]
    return Candidates(item_N, mean_N, np.zeros_like(mean_N), some.source)


def draw_from(
    ranker: Ranker,
    request: rq.RecommendRequest,
    subject: str,
    offer: Offer,
    now: int,
    seed: int,
    by_value: bool,
) -> Drawn:
    """Let the policy fill the slots that are drawn; the same seed and person, the same draw."""
    return ranker.exploration.choose(
        offer.candidates,
        Query(subject, now, offer.k, request.surface, request.purpose, seed),
        rng(seed, subject),
        allowed=request.explore == "auto",
        by_value=by_value,
        worth=offer.worth,
        steer=offer.steer,
        seen=offer.seen,
    )


def _dials(shop: Shop, request: rq.RecommendRequest) -> RerankSettings:
    """The strengths of reranking: the request's where it names any, else the shop's."""
    usual = shop.config.rerank
    return RerankSettings(
        mmr=usual.mmr if request.mmr is None else request.mmr,
        dpp=usual.dpp if request.dpp is None else request.dpp,
        calibration=usual.calibration if request.calibration is None else request.calibration,
    )


def _pinned(
    ranker: Ranker, history: History, allowed_N: Bools, target: Target, verdict: Verdict, k: int
) -> list[tuple[int, int]]:
    """The item of each slot that is given away: of those that fit, the one that is wanted most.

    What may not be shown is not pinned, but what the person had already may be; one slot, one item.
    """
    found: dict[int, int] = {}
    for slot, fits_N in verdict.pins:
        fits_N = fits_N & allowed_N
        fits_N[list(found.values())] = False
        if slot >= k or slot in found or not fits_N.any():
            continue
        best = ranker.candidates(history, fits_N, 1, target, by_value=False).item_N
        found[slot] = int(best[0]) if len(best) else int(np.flatnonzero(fits_N)[0])
    return sorted(found.items())
