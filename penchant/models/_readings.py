"""How a history is read when asked for one kind of event: what each kind of event in it says, and how it fades.

A cart addition says more of the next purchase than a view does, and a purchase may say that nothing more is wanted;
how much differs between shops, so validation finds it, for each question that a model may be asked.

Letters: K codes of kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from penchant.core import KIND_CODES, KINDS, SEQUENCE_CODES, TARGET_CODES, TARGET_KINDS, Snapshot, Target

ReadKind = Literal[
    "click",
    "view",
    "wishlist",
    "cart_add",
    "purchase",
    "review",
    "cart_remove",
    "refund",
    "checkout",
    "impression",
]
DECAYS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 0.99, 0.995, 1.0)  # from 'only the newest event' to 'all alike'
_SPEAKS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # weights tried for a kind that speaks for its item
_TAKES_BACK = (-10.0, -3.0, -1.0, -0.3, 0.0, 0.3, 1.0)  # for one that may speak against it
_SHOWN = (-1.0, -0.3, -0.1, -0.03, 0.0, 0.03, 0.1, 0.3, 1.0)  # and for what was only shown
_READ_CODES = (*SEQUENCE_CODES, KIND_CODES["impression"])
_LIFTS = (0.0, 0.5, 1.0, 2.0)


class Reading(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a history is read for one question.

    ``decay``: weight of an event for each newer one. ``kinds``: weight of the events of a kind; not named are 1 for
    kinds by which people turn to an item and 0 for others, impressions among them; below 0 they speak against the item.
    ``lift``: power of the share that the kind asked for has in an item's events, by which the item's score is
    multiplied.
    """

    decay: Annotated[float, Meta(gt=0, le=1)]
    kinds: dict[ReadKind, float] = {}
    lift: Annotated[float, Meta(ge=0)] = 0.0

    @property
    def weight_K(self) -> npt.NDArray[np.float64]:
        """Weight of each kind by its code: (256,)."""
        weight_K = np.zeros(256)
        weight_K[list(TARGET_CODES)] = 1.0
        for kind, weight in self.kinds.items():
            weight_K[KIND_CODES[kind]] = weight
        return weight_K


Readings = dict[Target, Reading]


def uphill(
    measure: Callable[[Mapping[str, float]], float],
    start: Mapping[str, float],
    grid: Sequence[tuple[str, Sequence[float]]],
    told: Callable[[int, float], None] = lambda done, value: None,
) -> dict[str, float]:
    """Search values one after the other, each along its ordered choices while the measure improves.

    Args:
        measure: Higher is better.
        start: Where to begin; every value in ``grid`` must stand among its choices.
        grid: Names and choices, in the order in which they are searched; a name may come twice.
        told: Called after each with how many are done and the measure so far.
    """
    best, value = dict(start), measure(start)
    for done, (name, choices) in enumerate(grid):
        place = list(choices).index(best[name])
        for step in (1, -1):
            before = best
            for choice in choices[place + step :: step] if place + step >= 0 else ():
                trial = {**best, name: choice}
                result = measure(trial)
                if result <= value:
                    break
                best, value = trial, result
            if best is not before:
                break
        told(done + 1, value)
    return best


def kinds_in(snapshot: Snapshot) -> list[ReadKind]:
    """The kinds of events that a reading may weigh and a snapshot holds, most frequent first, those only shown last."""
    count_K = np.bincount(np.asarray(snapshot.kind)[np.asarray(snapshot.item) > 0], minlength=256)
    codes = [code for code in _READ_CODES if count_K[code]]
    codes.sort(key=lambda code: (code not in SEQUENCE_CODES, -count_K[code]))
    return [KINDS[code - 1] for code in codes]  # type: ignore[misc]


def _choices(kind: ReadKind) -> Sequence[float]:
    if kind == "impression":
        return _SHOWN
    return _SPEAKS if kind in TARGET_KINDS else _TAKES_BACK


def search_reading(measure: Callable[[Reading], float], start: Reading, kinds: Sequence[ReadKind]) -> Reading:
    """The best reading found going uphill from ``start``; the weight of the most frequent kind stays."""

    def reading(values: Mapping[str, float]) -> Reading:
        weights = {k: v for k, v in values.items() if k in kinds and v != float(k in TARGET_KINDS)}
        return Reading(values["decay"], weights, values["lift"])  # type: ignore[arg-type]

    first: dict[str, float] = {"decay": start.decay, "lift": start.lift}
    first.update({kind: start.kinds.get(kind, float(kind in TARGET_KINDS)) for kind in kinds})
    grid: list[tuple[str, Sequence[float]]] = [(kind, _choices(kind)) for kind in kinds[1:]]
    grid += [("decay", sorted({*DECAYS, start.decay})), ("lift", _LIFTS)]
    return reading(uphill(lambda values: measure(reading(values)), first, grid))
