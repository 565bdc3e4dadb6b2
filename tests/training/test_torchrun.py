"""Two processes under torchrun train a shop together, by the same command as one."""

import json
import os
import subprocess
import sys

import pytest

from penchant import Engine
from penchant.testing._operations import write_files

pytest.importorskip("torch")
pytestmark = pytest.mark.slow


def test_two_processes_train_a_shop(tmp_path):
    write_files(tmp_path)
    shop = tmp_path / "shop"
    with Engine.open(shop) as engine:
        engine.init(currency="EUR")
        engine.catalog(files=[str(tmp_path / "items.csv")])
        engine.ingest(files=[str(tmp_path / "events.csv")])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    words = [
        "train",
        "--shop",
        str(shop),
        "--models",
        "sequence",
        "--size",
        "tiny",
        "--json",
        "--no-progress",
    ]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, "-m", "penchant", *words], env=env, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)  # one answer: the second process says nothing
    (row,) = (row for row in report["leaderboard"]["rows"] if row["model"] == "sequence")
    assert row["metrics"]["NDCG@10"]["value"] > 0, row["note"]
    with Engine.open(shop) as engine:
        assert engine.status().serving == report["promoted"]
        assert not engine.recommend(explore="off", user_id="person-07", k=3).degraded
