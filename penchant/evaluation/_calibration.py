"""From scores to probabilities that come true: the chance that a person's next event turns to an item.

Letters: B cases in a block, C cases, N items, K list length, S shown (case, item) pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from msgspec import Meta
from scipy.special import expit, logsumexp

from penchant.core import HISTORY_EVENTS, Estimate, Floats, Ints, Noun, Scorer
from penchant.data import Cases
from penchant.evaluation._classification import Bin
from penchant.evaluation._estimate import bootstrap_means, proportion, resample_weights

LEVELS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
NEAR = 1.25  # "about 10 %" is from 8 % to 12.5 %
FEWEST = 30  # pairs, below which nothing is said of a level
SHOWN = 10  # items of a case that are looked at: the likeliest ones
BINS = 10
_CASES, _CELLS = 1000, 40_000_000  # what the two parameters are fitted on, at most
_WITHIN = ((-6.0, 6.0), (-12.0, 6.0))  # logarithm of the scale in spreads of the scores, logit of the floor
_RESAMPLES = 500
_LEAST = 1e-12


class Calibration(Noun, frozen=True):
    """What makes probabilities of scores: ``(1 - floor) * softmax(scale * score) + floor / N``.

    Temperature scaling (Guo et al. 2017) over the whole catalogue, and a share that all items have alike, for the
    targets that no score foresaw. Scores that count evidence (habits, neighbours) compete by their logarithms
    (``logs``): an item with twice the evidence has twice the chance, or a power of it. All items compete, those a
    person had before too: it is the chance that the next event turns to the item, whatever may be shown.

    Example:
        >>> even = Calibration(scale=0.0, floor=0.0)
        >>> even.probabilities(np.array([[-np.inf, 3.0, 1.0]])).tolist()
        [[0.0, 0.5, 0.5]]
    """

    scale: Annotated[float, Meta(ge=0)]
    floor: Annotated[float, Meta(ge=0, le=1)]
    logs: bool = False

    def of_items(self, score_N: Floats, item_K: Ints) -> npt.NDArray[np.float64]:
        """Probability of some items of one person, (K,): what ``probabilities`` gives, at the price of one sum."""
        score_N = _logs(score_N[1:]) if self.logs else score_N[1:]
        top = score_N.max()
        total = float(np.exp(np.float32(self.scale) * (score_N - top)).sum(dtype=np.float64))
        lead_K = (np.asarray(score_N)[np.asarray(item_K) - 1] - top).astype(np.float64)
        chance_K: npt.NDArray[np.float64] = (1 - self.floor) * np.exp(self.scale * lead_K) / total
        return chance_K + self.floor / len(score_N)

    def probabilities(self, score_BN: Floats) -> npt.NDArray[np.float64]:
        """Probability of every item: (B, N + 1), column 0 is 0; rows sum to 1."""
        score_BN = _logs(score_BN) if self.logs else score_BN
        out_BN = np.asarray(score_BN, np.float64) * self.scale if self.scale else np.zeros(score_BN.shape)
        out_BN[:, 0] = -np.inf
        out_BN -= out_BN.max(axis=1, keepdims=True)
        np.exp(out_BN, out=out_BN)
        out_BN *= (1 - self.floor) / out_BN.sum(axis=1, keepdims=True)
        out_BN[:, 1:] += self.floor / (out_BN.shape[1] - 1)
        return out_BN


class Level(Noun, frozen=True):
    """Items that were given about one probability, and how often they came true."""

    about: float
    said: float  # on average
    came: Estimate
    count: int


class Reliability(Noun, frozen=True):
    """Whether probabilities come true, on people who took no part in finding them.

    ``ECE``: expected calibration error of the item held likeliest, over ten bins of equally many cases (Guo et al.
    2017), its interval a bootstrap over people. ``log_loss``: of what came next, in nats. ``bins``: the reliability
    plot over the ten likeliest items of every case, each bin with a tenth of the hits that were promised.
    """

    ece: Estimate
    log_loss: Estimate
    bins: list[Bin]
    levels: list[Level]


def fit_calibration(
    scorer: Scorer, cases: Cases, *, max_length: int = HISTORY_EVENTS, block: int = 256
) -> Calibration:
    """Find the parameters by maximum likelihood of what came next.

    Args:
        scorer: Anything that scores a batch.
        cases: People who may be used to choose; the first 1,000 of them are, fewer over a large catalogue.
        max_length: Events of a history that the scorer may see.
        block: Cases scored at once.
    """
    count = min(len(cases), _CASES, max(50, _CELLS // (cases.history.num_items + 1)))
    parts = [
        np.array(
            scorer.scores(cases.batch(np.arange(start, min(start + block, count)), max_length)), np.float32
        )
        for start in range(0, count, block)
    ]
    score_CN = np.concatenate(parts)[:, 1:]
    target_C = cases.first_item_C[:count].astype(np.int64) - 1
    score_CN = np.where(np.isfinite(score_CN), score_CN, -np.inf)
    lowest_C1 = np.min(score_CN, axis=1, where=score_CN > -np.inf, initial=np.inf, keepdims=True)
    score_CN = np.maximum(score_CN, np.where(np.isfinite(lowest_C1), lowest_C1, 0.0))
    loss, found = _likeliest(score_CN, target_C)
    if score_CN.min() >= 0:
        by_logs, other = _likeliest(_logs(score_CN), target_C)
        if by_logs < loss:
            return Calibration(scale=other[0], floor=other[1], logs=True)
    return Calibration(scale=found[0], floor=found[1])


def _logs(score: Floats) -> Floats:
    """Logarithms of scores that count evidence, held at a billionth of the most that an item of the case has."""
    most = score.max(axis=-1, keepdims=True)
    return np.log(np.maximum(np.maximum(score, most * np.float32(1e-9)), np.float32(1e-30)))  # type: ignore[no-any-return]


def _likeliest(score_CN: Floats, target_C: Ints) -> tuple[float, tuple[float, float]]:
    """The smallest loss, and the scale and floor that have it."""
    from scipy.optimize import minimize

    spread = float(score_CN.std(axis=1).mean()) or 1.0
    hit_C = score_CN[np.arange(len(score_CN)), target_C]

    def loss(parameters: Floats) -> float:
        scale, floor = float(np.exp(parameters[0])) / spread, float(expit(parameters[1]))
        chosen_C = np.exp(scale * hit_C - logsumexp(scale * score_CN, axis=1))
        return float(-np.log((1 - floor) * chosen_C + floor / score_CN.shape[1] + _LEAST).mean())

    found = minimize(
        loss,
        np.array([0.0, -3.0]),
        method="Nelder-Mead",
        bounds=_WITHIN,
        options={"maxfev": 60, "xatol": 0.02},
    )
    return float(found.fun), (float(np.exp(found.x[0])) / spread, float(expit(found.x[1])))


@dataclass(eq=False)
class Witness:
    """Looks at the scores of cases block by block and notes what was promised and what came."""

    calibration: Calibration
    first_C: Ints
    said: list[Floats]
    came: list[npt.NDArray[np.bool_]]
    target: list[Floats]

    @classmethod
    def of(cls, calibration: Calibration, cases: Cases) -> Witness:
        """One for these cases."""
        return cls(calibration, cases.first_item_C.astype(np.int64), [], [], [])

    def look(self, index: Ints, score_BN: Floats) -> None:
        """Note the likeliest items of some cases; ``score_BN`` is not masked yet."""
        chance_BN = self.calibration.probabilities(score_BN)
        k = min(SHOWN, chance_BN.shape[1] - 1)
        top_BK = np.argpartition(-chance_BN, k - 1, axis=1)[:, :k]
        said_BK = np.take_along_axis(chance_BN, top_BK, axis=1)
        order_BK = np.argsort(-said_BK, axis=1, kind="stable")
        top_BK = np.take_along_axis(top_BK, order_BK, axis=1)
        self.said.append(np.take_along_axis(said_BK, order_BK, axis=1))
        self.came.append(top_BK == self.first_C[index, None])
        self.target.append(chance_BN[np.arange(len(index)), self.first_C[index]])

    def reliability(self, user_C: Ints, *, seed: int = 0) -> Reliability:
        """What all that was seen says."""
        said_CK, came_CK = np.concatenate(self.said), np.concatenate(self.came)
        loss_C = -np.log(np.concatenate(self.target) + _LEAST)
        (log_loss,) = bootstrap_means(loss_C[:, None], user_C, seed=seed)
        return Reliability(
            ece=_error(said_CK[:, 0], came_CK[:, 0], user_C, seed),
            log_loss=log_loss,
            bins=_bins(said_CK.ravel(), came_CK.ravel()),
            levels=_levels(said_CK.ravel(), came_CK.ravel()),
        )


def _error(said_C: Floats, came_C: npt.NDArray[np.bool_], user_C: Ints, seed: int) -> Estimate:
    """Expected calibration error over bins of equally many cases."""
    place_C = np.empty(len(said_C), np.int64)
    place_C[np.argsort(said_C, kind="stable")] = np.arange(len(said_C)) * BINS // len(said_C)
    _, who_C = np.unique(user_C, return_inverse=True)
    people = int(who_C.max()) + 1
    gap_UB = np.zeros((people, BINS))
    np.add.at(gap_UB, (who_C, place_C), said_C - came_C)
    size_U = np.bincount(who_C, minlength=people)

    def error(weight_SU: Floats) -> Floats:
        return np.asarray(np.abs(weight_SU @ gap_UB).sum(axis=1) / (weight_SU @ size_U))

    value = float(error(np.ones((1, people)))[0])
    drawn = np.concatenate([error(w) for w in resample_weights(people, seed=seed, resamples=_RESAMPLES)])
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(
        value=value, low=min(float(low), value), high=max(float(high), value), n=people, method="bootstrap"
    )


def _bins(said_S: Floats, came_S: npt.NDArray[np.bool_]) -> list[Bin]:
    """Bins from the least to the most likely pairs, in which equally many hits were promised."""
    order = np.argsort(said_S, kind="stable")
    promised = np.cumsum(said_S[order])
    place = np.minimum((promised / promised[-1] * BINS).astype(np.int64), BINS - 1)
    found = []
    for bin_ in range(BINS):
        inside = order[place == bin_]
        if len(inside):
            found.append(
                Bin(
                    said=float(said_S[inside].mean()),
                    came=proportion(float(came_S[inside].sum()), len(inside)),
                    count=len(inside),
                )
            )
    return found


def _levels(said_S: Floats, came_S: npt.NDArray[np.bool_]) -> list[Level]:
    found = []
    for about in LEVELS:
        inside = (said_S >= about / NEAR) & (said_S <= about * NEAR)
        count = int(inside.sum())
        if count >= FEWEST:
            came = proportion(float(came_S[inside].sum()), count)
            found.append(Level(about=about, said=float(said_S[inside].mean()), came=came, count=count))
    return found
