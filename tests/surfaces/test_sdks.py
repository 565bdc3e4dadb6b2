"""The vendors' own client libraries, pointed at the collector. ``make sdks`` installs them; without, skipped."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from penchant.engine import Engine
from penchant.surfaces import create_app
from penchant.testing import running_server

HERE = Path(__file__).parent.parent / "sdk"
NODE, PYTHON = shutil.which("node"), HERE / ".venv/bin/python"
LIBRARIES = {
    "@segment/analytics-node": (
        NODE,
        HERE / "drive_segment.mjs",
        HERE / "node_modules/@segment/analytics-node",
    ),
    "@rudderstack/rudder-sdk-node": (
        NODE,
        HERE / "drive_rudderstack.mjs",
        HERE / "node_modules/@rudderstack/rudder-sdk-node",
    ),
    "segment-analytics-python": (PYTHON, HERE / "drive_segment.py", PYTHON),
}


@pytest.mark.sdk
@pytest.mark.parametrize("library", LIBRARIES)
def test_library(library: str, tmp_path: Path) -> None:
    command, script, needed = LIBRARIES[library]
    if command is None or not needed.exists():
        pytest.skip(f"{library} is NOT TESTED: it is not installed here, `make sdks` does it")
    engine = Engine.open(tmp_path / "shop")
    engine.init(name="tea", currency="EUR")
    key = engine.keys(action="create", scopes=["write"]).secret
    with running_server(create_app(engine)) as url:
        ran = subprocess.run(
            [command, script, url, str(key)], capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == 0, ran.stderr
        store = engine.shop.store
        rows = {row["event_id"]: row for row in store.scan().to_pylist()}
        searched = [row["query"] for row in rows.values() if row["kind"] == "search"]
        assert {row["subject"] for row in rows.values()} == {"anna"}, "the guest was joined"
        assert sorted(store.guests("anna")) == ["anon:device-1", "anon:device-2"]
        assert (rows["view-1"]["item_id"], rows["view-1"]["value"]) == ("tea", 450.0)
        assert rows["view-1"]["anonymous_id"] == "device-1"
        assert [rows[f"order-1#{n}"]["item_id"] for n in (0, 1)] == ["tea", "cup"]
        assert (rows["order-1#0"]["value"], rows["order-1#0"]["quantity"]) == (900.0, 2.0)
        assert searched == ["green tea"]
        assert len(rows) == 4
        assert engine.dead_letters().kept == 0
        now = engine.clock()
        assert all(now - 60_000_000 < row["ts"] <= now for row in rows.values())
