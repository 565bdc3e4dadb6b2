"""Training of the interest classifier: checks, targets, the validation part, calibration. torch on use only.

Letters: R training rows, F features, C tags, G people.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penchant.core import Bools, Run, rng
from penchant.core.errors import InputError, Interrupted, MissingExtra, ModelError
from penchant.data import FeatureTransform
from penchant.models import _tags_network as network
from penchant.models._tags import MIN_ROWS, BehaviourView, Features, Float32s, Tags, TagsConfig, as_table
from penchant.models._tags_labels import Labels, as_labels

if TYPE_CHECKING:
    from penchant.models._tags_torch import Fitted, Recipe

Groups = Sequence[Any] | npt.NDArray[Any]


def fit_tags(
    features: Features,
    labels: Labels | Sequence[str] | Sequence[Iterable[str]],
    config: TagsConfig | None = None,
    run: Run | None = None,
    *,
    groups: Groups | None = None,
    view: BehaviourView | None = None,
) -> Tags:
    """Train the interest classifier; same inputs and seed give the same bits. Needs the extra ``train``.

    No checkpoints are kept: training takes seconds and starts anew when it was interrupted.

    Args:
        features: Raw features of R people: a table, columns by name, or a matrix.
        labels: One tag each, several tags each, or a ready table of them.
        config: Settings; None = all defaults.
        run: Seed, device and progress; None = seed 0 on the CPU.
        groups: (R,) whose row it is; rows of one person stay on one side of the validation split.
        view: How the features were made from events, if they were.

    Raises:
        ModelError: Too few rows, no usable feature, or nothing to tell apart.
        MissingExtra: torch is not installed.
        Interrupted: Stopped by the user; nothing was changed.

    Example:
        >>> features = {"views": [float(row % 10) for row in range(60)]}
        >>> labels = ["fan" if row % 10 > 4 else "guest" for row in range(60)]
        >>> tags = fit_tags(features, labels, TagsConfig(), Run(seed=1))
        >>> tags.names, int(tags.predict({"views": [9]}).argmax())
        (('fan', 'guest'), 0)
    """
    config, run = config or TagsConfig(), run or Run()
    labels = labels if isinstance(labels, Labels) else as_labels(labels)
    table = as_table(features)
    transform, x_RF = _prepare(table, labels)
    softmax = labels.single if config.mode == "auto" else config.mode == "softmax"
    y_RC = _targets(labels, softmax)
    valid_R = _validation_rows(
        y_RC, config.validation, np.arange(len(y_RC)) if groups is None else groups, run.seed
    )
    fitted = _train(x_RF, y_RC, valid_R, softmax, config, run)
    tags = Tags(
        config=config,
        names=labels.names,
        softmax=softmax,
        transform=transform,
        weights=fitted.weights,
        scaling=np.array([1.0, 0.0]),
        threshold_C=np.full(len(labels.names), 0.5),
        base_rate_C=labels.y_RC.mean(axis=0, dtype=np.float64),
        epochs=fitted.epochs,
        view=view,
    )
    return _calibrate(tags, x_RF[valid_R], y_RC[valid_R]) if config.calibrate and valid_R.any() else tags


def refit_tags(tags: Tags, features: Features, labels: Labels, run: Run) -> Tags:
    """Train the same recipe on other rows, all of them: as many epochs, calibration and thresholds kept.

    Args:
        tags: The model whose recipe and calibration were found with validation rows.
        features: Raw features of R people, with the same columns.
        labels: Of the same tags.
        run: Seed, device and progress.
    """
    transform, x_RF = _prepare(as_table(features), labels)
    y_RC = _targets(labels, tags.softmax)
    config = msgspec.structs.replace(tags.config, epochs=tags.epochs)
    fitted = _train(x_RF, y_RC, np.zeros(len(x_RF), np.bool_), tags.softmax, config, run)
    base_rate_C = labels.y_RC.mean(axis=0, dtype=np.float64)
    return replace(tags, transform=transform, weights=fitted.weights, base_rate_C=base_rate_C)


def _prepare(table: pa.Table, labels: Labels) -> tuple[FeatureTransform, Float32s]:
    """Refuse what cannot be learned from; fit the feature transform: (R, F)."""
    if table.num_rows != len(labels.y_RC):
        raise InputError("each row of features needs one label", value=(table.num_rows, len(labels.y_RC)))
    if table.num_rows < MIN_ROWS:
        raise ModelError(
            f"at least {MIN_ROWS} labelled people are needed", value=table.num_rows, hint="supply more labels"
        )
    if (labels.y_RC == labels.y_RC[0]).all():
        same = [name for name, has in zip(labels.names, labels.y_RC[0], strict=True) if has]
        raise ModelError(
            "everybody carries the same tags: there is nothing to tell apart",
            value=same,
            hint="supply labels of at least two kinds",
        )
    transform = FeatureTransform.fit(table)
    if not transform.names:
        raise ModelError(
            "no column can be a feature", value=table.column_names, hint="supply numbers or texts that recur"
        )
    return transform, transform.apply(table)


def _targets(labels: Labels, softmax: bool) -> Float32s:
    """What the loss compares with: (R, C); with softmax several tags of a person share the 1."""
    if not softmax:
        return labels.y_RC
    total_R = labels.y_RC.sum(axis=1, keepdims=True)
    if not total_R.all():
        raise ModelError(
            "softmax needs a tag for every person",
            hint="set mode under [train.settings.tags] to sigmoid, or leave those people out",
        )
    return np.asarray(labels.y_RC / total_R, np.float32)


def _validation_rows(y_RC: Float32s, share: float, groups: Groups, seed: int) -> Bools:
    """Choose whole groups of rows to keep apart; a tag that only they carry goes back to training. (R,)."""
    _, group_R = np.unique(np.asarray(groups), return_inverse=True)
    order = rng(seed, "tags", "validation").permutation(group_R.max() + 1)
    valid_G = np.zeros(len(order), np.bool_)
    valid_G[order[: round(share * len(order))]] = True
    for lost in np.flatnonzero(y_RC[~valid_G[group_R]].sum(axis=0) == 0):
        carriers = group_R[y_RC[:, lost] > 0]
        if len(carriers):
            valid_G[carriers[0]] = False
    return valid_G[group_R]


def _train(
    x_RF: Float32s, y_RC: Float32s, valid_R: Bools, softmax: bool, config: TagsConfig, run: Run
) -> Fitted:
    """Run the torch loop, with its errors in our words."""
    try:
        from penchant.models import _tags_torch
    except ImportError as error:
        raise MissingExtra("train", "training interest tags") from error
    recipe = _recipe(y_RC, int(len(x_RF) - valid_R.sum()), softmax, config, _tags_torch.Recipe)
    rate_C = (y_RC.sum(axis=0) + 0.5) / (len(y_RC) + 1)
    bias_C = np.log(rate_C) if softmax else np.log(rate_C / (1 - rate_C))
    first = network.initial_weights(x_RF.shape[1], config.hidden, config.direct, bias_C, run.seed)
    try:
        fitted = _tags_torch.train(x_RF, y_RC, valid_R, first, recipe, run)
    except KeyboardInterrupt as error:
        raise Interrupted(
            "training of interest tags was stopped; nothing was changed",
            hint="start it again, it takes seconds",
        ) from error
    if not all(np.isfinite(array).all() for array in fitted.weights.values()):
        raise ModelError(
            "training of interest tags diverged",
            value=recipe.learning_rate,
            hint="lower learning_rate under [train.settings.tags]",
        )
    return fitted


def _recipe(y_RC: Float32s, rows: int, softmax: bool, config: TagsConfig, make: type[Recipe]) -> Recipe:
    adam = config.optimiser == "adam"
    weight_C = None
    if config.class_weights == "balanced":
        carriers_C = np.maximum(y_RC.sum(axis=0), 1)
        rest_C = len(y_RC) / len(carriers_C) if softmax else len(y_RC) - carriers_C
        weight_C = np.clip(rest_C / carriers_C, 0.01, 100).astype(np.float32)
    return make(
        softmax=softmax,
        hidden=config.hidden,
        direct=config.direct,
        dropout=config.dropout,
        optimiser=config.optimiser,
        learning_rate=config.learning_rate or (0.001 if adam else 0.05),
        weight_decay=(0.1 if adam else 0.001) if config.weight_decay is None else config.weight_decay,
        epochs=config.epochs,
        patience=config.patience,
        batch_size=config.batch_size or min(256, max(8, rows // 16)),
        class_weight_C=weight_C,
    )


def _calibrate(tags: Tags, x_RF: Float32s, y_RC: Float32s) -> Tags:
    """Fit calibration and thresholds on the validation rows."""
    logit_RC = network.logits(tags.weights, x_RF)
    scaling = network.fit_scaling(logit_RC, y_RC, tags.softmax)
    if tags.softmax:
        return replace(tags, scaling=scaling)
    p_RC = network.probabilities(logit_RC, scaling, softmax=False)
    return replace(tags, scaling=scaling, threshold_C=network.fit_thresholds(p_RC, y_RC))
