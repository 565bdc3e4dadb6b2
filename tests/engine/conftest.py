import numpy as np
import pytest

from penchant import Engine
from penchant.core import DAY

NOW = 1_750_000_000_000_000
KINDS = ("tea", "cups", "bread", "jam", "soap")


@pytest.fixture(scope="session")
def walk():
    """Events of people on a ring of items, which a sequence model learns best."""

    def walk(days, seed):
        """People who mostly go around a ring of items; on the newest days some turn to another item after i3."""
        draw = np.random.default_rng(seed)
        rows = []
        for user in range(80):
            at = int(draw.integers(20))
            for day in days:
                for step in range(3):
                    at = (at + 1) % 20 if draw.random() < 0.9 else int(draw.integers(20))
                    item = "zebra" if day >= 16 and at == 4 else f"i{at}"
                    rows.append(
                        {
                            "event_id": f"{user}-{day}-{step}",
                            "user_id": f"u{user}",
                            "kind": "view",
                            "item_id": item,
                            "ts": NOW - (30 - day) * DAY + step * 1_000_000 + user,
                        }
                    )
        return rows

    return walk


@pytest.fixture(scope="session")
def shop_with_map(tmp_path_factory):
    """Who drinks tea comes to cups, who eats bread comes to jam; soap follows nothing."""
    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp("interests") / "shop"
    rows = []
    for user in range(150):
        order = [["tea", "cups", "soap"], ["bread", "jam"], ["soap", "bread", "jam"]][user % 3]
        for day, kind in enumerate(order):
            for step in range(3):
                rows.append(
                    {
                        "event_id": f"{user}-{day}-{step}",
                        "user_id": f"u{user}",
                        "kind": "view",
                        "item_id": f"{kind}{draw.integers(6)}",
                        "ts": NOW - (20 - day * 4) * DAY + user * 1_000_000_000 + step,
                    }
                )
    rows += [
        {"event_id": f"new-{n}", "user_id": "new", "kind": "view", "item_id": f"tea{n}", "ts": NOW - DAY + n}
        for n in range(3)
    ]
    catalog = folder.parent / "items.csv"
    catalog.write_text(
        "id,title,labels\n" + "".join(f"{k}{n},{k} number {n},{k}\n" for k in KINDS for n in range(6))
    )
    events = folder.parent / "events.csv"
    events.write_text(
        "event_id,user_id,kind,item_id,ts\n" + "".join(",".join(map(str, r.values())) + "\n" for r in rows)
    )
    with Engine.open(folder, clock=lambda: NOW) as engine:
        engine.init()
        settings = folder / "shop.toml"
        settings.write_text(
            settings.read_text().replace('text = "auto"', 'text = "off"')
        )  # no encoder to load
        engine.reload()
        engine.catalog(files=[str(catalog)])
        engine.ingest(files=[str(events)])
        report = engine.train(models=["transitions"])
        assert "interests" in report.artifacts, report.notes
    return folder
