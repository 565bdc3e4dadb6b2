"""Off-policy evaluation against known answers: Open Bandit rows, KuaiRec's truth, e-mail arms, a closed loop.

    python bench/ope.py obd --all DIR --zozo DIR --peer PYTHON-OF-AN-ENVIRONMENT-WITH-OBP
    python bench/ope.py kuairec DIR [--repeats 100]
    python bench/ope.py email DIR
    python bench/ope.py loop DIR [--runs 50]

Nothing is downloaded: bring the folders.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from kuairec import World, greedy, softmax
from machine import describe

from penchant.evaluation import (
    Feedback,
    Terms,
    dm,
    dr,
    half_width,
    interval_of,
    ips,
    plain_estimators,
    refusal,
    snips,
    support_gates,
    tuned_estimators,
)

SEED = 12345
PRINTED = {  # obp 0.5.7: IPS, SNIPS, DM, DR, SNDR, Switch-DR, DRos
    ("all", "random"): (0.00455, 0.00478, 0.00351, 0.00483, 0.00489, 0.00343, 0.00352),
    ("all", "bts"): (0.00236, 0.00233, 0.00532, 0.00335, 0.00337, 0.00525, 0.00525),
    ("men", "random"): (0.00453, 0.00460, 0.00427, 0.00449, 0.00450, 0.00431, 0.00423),
    ("men", "bts"): (0.00301, 0.00319, 0.00684, 0.00339, 0.00318, 0.00574, 0.00578),
    ("women", "random"): (0.00681, 0.00681, 0.00470, 0.00698, 0.00697, 0.00461, 0.00470),
    ("women", "bts"): (0.00744, 0.00237, 0.00494, -0.00331, 0.00231, 0.00487, 0.00481),
}
ORDER = ("IPS", "SNIPS", "DM", "DR", "SNDR", "Switch-DR", "DRos")


# -- E1: Open Bandit ----------------------------------------------------------------------------------------


def open_bandit(given: argparse.Namespace) -> None:
    """Each row from the CSV on by our code; the new policy's odds and obp's own figures from obp's environment."""
    print(describe())
    worst = missed = 0.0
    peer = Path(__file__).parent / "peers" / "obp_rows.py"
    for (campaign, logger), printed in PRINTED.items():
        target = "bts" if logger == "random" else "random"
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "row.npz"
            command = [given.peer, peer, campaign, logger, target, out]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            theirs, file = json.loads(done.stdout), dict(np.load(out))
        same = Feedback(
            file["reward"].astype(float),
            file["pscore"],
            file["dist"][file["action"], file["position"]],
            file["q_logged"],
            file["q_expected"],
        )
        found = {**plain_estimators(same), **tuned_estimators(same)}
        keys = {name: f"{name} slope" if name in ("Switch-DR", "DRos") else name for name in ORDER}
        gap = max(abs(found[name].value - theirs[keys[name]]) for name in ORDER)
        frame = _frame(given, campaign, logger)
        started = time.process_time()
        ours = _row(frame, file["items"], file["dist"])
        estimates = {
            name: interval_of(t) for name, t in {**plain_estimators(ours), **tuned_estimators(ours)}.items()
        }
        boot = interval_of(ips(ours), method="bootstrap")
        seconds = time.process_time() - started
        values = [estimates[name].value for name in ORDER]
        off = max(abs(round(v, 5) - p) for v, p in zip(values, printed, strict=True))
        why = refusal(support_gates(ours.weight_C, reward_C=ours.reward_C))
        print(
            f"\n{campaign} {logger}->{target}   {seconds:.2f} s CPU   same q and odds as obp: largest gap {gap:.1e}"
        )
        print("  " + "  ".join(f"{name} {v:.5f}" for name, v in zip(ORDER, values, strict=True)))
        print(f"  largest difference from the printed row {off:.5f}; IPS bootstrap {boot}")
        print(f"  verdict {'REFUSED: ' + why if why else 'allowed by every gate'}")
        worst, missed = max(worst, gap), max(missed, off)
    print(
        f"\nwith obp's q and odds: {worst:.1e} (target 1e-9); from the CSV: {missed:.5f} off the printed digits"
    )


def _frame(given: argparse.Namespace, campaign: str, logger: str) -> pd.DataFrame:
    if campaign == "all":
        return pd.read_csv(given.all / f"all_{logger}.csv.gz", index_col=0)
    frame = pd.read_parquet(given.zozo / "log.parquet")
    return frame[(frame["campaign"] == campaign) & (frame["policy"] == logger)]


def _row(frame: pd.DataFrame, item_AF: np.ndarray, dist_AP: np.ndarray) -> Feedback:
    """From the table to the estimators' columns: hashed features one-hot, one logistic model a position, three folds.

    Features of items come from obp's environment: those of the two logs of a campaign are hashed differently.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold

    frame = frame.sort_values("timestamp")
    user = pd.get_dummies(frame.filter(like="user_feature"), drop_first=True).to_numpy(float)
    item = frame["item_id"].to_numpy()
    place = frame["position"].rank(method="dense").to_numpy(int) - 1
    reward = frame["click"].to_numpy(float)
    predicted, expected = np.zeros(len(item)), np.zeros(len(item))
    width = user.shape[1]
    for train, test in KFold(3, shuffle=True, random_state=SEED).split(user):
        for p in range(3):
            rows, here = train[place[train] == p], test[place[test] == p]
            # To the bottom: how far a solver stops short of it differs between versions, and shows in the third digit.
            model = LogisticRegression(C=1000, max_iter=10_000, tol=1e-7, random_state=SEED)
            model.fit(np.c_[user[rows], item_AF[item[rows]]], reward[rows])
            # The score is a sum of a part of the person and one of the item: no table of cases by features by items.
            score = (user[here] @ model.coef_[0, :width])[:, None] + item_AF @ model.coef_[0, width:]
            q_CA = 1 / (1 + np.exp(-(score + model.intercept_[0])))
            predicted[here] = q_CA[np.arange(len(here)), item[here]]
            expected[here] = q_CA @ dist_AP[:, p]
    logged = frame["propensity_score"].to_numpy()
    return Feedback(reward, logged, dist_AP[item, place], predicted, expected)


# -- E2: KuaiRec ---------------------------------------------------------------------------------------------


def targets(world: World, user_C: np.ndarray, item_CA: np.ndarray) -> dict[str, np.ndarray]:
    """Policies under test: chances over the candidates of each case, (C, A)."""
    popular = np.log1p(world.popularity_N)[item_CA]
    taste = world.taste_UN[user_C[:, None], item_CA]
    return {
        "greedy": greedy(popular),
        "soft2": softmax(2 * popular),
        "tag": softmax(2 * popular + taste / 4),
        "uniform": np.full(item_CA.shape, 1 / item_CA.shape[1]),
    }


def logger_odds(world: World, item_CA: np.ndarray) -> np.ndarray:
    """The log: seven parts popularity, three parts chance."""
    return 0.7 * softmax(np.log1p(world.popularity_N)[item_CA]) + 0.3 / item_CA.shape[1]


def draw(rng: np.random.Generator, odds_CA: np.ndarray) -> np.ndarray:
    chosen = (rng.random(len(odds_CA))[:, None] > odds_CA.cumsum(axis=1)).sum(axis=1)
    return np.minimum(chosen, odds_CA.shape[1] - 1)


def network(x: np.ndarray, y: np.ndarray, seed: int):
    """A small network of two hidden layers; returns a function from features to chances."""
    from sklearn.neural_network import MLPRegressor

    mean, std = x.mean(axis=0), x.std(axis=0) + 1e-9
    net = MLPRegressor(
        hidden_layer_sizes=(32, 16),
        alpha=1e-2,
        learning_rate_init=5e-3,
        max_iter=25,
        batch_size=256,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net.fit((x - mean) / std, y)
    return lambda z: np.clip(net.predict((z - mean) / std), 0, 1)


def kuairec(given: argparse.Namespace) -> None:
    """Relative errors and coverage over logs of 5,000, against the exact value over many more cases."""
    world = World(given.data)
    truth = {name: float(np.mean(v)) for name, v in _truth(world).items()}
    print(describe())
    names = list(truth)
    found: dict[str, dict[str, list[tuple[float, bool]]]] = {n: {} for n in names}
    for repeat in range(given.repeats):
        for name, estimates in kuairec_run(world, repeat, given.cases).items():
            for estimator, e in estimates.items():
                inside = e.low <= truth[name] <= e.high
                found[name].setdefault(estimator, []).append((abs(e.value / truth[name] - 1), inside))
        if (repeat + 1) % 10 == 0:
            _print_kuairec(found, truth, repeat + 1)


def _truth(world: World) -> dict[str, list[float]]:
    rng = np.random.default_rng(99)
    out: dict[str, list[float]] = {}
    for _ in range(40):
        user, item = world.cases(rng, 20_000)
        like = world.like_UN[user[:, None], item]
        for name, odds in targets(world, user, item).items():
            out.setdefault(name, []).append(float((odds * like).sum(axis=1).mean()))
    return out


def kuairec_run(world: World, seed: int, count: int) -> dict[str, dict[str, object]]:
    """One log: estimates of every target by every estimator."""
    rng = np.random.default_rng(seed)
    user, item = world.cases(rng, count)
    odds = logger_odds(world, item)
    chosen = draw(rng, odds)
    row = np.arange(count)
    reward = world.like_UN[user, item[row, chosen]].astype(float)
    features = world.features(user, item)
    fold_U = rng.permutation(len(world.users)) % 2
    fold = fold_U[user]
    q = np.zeros(item.shape)
    for f in range(2):
        train = fold != f
        model = network(features[row, chosen][train], reward[train], seed)
        q[fold == f] = model(features[fold == f].reshape(-1, features.shape[2])).reshape(-1, item.shape[1])
    estimates: dict[str, dict[str, object]] = {}
    for name, target in targets(world, user, item).items():
        f = Feedback(
            reward, odds[row, chosen], target[row, chosen], q[row, chosen], (target * q).sum(axis=1), user
        )
        terms = {"IPS": ips(f), "SNIPS": snips(f), "DM": dm(f), "DR": dr(f), **tuned_estimators(f)}
        terms["SNDR"] = plain_estimators(f)["SNDR"]
        # People are drawn anew each time from those the truth is about: cases are independent.
        estimates[name] = {n: interval_of(t) for n, t in terms.items()}
    return estimates


def _print_kuairec(found: dict, truth: dict[str, float], repeats: int) -> None:
    print(f"\n{repeats} logs; mean relative error and share of 95 % intervals that hold the truth")
    for name, estimators in found.items():
        cells = []
        for estimator, pairs in estimators.items():
            error = np.array([e for e, _ in pairs])
            cells.append(
                f"{estimator} {error.mean():.3f}+-{error.std() / np.sqrt(len(error)):.3f} "
                f"({np.mean([i for _, i in pairs]):.2f})"
            )
        print(f"  {name:8} true {truth[name]:.4f}  " + "  ".join(cells), flush=True)


# -- E7: e-mail ----------------------------------------------------------------------------------------------


def email(given: argparse.Namespace) -> None:
    """Learn whom to send what on one half, keep the best arm unless a change is proved, measure on the other."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    print(describe())
    frame = pd.read_csv(given.data / "hillstrom.csv.gz")
    arms = ["No E-Mail", "Mens E-Mail", "Womens E-Mail"]
    arm = frame["segment"].map({name: n for n, name in enumerate(arms)}).to_numpy()
    x = pd.get_dummies(
        frame[["recency", "history", "mens", "womens", "zip_code", "newbie", "channel"]]
    ).to_numpy(float)
    visit, spend = frame["visit"].to_numpy(float), frame["spend"].to_numpy(float)
    counts = {"plain": [0, 0], "careful": [0, 0]}
    for split in range(given.splits):
        rng = np.random.default_rng(split)
        half = rng.permutation(len(arm)) < len(arm) // 2
        a, b = np.flatnonzero(half), np.flatnonzero(~half)
        part = rng.random(len(a)) < 0.5  # one part fits, the other decides, then the other way round
        models = {}
        for side in (0, 1):
            fit = a[part == bool(side)]
            for n in range(3):
                rows = fit[arm[fit] == n]
                model = HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=8, learning_rate=0.05)
                models[side, n] = model.fit(x[rows], visit[rows])
        guess = {
            side: np.stack([models[side, n].predict_proba(x)[:, 1] for n in range(3)], axis=1)
            for side in (0, 1)
        }
        best = int(np.argmax([visit[a][arm[a] == n].mean() for n in range(3)]))
        # Does the learned choice beat the best arm on people it was not fitted on? By doubly robust differences.
        gap = np.concatenate([_gain(guess[s], a[part != bool(s)], arm, visit, best) for s in (0, 1)])
        proved = gap.mean() - half_width(gap, method="influence") > 0
        q = (guess[0] + guess[1]) / 2
        learned = q.argmax(axis=1)
        chosen = {"plain": learned, "careful": learned if proved else np.full(len(arm), best)}
        line = []
        for name, policy in chosen.items():
            value, money = (_value(policy, b, arm, y) for y in (visit, spend))
            constant = _value(np.full(len(arm), best), b, arm, visit)
            against = interval_of(_paired(policy, b, arm, visit, best))
            se = (against.high - against.low) / 2 / 1.96
            counts[name][0] += value.value >= constant.value
            counts[name][1] += against.value >= -se
            line.append(
                f"{name} visit {value}, spend {money.value:.3f}, against the arm {against.value:+.4f} (se {se:.4f})"
            )
        print(
            f"split {split:2}: best arm {arms[best]} {constant}; {'; '.join(line)}; change proved: {proved}",
            flush=True,
        )
    for name, (above, safe) in counts.items():
        print(
            f"{name}: at or above the constant arm {above}/{given.splits}; "
            f"not worse by over one standard error {safe}/{given.splits}"
        )


def _gain(q: np.ndarray, rows: np.ndarray, arm: np.ndarray, y: np.ndarray, best: int) -> np.ndarray:
    learned = q[rows].argmax(axis=1)
    out = q[rows, learned] - q[rows, best]
    residual = (y[rows] - q[rows, arm[rows]]) * 3
    return out + residual * ((arm[rows] == learned).astype(float) - (arm[rows] == best))


def _terms(policy: np.ndarray, rows: np.ndarray, arm: np.ndarray, y: np.ndarray) -> Terms:
    same = (arm[rows] == policy[rows]).astype(float)
    return ips(Feedback(y[rows], np.full(len(rows), 1 / 3), same))


def _value(policy: np.ndarray, rows: np.ndarray, arm: np.ndarray, y: np.ndarray):
    return interval_of(_terms(policy, rows, arm, y))


def _paired(policy: np.ndarray, rows: np.ndarray, arm: np.ndarray, y: np.ndarray, best: int) -> Terms:
    one, other = _terms(policy, rows, arm, y), _terms(np.full(len(arm), best), rows, arm, y)
    return Terms(np.zeros(len(rows)), one.weighted_C - other.weighted_C)


# -- E14: the closed loop -------------------------------------------------------------------------------------


def loop(given: argparse.Namespace) -> None:
    """Explore, let the log choose one of eight policies, deploy it: was it the best, and was the interval right?"""
    world = World(given.data)
    print(describe())
    truth = {name: float(np.mean(v)) for name, v in _loop_truth(world).items()}
    print("true values: " + ", ".join(f"{n} {v:.4f}" for n, v in truth.items()))
    best = max(truth, key=truth.get)  # type: ignore[arg-type]
    tally = {how: [0, 0, 0.0] for how in ("DR", "IPS", "DM")}
    for run in range(given.runs):
        rng = np.random.default_rng(1000 + run)
        user, item = world.cases(rng, given.cases)
        odds = logger_odds(world, item)
        chosen = draw(rng, odds)
        row = np.arange(len(user))
        reward = world.like_UN[user, item[row, chosen]].astype(float)
        features = world.features(user, item)
        fold = (rng.permutation(len(world.users)) % 2)[user]
        q = np.zeros(item.shape)
        for f in range(2):
            model = network(features[row, chosen][fold != f], reward[fold != f], run)
            q[fold == f] = model(features[fold == f].reshape(-1, features.shape[2])).reshape(
                -1, item.shape[1]
            )
        values = {}
        for name, target in eight(world, user, item).items():
            f = Feedback(
                reward, odds[row, chosen], target[row, chosen], q[row, chosen], (target * q).sum(axis=1), user
            )
            values[name] = {n: interval_of(t) for n, t in (("DR", dr(f)), ("IPS", ips(f)), ("DM", dm(f)))}
        u, i = world.cases(
            np.random.default_rng(5000 + run), given.cases
        )  # the deployment: new people and candidates
        deployed = eight(world, u, i)
        for how, sums in tally.items():
            pick = max(values, key=lambda n: values[n][how].value)
            shown = draw(np.random.default_rng(7000 + run), deployed[pick])
            realised = float(world.like_UN[u, i[np.arange(len(u)), shown]].mean())
            e = values[pick][how]
            # The realised mean is noisy itself: the interval is widened by its noise.
            noise = 1.96 * np.sqrt(realised * (1 - realised) / len(u))
            half = np.hypot((e.high - e.low) / 2, noise)
            sums[0] += pick == best
            sums[1] += abs(e.value - realised) <= half
            sums[2] += truth[best] - truth[pick]
        if (run + 1) % 10 == 0:
            told = "; ".join(
                f"{how}: best {s[0] / (run + 1):.2f}, realised inside {s[1] / (run + 1):.2f}, "
                f"lost {s[2] / (run + 1):.4f}"
                for how, s in tally.items()
            )
            print(f"{run + 1} runs  {told}", flush=True)


def eight(world: World, user: np.ndarray, item: np.ndarray) -> dict[str, np.ndarray]:
    """Eight policies a shop might consider."""
    popular = np.log1p(world.popularity_N)[item]
    taste = world.taste_UN[user[:, None], item]
    tops = greedy(popular)
    even = np.full(item.shape, 1 / item.shape[1])
    return {
        "greedy": tops,
        "epsilon .1": 0.9 * tops + 0.1 * even,
        "epsilon .3": 0.7 * tops + 0.3 * even,
        "soft 1": softmax(popular),
        "soft 2": softmax(2 * popular),
        "soft 3": softmax(3 * popular),
        "taste": softmax(2 * taste),
        "uniform": even,
    }


def _loop_truth(world: World) -> dict[str, list[float]]:
    rng = np.random.default_rng(98)
    out: dict[str, list[float]] = {}
    for _ in range(20):
        user, item = world.cases(rng, 20_000)
        like = world.like_UN[user[:, None], item]
        for name, odds in eight(world, user, item).items():
            out.setdefault(name, []).append(float((odds * like).sum(axis=1).mean()))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(required=True)
    obd = parts.add_parser("obd")
    obd.add_argument("--all", type=Path, required=True)
    obd.add_argument("--zozo", type=Path, required=True)
    obd.add_argument("--peer", required=True)
    obd.set_defaults(run=open_bandit)
    for name, run in (("kuairec", kuairec), ("email", email), ("loop", loop)):
        part = parts.add_parser(name)
        part.add_argument("data", type=Path)
        part.add_argument("--cases", type=int, default=5000)
        part.add_argument("--repeats", type=int, default=100)
        part.add_argument("--splits", type=int, default=20)
        part.add_argument("--runs", type=int, default=150)
        part.set_defaults(run=run)
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
