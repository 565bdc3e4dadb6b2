"""What each kind of event adds, for the next click and for the next purchase.

Bring one of four public logs, each a folder with ``events.parquet``; adapters below turn them into the events of the
product. Every row of the table learns from the same people up to the same moments; only the kinds of events that it
may see differ. All items are ranked; one half of the cases chooses, the other half is measured.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from penchant.core import DAY, KIND_CODES, SECOND, Run, Snapshot, Target, Vocabulary
from penchant.data import Cases, before, is_target, later_cases
from penchant.evaluation import Evaluation, paired_difference, rank_metrics, validation_metric
from penchant.testing import snapshot_from_arrays
from penchant.training import fit_model

FEWEST, MOST = 20, 1000  # cases of a question: to be asked at all, and of each half
DWELL = "dwell"  # no kind: the seconds that somebody stayed, as the value of a view
START = 1_700_000_000 * SECOND


def tmall(folder: Path) -> pd.DataFrame:
    """Alibaba 2014: days, and the order in the file within them; items are brands."""
    raw = pd.read_parquet(folder / "events.parquet")
    day = (pd.to_datetime(raw["date"]) - pd.Timestamp("2013-04-15")).dt.days
    kind = raw["event"].map({"click": "view", "collect": "wishlist", "cart": "cart_add", "buy": "purchase"})
    ts = START + day * DAY + raw["row"] * SECOND // 4
    return pd.DataFrame({"user": raw["user"], "item": raw["item"], "kind": kind, "ts": ts})


def retailrocket(folder: Path) -> pd.DataFrame:
    """RetailRocket pairs without times: what a person looked at, then put in the cart, then bought.

    The order within a kind is that of item numbers and means nothing. Every other person's purchases come last of all:
    those are asked for.
    """
    raw = pd.read_parquet(folder / "events.parquet")
    stage = raw["event"].map({"view": 0, "addtocart": 1, "transaction": 2}).astype(int)
    kind = raw["event"].map({"view": "view", "addtocart": "cart_add", "transaction": "purchase"})
    shuffled = np.random.default_rng(0).permutation(len(raw))
    late = (stage == 2) & (raw["user"] % 2 == 1)
    ts = START + stage * DAY + shuffled * SECOND // 2 + late * 10 * DAY
    return pd.DataFrame({"user": raw["user"], "item": raw["item"], "kind": kind, "ts": ts})


def jd(folder: Path) -> pd.DataFrame:
    """JD micro-behaviour: a session is a person; reading comments or specifications is a click; dwell is a value."""
    raw = pd.read_parquet(folder / "events.parquet")
    names = (
        dict.fromkeys(range(1, 6), "view")
        | dict.fromkeys(range(6, 9), "click")
        | {9: "cart_add", 10: "purchase"}
    )
    within = raw.groupby("session")["gap_s"].cumsum() - raw["gap_s"]
    return pd.DataFrame(
        {
            "user": raw["session"],
            "item": raw["sku"],
            "kind": raw["behavior"].map(names),
            "ts": START + raw["session"].astype(np.int64) * DAY + within * SECOND,
            "value": raw["dwell_s"].astype(float),
        }
    )


TRIVAGO = {
    "clickout item": "purchase",
    "interaction item image": "view",
    "interaction item info": "view",
    "interaction item rating": "view",
    "interaction item deals": "view",
    "search for item": "click",
}


def trivago(folder: Path) -> pd.DataFrame:
    """trivago 2019: a click-out to a hotel is the purchase.

    What was listed without being clicked is an impression. Models read no searches and filters without an item: to
    measure what they would add, they stand here as ``checkout`` of an item of their own, the words.
    """
    raw = pd.read_parquet(folder / "events.parquet")
    kind = raw["action_type"].map(TRIVAGO).fillna("checkout")
    words = raw["action_type"] + ": " + raw["reference"].astype(str)
    ts = raw["time"].astype("datetime64[us]").astype(np.int64)
    item = raw["reference"].where(kind != "checkout", words)
    did = pd.DataFrame({"user": raw["user_id"], "item": item, "kind": kind, "ts": ts})
    # A list is known only with the click-out it led to: it counts as shown just after, for later questions alone.
    lists = did.assign(other=raw["impressions"].str.split("|"), ts=ts + 1)[
        raw["impressions"].notna()
    ].explode("other")
    shown = lists[lists["other"] != lists["item"]].assign(kind="impression")
    shown["item"] = shown.pop("other")
    shown = shown[shown["item"].isin(did["item"])]  # what nobody ever turned to need not be ranked
    return pd.concat([did, shown], ignore_index=True)


@dataclass(frozen=True)
class Log:
    """How a log is read and asked."""

    read: Callable[[Path], pd.DataFrame]
    split: float  # share of the time before the questions
    steps: list[tuple[str, ...]]  # kinds that become known, one step after the other
    targets: tuple[Target, ...] = ("view", "purchase")
    live: bool = (
        True  # asked before every event, with all that the person did until then; else once, at the split
    )
    days: bool = False  # only days are known


LOGS = {
    "alibaba-tmall-2014": Log(tmall, 0.75, [("view",), ("wishlist", "cart_add"), ("purchase",)], days=True),
    "retailrocket-small": Log(
        retailrocket, 0.8, [("view",), ("cart_add",), ("purchase",)], ("purchase",), live=False
    ),
    "jd-appliances-micro": Log(
        jd,
        0.7,
        [("view",), (DWELL,), ("click",), ("cart_add",), ("purchase",)],
        ("view", "cart_add", "purchase"),
    ),
    "trivago-2019-val100k": Log(
        trivago, 0.6, [("view",), ("click",), ("purchase",), ("impression",), ("checkout",)]
    ),
}


def snapshot_of(events: pd.DataFrame, users: Vocabulary, items: Vocabulary) -> Snapshot:
    """Events as a snapshot over given vocabularies."""
    ids = events["item"].map(lambda i: None if pd.isna(i) else str(i)).tolist()
    return snapshot_from_arrays(
        users=users,
        items=items,
        row=users.numbers(events["user"].astype(str).tolist()) - 1,
        item=items.numbers(ids),
        kind=events["kind"].map(KIND_CODES).to_numpy(np.uint8),
        ts=events["ts"].to_numpy(np.int64),
        value=events["value"].to_numpy() if "value" in events else None,
    )


def questions(snapshot: Snapshot, at: int, target: Target, moments: int = 3) -> Cases:
    """What is the next event of a kind, asked of everybody at a few random moments of theirs after ``at``?

    Asked right before it, the question would answer itself: what is put in the cart is what is being looked at.
    """
    draw = np.random.default_rng(0)
    wanted_M = is_target(snapshot.kind, snapshot.item, target)
    user, end, item = [], [], []
    for row in np.unique(np.searchsorted(snapshot.ptr, np.flatnonzero(snapshot.ts >= at), side="right") - 1):
        start, stop = snapshot.ptr[row], snapshot.ptr[row + 1]
        first = max(start + 1, start + np.searchsorted(snapshot.ts[start:stop], at))
        places = draw.permutation(np.arange(first, stop))[:moments]  # the same for every target
        ahead = start + np.flatnonzero(wanted_M[start:stop])
        for place in np.sort(places):
            later = ahead[ahead >= place]
            if len(later):
                user.append(row), end.append(place), item.append(snapshot.item[later[0]])
    return Cases(
        history=snapshot,
        user_C=np.array(user, np.int64),
        end_C=np.array(end, np.int64),
        target_ptr=np.arange(len(user) + 1),
        target_item=np.array(item, np.int32),
        name=f"next {target}",
        target=target,
    )


def only(snapshot: Snapshot, kinds: tuple[str, ...], cases: list[Cases]) -> tuple[Snapshot, list[Cases]]:
    """A snapshot that knows some kinds of events only, and the same cases asked of it."""
    keep_M = np.isin(snapshot.kind, [KIND_CODES[kind] for kind in kinds if kind != DWELL])
    before_M = np.concatenate([[0], np.cumsum(keep_M)])
    cut = replace(
        snapshot,
        ptr=before_M[snapshot.ptr],
        item=snapshot.item[keep_M],
        kind=snapshot.kind[keep_M],
        ts=snapshot.ts[keep_M],
        value=snapshot.value[keep_M] if DWELL in kinds else np.full(keep_M.sum(), np.nan, np.float32),
    )
    return cut, [replace(c, history=cut, end_C=before_M[c.end_C]) for c in cases]


def asked(log: Log, snapshot: Snapshot, at: int) -> dict[Target, Cases]:
    """The questions of a log, where there are enough of them."""
    found: dict[Target, Cases] = {}
    for target in log.targets:
        if log.live:
            cases = questions(snapshot, at, target)
        else:
            cases = replace(later_cases(snapshot, before(snapshot, at), target=target), history=snapshot)
            cases = replace(cases, end_C=_first_since(snapshot, cases.user_C, np.full(len(cases), at)))
        if log.days:  # what happened on the same day is not known: its order is not
            day_C = START + (snapshot.ts[cases.end_C] - START) // DAY * DAY
            cases = replace(cases, end_C=_first_since(snapshot, cases.user_C, day_C))
        if len(cases) >= FEWEST:
            found[target] = cases
    return found


def _first_since(snapshot: Snapshot, user_C: np.ndarray, ts_C: np.ndarray) -> np.ndarray:
    """Position of each person's first event at or after a moment."""
    start_C, stop_C = snapshot.ptr[user_C], snapshot.ptr[user_C + 1]
    rows = zip(start_C, stop_C, ts_C, strict=True)
    return np.array([start + np.searchsorted(snapshot.ts[start:stop], ts) for start, stop, ts in rows])


def halves(cases: Cases) -> tuple[Cases, Cases]:
    """Those who choose and those who are measured: different people."""
    people = np.unique(cases.user_C)
    chooses = np.isin(cases.user_C, np.random.default_rng(1).permutation(people)[: len(people) // 2])
    return cases.take(np.flatnonzero(chooses)[:MOST]), cases.take(np.flatnonzero(~chooses)[:MOST])


def main(folder: Path, models: list[str], shown: list[int] | None) -> None:
    """One table for each question: rows are models, blocks are the kinds of events that they know."""
    log = LOGS[folder.name]
    events = log.read(folder)
    users = Vocabulary(sorted(events["user"].astype(str).unique()))
    items = Vocabulary(sorted(events["item"].dropna().astype(str).unique()))
    full = snapshot_of(events, users, items)
    at = int(full.ts.min() + (full.ts.max() - full.ts.min()) * log.split)
    at -= (at - START) % DAY if log.days else 0
    pairs = {target: halves(cases) for target, cases in asked(log, full, at).items()}
    counts = ", ".join(f"{kind} {n:,}" for kind, n in events["kind"].value_counts().items())
    print(f"{folder.name}: {counts}; {len(items):,} items, {len(users):,} people")
    print(
        ", ".join(f"{len(test):,} cases of the next {target} measured" for target, (_, test) in pairs.items())
    )
    known: tuple[str, ...] = ()
    first: dict[tuple[str, Target], Evaluation] = {}
    for step, kinds in enumerate(log.steps, start=1):
        known += kinds
        if shown is not None and step not in shown:
            continue
        cut, flat = only(full, known, [half for pair in pairs.values() for half in pair])
        asks = dict(zip(pairs, zip(flat[::2], flat[1::2], strict=True), strict=True))
        measures = {target: validation_metric(choose, seen="allow") for target, (choose, _) in asks.items()}
        run = Run(validate=measures.pop("purchase"), target="purchase", others=measures)
        print(f"knows {', '.join(known)}")
        for name in models:
            started = time.perf_counter()
            model = fit_model(name, before(cut, at), {}, run)
            spent = time.perf_counter() - started
            for target, (_, test) in asks.items():
                found = rank_metrics(model, test, name=name, ks=(10,), seen="allow", groups=[])
                start = first.setdefault((name, target), found)
                same = replace(start, protocol=found.protocol)  # the same questions; other histories
                gain = "" if start is found else paired_difference(found, same)["NDCG@10"].signed
                figure = found.metrics["NDCG@10"]
                print(f"  {name:<18} next {target:<9} NDCG@10 {figure}  {gain:<26} {spent:.0f} s", flush=True)


MODELS = ["popularity", "recent_popularity", "item_knn", "transitions", "frequency", "habits", "sequence"]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help=f"one of {', '.join(LOGS)}")
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--steps", nargs="*", type=int, help="which blocks, from 1; all by default")
    given = parser.parse_args()
    main(given.folder, given.models, given.steps)
