import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from penchant.core import Run
from penchant.core.errors import InputError, ModelError
from penchant.testing import markov_snapshot, toy_snapshot
from penchant.training import fit_model

pytest.importorskip("torch")

SETTINGS = {"size": "tiny", "dropout": 0.2, "epochs": 6, "batch": 64, "counts": False}
CODE = """
import sys, pathlib, numpy as np
from penchant.core import Run
from penchant.testing import markov_snapshot
import penchant.training._loop as loop
from penchant.training import fit_model
loop._SAVE_SECONDS = 0.0
slow = float(sys.argv[3])
def progress(task, done, total, figures):
    import time
    print(done, flush=True)
    time.sleep(slow)
model = fit_model("sequence", markov_snapshot(users=80, items=15), {settings!r},
    Run(seed=1, checkpoints=pathlib.Path(sys.argv[1]), progress=progress))
np.save(sys.argv[2], model.item_ND)
"""


def command(folder, out, slow):
    return [
        sys.executable,
        "-c",
        CODE.replace("{settings!r}", repr(SETTINGS)),
        str(folder),
        str(out),
        str(slow),
    ]


def test_killed_and_resumed_gives_the_same_bits(tmp_path):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole = subprocess.run(
        command(tmp_path / "a", tmp_path / "a.npy", 0), check=True, env=env, capture_output=True, text=True
    )
    work = subprocess.Popen(
        command(tmp_path / "b", tmp_path / "b.npy", 0.05), env=env, stdout=subprocess.PIPE
    )
    for seen, _ in enumerate(work.stdout, 1):
        if seen == 6:
            break
    time.sleep(0.07)
    work.send_signal(signal.SIGKILL)
    work.wait()
    work.stdout.close()
    assert not (tmp_path / "b.npy").exists()
    assert (tmp_path / "b" / "state.safetensors").exists()
    done = subprocess.run(
        command(tmp_path / "b", tmp_path / "b.npy", 0), check=True, env=env, capture_output=True, text=True
    )
    assert int(done.stdout.split()[0]) > int(whole.stdout.split()[0]), "it began anew"
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))


def test_a_damaged_checkpoint_starts_anew(tmp_path):
    snapshot = markov_snapshot(users=30, items=8)
    clean = fit_model("sequence", snapshot, SETTINGS, Run(seed=1))
    (tmp_path / "state.safetensors").write_bytes(b"not a checkpoint")
    again = fit_model("sequence", snapshot, SETTINGS, Run(seed=1, checkpoints=tmp_path))
    np.testing.assert_array_equal(clean.item_ND, again.item_ND)


TWO = """
import sys, numpy as np
from penchant.core import Run
from penchant.testing import markov_snapshot
from penchant.training import fit_model
import os
model = fit_model("sequence", markov_snapshot(users=80, items=15),
    {"size": "tiny", "dropout": 0.0, "epochs": 2, "batch": 64, "counts": False, "loss": sys.argv[2]}, Run(seed=1))
if os.environ.get("RANK", "0") == "0":
    np.save(sys.argv[1], model.item_ND)
import torch.distributed as dist
if dist.is_initialized():
    dist.destroy_process_group()
"""


@pytest.mark.parametrize("loss", ["full", "sampled"])
def test_two_processes_equal_one(tmp_path, loss):
    script = tmp_path / "two.py"
    script.write_text(TWO)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    subprocess.run([sys.executable, script, tmp_path / "one.npy", loss], check=True, env=env)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*launch, script, tmp_path / "two.npy", loss], check=True, env=env, capture_output=True)
    np.testing.assert_allclose(
        np.load(tmp_path / "one.npy"), np.load(tmp_path / "two.npy"), rtol=2e-3, atol=2e-4
    )


def test_nothing_to_learn_from():
    with pytest.raises(ModelError, match="two events"):
        fit_model("sequence", toy_snapshot([("u", "a"), ("v", "b")]), SETTINGS, Run())


def test_unknown_kind_and_setting():
    snapshot = markov_snapshot(users=5, items=4)
    with pytest.raises(InputError, match="no such model kind"):
        fit_model("astrology", snapshot, {}, Run())
    with pytest.raises(InputError, match="settings of transitions"):
        fit_model("transitions", snapshot, {"moon": 1}, Run())
