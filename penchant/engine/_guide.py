"""What is known of each person's interests while the shop serves: held, offered, rejected, and what is planned.

Like the policy's, nothing of it is kept beside the shop's two logs: wishes are events of the kinds ``not_interested``
and ``preference``, offers stand in the decision log, and all of it is made again after a restart or an erasure.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Meta

from penchant.core import (
    TARGET_CODES,
    WISH_KINDS,
    Bools,
    Event,
    Floats,
    History,
    Ints,
    Noun,
    Reason,
    Vocabulary,
    subject_of,
)
from penchant.core.errors import InputError
from penchant.engine._plan_book import Plans
from penchant.models import tilted
from penchant.policy import DPP, MMR, Calibrated, Rerank, Steer

if TYPE_CHECKING:
    from penchant.engine._shop import Shop
    from penchant.models import InterestMap

Level = Literal["auto", "low", "off"]
LEVELS: dict[str, float] = {"auto": 1.0, "low": 0.25, "off": 0.0}
_BELIEVED = 20.0  # offers that the shop's own rate of acceptance is worth beside those of one interest
_NONE = np.zeros(0, np.int64)
Dial = Annotated[float, Meta(ge=0, le=1)]


class NovelSettings(Noun, frozen=True):
    """How interests that are new to a person are offered: the ``[interests]`` table."""

    worth: Annotated[
        float,
        Meta(ge=0, le=10, description="how much more a reward counts where the interest is new, 0.3 = 30 %"),
    ] = 0.3
    share: Annotated[
        float, Meta(ge=0, le=1, description="share of slots kept for the interests planned for a person")
    ] = 0.0
    planned: Annotated[int, Meta(ge=1, le=20, description="interests planned for a person at a time")] = 3
    candidates: Annotated[
        int, Meta(ge=0, le=100, description="best items of each planned interest that join the candidates")
    ] = 10
    patience: Annotated[
        int, Meta(ge=1, description="offers without a reward after which an interest is planned no longer")
    ] = 3


class RerankSettings(Noun, frozen=True):
    """How the items of an answer go together: the ``[rerank]`` table. 0 is off, 1 leaves expectations aside."""

    mmr: Annotated[Dial, Meta(description="diversity by maximal marginal relevance")] = 0.0
    dpp: Annotated[
        Dial, Meta(description="diversity by a determinantal point process; not together with mmr")
    ] = 0.0
    calibration: Annotated[Dial, Meta(description="interests in the person's own proportions")] = 0.0


@dataclass
class _Person:
    level: Level = "auto"
    items: set[str] = field(default_factory=set)  # rejected
    interests: set[str] = field(default_factory=set)  # rejected
    offered: dict[str, list[int]] = field(default_factory=dict)  # interest -> [outcomes, rewards]


@dataclass(frozen=True)
class Plan:
    """An interest planned for a person: its weight, and the held interest it follows from (None: none).

    ``suggested``: the held interests for which a language model named it; None where it did not, or does not count.
    """

    interest: int
    chance: float
    because: int | None
    suggested: tuple[int, ...] | None = None


class Guide:
    """The interests of one shop's people, beside one vocabulary.

    Args:
        settings: The ``[interests]`` table.
        rerank: The ``[rerank]`` table.
        items: The vocabulary of whoever asks.
        drawn: The map of interests; None where none is trained.
        known: The vocabulary that the map is numbered by.
    """

    def __init__(
        self,
        settings: NovelSettings,
        rerank: RerankSettings,
        items: Vocabulary,
        drawn: InterestMap | None = None,
        known: Vocabulary | None = None,
    ) -> None:
        self.settings, self.rerank, self.items, self.map = settings, rerank, items, drawn
        self.plans = Plans()  # of a language model
        self._people: dict[str, _Person] = {}
        self._tried: dict[str, list[int]] = {}  # interest -> [offers with an outcome, rewards]
        self._inside: dict[int, Bools] = {}
        self._lock = threading.Lock()
        if drawn is not None and known is not None:
            place = known.renumbering(items)
            self.member_NL: npt.NDArray[np.int32] = drawn.member_NL[place]
            self.vec_ND: npt.NDArray[np.float32] = drawn.vec_ND[place]
            self._number = {name: g for g, name in enumerate(drawn.names)}

    # -- what people said, and what became of offers ----------------------------------------------------

    def observed(self, events: Iterable[Event]) -> None:
        """Take up wishes: the very next request knows them."""
        with self._lock:
            for event in events:
                if event.kind in WISH_KINDS:
                    self._wish(
                        subject_of(event.user_id, event.anonymous_id),
                        str(event.kind),
                        event.item_id,
                        event.props,
                    )

    def _wish(self, subject: str, kind: str, item_id: str | None, props: dict[str, Any] | None) -> None:
        person, said = self._people.setdefault(subject, _Person()), props or {}
        if kind == "not_interested":
            if item_id is not None:
                person.items.add(item_id)
            if isinstance(name := said.get("interest"), str):
                person.interests.add(name)
            return
        if said.get("explore") in LEVELS:
            person.level = said["explore"]
        person.interests |= _texts(said.get("reject"))
        person.interests -= _texts(said.get("accept"))
        person.items -= _texts(said.get("accept_items"))

    def outcome(self, subject: str, interest: str, reward: bool) -> None:
        """Count what became of an offer of a new interest."""
        with self._lock:
            for counts in (
                self._people.setdefault(subject, _Person()).offered.setdefault(interest, [0, 0]),
                self._tried.setdefault(interest, [0, 0]),
            ):
                counts[0] += 1
                counts[1] += reward

    def replay(self, shop: Shop, up_to: int | None = None) -> None:
        """Read all wishes again, in order of time, up to a number of the log."""
        kinds = pa.array(sorted(WISH_KINDS))
        parts = []
        for bucket in range(shop.store.num_buckets):
            columns = ["subject", "ts", "kind", "item_id", "props"]
            table = shop.store.scan(bucket=bucket, columns=columns, up_to=up_to)
            parts.append(table.filter(pc.is_in(table["kind"], value_set=kinds)))
        wishes = pa.concat_tables(parts).sort_by("ts") if parts else None
        with self._lock:
            for row in wishes.to_pylist() if wishes is not None else ():
                props = msgspec.json.decode(row["props"]) if row["props"] else None
                self._wish(
                    row["subject"], row["kind"], row["item_id"], props if isinstance(props, dict) else None
                )

    # -- what follows for a request ---------------------------------------------------------------------

    def person(self, subject: str) -> _Person:
        """What one person said and was offered."""
        return self._people.get(subject, _Person())

    def forbid(self, subject: str, allowed_N: npt.NDArray[np.bool_]) -> None:
        """Take out of ``allowed_N`` what the person is not interested in."""
        person = self._people.get(subject)
        if person is None:
            return
        if person.items:
            allowed_N[self.items.numbers(sorted(person.items))] = False
        if person.interests and self.map is not None:
            numbers = [self._number[name] + 1 for name in person.interests if name in self._number]
            allowed_N &= ~np.isin(self.member_NL, numbers).any(1)

    def held(self, history: History) -> Ints:
        """Interests of what the person turned to, in the order they were taken up."""
        if self.map is None:
            return _NONE
        turned = np.isin(history.kind, TARGET_CODES)
        newer = [item for item, yes in zip(history.item, turned.tolist(), strict=True) if yes]
        item_T = self.items.numbers([*sorted(history.older_items), *newer])
        found = self.member_NL[item_T].ravel()
        found = found[found > 0] - 1
        _, first = np.unique(found, return_index=True)
        return found[np.sort(first)].astype(np.int64)

    def plan(self, subject: str, held_H: Ints) -> list[Plan]:
        """The interests to offer next: likely to be taken up, taken up when offered, and not offered in vain so far."""
        if self.map is None or not len(held_H):
            return []
        person = self.person(subject)
        chance_G = self.map.next_chances(held_H)
        plans = self.plans
        suggestion = plans.of(held_H) if plans.weight else None
        if suggestion is not None:
            chance_G = tilted(chance_G, suggestion.planned, plans.weight)
        with self._lock:
            tried = [sum(column) for column in zip(*self._tried.values(), strict=True)] or [0, 0]
            usual = (tried[1] + 1) / (tried[0] + 10)
            for name, (offers, rewards) in self._tried.items():
                if name in self._number:
                    rate = (rewards + _BELIEVED * usual) / (offers + _BELIEVED)
                    chance_G[self._number[name]] *= rate / usual
            over = [
                n for n, (shown, liked) in person.offered.items() if shown - liked >= self.settings.patience
            ]
        for name in (*over, *person.interests):
            if name in self._number:
                chance_G[self._number[name]] = 0.0
        best = np.argsort(-chance_G, kind="stable")[: self.settings.planned]
        return [
            Plan(
                int(g),
                float(chance_G[g]),
                self.map.because(held_H, int(g)),
                suggestion.held if suggestion is not None and int(g) in suggestion.planned else None,
            )
            for g in best
            if chance_G[g] > 0
        ]

    def inside(self, plan: Plan) -> Bools:
        """Which items belong to a planned interest, (N + 1,)."""
        found = self._inside.get(plan.interest)
        if found is None:  # kept: a million items take a millisecond to look through
            found = self._inside[plan.interest] = (self.member_NL == plan.interest + 1).any(1)
        return found

    def steer(
        self,
        subject: str,
        history: History,
        held_H: Ints,
        plans: list[Plan],
        item_N: Ints,
        rerank: RerankSettings,
    ) -> Steer:
        """How a request departs from the plain draw, for its candidates."""
        level = LEVELS[self.person(subject).level]
        stages = self._stages(history, item_N, rerank)
        if self.map is None or not len(held_H):
            return Steer(rerank=stages, level=level)
        member_NL = self.member_NL[item_N]
        known_G = np.zeros(len(self.map.names) + 1, np.bool_)
        known_G[held_H + 1] = known_G[0] = True
        # One item of several new interests uses them all up when it is liked: it counts once, and less.
        new_N = (~known_G[member_NL]).sum(1)
        factor_N = 1 + level * self.settings.worth * (new_N > 0) / np.maximum(new_N, 1)
        if not plans:
            return Steer(factor_N, rerank=stages, level=level)
        member_MN = np.stack([(member_NL == plan.interest + 1).any(1) for plan in plans])
        weight_M = np.array([plan.chance for plan in plans])
        return Steer(factor_N, member_MN, weight_M, self.settings.share, stages, level)

    def _stages(self, history: History, item_N: Ints, dials: RerankSettings) -> tuple[Rerank, ...]:
        if not (dials.mmr or dials.dpp or dials.calibration):
            return ()
        if dials.mmr and dials.dpp:
            raise InputError(
                "mmr and dpp both make answers diverse: use one", hint="set the other to 0", path="$.dpp"
            )
        if self.map is None:
            raise InputError(
                "reranking needs the map of interests, and none is trained",
                hint="run `penchant train`, or set mmr, dpp and calibration to 0",
            )
        stages: list[Rerank] = []
        vec_ND = self.vec_ND[item_N].astype(np.float64)
        if dials.mmr:
            stages.append(MMR(dials.mmr, vec_ND))
        if dials.dpp:
            stages.append(DPP(dials.dpp, vec_ND))
        if dials.calibration:
            own = self.items.numbers([i for i in history.item if i is not None])
            person_C = self.shares(own).sum(0)
            if person_C.sum() > 0:
                stages.append(Calibrated(dials.calibration, self.shares(item_N), person_C / person_C.sum()))
        return tuple(stages)

    def shares(self, item_N: Ints) -> Floats:
        """Share of each interest in each item, (n, G)."""
        assert self.map is not None
        member_NL = self.member_NL[item_N]
        share_NC = np.zeros((len(member_NL), len(self.map.names) + 1))
        row = np.repeat(np.arange(len(member_NL)), member_NL.shape[1])
        np.add.at(share_NC, (row, member_NL.ravel()), 1.0)
        share_NC = share_NC[:, 1:]
        return share_NC / np.maximum(share_NC.sum(1, keepdims=True), 1)  # type: ignore[no-any-return]

    def offers(self, plans: list[Plan], chosen_K: Ints) -> list[Reason | None]:
        """What to say of each chosen item that belongs to a planned interest; None of the others."""
        return [self._offer(plans, int(number)) for number in chosen_K]

    def _offer(self, plans: list[Plan], number: int) -> Reason | None:
        own = set(self.member_NL[number].tolist()) if plans else set()
        for plan in plans:
            if plan.interest + 1 in own:
                assert self.map is not None
                names = self.map.names
                name = names[plan.interest]
                text = f"something new: {name}"
                if plan.because is not None:
                    text = f"because people who like {names[plan.because]} often come to like {name}"
                elif plan.suggested is not None:
                    text = f"something new that may go with {', '.join(names[g] for g in plan.suggested)}: {name}"
                return Reason(text=text, kind="interest", weight=round(plan.chance, 6), interest=name)
        return None


def _texts(given: object) -> set[str]:
    return {text for text in given if isinstance(text, str)} if isinstance(given, list) else set()
