"""What clusters of people make of items without a history, beside what everybody makes of them.

Letters: N candidates, F features, C clusters, J items without a history.
"""

from __future__ import annotations

import numpy as np

from penchant.core import Bools, Floats, Ints
from penchant.policy._learn import Learner


class Clusters:
    """Diag-LinUCB (Yi et al., "Online Matching: A Real-time Bandit System for Large-scale Recommendations", RecSys
    2023) on what another learner leaves over: one mean for each edge between an item and a cluster of people.

    A person belongs to clusters by weights ``w_c`` that sum to 1. Of item j and cluster c two sums are kept, ``d_jc``
    of the weights and ``b_jc`` of weight times what the outcome was above expectation; what is expected of j rises by
    ``sum_c w_c b_jc / d_jc``, and its variance by that of ``sum_c w_c^2 / d_jc`` outcomes. An outcome touches the edges
    of one item alone, so that the sums could lie in any key-value store. Where everybody belongs to one cluster this is
    the paper's rule to the letter; it sums ``w_c^2`` in ``d_jc``, which overshoots where people belong to several.

    Features are those of the other learner, then the C weights, the same in every row; all 0: nothing is known.

    Args:
        rest: Learns what everybody makes of items.
        fresh_N: Items without a history: they have edges, (N + 1,).
        num_clusters: C.
        behind: Outcomes as expected that every edge begins with.

    Example:
        >>> from penchant.policy import Hybrid
        >>> fresh = np.array([False, True, True])
        >>> base = Hybrid(np.zeros(1), np.ones(1), np.zeros((3, 1), int), fresh)
        >>> c, tea, milk = Clusters(base, fresh, 2), np.array([1.0, 1.0, 0.0]), np.array([1.0, 0.0, 1.0])
        >>> for n in range(60):
        ...     _ = c.learn(f"u{n}", 1, tea, True), c.learn(f"v{n}", 1, milk, False)
        >>> [bool(c.expect("x", np.array([1]), w[None])[0][0] > 0.5) for w in (tea, milk)]
        [True, False]
    """

    def __init__(self, rest: Learner, fresh_N: Bools, num_clusters: int, behind: float = 10.0) -> None:
        self.rest, self.num_clusters, self.behind = rest, num_clusters, behind
        self.row_N = np.where(fresh_N, np.cumsum(fresh_N), 0)  # row of each item; 0: it has no edges
        size = int(fresh_N.sum()) + 1
        self.above_JC = np.zeros((size, num_clusters), np.float32)
        self.weight_JC = np.zeros((size, num_clusters), np.float32)

    @property
    def shown_N(self) -> Ints:
        """Outcomes of every item number."""
        return self.rest.shown_N

    @property
    def updates(self) -> int:
        """Outcomes in all."""
        return self.rest.updates

    def expect(
        self, person: str, item_N: Ints, feature_NF: Floats, reach: float = 1.0
    ) -> tuple[Floats, Floats]:
        """Chance of a reward of each item, and its standard deviation, as in ``Learner``."""
        own_NF, cluster_NC = self._parted(feature_NF)
        mean_N, std_N = self.rest.expect(person, item_N, own_NF, reach)
        row_N = self.row_N[item_N]
        edged = np.flatnonzero(row_N)
        if not len(edged) or not cluster_NC[0].any():
            return mean_N, std_N
        mean_N, std_N, row_N, weight_C = mean_N.copy(), std_N.copy(), row_N[edged], cluster_NC[0]
        behind_NC = self.weight_JC[row_N] + self.behind
        chance_N = np.clip(mean_N[edged] + (self.above_JC[row_N] / behind_NC) @ weight_C, 1e-4, 1 - 1e-4)
        var_N = chance_N * (1 - chance_N) * ((1 / behind_NC) @ weight_C**2)
        mean_N[edged], std_N[edged] = chance_N, np.sqrt(std_N[edged] ** 2 + var_N)
        return mean_N, std_N

    def _parted(self, feature_NF: Floats) -> tuple[Floats, Floats]:
        return feature_NF[:, : -self.num_clusters], feature_NF[:, -self.num_clusters :]

    def learn(self, person: str, item: int, feature_F: Floats, reward: bool, seen: float = 1.0) -> float:
        """Take an outcome in; returns the chance that the other learner had expected."""
        own_NF, cluster_NC = self._parted(feature_F[None])
        chance = self.rest.learn(person, item, own_NF[0], reward, seen)
        if row := int(self.row_N[item]):
            weight_C = cluster_NC[0] * (1.0 if reward else seen)
            self.weight_JC[row] += weight_C
            self.above_JC[row] += weight_C * (reward - chance)
        return chance

    def forget(self, keep: float) -> None:
        """Let all edges fade."""
        self.rest.forget(keep)
        self.weight_JC *= keep
        self.above_JC *= keep

    def reset(self, item: int) -> None:
        """Forget what outcomes said of an item."""
        self.rest.reset(item)
        self.weight_JC[self.row_N[item]] = self.above_JC[self.row_N[item]] = 0.0
