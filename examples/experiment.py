"""An A/B test from start to stop in a simulated shop: popular items for all against items of one's own interests.

    python examples/experiment.py [--shop FOLDER] [--html PAGE]

Nothing here is real: the shop is ``penchant.testing.ShopSimulator``, whose true chances are known.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from penchant import Engine
from penchant.core import DAY
from penchant.testing import ShopSimulator, World


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shop", type=Path, default=None)
    parser.add_argument("--html", type=Path, default=None)
    given = parser.parse_args()
    shop = ShopSimulator(World(users=1200, purchase=0.5, delay=0.5 * DAY), seed=1)
    moment = [shop.start]
    with tempfile.TemporaryDirectory() as folder:
        path = given.shop or Path(folder) / "shop"
        with Engine.open(path, clock=lambda: moment[0]) as engine:
            engine.init()
            engine.observe(events=shop.history(4000))
            engine.start_experiment(
                name="own-interests",
                people=1200,
                exposed="event",
                days=5,
                guardrails=["cart_remove:count <= 20%"],
            )
            for week in range(3):
                serve(engine, shop, moment, range(400 * week, 400 * week + 400))
                report = engine.report_experiment(
                    name="own-interests", html=str(given.html) if given.html else None
                )
                print(f"day {(moment[0] - shop.start) // DAY:2}: {report.verdict}: {report.says}")
                for arm in report.arms:
                    print(f"    {arm.arm:10} {arm.people:5} people count, {report.metric} {arm.mean}")


def serve(engine: Engine, shop: ShopSimulator, moment: list[int], users: range) -> None:
    """A week: each person comes once and is shown five items, by their arm."""
    popular = np.argsort(-shop.quality_N)[:5]
    start, events = moment[0], []
    for number, user in enumerate(users):
        now = start + number * 60_000_000
        arm = engine.assign(experiment="own-interests", user_id=f"user-{user}").arm
        shown = popular
        if arm == "treatment":
            shown = np.argsort(-shop.quality_N - 3 * shop.shown_UP[user, shop.topic_N])[:5]
        response = shop.respond(user, shown, now)
        events.append({"kind": "view", "ts": now, "user_id": f"user-{user}", "item_id": f"item-{shown[0]}"})
        for item, wait in zip(shown.tolist(), response.bought_after_K.tolist(), strict=True):
            if wait >= 0:
                bought = {
                    "kind": "purchase",
                    "ts": now + wait,
                    "user_id": f"user-{user}",
                    "item_id": f"item-{item}",
                }
                events.append({**bought, "value": 1000.0})
    moment[0] = start + 7 * DAY
    engine.observe(events=events)


if __name__ == "__main__":
    main()
