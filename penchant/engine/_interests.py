"""The map of interests: drawn in training, shown by ``interests``, a person's place on it by ``profile``."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from penchant.core import Estimate, Event, EventKind, Floats, Ints, Progress, Snapshot, subject_of
from penchant.core.errors import InputError, ModelError, NotFound
from penchant.data import check_event, is_english
from penchant.engine import _interest_requests as ir
from penchant.engine._collect import take
from penchant.engine._people import NOBODY, history_of, may, withheld
from penchant.models import encoder_installed, load_encoder, spelled
from penchant.training import save_artifact

if TYPE_CHECKING:
    from penchant.engine._serving import Serving
    from penchant.engine._shop import Shop
    from penchant.models import InterestsConfig, NextInterestTest


@dataclass(frozen=True)
class InterestsOutcome:
    """What became of the map in a training."""

    artifact: str | None = None
    notes: tuple[str, ...] = ()


def train_interests(shop: Shop, snapshot: Snapshot, seed: int, progress: Progress) -> InterestsOutcome:
    """Draw the map from everything and keep it as an artifact; a shop whose items say nothing has none."""
    from penchant.engine._model_settings import model_config
    from penchant.models import fit_interests

    progress("drawing the map of interests", 0, 1, {})
    config: InterestsConfig = model_config(shop, "interests")  # type: ignore[assignment]
    readers = _name_readers(shop, snapshot)
    try:
        drawn, test = fit_interests(snapshot, config, seed, readers)
    except ModelError as error:
        return InterestsOutcome(notes=(f"no map of interests: {error}",))
    artifact = save_artifact(
        shop.artifacts,
        drawn,
        kind="interests",
        as_of=snapshot.as_of,
        metrics={} if test is None else next_interest_metrics(test),
        fingerprint=snapshot.fingerprint,
        items=snapshot.items,
        facts={"names compared by": drawn.meta.likeness or "nothing"},
    )
    progress("drawing the map of interests", 1, 1, {})
    return InterestsOutcome(artifact.id)


def next_interest_metrics(test: NextInterestTest) -> dict[str, Estimate]:
    """Log loss and the share among the first three, beside the base rate, with intervals over people."""
    columns = {
        "next interest log loss": test.log_loss_C,
        "base rate log loss": test.base_log_loss_C,
        "log loss against base rate": test.log_loss_C - test.base_log_loss_C,
        "next interest in 3": test.among_3_C,
        "base rate in 3": test.base_among_3_C,
    }
    return case_means(columns, test.person_C)


def case_means(columns: Mapping[str, np.ndarray[Any, Any]], person_C: Ints) -> dict[str, Estimate]:
    """The mean of each column of cases, with intervals over people; shares are those named ``... in 3``."""
    from penchant.evaluation import bootstrap_means

    values_CV = np.stack([np.asarray(column, np.float64) for column in columns.values()], 1)
    bounded = np.array([name.endswith("in 3") for name in columns])
    return dict(zip(columns, bootstrap_means(values_CV, person_C, bounded=bounded), strict=True))


def _name_readers(shop: Shop, snapshot: Snapshot) -> dict[str, Callable[[Sequence[str]], Floats]]:
    """What makes vectors of names: how they are spelled, and the shop's text encoder where it is installed."""
    found: dict[str, Callable[[Sequence[str]], Floats]] = {"spelling": spelled}
    name = shop.config.content.text
    if name == "auto":
        name = "minilm" if is_english(snapshot.catalog.table) else "e5"
        if not encoder_installed(name):
            name = "off"
    if name != "off":
        found[name] = lambda names: load_encoder(name, "text").encode(list(names))
    return found


def interests(shop: Shop, serving: Serving, request: ir.InterestsRequest) -> ir.InterestsReport:
    """The map that serves, largest interests first.

    Raises:
        NotFound: None is trained.
    """
    loaded = serving.interests
    if loaded is None:
        raise NotFound(
            "no map of interests is trained",
            hint="run `penchant train`; its answer says why where none can be drawn",
        )
    drawn, ranker = loaded.model, serving.ranker
    place = ranker.items.numbers(loaded.items.ids)
    titles = [ranker.shelf.titles[n] if n else None for n in place]
    rows = []
    for g, name in enumerate(drawn.names):
        inside = np.flatnonzero((drawn.member_NL == g + 1).any(1))
        known = inside[np.argsort(-drawn.turned_N[inside], kind="stable")][: request.k]
        chance_G = drawn.next_chances(np.array([g]))
        after = np.argsort(-chance_G, kind="stable")[: request.k]
        rows.append(
            ir.InterestRow(
                name=name,
                items=len(inside),
                usual=round(float(drawn.base_G[g]), 5),
                examples=[titles[n - 1] or loaded.items.id(int(n)) for n in known],
                next=[
                    ir.Following(
                        name=drawn.names[h],
                        chance=round(float(chance_G[h]), 5),
                        lift=round(float(chance_G[h] / drawn.base_G[h]), 2),
                    )
                    for h in after
                    if chance_G[h] > 0
                ],
            )
        )
    rows.sort(key=lambda row: (-row.usual, row.name))
    artifact = loaded.artifact
    return ir.InterestsReport(
        artifact=artifact.id, by=drawn.by, as_of=artifact.as_of, interests=rows, metrics=artifact.metrics
    )


def prefer(shop: Shop, serving: Serving, request: ir.PreferRequest) -> ir.OwnInterests:
    """Write a person's wishes into the log, and tell what holds now.

    Raises:
        InputError: The map has no such interest.
        ShopError: The shop is open for reading only.
    """
    drawn = serving.ranker.guide.map
    for field, names in (("reject", request.reject), ("accept", request.accept)):
        unknown = [name for name in names if drawn is None or name not in drawn.names]
        if unknown:
            raise InputError(
                "the map has no such interest",
                value=unknown[0],
                hint="see `penchant interests` for their names",
                path=f"$.{field}",
            )
    given = {name: getattr(request, name) for name in ("explore", "reject", "accept", "accept_items")}
    wishes = {name: wish for name, wish in given.items() if wish}
    if wishes:
        _keep_wishes(shop, serving, request, wishes)
    subject = subject_of(request.user_id, request.anonymous_id)
    return own_interests(shop, serving, subject) or ir.OwnInterests()


def _keep_wishes(shop: Shop, serving: Serving, request: ir.PreferRequest, wishes: dict[str, Any]) -> None:
    event = Event(
        kind=EventKind.PREFERENCE,
        event_id=secrets.token_hex(16),  # the same wish again, after another one, is another wish
        user_id=request.user_id,
        anonymous_id=request.anonymous_id,
        props=wishes,
    )
    event = check_event(event, shop.config.data, shop.clock())
    word = "withheld" if withheld(shop, event) else take(shop, serving, [event])[0]
    if word != "stored":
        why = {"withheld": "this person allows nothing to be kept", "erased": "this person was erased"}
        raise InputError(f"the wish was not kept: {why.get(word, word)}", hint="see the operation `consent`")


def own_interests(shop: Shop, serving: Serving, subject: str) -> ir.OwnInterests | None:
    """A person's place on the map and their wishes; None where there is no map and nothing was wished."""
    guide = serving.ranker.guide
    person = guide.person(subject)
    if guide.map is None and person == type(person)():
        return None
    allowed = may(shop, subject, "personalise")
    history = history_of(shop, subject if allowed else NOBODY)
    held_H = guide.held(history)
    names = () if guide.map is None else guide.map.names
    plans = guide.plans
    suggested = plans.of(held_H)
    return ir.OwnInterests(
        explore=person.level,
        held=[names[g] for g in held_H],
        explored=[
            ir.Offered(name=name, outcomes=counts[0], rewards=counts[1])
            for name, counts in sorted(person.offered.items())
        ],
        rejected=sorted(person.interests),
        rejected_items=sorted(person.items),
        planned=[
            ir.PlannedInterest(
                name=names[plan.interest],
                chance=round(plan.chance, 5),
                because=None if plan.because is None else names[plan.because],
                suggested=plan.suggested is not None,
            )
            for plan in guide.plan(subject, held_H)
        ],
        suggested=None
        if suggested is None
        else ir.SuggestedInterests(
            model=plans.model,
            held=[names[g] for g in suggested.held],
            interests=[names[g] for g in suggested.planned],
            weight=plans.weight,
            ts=suggested.ts,
        ),
    )
