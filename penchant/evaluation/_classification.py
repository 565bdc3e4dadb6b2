"""How good probabilities of tags are: decisions, calibration, and intervals on all of it.

Letters: P people, C classes, B bins, S resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from penchant.core import Estimate, Floats, Noun
from penchant.core.errors import InputError
from penchant.evaluation._estimate import FEW, LEVEL, proportion, resample_weights

BINS = 10
RESAMPLES = 500

Flags = npt.NDArray[np.bool_]
Reals = npt.NDArray[np.float64]


class Bin(Noun, frozen=True):
    """A bin of the reliability plot: what was said on average, and how often it came true."""

    said: float
    came: Estimate
    count: int


@dataclass(frozen=True, eq=False)
class Classification:
    """What a classifier reached on held-out people.

    ``metrics``: ``accuracy`` (share of right decisions: the class, or each tag by itself), ``exact`` (all
    tags of a person right), ``precision``, ``recall`` and ``F1``, each ``micro`` (over all decisions) and
    ``macro`` (mean over classes; a class never chosen has precision 0), ``ECE`` (expected calibration error:
    how far shares that came true lie from what was said, mean over ten bins) and ``log_loss``.
    ``by_class``: precision, recall and F1 of each class, and ``share``, how many carry it. ``bins``: the
    reliability plot. Where each person has one class, ECE and bins look at the class that was likeliest
    (Guo et al. 2017); where they have several, at every tag.

    Intervals are bootstraps over people. Where one would claim certainty, because fewer than 10 people count or
    no resample differs, figures between 0 and 1 get Wilson's interval for a share of that many people: exact for
    a share, cautious for what varies no more than one. Those who count for a precision were said to have a tag,
    for a recall they have it, for F1 either; for a macro figure it is the number of classes times the harmonic
    mean of those who count for each class, because the rarest class decides how well a mean over classes is known.
    """

    metrics: dict[str, Estimate]
    by_class: dict[str, dict[str, Estimate]]
    bins: list[Bin]


def classification_metrics(
    probability_PC: Floats,
    labels: npt.NDArray[Any],
    *,
    classes: Sequence[str],
    decision_PC: Flags | None = None,
    seed: int = 0,
) -> Classification:
    """Measure probabilities against labels; every figure has its interval over people.

    Call it again with the base rate as everybody's probabilities, and show both: accuracy alone says
    nothing where one class is common.

    Args:
        probability_PC: (P, C).
        labels: (P,) class numbers where each person has one, or (P, C) 0/1 where they have several.
        classes: Names of the C classes.
        decision_PC: What the classifier says outright; None = the likeliest class, or all of at least one half.
        seed: Of the bootstrap.

    Raises:
        InputError: Shapes or values do not fit, or there is nobody.

    Example:
        >>> says = np.array([[0.9, 0.1], [0.2, 0.8]])
        >>> found = classification_metrics(says, np.array([0, 1]), classes=["a", "b"])
        >>> str(found.metrics["accuracy"]), found.metrics["F1 macro"].value
        ('1.0000 [0.3424, 1.0000]', 1.0)
    """
    labels = np.asarray(labels)
    probability_PC = np.asarray(probability_PC, np.float64)
    truth_PC = _truth(probability_PC, labels, len(classes))
    single = labels.ndim == 1
    if decision_PC is None:
        best = np.arange(len(classes)) == probability_PC.argmax(axis=1)[:, None]
        decision_PC = best if single else probability_PC >= 0.5
    tally = _Tally.of(probability_PC, truth_PC, np.asarray(decision_PC, np.bool_), single)
    people = len(labels)
    drawn = [tally.figures(w) for w in resample_weights(people, seed=seed, resamples=RESAMPLES)]
    whole = tally.figures(np.ones((1, people)))
    spread = {name: np.concatenate([draw[name] for draw in drawn]) for name in whole}
    counted, concerned_C = tally.counted(), tally.concerned()["F1"]
    metrics = {
        name: _estimate(
            values[0], spread[name], people, counted.get(name, people), bounded=name != "log_loss"
        )
        for name, values in whole.items()
        if name != "F1"
    }
    shares = {"exact"} | ({"accuracy"} if single else set())  # one yes or no a person
    for name in shares:
        metrics[name] = proportion(metrics[name].value * people, people)
    f1 = [
        _estimate(value, spread["F1"][:, c], people, int(concerned_C[c]))
        for c, value in enumerate(whole["F1"][0])
    ]
    return Classification(metrics, tally.by_class(classes, f1), tally.bins())


def _truth(probability_PC: Floats, labels: npt.NDArray[Any], count: int) -> Flags:
    if probability_PC.ndim != 2 or not len(probability_PC) or probability_PC.shape[1] != count:
        raise InputError(f"probabilities must be (people, {count})", value=probability_PC.shape)
    if not (
        np.isfinite(probability_PC).all() and (probability_PC >= 0).all() and (probability_PC <= 1).all()
    ):
        raise InputError("probabilities must lie between 0 and 1")
    if labels.ndim == 1 and len(labels) == len(probability_PC):
        if labels.min() < 0 or labels.max() >= count:
            raise InputError(f"class numbers must lie between 0 and {count - 1}", value=int(labels.max()))
        truth_PC: Flags = np.arange(count) == labels[:, None]
        return truth_PC
    if labels.shape == probability_PC.shape:
        return labels > 0.5
    raise InputError("labels do not fit the probabilities", value=labels.shape)


def _estimate(value: float, draws_S: Reals, people: int, counted: int, *, bounded: bool = True) -> Estimate:
    """A figure over ``people`` of whom ``counted`` say something about it; see ``Classification``."""
    low, high = np.quantile(draws_S, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if bounded and (counted < FEW or high - low < 1e-9):
        return _share(min(max(float(value), 0.0), 1.0) * counted, counted)
    return Estimate(
        value=float(value),
        low=min(float(low), float(value)),
        high=max(float(high), float(value)),
        n=people,
        method="bootstrap",
        level=LEVEL,
    )


@dataclass(frozen=True, eq=False)
class _Tally:
    """What each person adds to the sums that all figures are made of."""

    hit_PC: Reals
    false_PC: Reals
    missed_PC: Reals
    right_P: Reals
    exact_P: Reals
    loss_P: Reals
    said_PB: Reals  # probability summed in each bin
    came_PB: Reals
    size_PB: Reals

    @classmethod
    def of(cls, probability_PC: Floats, truth_PC: Flags, decision_PC: Flags, single: bool) -> _Tally:
        right_PC = decision_PC == truth_PC
        exact_P = right_PC.all(axis=1).astype(np.float64)
        clipped = np.clip(probability_PC, 1e-15, 1 - 1e-15)
        if single:
            best = probability_PC.argmax(axis=1)[:, None]
            said, came = (np.take_along_axis(array, best, axis=1) for array in (probability_PC, truth_PC))
            loss_P = -np.log(clipped[truth_PC])
        else:
            said, came = probability_PC, truth_PC
            loss_P = -np.where(truth_PC, np.log(clipped), np.log1p(-clipped)).mean(axis=1)
        slot = np.minimum((said * BINS).astype(np.int64), BINS - 1)
        cell = (np.arange(len(said))[:, None] * BINS + slot).ravel()
        sums = (
            np.bincount(cell, weight, len(said) * BINS).reshape(-1, BINS).astype(np.float64)
            for weight in (said.ravel(), came.ravel().astype(np.float64), None)
        )
        said_PB, came_PB, size_PB = sums
        return cls(
            (decision_PC & truth_PC).astype(np.float64),
            (decision_PC & ~truth_PC).astype(np.float64),
            (~decision_PC & truth_PC).astype(np.float64),
            exact_P if single else right_PC.mean(axis=1),
            exact_P,
            loss_P,
            said_PB,
            came_PB,
            size_PB,
        )

    def figures(self, weight_SP: Floats) -> dict[str, Reals]:
        """All figures under each row of weights: (S,), and ``F1`` by class (S, C)."""
        hit, false, missed = (weight_SP @ part for part in (self.hit_PC, self.false_PC, self.missed_PC))
        people_S = weight_SP.sum(axis=1)
        found = {
            "accuracy": weight_SP @ self.right_P / people_S,
            "exact": weight_SP @ self.exact_P / people_S,
        }
        all_hit, all_false, all_missed = hit.sum(axis=1), false.sum(axis=1), missed.sum(axis=1)
        f1_SC = _ratio(2 * hit, 2 * hit + false + missed)
        found["precision micro"] = _ratio(all_hit, all_hit + all_false)
        found["recall micro"] = _ratio(all_hit, all_hit + all_missed)
        found["F1 micro"] = _ratio(2 * all_hit, 2 * all_hit + all_false + all_missed)
        found["precision macro"] = _ratio(hit, hit + false).mean(axis=1)
        found["recall macro"] = _ratio(hit, hit + missed).mean(axis=1)
        found["F1 macro"] = f1_SC.mean(axis=1)
        gap_SB = np.abs(weight_SP @ (self.said_PB - self.came_PB))
        found["ECE"] = gap_SB.sum(axis=1) / (weight_SP @ self.size_PB).sum(axis=1)
        found["log_loss"] = weight_SP @ self.loss_P / people_S
        found["F1"] = f1_SC
        return found

    def concerned(self) -> dict[str, Reals]:
        """How many people each class's precision, recall and F1 rest on: (C,)."""
        hit, false, missed = (part.sum(axis=0) for part in (self.hit_PC, self.false_PC, self.missed_PC))
        return {"precision": hit + false, "recall": hit + missed, "F1": hit + false + missed}

    def counted(self) -> dict[str, int]:
        """How many people the micro and macro figures rest on, at most all."""
        people, found = len(self.right_P), {}
        for name, size_C in self.concerned().items():
            found[f"{name} micro"] = min(people, int(size_C.sum()))
            rest = len(size_C) ** 2 / (1 / np.maximum(size_C, 1)).sum()
            found[f"{name} macro"] = min(people, int(rest))
        return found

    def by_class(self, classes: Sequence[str], f1: Sequence[Estimate]) -> dict[str, dict[str, Estimate]]:
        """Precision, recall, F1 and share of each class."""
        hit, false, missed = (part.sum(axis=0) for part in (self.hit_PC, self.false_PC, self.missed_PC))
        people = len(self.right_P)
        return {
            name: {
                "precision": _share(hit[c], hit[c] + false[c]),
                "recall": _share(hit[c], hit[c] + missed[c]),
                "F1": f1[c],
                "share": _share(hit[c] + missed[c], people),
            }
            for c, name in enumerate(classes)
        }

    def bins(self) -> list[Bin]:
        """The filled bins of the reliability plot."""
        said, came, size = (part.sum(axis=0) for part in (self.said_PB, self.came_PB, self.size_PB))
        return [
            Bin(said=float(said[b] / size[b]), came=_share(came[b], size[b]), count=int(size[b]))
            for b in range(BINS)
            if size[b]
        ]


def _ratio(top: Reals, bottom: Reals) -> Reals:
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)


def _share(part: float, whole: float) -> Estimate:
    if whole <= 0:  # never decided, or nobody carries it: nothing is known
        return Estimate(value=0.0, low=0.0, high=1.0, n=0, method="none", level=LEVEL)
    return proportion(float(part), int(whole))
