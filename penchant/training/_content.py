"""How much the contents of items count: for those that people have met, and for those that nobody has.

Whatever content adds has to show on validation. Items that people have met take it up only where the gain is more than
noise. How high items that nobody has met rank is found by pretending: some met items are scored as if they were new,
in lists beside all others, and their chance is set so that the lists as a whole are best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from penchant.core import Bools, Floats, Ints, PairedValidation, Run, Scorer, SequenceBatch, rng
from penchant.models import Content, Sequence, SequenceConfig

if TYPE_CHECKING:
    from penchant.training._distributed import World

_TASK = "sequence model: items by their content"
_FOLDS, _SHARE = 3, 0.2  # how often some are pretended to be new, and how many of the met ones
_ONE_ERROR = 0.6827  # level of an interval one standard error to each side
_SURE = 0.95  # level of the interval that a gain for met items has to clear
# Where what is left open begins, what may be tried, and in what order it is searched.
_USUAL = {"unmet_content_weight": 0.3, "content_decay": 0.9, "content_weight": 0.0, "lending": 0.3}
_DECAYS = (0.4, 0.6, 0.8, 0.9, 0.97, 1.0)
_WEIGHTS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_LENDING = (3.0, 2.0, 1.4, 1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.03)  # of equals the most

SomeModel = TypeVar("SomeModel", bound=Sequence)


def borrowing(model: SomeModel) -> SomeModel:
    """The same with the vectors, the trend and the share of unmet items borrowed, where its settings say so."""
    return replace(
        model,
        item_ND=model.lent(model.item_ND),
        prior_N=model.lent_prior(model.prior_N),
        trend_N=model.lent(model.trend_N),
    )


def content_of(content_NC: Floats, met_N: Bools, config: SequenceConfig) -> Content:
    """What contents say, as far as settings that are all decided need it.

    Args:
        content_NC: (N + 1, C) as ``penchant.data.item_content`` gives it.
        met_N: (N + 1,) whom somebody has turned to.
        config: Its content weights and decay; neighbours of met items are looked for only where they weigh.
    """
    content = Content.of(content_NC, met_N).fading(config.content_decay)
    return content.with_neighbours(content_NC, met_N) if config.content_weight else content


def settle_content(
    live: Sequence, content_NC: Floats, run: Run, world: World
) -> tuple[Content, SequenceConfig]:
    """Decide what the settings of a trained model leave open about content; its other settings stay as they are.

    Args:
        live: The model, without content.
        content_NC: (N + 1, C) as ``penchant.data.item_content`` gives it.
        run: ``validate`` judges; without it the usual values are taken.
        world: The processes that have to decide alike.
    """
    config, validate = live.config, run.validate
    open_ = {name: usual for name, usual in _USUAL.items() if getattr(config, name) is None}
    found = msgspec.structs.replace(config, **open_)
    if validate is None or not open_:
        return content_of(content_NC, live.met_N, found), found
    settling = _Settling(live, content_NC, run, world, validate)
    return settling.settle(found, open_)


@dataclass(frozen=True, eq=False)
class _Settling:
    """One search for what content is worth."""

    live: Sequence
    content_NC: Floats
    run: Run
    world: World
    validate: Callable[[Scorer], float]

    def settle(self, config: SequenceConfig, open_: dict[str, float]) -> tuple[Content, SequenceConfig]:
        """Which unmet item for whom; what content adds for met ones; then how high the unmet ones rank."""
        content = Content.of(self.content_NC, self.live.met_N)
        pretended = self._pretended(content)
        full = {"lending": 1.0, "content_weight": 0.0}
        trial = msgspec.structs.replace(config, **{k: v for k, v in full.items() if k in open_})
        for name, choices in (("unmet_content_weight", _WEIGHTS), ("content_decay", _DECAYS)):
            if name in open_ and trial.lending:
                trial = _best(trial, name, choices, lambda t: self._judged(pretended, t, alone=True))
        self._tell(1)
        content = content.fading(trial.content_decay)
        if "content_weight" in open_:
            content, trial = self._for_met(content, trial)
        elif trial.content_weight:
            content = content.with_neighbours(self.content_NC, self.live.met_N)
        self._tell(2)
        if "lending" in open_:
            shown = [fold.beside(content) for fold in pretended]
            usual = msgspec.structs.replace(trial, lending=open_["lending"])
            best = _best(usual, "lending", _LENDING, lambda t: self._judged(shown, t, alone=False))
            trial = self._most_visible(shown, best)
        self._tell(3)
        return content, trial

    def _most_visible(self, shown: list[_Pretended], best: SequenceConfig) -> SequenceConfig:
        """The most of ``lending`` that leaves the lists within one standard error of the best (Breiman et al. 1984).

        What nobody sees nobody turns to: between levels that cannot be told apart new items get the higher one.
        """
        validate = self.validate
        if not isinstance(validate, PairedValidation) or best.lending not in _LENDING:
            return best

        def shortfall(trial: SequenceConfig) -> float:
            """Below 0 where the lists fall behind the best by more than an error; the folds ask the same people."""
            gaps = [
                validate.gain(fold.scorer(trial, alone=False), fold.scorer(best, alone=False), _ONE_ERROR)
                for fold in shown
            ]
            return float(sum(gap.high for gap in gaps))

        most = best
        for lending in reversed(_LENDING[: _LENDING.index(best.lending)]):
            trial = msgspec.structs.replace(best, lending=lending)
            if self.world.decide(lambda: shortfall(trial)) < 0:  # noqa: B023
                break
            most = trial
        return most

    def _tell(self, done: int) -> None:
        self.run.progress(_TASK, done, 3, {})

    def _decide(self, scorer: Scorer) -> float:
        return self.world.decide(lambda: self.validate(scorer))

    def _for_met(self, content: Content, config: SequenceConfig) -> tuple[Content, SequenceConfig]:
        """Take up content neighbours of met items if what they add is more than noise."""
        validate = self.validate
        if not self.live.config.counts or not isinstance(validate, PairedValidation):
            return content, config
        known = content.with_neighbours(self.content_NC, self.live.met_N)
        alone = msgspec.structs.replace(config, lending=0.0)
        before = replace(self.live, content=known, config=alone)
        best = _best(alone, "content_weight", _WEIGHTS, lambda t: self._decide(replace(before, config=t)))
        if not best.content_weight:
            return content, config
        after = replace(before, config=best)
        low = self.world.decide(lambda: validate.gain(after, before, _SURE).low)
        if low <= 0:
            return content, config
        return known, msgspec.structs.replace(config, content_weight=best.content_weight)

    def _pretended(self, content: Content) -> list[_Pretended]:
        """Some met items, drawn anew for each fold, as if nobody had met them."""
        met_N = self.live.met_N
        candidate_J = np.flatnonzero(met_N & self.content_NC.any(axis=1))
        folds = []
        for fold in range(_FOLDS):
            draw = rng(self.run.seed, f"pretended {fold}")
            item_J = np.sort(draw.choice(candidate_J, round(_SHARE * len(candidate_J)), replace=False))
            rest_N = met_N.copy()
            rest_N[item_J] = False
            folds.append(_Pretended(self.live, content.with_unmet(self.content_NC, item_J, rest_N), item_J))
        return folds

    def _judged(self, pretended: list[_Pretended], config: SequenceConfig, *, alone: bool) -> float:
        """How well pretended items are told apart, ``alone``; else how good lists are that they have a place in."""
        return float(sum(self._decide(fold.scorer(config, alone=alone)) for fold in pretended))


def _best(
    config: SequenceConfig,
    name: str,
    choices: tuple[float, ...],
    measure: Callable[[SequenceConfig], float],
) -> SequenceConfig:
    """The settings with the value by which a measure is highest, the first of equals; as they are if all are equal.

    All are tried. Climbing would not do: what a small weight gains is less than noise, though a larger one may gain
    much.
    """
    trials = [msgspec.structs.replace(config, **{name: choice}) for choice in choices]
    figures = [measure(trial) for trial in trials]
    return trials[int(np.argmax(figures))] if max(figures) > min(figures) else config


@dataclass(frozen=True, eq=False)
class _Pretended:
    """Met items that are taken to be unmet: what content says of them then."""

    live: Sequence
    content: Content
    item_J: npt.NDArray[np.int64]

    def beside(self, content: Content) -> _Pretended:
        """The same where the contents of met items count too, and histories fade as there."""
        faded = self.content.fading(content.unmet.config.decay)
        return replace(self, content=replace(faded, neighbours=content.neighbours))

    def scorer(self, config: SequenceConfig, *, alone: bool) -> _AsIfNew:
        """The model that has not met them."""
        known = replace(self.live, config=msgspec.structs.replace(config, lending=0.0), content=self.content)
        blind = replace(known, config=config, content=self.content.fading(config.content_decay))
        return _AsIfNew(config, borrowing(blind), known, self.item_J, alone)


@dataclass(frozen=True, eq=False)
class _AsIfNew:
    """A model that scores some items as if nobody had met them, to people who had not."""

    config: SequenceConfig
    blind: Sequence
    known: Sequence
    item_J: npt.NDArray[np.int64]
    alone: bool  # nothing else is ranked

    def scores(self, batch: SequenceBatch) -> npt.NDArray[np.float32]:
        """Score every item for every row: (B, N + 1), column 0 is -inf."""
        score_BN = self.blind.scores(batch)
        if self.alone:
            out_BN = np.full_like(score_BN, -np.inf)
            out_BN[:, self.item_J] = score_BN[:, self.item_J]
            return out_BN
        row_P, place_P = np.nonzero(np.isin(batch.item_BT, self.item_J))
        item_P = batch.item_BT[row_P, place_P]
        if len(item_P):
            score_BN[row_P, item_P] = self.known.scores(batch)[row_P, item_P]
        return score_BN

    def related(self, items_Q: Ints) -> npt.NDArray[np.float32]:
        """Companions, as the model knows them."""
        return self.known.related(items_Q)

    def affinity(self, history_T: Ints, items_K: Ints) -> npt.NDArray[np.float32]:
        """How much a history speaks for answers, as the model knows them."""
        return self.known.affinity(history_T, items_K)
