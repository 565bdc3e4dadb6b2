"""The one training loop for neural interest models: seeded, resumable, early stopped, data parallel.

A killed run goes on from its last checkpoint and ends with the same bits as one that never stopped: every
random choice is derived from (seed, epoch), and the checkpoint holds weights, optimiser and torch's generator.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from penchant.core import Ints, Run, Snapshot
from penchant.core.errors import ModelError
from penchant.data import Windows, training_windows, window_batch
from penchant.models import FULL_SOFTMAX_ITEMS, InterestModel, Negatives, SequenceConfig, Size
from penchant.training._checkpoint import Nets, load_checkpoint, save_checkpoint

_WARMUP = 100  # steps
_POOL = 64  # batches sorted by length together, so that little is padded and order stays random
_SAVE_SECONDS = 60.0
_AVERAGE = 0.998  # weights are averaged over about the last 500 steps (Polyak and Juditsky 1992)


class Standing(msgspec.Struct):
    """Where a run stands: what a checkpoint holds beside the tensors."""

    epoch: int = 0
    batch: int = 0  # batches done of this epoch
    step: int = 0
    best: float | None = None  # not minus infinity: JSON has none
    best_epoch: int = 0
    since_best: int = 0
    loss: float = 0.0  # summed over the targets of this epoch
    targets: int = 0
    done: bool = False


@dataclass
class Trained:
    """What the loop gives back: the network with its best weights, and after how many epochs they were found."""

    network: nn.Module
    epochs: int
    validation: float | None


@dataclass
class _Work:
    snapshot: Snapshot
    config: SequenceConfig
    size: Size
    run: Run
    windows: Windows
    epochs: int
    sampled: bool
    rank: int = 0
    world: int = 1
    saved: float = field(default_factory=time.monotonic)


def train_network(
    make: Callable[[], nn.Module],
    snapshot: Snapshot,
    config: SequenceConfig,
    run: Run,
    measure: Callable[[nn.Module], float] | None,
) -> Trained:
    """Fit a network that fulfils ``InterestModel``.

    Args:
        make: Gives the network with its initial weights (called after seeding).
        snapshot: What to learn from.
        config: Its settings; ``epochs`` None means: until ``measure`` finds no better, or the horizon.
        run: Seed, device, checkpoints and progress.
        measure: Scores the network on held-out people, higher is better; None trains to the last epoch.

    Raises:
        ModelError: No person has two events, or the loss is no number.
    """
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or min(2, os.cpu_count() or 1)))
    torch.manual_seed(run.seed)
    size = fit_size(config.build(), snapshot.num_items)
    work = _prepare(snapshot, config, size, run)
    network = make().to(run.device)
    average = copy.deepcopy(network)  # what is judged and given back: steadier than the last step
    optimiser = _optimiser(network, config, size)
    best = {name: value.detach().clone() for name, value in network.state_dict().items()}
    nets = Nets(network, average, best, optimiser)
    state = Standing()
    place = None if run.checkpoints is None or work.rank else run.checkpoints / "state.safetensors"
    if place is not None and place.exists():
        state = load_checkpoint(place, nets, Standing) or state
    while state.epoch < work.epochs and not state.done:
        _epoch(work, nets, state, place)
        _judge(work, nets, state, measure)
        if place is not None:
            save_checkpoint(place, nets, state)
    if measure is not None:
        average.load_state_dict(best)
    validation = state.best if measure is not None else None
    return Trained(average, state.best_epoch if measure is not None else state.epoch, validation)


def fit_size(size: Size, num_items: int) -> Size:
    """Larger catalogues get larger steps: a step's cost there is in the tables, not in the targets."""
    return msgspec.structs.replace(size, batch=max(size.batch, min(num_items // 16, 8192)))


def _prepare(snapshot: Snapshot, config: SequenceConfig, size: Size, run: Run) -> _Work:
    windows = training_windows(snapshot, size.length)
    if not len(windows):
        raise ModelError("no person has two events to learn an order from", hint="use the counted models")
    targets = int(windows.length_W.sum())
    epochs = config.epochs if config.epochs is not None else max(1, min(200, round(size.targets / targets)))
    sampled = config.loss == "sampled" or (config.loss == "auto" and snapshot.num_items > FULL_SOFTMAX_ITEMS)
    rank, world = _join()
    return _Work(snapshot, config, size, run, windows, max(1, round(epochs)), sampled, rank, world)


def _join() -> tuple[int, int]:
    """Rank and number of processes under ``torchrun``; (0, 1) otherwise."""
    if "RANK" not in os.environ or not dist.is_available():
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return dist.get_rank(), dist.get_world_size()


def _optimiser(network: nn.Module, config: SequenceConfig, size: Size) -> torch.optim.AdamW:
    """AdamW; biases, norms and distance tables are not decayed."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=size.learning_rate, betas=(0.9, 0.98), fused=True)


def epoch_batches(windows: Windows, batch: int, seed: int, epoch: int) -> list[Ints]:
    """Cut an epoch's windows into batches of about ``batch`` events, alike in length, in random order."""
    rng = np.random.default_rng([seed, 1, epoch])
    order = rng.permutation(len(windows))
    mean = max(1.0, float(windows.length_W.mean()))
    pool = max(1, int(_POOL * batch / mean))
    cuts = range(pool, len(order), pool)
    sorted_ = [part[np.argsort(windows.length_W[part], kind="stable")] for part in np.split(order, cuts)]
    order = np.concatenate(sorted_)
    total = np.cumsum(windows.length_W[order])
    batches = np.split(order, np.flatnonzero(np.diff((total - 1) // batch)) + 1)
    return [batches[n] for n in rng.permutation(len(batches))]


def draw_negatives(rng: np.random.Generator, num_items: int, count: int) -> Negatives:
    """Draw items uniformly, each kept once, with the log of its chance to be among them."""
    item_K = np.unique(rng.integers(1, num_items + 1, size=count))
    chance = -np.expm1(count * np.log1p(-1.0 / num_items)) if num_items > 1 else 1.0
    return Negatives(item_K, np.full(len(item_K), np.log(chance), np.float32))


def _epoch(work: _Work, nets: Nets, state: Standing, place: Path | None) -> None:
    nets.network.train()
    batches = epoch_batches(work.windows, work.size.batch, work.run.seed, state.epoch)
    for number in range(state.batch, len(batches)):
        rng = np.random.default_rng([work.run.seed, 2, state.epoch, number])
        negatives = None
        if work.sampled:
            negatives = draw_negatives(rng, work.snapshot.num_items, work.size.negatives)
        for group in nets.optimiser.param_groups:
            group["lr"] = work.size.learning_rate * min(1.0, (state.step + 1) / _WARMUP)
        mine = batches[number][work.rank :: work.world]
        loss, count = _step(work, nets, mine, negatives, state.step)
        state.loss += loss
        state.targets += count
        state.step += 1
        state.batch = number + 1
        if number % 10 == 0 or number + 1 == len(batches):
            _tell(work, state, number + 1, len(batches))
        if place is not None and time.monotonic() - work.saved > _SAVE_SECONDS:
            save_checkpoint(place, nets, state)
            work.saved = time.monotonic()


def _tell(work: _Work, state: Standing, done: int, total: int) -> None:
    if work.rank == 0:
        figures = {"epoch": state.epoch + 1.0, "loss": state.loss / max(1, state.targets)}
        if state.best is not None:
            figures["validation"] = state.best
        work.run.progress("sequence model", state.epoch * total + done, work.epochs * total, figures)


def _step(work: _Work, nets: Nets, mine: Ints, negatives: Negatives | None, step: int) -> tuple[float, int]:
    """One update from this process's share of a batch; returns summed loss and targets of all processes."""
    network, optimiser = nets.network, nets.optimiser
    model: InterestModel = network  # type: ignore[assignment]
    optimiser.zero_grad(set_to_none=False)
    loss, count = torch.zeros((), device=work.run.device), 0
    if len(mine):
        batch = window_batch(work.snapshot, work.windows, mine)
        assert batch.target_BT is not None
        count = int((batch.target_BT > 0).sum())
        if count:
            loss = model.loss(batch, negatives) * count
    totals = torch.tensor([float(loss.detach()), float(count)], dtype=torch.float64)
    if work.world > 1:
        dist.all_reduce(totals)
    everyone = max(1.0, float(totals[1]))
    if count:
        torch.autograd.backward(loss / everyone)
    if work.world > 1:
        for parameter in network.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    with torch.no_grad():
        rate = 1 - min(_AVERAGE, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(nets.average.parameters()), list(network.parameters()), rate)
    if not np.isfinite(float(totals[0])):
        raise ModelError(
            "training diverged: the loss is no number", hint="lower learning_rate in the model's settings"
        )
    return float(totals[0]), int(totals[1])


def _judge(
    work: _Work,
    nets: Nets,
    state: Standing,
    measure: Callable[[nn.Module], float] | None,
) -> None:
    """After an epoch: keep the weights if they are the best so far, stop when none were for a while."""
    mean_loss = state.loss / max(1, state.targets)
    state.epoch, state.batch, state.loss, state.targets = state.epoch + 1, 0, 0.0, 0
    if measure is None:
        state.done = state.epoch >= work.epochs
        return
    nets.average.eval()
    value = float(measure(nets.average))
    if state.best is None or value > state.best:
        state.best, state.best_epoch, state.since_best = value, state.epoch, 0
        for name, tensor in nets.average.state_dict().items():
            nets.best[name].copy_(tensor)
    else:
        state.since_best += 1
    state.done = state.since_best >= work.config.patience or state.epoch >= work.epochs
    if work.rank == 0:
        figures: dict[str, Any] = {"epoch": float(state.epoch), "loss": mean_loss, "validation": value}
        work.run.progress("sequence model: validated", state.epoch, work.epochs, figures)
