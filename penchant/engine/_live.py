"""Requests that answer in milliseconds: observe, recommend for one person, similar."""

from __future__ import annotations

import datetime as dt
import secrets
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from penchant.core import (
    KINDS,
    Candidates,
    Event,
    Floats,
    History,
    PackedCandidates,
    Reason,
    Slate,
    SlateItem,
    Target,
    micros,
)
from penchant.core.errors import InputError, NotFound, PenchantError
from penchant.data import check_event
from penchant.engine import _requests as rq
from penchant.engine._answer_ids import COMPANIONS, answer_id
from penchant.engine._collect import each_alone, keep_aside, named_columns, reason_of, take
from penchant.engine._explore import Drawn, hash_of
from penchant.engine._logged import NOT_LOGGED, log_list
from penchant.engine._offer import Offer, allowed, draw_from, judged, offered, question
from penchant.engine._pages import next_cursor, shown_before
from penchant.engine._people import NOBODY, asking, history_of, known_person, no_history, withheld
from penchant.engine._refusal import refusal
from penchant.engine._scenarios import as_asked
from penchant.engine._serving import Ranker, Serving
from penchant.engine._shelves import shelf_scores
from penchant.engine._shop import storage_error
from penchant.engine._stages import told
from penchant.models import best_of

if TYPE_CHECKING:
    from penchant.engine._shop import Shop

_VERBS = {
    "purchase": "bought",
    "cart_add": "put in the cart",
    "view": "looked at",
    "click": "looked at",
    "wishlist": "saved",
    "review": "reviewed",
}


def observe(
    shop: Shop,
    serving: Serving,
    request: rq.ObserveRequest,
    positions: Mapping[str, int] | None = None,
) -> rq.ObserveReport:
    """Check each event, store the good ones in one fsynced commit, and say what became of each.

    Args:
        shop: Where to.
        serving: What learns of them.
        request: The events.
        positions: How far their source is read with them, stored in the same commit.
    """
    checked = _check(shop, request)
    return _report(shop, checked, take(shop, serving, checked.good, said=checked.said, positions=positions))


def observe_all(
    shop: Shop, serving: Serving, requests: Sequence[rq.ObserveRequest]
) -> list[rq.ObserveReport | PenchantError]:
    """Do the same for several requests with one commit."""
    checked = [_check(shop, request) for request in requests]
    good = [event for one in checked for event in one.good]
    try:
        words = take(shop, serving, good, said=[ts for one in checked for ts in one.said])
    except InputError:  # an event that cannot be stored: it fails its own request alone
        return each_alone(partial(observe, shop, serving), requests)
    except PenchantError as error:
        return [error for _ in requests]
    found: list[rq.ObserveReport | PenchantError] = []
    for one in checked:
        found.append(_report(shop, one, words[: len(one.good)]))
        words = words[len(one.good) :]
    return found


class _Checked(NamedTuple):
    """The events of a request that may be stored, and a result, or None for those, in the place of each."""

    good: list[Event]
    said: list[int | None]  # the time each sender gave
    results: list[rq.EventResult | None]
    letters: list[tuple[str, dict[str, Any]]]  # what is refused, to be kept aside


def _check(shop: Shop, request: rq.ObserveRequest) -> _Checked:
    now = shop.clock()
    good: list[Event] = []
    said: list[int | None] = []
    letters: list[tuple[str, dict[str, Any]]] = []
    results: list[rq.EventResult | None] = []
    for position, event in enumerate(request.events):
        try:
            fitting = known_person(shop, _fitting(event))
            known = check_event(fitting, shop.config.data, now)
            if withheld(shop, known):
                results.append(rq.EventResult.of(known.event_id, "withheld"))
                continue
            good.append(known)
            said.append(fitting.ts)
            results.append(None)
        except InputError as error:
            where = f"$.events[{position}]" + (error.path or "").removeprefix("$")
            refused = InputError(error.message, value=error.value, hint=error.hint, path=where)
            results.append(rq.EventResult(event_id=_own_id(event), status="refused", error=str(refused)))
            letters.append((reason_of(refused), named_columns(shop, _columns(event))))
    return _Checked(good, said, results, letters)


def _report(shop: Shop, checked: _Checked, words: Sequence[str]) -> rq.ObserveReport:
    """What became of each event, by the store's words for the good ones; what was refused is kept aside."""
    good = zip(checked.good, words, strict=True)
    told = [result or _told(*next(good)) for result in checked.results]
    keep_aside(shop, checked.letters)
    return rq.ObserveReport(results=told, stored=sum(r.status == "stored" for r in told))


def _told(event: Event, word: str) -> rq.EventResult:
    return rq.EventResult.of(event.event_id, word)


def _fitting(given: Any) -> Event:
    """What came as an event, as one.

    Raises:
        InputError: It does not fit: which field, and what that takes.
    """
    plain = msgspec.structs.asdict(given) if isinstance(given, Event) else given  # made in Python, unchecked
    try:
        if isinstance(plain, dict) and "timestamp" in plain and "ts" not in plain:
            moment = msgspec.convert(plain["timestamp"], int | dt.datetime)
            plain = {name: value for name, value in plain.items() if name != "timestamp"}
            plain["ts"] = micros(moment) if isinstance(moment, dt.datetime) else moment
        return msgspec.convert(plain, Event)
    except msgspec.ValidationError as error:
        raise refusal("observe", Event, error, plain) from None


def _columns(given: Any) -> dict[str, Any]:
    """What came as an event, as far as it has the fields of one."""
    plain = msgspec.structs.asdict(given) if isinstance(given, Event) else given
    return {k: plain[k] for k in Event.__struct_fields__ if k in plain} if isinstance(plain, dict) else {}


def _own_id(given: Any) -> str | None:
    """The id that came with an event, so that its sender finds it again."""
    own = given.get("event_id") if isinstance(given, dict) else getattr(given, "event_id", None)
    return own if isinstance(own, str) else None


class _Wanted(NamedTuple):
    """Whose scores an answer needs before it goes on."""

    ranker: Ranker
    history: History
    target: Target


_Steps = Generator[_Wanted, Floats, Slate]


def recommend(shop: Shop, serving: Serving, request: rq.RecommendRequest) -> Slate:
    """Answer one person; where a model on trial fails, the one before it answers."""
    ranker = serving.ranker
    found: Slate | Exception
    try:
        found = _answered(_steps(shop, serving, request, ranker))
    except (PenchantError, OSError):
        raise
    except Exception as error:
        found = _spared(shop, serving, request, ranker, error)
    if isinstance(found, Exception):
        raise found
    return found


def _answered(steps: _Steps) -> Slate:
    """Go through an answer that is not scored together with others."""
    try:
        wanted = next(steps)
        steps.send(wanted.ranker.scores([wanted.history], wanted.target)[0])
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError("an answer needs scores once")


def recommend_all(
    shop: Shop, serving: Serving, requests: Sequence[rq.RecommendRequest]
) -> Iterator[Slate | Exception]:
    """Answer several people, each as soon as it can be: all are scored by one run of the network and one product.

    Scores of people in company may differ from those alone in the last bits of a float32.
    """
    ranker = serving.ranker
    begun = [_steps(shop, serving, request, ranker) for request in requests]
    reached = [_reached(steps) for steps in begun]
    groups: dict[tuple[int, Target], list[int]] = {}
    for at, wanted in enumerate(reached):
        if isinstance(wanted, _Wanted):
            groups.setdefault((id(wanted.ranker), wanted.target), []).append(at)
    score_of: dict[int, Floats] = {}
    for (_, target), places in groups.items():
        asked = [wanted for at in places if isinstance(wanted := reached[at], _Wanted)]
        try:
            score_BN = asked[0].ranker.scores([wanted.history for wanted in asked], target)
        except Exception as error:  # of each alone below, where another model may answer
            for at in places:
                reached[at] = error
            continue
        score_of |= zip(places, score_BN, strict=True)
    for at, found in enumerate(reached):
        if isinstance(found, _Wanted):
            found = _reached(begun[at], score_of.pop(at))
            assert not isinstance(found, _Wanted), "an answer needs scores once"
        if isinstance(found, Exception) and not isinstance(found, PenchantError):
            found = _spared(shop, serving, requests[at], ranker, found)
        yield found
    shop.store.pack_decisions()  # all have their answers: nobody waits for this


def _spared(
    shop: Shop, serving: Serving, request: rq.RecommendRequest, ranker: Ranker, error: Exception
) -> Slate | Exception:
    """The answer of the model before, where one on trial failed; else the error."""
    spare = serving.failed(ranker)
    if spare is None:
        return error
    try:
        return _answered(_steps(shop, serving, request, spare))
    except Exception as own:
        return own


def _reached(steps: _Steps, score_N: Floats | None = None) -> _Wanted | Slate | Exception:
    """How far an answer comes: to the scores it needs, to its end, or to what is wrong with it alone."""
    try:
        return next(steps) if score_N is None else steps.send(score_N)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    except OSError as error:
        return storage_error(error)
    except Exception as error:
        return error


def _steps(shop: Shop, serving: Serving, request: rq.RecommendRequest, ranker: Ranker) -> _Steps:
    """Answer one person: score, filter, choose, explain, log. Stops once where the scores are needed."""
    started = time.perf_counter()
    subject = asking(shop, request.user_id, request.anonymous_id)
    request = as_asked(shop, request)
    history = history_of(shop, subject) if request.purpose == "personalise" else no_history(subject)
    target, by_value = question(shop, ranker, request)
    allowed_N = allowed(ranker, request)
    before = [] if request.cursor is None else shown_before(shop, subject, request.surface, request.cursor)
    if before:
        allowed_N[ranker.items.numbers(before)] = False
    offered_N = allowed_N.copy()
    verdict = judged(shop, ranker, request, history)
    if verdict is not None:
        allowed_N &= verdict.kept_N
    note = ranker.note
    if not allowed_N.any():
        note = "nothing in the catalogue meets the filters, rules, allow and deny"
    rule = ranker.answering[target].seen if request.seen == "auto" else request.seen
    own_N = shelf_scores(shop, serving, ranker, request, history)
    score_N = own_N
    if own_N is None and not ranker.searches:
        score_N = yield _Wanted(ranker, history, target)
    offer = offered(shop, ranker, request, history, allowed_N, rule, score_N, verdict)
    if not len(offer.candidates.item_N) and own_N is not None:
        note = note or f"nothing stands on the shelf {request.shelf}"
    known_N = score_N if own_N is None else None  # of other scores the calibration knows nothing
    slate, drawn = make_slate(shop, ranker, request, history, offer, target, by_value, known_N, note)
    serving.recent.append(subject)
    logged = shop.store.log_decision(slate, partial(packed, ranker, offer.candidates, drawn))
    if (
        logged
        and own_N is None
        and drawn.standing_N is not None
        and not ranker.exploration.follows  # where a log is followed, answers are learned from there
    ):
        standing_K = drawn.standing_N[drawn.choice.index_K].tolist()
        chosen = [item.item_id for item in slate.items if not item.pinned]
        ranker.exploration.answered(slate, dict(zip(chosen, standing_K, strict=True)), drawn.seen)
    if not logged:
        slate = msgspec.structs.replace(slate, degraded=True, note=NOT_LOGGED)
    stages = None
    if request.explain:
        events = len(history.ts)
        stages = told(ranker, events, offered_N, verdict, offer, drawn, rule, slate)
    more = len(offer.candidates.item_N) > offer.k
    shown = [*before, *slate.item_ids]
    cursor = next_cursor(shop, subject, request.surface, shown) if more else None
    serving.trials.answered(slate, time.perf_counter() - started)
    return msgspec.structs.replace(slate, cursor=cursor, stages=stages)


def make_slate(
    shop: Shop,
    ranker: Ranker,
    request: rq.RecommendRequest,
    history: History,
    offer: Offer,
    target: Target,
    by_value: bool,
    score_N: Floats | None,
    note: str | None,
) -> tuple[Slate, Drawn]:
    """Let the policy choose among the best candidates, and write down odds and reasons."""
    seed = secrets.randbits(32) if request.seed is None else request.seed
    now = shop.clock() if request.now is None else micros(request.now)
    candidates = offer.candidates
    drawn = draw_from(ranker, request, history.subject, offer, now, seed, by_value)
    choice = drawn.choice
    chosen_K = candidates.item_N[choice.index_K]
    offers_K = ranker.guide.offers(offer.plans if drawn.explore else [], chosen_K)
    reasons_K = [
        why if offer is None else [offer, *why]
        for offer, why in zip(
            offers_K, reasons(ranker, history, chosen_K, shop.config.serve.reasons), strict=True
        )
    ]
    shown = candidates.mean_N[choice.index_K]
    candidate_ids = ids_of(ranker, candidates)
    chances = ranker.probabilities(score_N, chosen_K, target)
    items = [
        SlateItem(
            item_id=ranker.items.id(int(number)),
            score=float(score),
            odds=float(odds),
            explored=bool(explored),
            reasons=why,
            title=ranker.shelf.titles[int(number)],
            probability=chance,
        )
        for number, score, odds, explored, why, chance in zip(
            chosen_K, shown, choice.odds_K, choice.explored_K, reasons_K, chances, strict=True
        )
    ]
    for slot, number in offer.pins:  # first slot first, so that each finds its place
        items.insert(slot, given_away(ranker, number, target, score_N))
    slate = Slate(
        recommendation_id=answer_id(),
        ts=now,
        subject=history.subject,
        items=items,
        policy_id=drawn.policy_id,
        model_id=ranker.model_id,
        seed=seed,
        surface=request.surface,
        degraded=ranker.degraded,
        note=note if items or note else "every item that may be shown was seen already",
        policy_hash=hash_of([ranker.exploration.hash_of_policy(drawn.policy_id), *request.rules])
        if request.rules
        else ranker.exploration.hash_of_policy(drawn.policy_id),
        updates=drawn.updates,
        explore=drawn.explore,
        explore_reason=drawn.reason,
        joint_odds=float(np.prod(choice.odds_K)),
        num_candidates=len(candidate_ids),
        candidates_hash=hash_of(candidate_ids),
    )
    return slate, drawn


def given_away(ranker: Ranker, number: int, target: Target, score_N: Floats | None) -> SlateItem:
    """The slot of a pinned item."""
    score = 0.0 if score_N is None else float(score_N[number])
    return SlateItem(
        item_id=ranker.items.id(number),
        score=score if np.isfinite(score) else 0.0,
        odds=1.0,
        explored=False,
        reasons=[Reason(text="the shop put it here", kind="pinned")],
        title=ranker.shelf.titles[number],
        pinned=True,
        probability=ranker.probabilities(score_N, np.array([number]), target)[0],
    )


def ids_of(ranker: Ranker, candidates: Candidates) -> list[str]:
    """The ids of candidates."""
    return ranker.ids_N.take(candidates.item_N).tolist()  # type: ignore[no-any-return]


def packed(ranker: Ranker, candidates: Candidates, drawn: Drawn) -> PackedCandidates:
    """What the decision log says of the candidates; made when it is written, not while somebody waits."""
    first_N = drawn.choice.first_N
    return PackedCandidates(
        item_ids=ids_of(ranker, candidates),
        mean=drawn.mean_N.astype("<f4").tobytes(),
        std=drawn.std_N.astype("<f4").tobytes(),
        score=candidates.mean_N.astype("<f4").tobytes(),
        odds=b"" if not drawn.explore or first_N is None else first_N.astype("<f4").tobytes(),
        seen=b"" if drawn.seen is None else drawn.seen.astype("<f4").tobytes(),
        space=drawn.space,
    )


def reasons(
    ranker: Ranker, history: History, chosen_K: npt.NDArray[np.int64], limit: int
) -> list[list[Reason]]:
    """Why each chosen item is there: the own history items that speak most for it, else its popularity."""
    popular = [Reason(text="popular in this shop", kind="popular")]
    if limit == 0:
        return [[] for _ in chosen_K]
    numbers = ranker.items.numbers(history.item).tolist()
    newest = {number: place for place, number in enumerate(numbers) if number}
    if ranker.model is None or not newest or not len(chosen_K):
        return [popular for _ in chosen_K]
    # The newest event of each item carries its verb. The newest 50 items and the chosen ones explain a slate.
    known, chosen = sorted(newest.values()), set(chosen_K.tolist())
    places = [place for place in known[:-50] if numbers[place] in chosen] + known[-50:]
    weight_TK = ranker.model.affinity(np.array([numbers[place] for place in places]), chosen_K)
    found: list[list[Reason]] = []
    best_LK = (
        weight_TK.argmax(axis=0)[None]
        if limit == 1
        else np.argsort(-weight_TK, axis=0, kind="stable")[:limit]
    )
    amounts_LK = np.take_along_axis(weight_TK, best_LK, axis=0)
    for number, best, amounts in zip(
        chosen_K.tolist(), best_LK.T.tolist(), amounts_LK.T.tolist(), strict=True
    ):
        own = [
            _because(ranker, history, places[t], weight, number)
            for t, weight in zip(best, amounts, strict=True)
            if weight > 0
        ]
        found.append(own or popular)
    return found


def _because(ranker: Ranker, history: History, place: int, weight: float, chosen: int) -> Reason:
    item_id = history.item[place]
    assert item_id is not None
    verb = _VERBS.get(KINDS[history.kind[place] - 1], "turned to")
    number = ranker.items.number(item_id)
    text = f"you {verb} it before" if number == chosen else f"because you {verb} {_name(ranker, number)}"
    return Reason(text=text, kind="history", item_id=item_id, weight=round(weight, 6))


def _name(ranker: Ranker, number: int) -> str:
    return ranker.shelf.titles[number] or ranker.shelf.categories[number] or ranker.items.id(number)


def similar(serving: Serving, request: rq.SimilarRequest) -> rq.SimilarReport:
    """The companions of an item by the promoted model, or by item-kNN where that model knows none."""
    ranker = serving.companions
    number = ranker.items.number(request.item_id)
    if number == 0:
        raise NotFound(
            "no such item", value=request.item_id, hint="ask for an id of the catalogue", path="$.item_id"
        )
    allowed_N = ranker.shelf.offered_N.copy()
    if request.filters:
        allowed_N &= ranker.shelf.mask(tuple(request.filters))
    allowed_N[number] = False
    if ranker.model is None:
        return rq.SimilarReport(
            item_id=request.item_id,
            items=[],
            model_id=ranker.model_id,
            degraded=True,
            note="no model is there that knows companions: run `penchant train`",
        )
    score_N = ranker.model.related(np.array([number]))[0]
    item_N = np.flatnonzero(allowed_N & (score_N > 0))
    limit = max(serving.shop.config.serve.candidates, request.k)
    item_C, score_C = best_of(item_N, score_N[item_N], limit)
    order = np.argsort(-score_C, kind="stable")[: request.k]
    recommendation_id, logged = log_list(
        serving,
        ranker,
        COMPANIONS,
        [request.item_id, *request.filters],
        item_C,
        score_C,
        order,
        subject=NOBODY,
        surface="similar",
    )
    note = ranker.note if len(order) else "no companions are known for this item"
    return rq.SimilarReport(
        recommendation_id=recommendation_id,
        item_id=request.item_id,
        items=_companions(ranker, item_C[order].tolist(), score_C[order].tolist()),
        model_id=ranker.model_id,
        degraded=ranker.degraded or not logged,
        note=note if logged else NOT_LOGGED,
    )


def _companions(ranker: Ranker, numbers: Sequence[int], scores: Sequence[float]) -> list[rq.SimilarItem]:
    return [
        rq.SimilarItem(item_id=ranker.items.id(n), score=s, title=ranker.shelf.titles[n])
        for n, s in zip(numbers, scores, strict=True)
    ]
