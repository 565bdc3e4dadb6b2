"""Popularity, of all time and of late: what everybody turns to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Self

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from penchant.core import (
    ASKED_CODES,
    DAY,
    KIND_CODES,
    TARGET_KINDS,
    Floats,
    Ints,
    Run,
    SequenceBatch,
    Snapshot,
    Target,
)
from penchant.core.errors import InputError
from penchant.data import target_kinds
from penchant.models._counts import Positives, best_by_validation, named_shares, positives, shares_named

Weight = Annotated[float, Meta(ge=0)]
USUAL_DAYS = 7.0
_EXPECTED = 2.0  # events as expected that every item is given, so that one event of late proves little
_REST = 1e-3  # weight of all events beside those of the kind asked for
DAYS = (1.0, 3.0, USUAL_DAYS, 14.0, 30.0, 90.0)


class PopularityConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What events count.

    ``kind_weights``: by kind, such as ``{"purchase": 5.0, "view": 0.5}``; kinds not named count 1.
    """

    kind_weights: dict[str, Weight] = {}


class RecentPopularityConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How fast popularity fades.

    ``half_life_days``: after so many days an event counts half. None lets validation decide between 1 and
    90 days; without validation it is a week. Never more than a quarter of the time the log spans, unless
    asked for. A fitted model's config says what was taken.
    ``kind_weights``: as in ``PopularityConfig``.
    """

    half_life_days: Annotated[float, Meta(gt=0)] | None = None
    kind_weights: dict[str, Weight] = {}


@dataclass(frozen=True, eq=False)
class _Counted:
    """One score an item, the same for everybody: its share of all weighted events, or of the kind asked for."""

    config: Any
    share: npt.NDArray[np.float32]  # (N + 1,)
    # The same of each kind that happens often.
    share_AN: Mapping[Target, npt.NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.share.flags.owndata:
            self.share.flags.writeable = False

    def scores(self, batch: SequenceBatch) -> npt.NDArray[np.float32]:
        """Score every item for every row, all rows with one question alike: (B, N + 1) float32, column 0 is -inf."""
        out = self._rows(len(batch.item_BT))
        for target, share_N in self.share_AN.items():
            out[batch.rows_asked(ASKED_CODES[target])] = share_N
        out[:, 0] = -np.inf
        return out

    def related(self, items_Q: Ints) -> npt.NDArray[np.float32]:
        """The popular items, whatever the item: (Q, N + 1) float32, column 0 is -inf."""
        return self._rows(len(items_Q))

    def affinity(self, history_T: Ints, items_K: Ints) -> npt.NDArray[np.float32]:
        """Nothing: no item of a history speaks for popularity. (T, K) zeros."""
        return np.zeros((len(history_T), len(items_K)), np.float32)

    def _rows(self, rows: int) -> npt.NDArray[np.float32]:
        out = np.tile(self.share, (rows, 1))
        out[:, 0] = -np.inf
        return out

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """All that was learned: ``share``, and ``share.KIND``."""
        return {"share": self.share, **named_shares(self.share_AN)}

    @classmethod
    def restore(cls, config: Any, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Self:
        """Rebuild from ``arrays()``."""
        return cls(config=config, share=arrays["share"], share_AN=shares_named(arrays))


@dataclass(frozen=True, eq=False)
class Popularity(_Counted):
    """Score items by how often anybody turned to them. The floor under every leaderboard.

    Example:
        >>> from penchant.testing import toy_snapshot
        >>> toy = toy_snapshot([("u", "a"), ("u", "b"), ("v", "b"), ("v", "b", 9, "refund")])
        >>> Popularity.fit(toy, PopularityConfig(), Run()).share.round(2).tolist()
        [0.0, 0.33000001311302185, 0.6700000166893005]
    """

    Config: ClassVar[type[msgspec.Struct]] = PopularityConfig
    config: PopularityConfig

    @classmethod
    def fit(cls, snapshot: Snapshot, config: PopularityConfig, run: Run) -> Self:
        """Count; raises ``InputError`` for a weight of a kind that cannot count."""
        found = positives(snapshot)
        return cls(config, *_shares(found, snapshot, _weights(found, config.kind_weights)))


@dataclass(frozen=True, eq=False)
class RecentPopularity(_Counted):
    """Score items by how often anybody turned to them of late: an event counts ``0.5 ** (age / half-life)``.

    Strong wherever fashions and seasons move the shop; weak on logs without true times.
    """

    Config: ClassVar[type[msgspec.Struct]] = RecentPopularityConfig
    config: RecentPopularityConfig

    @classmethod
    def fit(cls, snapshot: Snapshot, config: RecentPopularityConfig, run: Run) -> Self:
        """Count; the returned config names the half-life used."""
        found = positives(snapshot)
        if config.half_life_days is not None:
            return cls._fading(found, snapshot, config)
        longest = float(np.ptp(found.ts)) / DAY / 4 if len(found.ts) else 0.0

        # Where all happened at one moment nothing can fade, and any half-life will do.
        choices = sorted({min(days, longest) or USUAL_DAYS for days in DAYS})
        usual = min(USUAL_DAYS, longest) or USUAL_DAYS
        return best_by_validation(
            lambda days: cls._fading(found, snapshot, msgspec.structs.replace(config, half_life_days=days)),
            choices,
            usual,
            run,
        )

    @classmethod
    def _fading(cls, found: Positives, snapshot: Snapshot, config: RecentPopularityConfig) -> Self:
        age = (found.ts.max(initial=0) - found.ts) / DAY
        weights = _weights(found, config.kind_weights) * np.exp2(-age / (config.half_life_days or USUAL_DAYS))
        return cls(config, *_shares(found, snapshot, weights))


def _weights(found: Positives, kind_weights: Mapping[str, float]) -> npt.NDArray[np.float64]:
    by_code = np.ones(256)
    for kind, weight in kind_weights.items():
        if kind not in TARGET_KINDS:
            hint = f"use one of {', '.join(sorted(TARGET_KINDS))}"
            raise InputError("this kind of event cannot make an item popular", value=kind, hint=hint)
        by_code[KIND_CODES[kind]] = weight
    return by_code[found.kind]


def _shares(
    found: Positives, snapshot: Snapshot, weights: Floats
) -> tuple[npt.NDArray[np.float32], dict[Target, npt.NDArray[np.float32]]]:
    """Of all events, and of each kind's own, where all events order the items that have none of it."""

    def share(weights: Floats) -> npt.NDArray[np.float64]:
        counts = np.bincount(found.item, weights, minlength=snapshot.num_items + 1)
        return counts / max(float(counts.sum()), 1e-12)

    whole_N = share(weights)
    kinds = {kind: share(weights * (found.kind == ASKED_CODES[kind])) for kind in target_kinds(snapshot)}
    mixed: dict[Target, npt.NDArray[np.float32]] = {
        kind: (share_N + _REST * whole_N).astype(np.float32) for kind, share_N in kinds.items()
    }
    return whole_N.astype(np.float32), mixed


def log_trend(snapshot: Snapshot, half_life_days: float | None) -> npt.NDArray[np.float32]:
    """How much more people turn to each item of late than over all time, as a logarithm: (N + 1,).

    The ratio of the events seen of late, where an event counts ``0.5 ** (age / half-life)``, to those expected from
    the item's share of all events; both with two events as expected added, the posterior mean of a rate under a gamma
    prior. 0 for an item that does as ever, or of which too little is known.

    Without a half-life it is a week.

    Example:
        >>> from penchant.testing import toy_snapshot
        >>> old, new = [("u", "old", day) for day in range(20)], [("u", "new", day) for day in range(100, 120)]
        >>> log_trend(toy_snapshot(old + new), half_life_days=10.0).astype(float).round(1).tolist()
        [0.0, 0.6, -1.3]
    """
    found = positives(snapshot)
    age_P = (found.ts.max(initial=0) - found.ts) / DAY
    late_N = np.bincount(
        found.item, np.exp2(-age_P / (half_life_days or USUAL_DAYS)), minlength=snapshot.num_items + 1
    )
    all_N = np.bincount(found.item, minlength=snapshot.num_items + 1)
    expected_N = late_N.sum() * all_N / max(1, all_N.sum())
    trend_N: npt.NDArray[np.float32] = np.log((late_N + _EXPECTED) / (expected_N + _EXPECTED)).astype(
        np.float32
    )
    return trend_N
