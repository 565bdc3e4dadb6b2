"""The map of interests: what the items of a shop are about, by name, and which interest comes after which.

An interest is a label of the catalogue, where labels are few and say something of most of what people turn to, or a
cluster of item vectors that gets its name from the labels, categories and titles inside it. Whoever turned to one
of its items holds it. From the log follows how people came to hold the next one:

    P(g | held H)  ~  sum over h in H of w_h (n_hg + kappa b_g) / (n_h + kappa)  *  exp(tau * likeness of names)

with ``n_hg`` how often g was taken up by people who held h, ``b_g`` how often by anybody, and ``w_h`` falling with
how long ago h was taken up. ``kappa``, the fall and ``tau`` are chosen on what happened later.

Letters: N items, D width, L interests of an item, G interests, H interests held, C cases (an interest taken up).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Annotated, Any, ClassVar, Literal, Self

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from penchant.core import Floats, Ints, Noun, Snapshot, rng
from penchant.core.errors import ModelError
from penchant.models._counts import positives, target_counts
from penchant.models._interest_names import cluster_names, label_members, spelled
from penchant.models._interest_vectors import cluster, item_vectors

_KAPPAS = (3.0, 30.0, 300.0)
_FALLS = (1.0, 0.6)  # weight of an interest against the one taken up after it
_TAUS = (2.0, 5.0)
_MOST_CASES = 40_000  # that settings are chosen on
_MOST_TAKEN = 1_000_000  # pairs of person and interest that are counted
LATER = 0.2  # share of the cases, the newest, on which settings are chosen and measured
_ARRAYS = ("member_NL", "vec_ND", "count_HG", "base_G", "like_GG", "turned_N")

NameVectors = Callable[[Sequence[str]], Floats]


class InterestsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the map is drawn.

    ``by``: what an interest is; auto takes the catalogue's labels where 4 to ``most`` of them say something of 60 % of
    what people turn to, else clusters. ``most``: interests at most. ``fewest``: items an interest must have.
    ``width``: numbers in the part of an item's vector that each source gives.
    """

    by: Literal["auto", "labels", "clusters"] = "auto"
    most: Annotated[int, Meta(ge=2, le=1000)] = 64
    fewest: Annotated[int, Meta(ge=1)] = 5
    width: Annotated[int, Meta(ge=2, le=256)] = 32


class _Meta(Noun, frozen=True):
    """What is no number of the arrays."""

    names: tuple[str, ...]
    by: str
    kappa: float = 30.0
    fall: float = 1.0
    tau: float = 0.0
    likeness: str = ""  # what the names are compared by; none where that did not help


@dataclass(frozen=True, eq=False)
class Taken:
    """Interests taken up by people who held others: what the order of interests is learned from.

    ``held``: of each case, the numbers held before, in the order they were taken up.
    """

    person_C: Ints
    ts_C: npt.NDArray[np.int64]
    next_C: Ints
    held: Sequence[Ints]

    def __len__(self) -> int:
        return len(self.next_C)

    def some(self, place_C: Ints) -> Taken:
        """Those at some places."""
        held = [self.held[p] for p in place_C.tolist()]
        return Taken(self.person_C[place_C], self.ts_C[place_C], self.next_C[place_C], held)


@dataclass(frozen=True, eq=False)
class NextInterestTest:
    """How well the next interest was told for people who chose nothing, beside the base rate: one row a case."""

    person_C: Ints
    log_loss_C: Floats
    base_log_loss_C: Floats
    among_3_C: npt.NDArray[np.bool_]
    base_among_3_C: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class InterestMap:
    """A fitted map. Interests are numbered from 0; ``member_NL`` holds number + 1, 0 = none.

    Stored as an artifact of its own kind, ``interests``; it ranks no items.
    """

    Config: ClassVar[type[msgspec.Struct]] = InterestsConfig
    config: InterestsConfig
    meta: _Meta
    member_NL: npt.NDArray[np.int32]  # (N + 1, L)
    vec_ND: npt.NDArray[np.float32]  # (N + 1, D) unit vectors, zeros where nothing is known of an item
    count_HG: npt.NDArray[np.float32]
    base_G: npt.NDArray[np.float32]  # sum 1
    like_GG: npt.NDArray[np.float32]  # likeness of the names
    turned_N: npt.NDArray[np.float32]  # how often people turned to each item

    @property
    def names(self) -> tuple[str, ...]:
        """Readable name of each interest."""
        return self.meta.names

    @property
    def by(self) -> str:
        """``labels`` or ``clusters``."""
        return self.meta.by

    def of_item(self, number: int) -> list[int]:
        """Interests of an item number."""
        return [g - 1 for g in self.member_NL[number].tolist() if g]

    def next_chances(self, held_H: Ints) -> Floats:
        """Chance of each interest to be the next one taken up: (G,), 0 for those held; by base rate where none is.

        Args:
            held_H: Numbers of the interests held, in the order they were taken up.
        """
        chance_G = self._following(held_H).sum(0) if len(held_H) else self.base_G.astype(np.float64)
        if self.meta.tau and len(held_H):
            chance_G = chance_G * np.exp(self.meta.tau * self.like_GG[held_H].mean(0))
        chance_G[held_H] = 0.0
        total = float(chance_G.sum())
        return chance_G / total if total > 0 else chance_G

    def because(self, held_H: Ints, interest: int) -> int | None:
        """The held interest that speaks most for another one; None where none makes it likelier than it is anyway."""
        if not len(held_H):
            return None
        part_H = self._rates(held_H)[:, interest]
        best = int(part_H.argmax())
        return int(held_H[best]) if part_H[best] > 1.05 * self.base_G[interest] else None

    def _rates(self, held_H: Ints) -> Floats:
        count_HG = self.count_HG[held_H].astype(np.float64)
        total_H1 = count_HG.sum(1, keepdims=True)
        return (count_HG + self.meta.kappa * self.base_G) / (total_H1 + self.meta.kappa)  # type: ignore[no-any-return]

    def _following(self, held_H: Ints) -> Floats:
        weight_H = self.meta.fall ** np.arange(len(held_H))[::-1]
        return self._rates(held_H) * (weight_H / weight_H.sum())[:, None]  # type: ignore[no-any-return]

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Everything learned."""
        return {
            "file:interests.json": np.frombuffer(msgspec.json.encode(self.meta), np.uint8),
            **{name: getattr(self, name) for name in _ARRAYS},
        }

    @classmethod
    def restore(cls, config: InterestsConfig, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Self:
        """Rebuild from ``arrays()``."""
        meta = msgspec.json.decode(arrays["file:interests.json"].tobytes(), type=_Meta)
        return cls(config, meta, **{name: arrays[name] for name in _ARRAYS})


def fit_interests(
    snapshot: Snapshot,
    config: InterestsConfig | None = None,
    seed: int = 0,
    name_vectors: Mapping[str, NameVectors] | None = None,
) -> tuple[InterestMap, NextInterestTest | None]:
    """Draw the map and learn which interest comes after which.

    Settings are chosen on the newest fifth of what was taken up, by half of the people; the other half measures. Then
    everything is counted.

    Args:
        snapshot: Events, catalogue and its vectors.
        config: How the map is drawn.
        seed: Of the clusters.
        name_vectors: What makes vectors of names, near where names are alike, by name; the one that helps most is
            taken, or none. None: how they are spelled.

    Returns:
        The map, and how well it tells the next interest; None where too few were taken up to measure it.

    Raises:
        ModelError: Nothing is known of the items that could tell interests apart.

    Example:
        >>> from penchant.testing import toy_snapshot
        >>> paths = {f"ale{n}": "Beer" for n in range(9)} | {f"pen{n}": "Office" for n in range(9)}
        >>> events = [(f"u{n}", f"{what}{n % 9}") for n in range(40) for what in ("ale", "pen")[: 1 + n % 2]]
        >>> drawn, _ = fit_interests(toy_snapshot(events, categories=paths), InterestsConfig(most=2))
        >>> sorted(drawn.names)
        ['beer, ale', 'office, pen']
    """
    config = config or InterestsConfig()
    vec_ND = item_vectors(snapshot, config.width, seed)
    drawn = None if config.by == "clusters" else label_members(snapshot, config.most, config.fewest)
    if drawn is None and config.by == "labels":
        raise ModelError(
            "the catalogue's labels make no map of interests",
            hint="they must be 2 or more, each of several items; or leave [train.settings.interests] by at auto",
        )
    if drawn is not None and (config.by == "labels" or drawn.telling):
        names, member_NL, by = drawn.names, drawn.member_NL, "labels"
    else:
        group_N = cluster(vec_ND, config.most, config.fewest, seed)
        if group_N.max(initial=0) < 2:
            raise ModelError(
                "too little is known of the items to tell interests apart",
                value=snapshot.num_items,
                hint="send a catalogue with titles, categories or labels, or wait for more events",
            )
        names, member_NL, by = cluster_names(snapshot, group_N), group_N[:, None].astype(np.int32), "clusters"
    readers = {"spelling": spelled} if name_vectors is None else name_vectors
    likes = {name: _likeness(names, reader) for name, reader in readers.items()}
    num = len(names)
    blank = InterestMap(
        config,
        _Meta(names=tuple(names), by=by),
        member_NL,
        vec_ND,
        np.zeros((num, num), np.float32),
        np.full(num, 1 / num, np.float32),
        np.zeros((num, num), np.float32),
        target_counts(snapshot).astype(np.float32),
    )
    taken = interests_taken(snapshot, member_NL, seed)
    if not len(taken):
        return blank, None
    chosen, test = _choose(blank, likes, taken, seed)
    return counted(chosen, taken), test


def interests_taken(snapshot: Snapshot, member_NL: Ints, seed: int = 0) -> Taken:
    """Every interest that somebody took up while they held others, in order of person and time."""
    found = positives(snapshot)
    group_PL = member_NL[found.item]
    place_P, column = np.nonzero(group_PL)
    group = group_PL[place_P, column].astype(np.int64) - 1
    width = int(member_NL.max(initial=0)) + 1
    _, first = np.unique(found.user[place_P].astype(np.int64) * width + group, return_index=True)
    first = first[np.lexsort((place_P[first], found.user[place_P[first]]))]
    person, event, group = found.user[place_P[first]].astype(np.int64), place_P[first], group[first]
    if len(person) > _MOST_TAKEN:  # of some people everything, rather than of everybody something
        lot = rng(seed, "interests").random(int(person.max()) + 1) < _MOST_TAKEN / len(person)
        person, event, group = (a[lot[person]] for a in (person, event, group))
    begin = np.searchsorted(person, person)
    # Interests of one event were taken up together: none of them came after another.
    before = np.searchsorted(person * (len(found.item) + 1) + event, person * (len(found.item) + 1) + event)
    cases = np.flatnonzero(before > begin)
    held = [group[b:e] for b, e in zip(begin[cases].tolist(), before[cases].tolist(), strict=True)]
    return Taken(person[cases], found.ts[event[cases]], group[cases], held)


def counted(blank: InterestMap, taken: Taken) -> InterestMap:
    """A map with the counts of some cases, and nothing of others."""
    num = len(blank.names)
    base_G = np.bincount(taken.next_C, minlength=num) + 0.5
    size_C = np.array([len(held) for held in taken.held])
    cell = np.concatenate(taken.held) * num + np.repeat(taken.next_C, size_C)
    count = np.bincount(cell, np.repeat(1 / size_C, size_C), minlength=num * num)
    return replace(
        blank,
        count_HG=count.reshape(num, num).astype(np.float32),
        base_G=(base_G / base_G.sum()).astype(np.float32),
    )


def _choose(
    blank: InterestMap, likes: Mapping[str, npt.NDArray[np.float32]], taken: Taken, seed: int
) -> tuple[InterestMap, NextInterestTest | None]:
    """Settings by log loss on the newest cases of half of the people; how they do on those of the others.

    First how counts are read, then whether and how likeness of the names helps beside them.
    """
    order = np.argsort(taken.ts_C, kind="stable")
    cut = int(len(order) * (1 - LATER))
    later = taken.some(order[cut:])
    if not cut or len(np.unique(later.person_C)) < 20:
        return blank, None
    earlier = counted(blank, taken.some(order[:cut]))
    lot = rng(seed, "interests").random(int(taken.person_C.max()) + 1) < 0.5
    choosing, measuring = (
        later.some(np.flatnonzero(lot[later.person_C] == half)[:_MOST_CASES]) for half in (True, False)
    )
    best, lowest = earlier, np.inf

    def try_out(drawn: InterestMap) -> None:
        nonlocal best, lowest
        loss = float(_losses(drawn, choosing)[0].mean()) if len(choosing) else np.inf
        if loss < lowest - 1e-9:
            best, lowest = drawn, loss

    for kappa, fall in product(_KAPPAS, _FALLS):
        try_out(replace(earlier, meta=msgspec.structs.replace(blank.meta, kappa=kappa, fall=fall)))
    plain = best
    for (name, like_GG), tau in product(likes.items(), _TAUS):
        meta = msgspec.structs.replace(plain.meta, tau=tau, likeness=name)
        try_out(replace(plain, meta=meta, like_GG=like_GG))
    loss_C, among_C = _losses(best, measuring)
    meta = msgspec.structs.replace(best.meta, kappa=1e12, tau=0.0)  # nothing but the base rate is left
    base_loss_C, base_among_C = _losses(replace(earlier, meta=meta), measuring)
    test = NextInterestTest(measuring.person_C, loss_C, base_loss_C, among_C, base_among_C)
    return replace(blank, meta=best.meta, like_GG=best.like_GG), test if len(measuring) else None


def _losses(drawn: InterestMap, cases: Taken) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Log loss of each case, and whether the interest was among the three likeliest."""
    loss_C, among_C = np.zeros(len(cases)), np.zeros(len(cases), np.bool_)
    for at, (held_H, new) in enumerate(zip(cases.held, cases.next_C.tolist(), strict=True)):
        chance_G = drawn.next_chances(held_H)
        loss_C[at] = -np.log(max(float(chance_G[new]), 1e-9))
        among_C[at] = (chance_G > chance_G[new]).sum() < 3
    return loss_C, among_C


def _likeness(names: Sequence[str], name_vectors: NameVectors) -> npt.NDArray[np.float32]:
    vec_GD = np.asarray(name_vectors(names), np.float64)
    vec_GD = vec_GD - vec_GD.mean(0)
    vec_GD /= np.maximum(np.linalg.norm(vec_GD, axis=1, keepdims=True), 1e-9)
    return np.asarray(vec_GD @ vec_GD.T, np.float32)
