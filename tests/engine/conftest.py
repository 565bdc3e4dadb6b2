import numpy as np
import pytest

from penchant.core import DAY

NOW = 1_750_000_000_000_000


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
