import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from penchant.core import Run
from penchant.core.errors import InputError, Interrupted, ModelError
from penchant.models import SequenceConfig
from penchant.testing import markov_snapshot, toy_snapshot
from penchant.training import fit_model

torch = pytest.importorskip("torch")
from penchant.models._sequence_torch import SequenceTransformer  # noqa: E402
from penchant.training._loop import train_network  # noqa: E402

SETTINGS = {"size": "tiny", "dropout": 0.2, "epochs": 4, "batch": 64}


def train(run, settings=SETTINGS, measure=None, users=80):
    """Weights after training on a toy."""
    snapshot, config = markov_snapshot(users=users, items=15), SequenceConfig(**settings)
    trained = train_network(lambda: SequenceTransformer(config, 15), snapshot, config, run, measure)
    return {name: value.numpy() for name, value in trained.network.state_dict().items()}


def assert_same(a, b, **tolerance):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], err_msg=name, **(tolerance or {"rtol": 0, "atol": 0}))


CHILD = """
import pathlib, sys, time
import penchant.training._loop as loop
from penchant.core import Run
from penchant.models import SequenceConfig
from penchant.models._sequence_torch import SequenceTransformer
from penchant.testing import markov_snapshot
loop._SAVE_SECONDS = 0.0
def progress(task, done, total, figures):
    print(done, flush=True)
    time.sleep(0.05)
config = SequenceConfig(**{settings!r})
loop.train_network(lambda: SequenceTransformer(config, 15), markov_snapshot(users=80, items=15), config,
    Run(seed=1, checkpoints=pathlib.Path(sys.argv[1]), progress=progress), None)
"""


def test_killed_and_resumed_gives_the_same_bits(tmp_path, monkeypatch):
    code = CHILD.replace("{settings!r}", repr(SETTINGS))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # another number of threads sums in another order
    env = dict(os.environ)
    work = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], env=env, stdout=subprocess.PIPE, text=True
    )
    for seen, _ in enumerate(work.stdout):
        if seen == 4:
            break
    time.sleep(0.07)  # into the work between two reports
    work.send_signal(signal.SIGKILL)
    work.wait()
    work.stdout.close()
    assert (tmp_path / "state.safetensors").exists()
    reports = []
    resumed = train(Run(seed=1, checkpoints=tmp_path, progress=lambda *report: reports.append(report)))
    whole = []
    assert_same(resumed, train(Run(seed=1, progress=lambda *report: whole.append(report))))
    assert 0 < len(reports) < len(whole), "it began anew"


def test_interrupted_says_how_to_go_on_and_goes_on(tmp_path):
    reports = []

    def press_ctrl_c(*report):
        reports.append(report)
        if len(reports) == 3:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=r"epoch 2 of 4.*goes on from the last checkpoint"):
        train(Run(seed=1, checkpoints=tmp_path, progress=press_ctrl_c))
    assert signal.getsignal(signal.SIGINT) is before
    assert_same(train(Run(seed=1, checkpoints=tmp_path)), train(Run(seed=1)))


def test_interrupted_without_checkpoints_says_so():
    with pytest.raises(Interrupted, match="nothing was kept"):
        train(Run(progress=lambda *report: signal.raise_signal(signal.SIGINT)))


def test_a_damaged_checkpoint_starts_anew(tmp_path):
    (tmp_path / "state.safetensors").write_bytes(b"not a checkpoint")
    assert_same(train(Run(seed=1, checkpoints=tmp_path)), train(Run(seed=1)))


def test_a_checkpoint_of_another_shape_starts_anew(tmp_path):
    train(Run(seed=1, checkpoints=tmp_path), {**SETTINGS, "width": 8})
    assert_same(train(Run(seed=1, checkpoints=tmp_path)), train(Run(seed=1)))


def test_a_finished_run_is_not_trained_again(tmp_path):
    first, reports = train(Run(checkpoints=tmp_path)), []
    again = train(Run(checkpoints=tmp_path, progress=lambda *report: reports.append(report)))
    assert_same(first, again)
    assert not reports


def test_early_stopping_keeps_the_best_weights():
    figures = iter([0.1, 0.5, 0.2, 0.3, 0.4])
    seen = []

    def measure(network):
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        return next(figures)

    best = train(Run(seed=1), {**SETTINGS, "epochs": 20, "patience": 3}, measure)
    assert len(seen) == 5
    assert_same(best, {name: value.numpy() for name, value in seen[1].items()})


def test_training_leaves_the_generator_of_others_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    train(Run())
    assert torch.equal(torch.rand(1), expected)


TWO = """
import pathlib, sys, numpy as np
import torch.distributed as dist
import penchant.training._loop as loop
from penchant.core import Run
from penchant.models import SequenceConfig
from penchant.models._sequence_torch import SequenceTransformer
from penchant.testing import markov_snapshot
from penchant.training._loop import train_network
loop.SHARD_ABOVE = {above!r}
for loss in {losses!r}:
    config = SequenceConfig(**{**{settings!r}, "loss": loss})
    trained = train_network(lambda: SequenceTransformer(config, 15), markov_snapshot(users=80, items=15),
        config, Run(seed=1, checkpoints=pathlib.Path(sys.argv[1] + "run-" + loss)), lambda network: 1.0)
    if dist.get_rank() == 0:
        np.savez(sys.argv[1] + loss, **{k: v.numpy() for k, v in trained.network.state_dict().items()})
dist.barrier()  # a process that leaves early can abort the other's shutdown
dist.destroy_process_group()
"""


def two(folder, settings, losses, above):
    """Train in two processes; the weights for each loss."""
    script = folder / "two.py"
    words = {"{settings!r}": settings, "{losses!r}": losses, "{above!r}": above}
    code = TWO
    for word, value in words.items():
        code = code.replace(word, repr(value))
    script.write_text(code)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, script, f"{folder}/"], check=False, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {loss: dict(np.load(folder / f"{loss}.npz")) for loss in losses}


ALIKE = {**SETTINGS, "dropout": 0.0, "epochs": 2, "negatives": 8}


def test_two_processes_equal_one(tmp_path):
    found = two(tmp_path, ALIKE, ("full", "sampled"), 1_000_000)
    for loss, weights in found.items():
        one = train(Run(seed=1), {**ALIKE, "loss": loss}, lambda network: 1.0)
        assert_same(one, weights, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_network_cut_over_two_processes_equals_one(tmp_path):
    """Each holds half of every weight; a run that is gone on with from two checkpoints ends the same too."""
    found = two(tmp_path, ALIKE, ("full", "sampled"), 0)
    for loss, weights in found.items():
        one = train(Run(seed=1), {**ALIKE, "loss": loss}, lambda network: 1.0)
        assert_same(one, weights, rtol=1e-3, atol=1e-4)
        parts = sorted(path.name for path in (tmp_path / f"run-{loss}").iterdir())
        assert parts == ["state.1-of-2.safetensors", "state.2-of-2.safetensors"]
    again = two(tmp_path, ALIKE, ("full",), 0)  # finished runs: nothing is trained, the parts are read
    assert_same(again["full"], found["full"])


def test_a_loss_that_is_no_number_is_said():
    with pytest.raises(ModelError, match="diverged"):
        train(Run(), {**SETTINGS, "learning_rate": 1e30})


def test_nothing_to_learn_from():
    with pytest.raises(ModelError, match="two events"):
        fit_model("sequence", toy_snapshot([("u", "a"), ("v", "b")]), SETTINGS, Run())


def test_unknown_kind_and_setting():
    snapshot = markov_snapshot(users=5, items=4)
    with pytest.raises(InputError, match="no such model kind"):
        fit_model("astrology", snapshot, {}, Run())
    with pytest.raises(InputError, match="settings of transitions"):
        fit_model("transitions", snapshot, {"moon": 1}, Run())


@pytest.mark.parametrize(
    "wrong",
    [{"dropout": 1.5}, {"interests": 0}, {"heads": 0}, {"width": -16}, {"batch": 0}, {"learning_rate": -1.0}],
)
def test_impossible_settings_are_refused_by_name(wrong):
    for config in (wrong, SequenceConfig(**wrong)):
        with pytest.raises(InputError, match=f"settings of sequence.*{next(iter(wrong))}"):
            fit_model("sequence", markov_snapshot(users=5, items=4), config, Run())


SAMPLED = {**SETTINGS, "loss": "sampled", "negatives": 8}


def test_great_tables_learn_by_rows(monkeypatch, tmp_path):
    from penchant.training import _optimiser

    dense = train(Run(seed=1), SAMPLED)
    monkeypatch.setattr(_optimiser, "TOUCHED_ROWS", 10)
    whole = train(Run(seed=1), SAMPLED)
    assert not np.array_equal(whole["item.weight"], dense["item.weight"])
    correlation = np.corrcoef(whole["item.weight"][1:].ravel(), dense["item.weight"][1:].ravel())[0, 1]
    assert correlation > 0.9, "they learn the same"

    def stop(task, done, total, figures):
        if figures.get("epoch") == 3.0:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        train(Run(seed=1, checkpoints=tmp_path, progress=stop), SAMPLED)
    assert_same(train(Run(seed=1, checkpoints=tmp_path), SAMPLED), whole)


def test_a_gpu_s_bfloat16_learns_the_same(monkeypatch):
    """The path that GPUs take, on a CPU: autocast around the loss, weights and their sums in float32."""
    from penchant.training import _loop

    exact = train(Run(seed=1))
    entered = []

    def autocast(device):
        entered.append(device)
        return torch.autocast("cpu", torch.bfloat16)

    monkeypatch.setattr(_loop, "autocast", autocast)
    rough = train(Run(seed=1))
    assert entered
    assert not np.array_equal(rough["item.weight"], exact["item.weight"])
    correlation = np.corrcoef(rough["item.weight"][1:].ravel(), exact["item.weight"][1:].ravel())[0, 1]
    assert correlation > 0.98


def test_the_average_of_a_row_that_waits_is_the_one_that_did_not(monkeypatch):
    """Averages that catch up when their row changes end where averages moved in every step do."""
    from penchant.training import _optimiser

    def average(above):
        monkeypatch.setattr(_optimiser, "TOUCHED_ROWS", above)
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Embedding(40, 3), torch.nn.Linear(3, 1))
        mean = torch.nn.Sequential(torch.nn.Embedding(40, 3), torch.nn.Linear(3, 1))
        mean.load_state_dict(network.state_dict())
        optimiser = _optimiser.Optimiser.of(network, mean, weight_decay=0.0, learning_rate=0.1, by_rows=True)
        slow = network[0].weight.detach().clone()
        for step in range(60):
            optimiser.zero_grad()
            torch.autograd.backward(network(torch.tensor([step % 7, (step * step) % 11])).sum())
            keep = min(0.9, (step + 1) / (step + 10))
            optimiser.step(0.1, 1.0, keep)
            slow.lerp_(network[0].weight.detach(), 1 - keep)
        return optimiser.averaged()[0].weight.detach(), slow

    found, slow = average(above=10)
    torch.testing.assert_close(found, slow, rtol=1e-5, atol=1e-6)
    dense, slow = average(above=50)
    torch.testing.assert_close(dense, slow, rtol=1e-5, atol=1e-6)
