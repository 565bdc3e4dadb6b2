"""How good probabilities of tags are: decisions, calibration, and the base rate beside them.

Letters: P people, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from penchant.core import Estimate, Floats
from penchant.core.errors import InputError
from penchant.evaluation._estimate import proportion, resample_weights

BINS = 10
_RESAMPLES = 300


@dataclass(frozen=True, eq=False)
class Classification:
    """What a classifier reached on held-out people.

    ``metrics``: accuracy (share of right decisions: the class, or each tag by itself), exact (all tags of a
    person right), precision, recall and F1 as micro and macro averages, ECE (expected calibration error)
    and log_loss. ``by_class``: precision, recall, F1 and how many carry the class. ``bins``: for
    the reliability plot, (mean probability, share that came true, count) of each filled bin.
    """

    metrics: dict[str, Estimate]
    by_class: dict[str, dict[str, float]]
    bins: list[tuple[float, float, int]] = field(default_factory=list)


def classification_metrics(
    probability_PC: Floats,
    labels: npt.NDArray[Any],
    *,
    classes: Sequence[str],
    decision_PC: npt.NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> Classification:
    """Measure probabilities against labels; every figure has a bootstrap interval over people.

    Args:
        probability_PC: (P, C).
        labels: (P,) class numbers where each person has one, or (P, C) 0/1 where they have several.
        classes: Names of the C classes.
        decision_PC: What the classifier says outright; None = the likeliest class, or all above one half.
        seed: Of the bootstrap.

    Raises:
        InputError: Shapes do not fit, or there is nobody.

    Example:
        >>> found = classification_metrics(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]), classes=["a", "b"])
        >>> found.metrics["accuracy"].value, found.metrics["F1 macro"].value
        (1.0, 1.0)
    """
    probability_PC = np.asarray(probability_PC, np.float64)
    people, count = probability_PC.shape
    single = labels.ndim == 1
    truth_PC = np.eye(count, dtype=np.bool_)[labels] if single else np.asarray(labels) > 0.5
    if truth_PC.shape != probability_PC.shape or not people or len(classes) != count:
        raise InputError("labels, probabilities and classes do not fit", value=(truth_PC.shape, count))
    if decision_PC is None:
        best = np.arange(count) == probability_PC.argmax(axis=1)[:, None]
        decision_PC = best if single else probability_PC >= 0.5
    parts = np.stack([decision_PC & truth_PC, decision_PC & ~truth_PC, ~decision_PC & truth_PC])
    right_P = (decision_PC == truth_PC).all(axis=1) if single else (decision_PC == truth_PC).mean(axis=1)
    loss_P = _log_loss(probability_PC, truth_PC, single)
    slot_PC = np.minimum((probability_PC * BINS).astype(int), BINS - 1)
    whole = _figures(np.ones(people), parts, right_P, decision_PC, truth_PC, loss_P, probability_PC, slot_PC)
    draws: dict[str, list[float]] = {name: [] for name in whole}
    for block in resample_weights(people, seed=seed, resamples=_RESAMPLES):
        for weight_P in block:
            again = _figures(weight_P, parts, right_P, decision_PC, truth_PC, loss_P, probability_PC, slot_PC)
            for name, value in again.items():
                draws[name].append(value)
    metrics = {}
    for name, value in whole.items():
        low, high = np.quantile(draws[name], [0.025, 0.975])
        metrics[name] = Estimate(
            value=value,
            low=min(float(low), value),
            high=max(float(high), value),
            n=people,
            method="bootstrap",
        )
    if single:
        metrics["accuracy"] = proportion(float(right_P.sum()), people)
    return Classification(
        metrics, _by_class(parts, truth_PC, classes), _bins(probability_PC, truth_PC, slot_PC)
    )


def _log_loss(probability_PC: Floats, truth_PC: npt.NDArray[np.bool_], single: bool) -> Floats:
    clipped = np.clip(probability_PC, 1e-12, 1 - 1e-12)
    if single:
        loss: Floats = -np.log(clipped[truth_PC])
        return loss
    cells = -np.where(truth_PC, np.log(clipped), np.log1p(-clipped))
    return np.asarray(cells.mean(axis=1))


def _ratio(top: Floats, bottom: Floats) -> Floats:
    return np.divide(top, bottom, out=np.zeros_like(top, dtype=np.float64), where=bottom > 0)


def _figures(
    weight_P: Floats,
    parts: npt.NDArray[np.bool_],
    right_P: Floats,
    decision_PC: npt.NDArray[np.bool_],
    truth_PC: npt.NDArray[np.bool_],
    loss_P: Floats,
    probability_PC: Floats,
    slot_PC: npt.NDArray[np.integer[Any]],
) -> dict[str, float]:
    hit_C, false_C, missed_C = (weight_P @ part for part in parts)
    precision_C, recall_C = _ratio(hit_C, hit_C + false_C), _ratio(hit_C, hit_C + missed_C)
    f1_C = _ratio(2 * hit_C, 2 * hit_C + false_C + missed_C)
    hit, false, missed = hit_C.sum(), false_C.sum(), missed_C.sum()
    total = weight_P.sum()
    weight_PC = np.broadcast_to(weight_P[:, None], probability_PC.shape).ravel()
    slot = slot_PC.ravel()
    size = np.bincount(slot, weight_PC, BINS)
    said = np.bincount(slot, weight_PC * probability_PC.ravel(), BINS)
    came = np.bincount(slot, weight_PC * truth_PC.ravel(), BINS)
    return {
        "accuracy": float(weight_P @ right_P / total),
        "exact": float(weight_P @ (decision_PC == truth_PC).all(axis=1) / total),
        "precision micro": float(hit / max(hit + false, 1e-12)),
        "recall micro": float(hit / max(hit + missed, 1e-12)),
        "F1 micro": float(2 * hit / max(2 * hit + false + missed, 1e-12)),
        "precision macro": float(precision_C.mean()),
        "recall macro": float(recall_C.mean()),
        "F1 macro": float(f1_C.mean()),
        "ECE": float(np.abs(said - came).sum() / size.sum()),
        "log_loss": float(weight_P @ loss_P / total),
    }


def _by_class(
    parts: npt.NDArray[np.bool_], truth_PC: npt.NDArray[np.bool_], classes: Sequence[str]
) -> dict[str, dict[str, float]]:
    hit_C, false_C, missed_C = (part.sum(axis=0).astype(np.float64) for part in parts)
    precision_C, recall_C = _ratio(hit_C, hit_C + false_C), _ratio(hit_C, hit_C + missed_C)
    f1_C = _ratio(2 * hit_C, 2 * hit_C + false_C + missed_C)
    return {
        name: {
            "precision": float(precision_C[c]),
            "recall": float(recall_C[c]),
            "F1": float(f1_C[c]),
            "people": float(truth_PC[:, c].sum()),
        }
        for c, name in enumerate(classes)
    }


def _bins(
    probability_PC: Floats, truth_PC: npt.NDArray[np.bool_], slot_PC: npt.NDArray[np.integer[Any]]
) -> list[tuple[float, float, int]]:
    slot = slot_PC.ravel()
    size = np.bincount(slot, minlength=BINS)
    said = np.bincount(slot, probability_PC.ravel(), BINS)
    came = np.bincount(slot, truth_PC.ravel().astype(np.float64), BINS)
    return [(said[b] / size[b], came[b] / size[b], int(size[b])) for b in range(BINS) if size[b]]
