"""One Open Bandit row by obp itself, in its own environment: log, odds, reward model and estimates to a .npz file.

python obp_rows.py CAMPAIGN LOGGER TARGET OUT.npz
"""

import json
import sys
import time
import warnings

import numpy as np

warnings.filterwarnings("ignore")
from obp.dataset import OpenBanditDataset  # noqa: E402
from obp.ope import (  # noqa: E402
    DirectMethod,
    DoublyRobust,
    DoublyRobustWithShrinkageTuning,
    InverseProbabilityWeighting,
    RegressionModel,
    SelfNormalizedDoublyRobust,
    SelfNormalizedInverseProbabilityWeighting,
    SwitchDoublyRobustTuning,
)
from obp.policy import BernoulliTS, Random  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402

campaign, logger, target, out = sys.argv[1:]
start = time.process_time()
dataset = OpenBanditDataset(behavior_policy=logger, campaign=campaign)
log = dataset.obtain_batch_bandit_feedback()
SEED = 12345
LAMBDAS = [1, 5, 10, 50, 100, 500, 1000, float("inf")]
if target == "bts":
    policy = BernoulliTS(
        n_actions=dataset.n_actions, len_list=3, is_zozotown_prior=True, campaign=campaign, random_state=SEED
    )
    dist = policy.compute_batch_action_dist(n_sim=100_000, n_rounds=log["n_rounds"])
else:
    dist = Random(n_actions=dataset.n_actions, len_list=3, random_state=SEED).compute_batch_action_dist(
        n_rounds=log["n_rounds"]
    )
model = RegressionModel(
    n_actions=dataset.n_actions,
    len_list=3,
    action_context=dataset.action_context,
    base_model=LogisticRegression(C=1000, max_iter=10000, random_state=SEED),
)
q = model.fit_predict(
    context=log["context"],
    action=log["action"],
    reward=log["reward"],
    position=log["position"],
    pscore=log["pscore"],
    n_folds=3,
    random_state=SEED,
)
common = {k: log[k] for k in ("reward", "action", "pscore", "position")} | {"action_dist": dist}
full = common | {"estimated_rewards_by_reg_model": q}
found = {
    "IPS": InverseProbabilityWeighting().estimate_policy_value(**common),
    "SNIPS": SelfNormalizedInverseProbabilityWeighting().estimate_policy_value(**common),
    "DM": DirectMethod().estimate_policy_value(
        action_dist=dist, estimated_rewards_by_reg_model=q, position=log["position"]
    ),
    "DR": DoublyRobust().estimate_policy_value(**full),
    "SNDR": SelfNormalizedDoublyRobust().estimate_policy_value(**full),
}
for name, kind in (("Switch-DR", SwitchDoublyRobustTuning), ("DRos", DoublyRobustWithShrinkageTuning)):
    tuner = kind(lambdas=LAMBDAS, tuning_method="mse")
    found[name] = tuner.estimate_policy_value_with_tuning(**full)
    found[name + " knob"] = tuner.best_hyperparam
    tuner = kind(lambdas=LAMBDAS, tuning_method="slope")
    found[name + " slope"] = tuner.estimate_policy_value_with_tuning(**full)
    found[name + " slope knob"] = tuner.best_hyperparam
seconds = time.process_time() - start
row = np.arange(log["n_rounds"])
at = log["position"]
np.savez(
    out,
    reward=log["reward"],
    action=log["action"],
    position=at,
    pscore=log["pscore"],
    dist=dist[0],
    items=dataset.action_context.astype(float),
    q_logged=q[row, log["action"], at],
    q_expected=(q[row, :, at] * dist[row, :, at]).sum(axis=1),
)
print(json.dumps({"seconds": seconds, **found}))
