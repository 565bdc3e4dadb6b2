"""Interest tags: the deep interest classifier. A multi-layer perceptron on behaviour features.

It learns the labels a shop supplies or the categories people take from next, and says how likely each tag is.
Training needs torch (imported on use); everything here that answers is numpy.

Letters: B rows, R training rows, F features, C tags.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import Meta

from penchant.core import KIND_CODES, Bools, Catalog, Ints, Noun, Run, Snapshot, Vocabulary, rng
from penchant.core.errors import InputError, Interrupted, MissingExtra, ModelError
from penchant.data import FeatureTransform, Sequences
from penchant.models import _tags_network as network
from penchant.models._tags_features import (
    behaviour,
    behaviour_names,
    catalog_categories,
    keep_categories,
    say,
)
from penchant.models._tags_labels import Labels, as_labels

if TYPE_CHECKING:
    from penchant.models._tags_torch import Fitted, Recipe

Float32s = npt.NDArray[np.float32]
Features = pa.Table | Mapping[str, Sequence[Any]] | npt.NDArray[Any]
MIN_ROWS = 20


class TagsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the interest classifier is built and trained; None lets the data decide.

    ``hidden``: units of each ReLU layer. ``direct``: add a linear path past them (Cheng et al., "Wide & Deep
    Learning", 2016). ``mode``: softmax for exactly one tag a person, sigmoid for any number; auto looks at
    the labels. ``learning_rate``: None = .001 with adam, .05 with sgd (which has momentum .9).
    ``weight_decay``: None = .1 with adam, .001 with sgd. ``batch_size``: None = 256, less for few rows.
    ``validation``: share of people kept apart to stop early on, to calibrate and to choose thresholds.
    ``class_weights``: balanced makes rare tags count as much as common ones, at the cost of calibration.

    For next-period categories: ``horizon_days`` (None = a sixth of the log, at most 28), ``level`` of the
    category path (0 = where people differ most), ``max_tags``, ``min_users`` a tag, ``windows``: past periods
    learned from, ``max_rows`` of person and period in all (more are sampled). ``attributes``: use what the shop
    says of its users as features, too.
    """

    hidden: tuple[Annotated[int, Meta(ge=1, le=8192)], ...] = (64,)
    direct: bool = True
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.3
    optimiser: Literal["adam", "sgd"] = "adam"
    learning_rate: Annotated[float, Meta(gt=0)] | None = None
    weight_decay: Annotated[float, Meta(ge=0)] | None = None
    epochs: Annotated[int, Meta(ge=1)] = 100
    patience: Annotated[int, Meta(ge=1)] = 6
    batch_size: Annotated[int, Meta(ge=1)] | None = None
    mode: Literal["auto", "softmax", "sigmoid"] = "auto"
    validation: Annotated[float, Meta(ge=0, le=0.5)] = 0.15
    calibrate: bool = True
    class_weights: Literal["none", "balanced"] = "none"
    horizon_days: Annotated[float, Meta(gt=0)] | None = None
    level: Annotated[int, Meta(ge=0, le=6)] = 0
    max_tags: Annotated[int, Meta(ge=2)] = 64
    min_users: Annotated[int, Meta(ge=1)] = 10
    windows: Annotated[int, Meta(ge=1, le=52)] = 4
    max_rows: Annotated[int, Meta(ge=MIN_ROWS)] = 60_000
    attributes: bool = True


class BehaviourView(Noun):
    """How a model looks at events: kind predicted, level and names of categories, length of a period (us)."""

    kind: str
    level: int
    categories: tuple[str, ...]
    horizon: int


class TagEvidence(Noun):
    """One feature that speaks for a tag: its weight in log odds against the average person, and in words."""

    feature: str
    weight: float
    text: str


class _Meta(Noun):
    """Everything learned that is not a number, kept as JSON bytes among the arrays."""

    names: tuple[str, ...]
    softmax: bool
    epochs: int
    view: BehaviourView | None


@dataclass(frozen=True, eq=False)
class Tags:
    """A fitted interest classifier: raw features in, calibrated probabilities out. Needs no torch.

    ``transform`` belongs to the model: it was fitted on the training rows and fills missing values.
    ``threshold_C`` is the probability from which a tag is said (chosen for F1 on validation rows);
    ``base_rate_C`` the share of training rows that carry it.

    Example:
        >>> features = {"views": [float(row % 10) for row in range(60)]}
        >>> labels = ["fan" if row % 10 > 4 else "guest" for row in range(60)]
        >>> tags = fit_tags(features, labels, TagsConfig(), Run(seed=1))
        >>> tags.names, tags.predict({"views": [9]}).argmax()
        (('fan', 'guest'), 0)
    """

    Config: ClassVar[type[msgspec.Struct]] = TagsConfig
    config: TagsConfig
    names: tuple[str, ...]
    softmax: bool
    transform: FeatureTransform
    weights: dict[str, Float32s]
    scaling: npt.NDArray[np.float64]  # (2,) slope and shift of the calibration
    threshold_C: npt.NDArray[np.float64]
    base_rate_C: npt.NDArray[np.float64]
    epochs: int  # after how many the weights were best
    view: BehaviourView | None = None  # None: the features are the shop's own columns alone

    @classmethod
    def fit(cls, snapshot: Snapshot, config: TagsConfig, run: Run) -> Tags:
        """Learn which categories people will take from next. Same snapshot, config and seed: same bits."""
        from penchant.models._tags_train import train_tags

        return train_tags(snapshot, None, config, run).model

    def predict(self, features: Features) -> Float32s:
        """Say how likely each tag is: (B, C) float32; with softmax rows sum to 1.

        Args:
            features: Raw features of B people: a table or columns by name, in any order (an absent column
                counts as missing), or a matrix with the columns the model was fitted on.
        """
        return network.probabilities(self._logits(self.normalise(features)), self.scaling, self.softmax)

    def decide(self, probability_BC: npt.NDArray[np.floating]) -> Bools:
        """Say which tags a person has: (B, C); with softmax the likeliest, else those above their threshold."""
        if self.softmax:
            best_B = probability_BC.argmax(axis=1)
            return np.arange(len(self.names)) == best_B[:, None]
        return np.asarray(probability_BC >= self.threshold_C)

    def normalise(self, features: Features) -> Float32s:
        """Turn raw features into what the network reads: (B, F) float32, 0 = as the average person."""
        table = as_table(features, tuple(rule.name for rule in self.transform.rules))
        for rule in self.transform.rules:
            if rule.name not in table.column_names:
                table = table.append_column(rule.name, pa.nulls(table.num_rows))
        return self.transform.apply(table)

    def _logits(self, x_BF: Float32s) -> Float32s:
        return network.logits(self.weights, x_BF)

    def describe(
        self,
        events: Sequences,
        items: Vocabulary,
        catalog: Catalog,
        at: int,
        *,
        attributes: pa.Table | None = None,
        rows_B: Ints | None = None,
    ) -> pa.Table:
        """Make the raw features of people from their events before ``at``, ready for ``predict``.

        Args:
            events: A snapshot or live sequences whose item numbers are those of ``items``.
            items: The vocabulary of the events.
            catalog: Places items in categories.
            at: The moment to look from, microseconds. For an old log the end of the log, not today.
            attributes: One row a wanted person: what the shop says of them.
            rows_B: The rows wanted, -1 = somebody without events; None for all.
        """
        own = (
            {} if attributes is None else {name: attributes.column(name) for name in attributes.column_names}
        )
        if self.view is None:
            return pa.table(own)
        every = catalog_categories(catalog, items, self.view.level)
        categories = keep_categories(every, self.view.categories)
        matrix = behaviour(events, categories, KIND_CODES[self.view.kind], at, self.view.horizon, rows_B)
        return join_columns(own, matrix, self.view.categories)

    def explain(self, features: Features, tag: str, k: int = 3) -> list[TagEvidence]:
        """Name the features of one person that speak most for a tag, strongest first; at most ``k``.

        The weights of all features together are the log odds by which the person differs from the average
        one (integrated gradients); only those that speak for the tag are named.

        Args:
            features: One row, as for ``predict``.
            tag: One of ``names``.
            k: How many features.

        Raises:
            InputError: There is no such tag, or not exactly one row.
        """
        if tag not in self.names:
            raise InputError(
                "the model knows no such tag", value=tag, hint=f"one of {', '.join(self.names[:20])}"
            )
        table = as_table(features, tuple(rule.name for rule in self.transform.rules))
        x_BF = self.normalise(table)
        if len(x_BF) != 1:
            raise InputError("explain takes the features of one person", value=len(x_BF))
        direction_C = (np.array(self.names) == tag).astype(np.float64)
        if self.softmax:
            direction_C -= 1 / len(self.names)
        weight_F = network.attribution(self.weights, x_BF[0], direction_C) * self.scaling[0]
        order = np.argsort(-weight_F, kind="stable")[:k]
        texts = self._texts(table, x_BF[0])
        names = self.transform.names
        return [
            TagEvidence(feature=names[place], weight=float(weight_F[place]), text=texts[place])
            for place in order
            if weight_F[place] > 0
        ]

    def _texts(self, table: pa.Table, x_F: Float32s) -> list[str]:
        """Every feature of one person in words: (F)."""
        texts: list[str] = []
        kind = "purchase" if self.view is None else self.view.kind
        behaved = set() if self.view is None else set(behaviour_names(self.view.categories))
        for rule in self.transform.rules:
            name, more = rule.name, bool(x_F[len(texts)] > 0)
            if rule.form != "number":
                texts += rule.names
                continue
            if name in behaved or name not in table.column_names:
                texts.append(say(name, kind, more))
            else:
                value = table.column(name)[0].as_py()
                texts.append(say(name if value is None else f"{name} {value:g}", kind, more))
            texts += rule.names[1:]
        return texts

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All that was learned, names and feature transform included, as named arrays."""
        meta = _Meta(names=self.names, softmax=self.softmax, epochs=self.epochs, view=self.view)
        return {
            "meta": np.frombuffer(msgspec.json.encode(meta), np.uint8),
            "scaling": self.scaling,
            "threshold": self.threshold_C,
            "base_rate": self.base_rate_C,
            **self.transform.arrays(),
            **{f"weights.{name}": array for name, array in self.weights.items()},
        }

    @classmethod
    def restore(cls, config: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Rebuild from ``config`` (a struct or its JSON form) and ``arrays()``."""
        meta = msgspec.json.decode(np.asarray(arrays["meta"], np.uint8).tobytes(), type=_Meta)
        return cls(
            config=config if isinstance(config, TagsConfig) else msgspec.convert(config, TagsConfig),
            names=meta.names,
            softmax=meta.softmax,
            transform=FeatureTransform.restore(arrays),
            weights={
                name.removeprefix("weights."): np.asarray(array, np.float32)
                for name, array in arrays.items()
                if name.startswith("weights.")
            },
            scaling=np.asarray(arrays["scaling"]),
            threshold_C=np.asarray(arrays["threshold"]),
            base_rate_C=np.asarray(arrays["base_rate"]),
            epochs=meta.epochs,
            view=meta.view,
        )


def as_table(features: Features, names: Sequence[str] | None = None) -> pa.Table:
    """Raw features as a table; the columns of a matrix take ``names`` (None = feature_0, feature_1, ...)."""
    if isinstance(features, pa.Table):
        return features
    if isinstance(features, Mapping):
        try:
            return pa.table({name: pa.array(column) for name, column in features.items()})
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InputError(f"the features are no table: {error}") from error
    matrix = np.atleast_2d(np.asarray(features, np.float64))
    names = tuple(f"feature_{column}" for column in range(matrix.shape[1])) if names is None else names
    if matrix.shape[1] != len(names):
        raise InputError(
            "a matrix of features needs a column for each name",
            value=matrix.shape[1],
            hint=f"{len(names)} are expected",
        )
    return pa.table({name: matrix[:, column] for column, name in enumerate(names)})


def join_columns(own: Mapping[str, Any], behaviour_BF: Float32s, categories: Sequence[str]) -> pa.Table:
    """The shop's own columns and those of behaviour side by side; on equal names behaviour wins."""
    described = {name: behaviour_BF[:, column] for column, name in enumerate(behaviour_names(categories))}
    return pa.table({**own, **described})


def fit_tags(
    features: Features,
    labels: Labels | Sequence[str] | Sequence[Iterable[str]],
    config: TagsConfig | None = None,
    run: Run | None = None,
    *,
    groups: Sequence[Any] | npt.NDArray[Any] | None = None,
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
            "softmax needs a tag for every person", hint="use mode sigmoid, or leave those people out"
        )
    return labels.y_RC / total_R


def _validation_rows(
    y_RC: Float32s, share: float, groups: Sequence[Any] | npt.NDArray[Any], seed: int
) -> Bools:
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
    first = _tags_torch.initial_weights(
        x_RF.shape[1], y_RC.shape[1], config.hidden, config.direct, bias_C, run.seed
    )
    try:
        fitted = _tags_torch.train(x_RF, y_RC, valid_R, first, recipe, run)
    except KeyboardInterrupt as error:
        raise Interrupted(
            "training of interest tags was stopped; nothing was changed",
            hint="start it again, it takes seconds",
        ) from error
    if not all(np.isfinite(array).all() for array in fitted.weights.values()):
        raise ModelError("training diverged", value=recipe.learning_rate, hint="use a smaller learning_rate")
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
