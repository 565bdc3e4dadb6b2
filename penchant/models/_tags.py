"""Interest tags: the deep interest classifier. A multi-layer perceptron on behaviour features.

It learns the labels a shop supplies or the categories people take from next, and says how likely each tag is.
Training needs torch (imported on use); everything here that answers is numpy.

Letters: B rows, R training rows, F features, C tags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import Meta

from penchant.core import KIND_CODES, Bools, Catalog, Ints, Noun, Run, Snapshot, Vocabulary
from penchant.core.errors import InputError
from penchant.data import FeatureTransform, Sequences
from penchant.models import _tags_network as network
from penchant.models._tags_features import (
    behaviour,
    behaviour_names,
    catalog_categories,
    keep_categories,
    say,
)

Float32s = npt.NDArray[np.float32]
Features: TypeAlias = pa.Table | Mapping[str, Sequence[Any]] | npt.NDArray[Any]
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
    learned from, ``max_rows`` of person and period in all (more are sampled). ``attributes``: what the shop
    says of its users counts as features, too.
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


class BehaviourView(Noun, frozen=True):
    """How a model looks at events: kind predicted, level and names of categories, length of a period (us).

    ``currency`` is the one whose money counts; None where the events it learned from named none.
    """

    kind: str
    level: int
    categories: tuple[str, ...]
    horizon: int
    currency: str | None = None


class TagEvidence(Noun, frozen=True):
    """One feature that speaks for a tag: its weight in log odds against the average person, and in words."""

    feature: str
    weight: float
    text: str


class _Meta(Noun, frozen=True):
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
        """Say which tags a person has: (B, C); the likeliest with softmax, else all above their threshold."""
        if self.softmax:
            best_B = probability_BC.argmax(axis=1)
            return np.asarray(np.arange(len(self.names)) == best_B[:, None], np.bool_)
        return np.asarray(probability_BC >= self.threshold_C, np.bool_)

    def normalise(self, features: Features) -> Float32s:
        """Turn raw features into what the network reads: (B, F) float32, 0 = as the average person."""
        table = as_table(features, tuple(rule.name for rule in self.transform.rules))
        there = set(table.column_names)
        for rule in self.transform.rules:
            if rule.name not in there:
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
            events: A snapshot or live sequences whose item numbers are those of ``items``. Live money in
                another currency than ``view.currency`` must be missing.
            items: The vocabulary of the events.
            catalog: Places items in categories.
            at: The moment to look from, microseconds. For an old log the end of the log, not today.
            attributes: One row a wanted person: what the shop says of them.
            rows_B: The rows wanted, -1 = somebody without events; None for all.
        """
        own = pa.table({}) if attributes is None else attributes
        if self.view is None:
            return own
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
        return self.explain_many(features, [tag], k)[0]

    def explain_many(self, features: Features, tags: Sequence[str], k: int = 3) -> list[list[TagEvidence]]:
        """Explain several tags of one person, one list for each: as ``explain``, but the features are read once."""
        return self._explain(*self._one(features), tags, k)

    def likeliest(self, features: Features, k: int) -> tuple[Float32s, list[int], list[list[TagEvidence]]]:
        """As ``predict`` and ``explain_many`` together for one person, whose features are read once.

        Returns:
            All probabilities (C,), the numbers of the ``k`` likeliest tags, and what speaks for each of those.
        """
        table, x_F = self._one(features)
        probability_C = network.probabilities(self._logits(x_F[None]), self.scaling, self.softmax)[0]
        best = np.argsort(-probability_C, kind="stable")[:k].tolist()
        return probability_C, best, self._explain(table, x_F, [self.names[c] for c in best], 3)

    def _one(self, features: Features) -> tuple[pa.Table, Float32s]:
        """The features of one person, raw and normalised."""
        table = as_table(features, tuple(rule.name for rule in self.transform.rules))
        x_BF = self.normalise(table)
        if len(x_BF) != 1:
            raise InputError("explain takes the features of one person", value=len(x_BF))
        return table, x_BF[0]

    def _explain(
        self, table: pa.Table, x_F: Float32s, tags: Sequence[str], k: int
    ) -> list[list[TagEvidence]]:
        texts, names = self._texts(table, x_F), self.transform.names
        return [self._evidence(x_F, tag, k, texts, names) for tag in tags]

    def _evidence(
        self, x_F: Float32s, tag: str, k: int, texts: list[str], names: Sequence[str]
    ) -> list[TagEvidence]:
        if tag not in self.names:
            known = ", ".join(self.names[:20])
            raise InputError("the model knows no such tag", value=tag, hint=f"one of {known}")
        direction_C = (np.array(self.names) == tag).astype(np.float64)
        if self.softmax:
            direction_C -= 1 / len(self.names)
        weight_F = network.attribution(self.weights, x_F, direction_C) * self.scaling[0]
        return [
            TagEvidence(feature=names[place], weight=float(weight_F[place]), text=texts[place])
            for place in np.argsort(-weight_F, kind="stable")[:k]
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
            f"a matrix of features needs {len(names)} columns, one for each name", value=matrix.shape[1]
        )
    return pa.table({name: matrix[:, column] for column, name in enumerate(names)})


def join_columns(own: pa.Table, behaviour_BF: Float32s, categories: Sequence[str]) -> pa.Table:
    """The shop's own columns and those of behaviour side by side; on equal names behaviour wins."""
    described = {name: behaviour_BF[:, column] for column, name in enumerate(behaviour_names(categories))}
    return pa.table({**dict(zip(own.column_names, own.columns, strict=True)), **described})
