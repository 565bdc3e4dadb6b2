"""The one training loop for neural interest models: seeded, resumable, early stopped, data parallel.

A killed run goes on from its last checkpoint and ends with the same bits as one that never stopped: every
random choice is derived from the seed and its place in the run, and the checkpoint holds the rest.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

import msgspec
import numpy as np
import torch
from torch import nn

from penchant.core import Ints, Run, SequenceBatch, Snapshot
from penchant.core.errors import Interrupted, ModelError
from penchant.data import Windows, training_windows, window_batch
from penchant.models import FULL_SOFTMAX_ITEMS, InterestModel, SequenceConfig, Size, target_counts
from penchant.models._precision import autocast
from penchant.training._batches import NegativeSampler, epoch_batches, step_seed
from penchant.training._checkpoint import Nets, load_checkpoint, save_checkpoint
from penchant.training._distributed import World, join
from penchant.training._interrupt import StopRequest
from penchant.training._optimiser import Optimiser
from penchant.training._shards import ShardedLoss, gather

_WARMUP = 100  # steps
_SAVE_SECONDS = 60.0
_AVERAGE = 0.998  # weights are averaged over about the last 500 steps
_CLEARLY, _FALLS = 0.98, 2  # two falls in a row to below 98 % of the best: more epochs only overfit
_CLIP = 1.0  # largest length of a gradient
SHARD_ABOVE = (
    100_000_000  # parameters of a network that several processes cut up instead of each holding it whole
)
_TASK = "sequence model"


class Standing(msgspec.Struct):
    """Where a run stands: what a checkpoint holds beside the tensors."""

    epoch: int = 0
    batch: int = 0  # batches done of this epoch
    step: int = 0
    best: float | None = None  # not minus infinity: JSON has none
    best_epoch: int = 0
    since_best: int = 0
    last: float = 0.0  # the validation before
    falling: int = 0  # validations in a row that were clearly behind the best and behind the one before
    loss: float = 0.0  # summed over the targets of this epoch
    targets: int = 0
    done: bool = False

    @property
    def mean_loss(self) -> float:
        """Mean loss of the epoch so far."""
        return self.loss / max(1, self.targets)


@dataclass(frozen=True, eq=False)
class Trained:
    """What the loop gives back: the network with its best weights, and after how many epochs they were found."""

    network: nn.Module
    epochs: int
    validation: float | None


def train_network(
    make: Callable[[], nn.Module],
    snapshot: Snapshot,
    config: SequenceConfig,
    run: Run,
    measure: Callable[[nn.Module], float] | None,
    windows: Windows | None = None,
) -> Trained:
    """Fit a network that fulfils ``InterestModel``.

    Args:
        make: Gives the network with its initial weights (called after seeding).
        snapshot: What to learn from.
        config: Its settings; ``epochs`` None means: until ``measure`` finds no better, or the horizon.
        run: Seed, device, checkpoints and progress.
        measure: Scores the network on held-out people, higher is better; None trains to the last epoch.
        windows: The pieces of the snapshot to go through; None = all of it.

    Raises:
        ModelError: No person has two events, or the loss is no number.
        Interrupted: Ctrl-C; the same call goes on from where it stopped.
    """
    world = join(run.device)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or min(2, os.cpu_count() or 1)))
    with torch.random.fork_rng(devices=[]), StopRequest() as stop:
        torch.manual_seed(run.seed)
        job = Job.prepare(make, snapshot, config, run, world, windows)
        job.restore()
        try:
            while not job.state.done:
                job.epoch(stop)
                job.judge(measure)
                job.save()
        except KeyboardInterrupt:
            job.interrupted()
        if measure is not None:
            job.nets.average.load_state_dict(job.nets.best)
        else:
            job.nets.optimiser.averaged()
        network = job.judged()
    epochs = job.state.best_epoch if measure is not None else job.state.epoch
    return Trained(network, epochs, job.state.best)


def fit_size(size: Size, num_items: int) -> Size:
    """Larger catalogues get larger steps: a step's cost there is in the tables, not in the targets."""
    return msgspec.structs.replace(size, batch=max(size.batch, min(num_items // 16, 8192)))


@dataclass(eq=False)
class Job:
    """One run of the loop: what does not change, the tensors, and where it stands."""

    snapshot: Snapshot
    config: SequenceConfig
    size: Size
    run: Run
    world: World
    windows: Windows
    epochs: int
    negatives: NegativeSampler | None
    nets: Nets
    sharded: ShardedLoss | None  # the network, cut over all processes
    whole: nn.Module  # what is judged: the average, or what it is gathered into where it is cut
    state: Standing = field(default_factory=Standing)
    saved: float = field(default_factory=time.monotonic)

    @classmethod
    def prepare(
        cls,
        make: Callable[[], nn.Module],
        snapshot: Snapshot,
        config: SequenceConfig,
        run: Run,
        world: World,
        windows: Windows | None = None,
    ) -> Self:
        """Cut the windows, fix the number of epochs, make the network and its optimiser."""
        size = config.build()
        if config.batch is None:
            size = fit_size(size, snapshot.num_items)
        if windows is None:
            windows = training_windows(snapshot, size.length)
        if not len(windows):
            raise ModelError("no person has two events to learn an order from", hint="use the counted models")
        epochs = config.epochs
        if epochs is None:
            epochs = min(200.0, size.targets / int(windows.length_W.sum()))
        network = make().to(world.device)
        if world.device.startswith("cuda"):  # on a CPU compiling takes longer than it saves
            network.compile(dynamic=True)
        average = copy.deepcopy(network)  # what is judged and given back: steadier than the last step
        whole, sharded = average, None
        if world.size > 1 and sum(p.numel() for p in network.parameters()) > SHARD_ABOVE:
            whole = copy.deepcopy(network).cpu()
            sharded = ShardedLoss(network, world)
            average = ShardedLoss(average, world).network
        best = {name: value.detach().clone() for name, value in network.state_dict().items()}
        sampler = _sampler(snapshot, config, size, run.seed)
        optimiser = Optimiser.of(
            network,
            average,
            weight_decay=config.weight_decay,
            learning_rate=size.learning_rate,
            by_rows=sampler is not None and world.size == 1,
        )
        nets = Nets(network, average, best, optimiser)
        count = max(1, round(epochs))
        return cls(snapshot, config, size, run, world, windows, count, sampler, nets, sharded, whole)

    def epoch(self, stop: StopRequest) -> None:
        """Go through what is left of this epoch."""
        self.nets.network.train()
        batches = epoch_batches(self.windows, self.size.batch, self.run.seed, self.state.epoch)
        for number in range(self.state.batch, len(batches)):
            loss, count = self._step(batches[number], number)
            if not np.isfinite(loss):
                raise ModelError(
                    "training diverged: the loss is no number",
                    hint="lower learning_rate under [train.settings.sequence]",
                )
            self.state.loss += loss
            self.state.targets += count
            self.state.step += 1
            self.state.batch = number + 1
            if number % 10 == 0 or number + 1 == len(batches):
                self._tell(number + 1, len(batches))
            stopping, due = self._due(stop)
            if stopping or due:
                self.save()
            if stopping:
                raise KeyboardInterrupt

    def _due(self, stop: StopRequest) -> tuple[bool, bool]:
        """Whether to stop, and whether to save; processes that hold parts of one network do both together."""
        asked, late = stop.asked, time.monotonic() - self.saved > _SAVE_SECONDS
        if self.sharded is None:
            return asked, late
        word = self.world.decide(lambda: 2.0 * asked + late)
        return word >= 2, word % 2 == 1

    def _step(self, index: Ints, number: int) -> tuple[float, int]:
        """One update; returns the summed loss and the targets of all processes."""
        optimiser = self.nets.optimiser
        model = cast(InterestModel, self.nets.network).loss if self.sharded is None else self.sharded
        torch.manual_seed(step_seed(self.run.seed, self.state.epoch, number, self.world.rank))
        whole = self._batch(index)
        target_M = _targets(whole)
        draw = self.negatives.draw if self.negatives is not None else None
        negatives = draw(target_M, self.state.epoch, number) if draw is not None else None
        index = index[self.world.rank :: self.world.size]
        mine = whole if self.world.size == 1 or not len(index) else self._batch(index)
        share = len(_targets(mine)) / max(1, len(target_M)) if len(index) else 0.0
        optimiser.zero_grad()
        loss = torch.zeros((), device=self.world.device)
        if share or self.sharded is not None:  # all take part where each holds a part
            with autocast(self.world.device):
                loss = model(mine, negatives) * share
            torch.autograd.backward(loss)
        total = self.world.sum(loss.detach().clone())
        self._share_gradients()
        warm = min(1.0, (self.state.step + 1) / _WARMUP)
        keep = min(_AVERAGE, (self.state.step + 1) / (self.state.step + 10))
        optimiser.step(self.size.learning_rate * warm, _CLIP, keep)
        return float(total) * len(target_M), len(target_M)

    def _batch(self, index: Ints) -> SequenceBatch:
        return window_batch(self.snapshot, self.windows, index, self.config.asked_codes)

    def _share_gradients(self) -> None:
        """Add up the gradients of all processes, each weighed by its share of the targets."""
        if self.world.size == 1 or self.sharded is not None:
            return
        for parameter in self.nets.network.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            self.world.sum(parameter.grad)

    def judge(self, measure: Callable[[nn.Module], float] | None) -> None:
        """After an epoch: keep the weights if they are the best so far, stop when none were for a while."""
        state = self.state
        figures = {"epoch": state.epoch + 1.0, "loss": state.mean_loss}
        state.epoch, state.batch, state.loss, state.targets = state.epoch + 1, 0, 0.0, 0
        state.done = state.epoch >= self.epochs
        if measure is None:
            return
        average, judged = self.nets.optimiser.averaged(), self.judged().eval()
        value = self.world.decide(lambda: measure(judged))
        if state.best is None or value > state.best:
            state.best, state.best_epoch, state.since_best = value, state.epoch, 0
            for name, tensor in average.state_dict().items():
                self.nets.best[name].copy_(tensor)
        else:
            state.since_best += 1
            worse = value < min(state.last, _CLEARLY * state.best)
            state.falling = state.falling + 1 if worse else 0
            overfit = state.falling >= _FALLS
            state.done = state.done or overfit or state.since_best >= self.config.patience
        state.last = value
        if self.world.rank == 0:
            figures["validation"] = value
            self.run.progress(f"{_TASK}: validated", state.epoch, self.epochs, figures)

    def judged(self) -> nn.Module:
        """The averaged network, whole; all processes call it together."""
        return self.whole if self.sharded is None else gather(self.nets.average.state_dict(), self.whole)

    def _tell(self, done: int, total: int) -> None:
        if self.world.rank:
            return
        figures: dict[str, Any] = {"epoch": self.state.epoch + 1.0, "loss": self.state.mean_loss}
        if self.state.best is not None:
            figures["validation"] = self.state.best
        self.run.progress(_TASK, self.state.epoch * total + done, self.epochs * total, figures)

    @property
    def _place(self) -> Path | None:
        if self.run.checkpoints is None:
            return None
        part = "" if self.sharded is None else f".{self.world.rank + 1}-of-{self.world.size}"
        return self.run.checkpoints / f"state{part}.safetensors"

    def restore(self) -> None:
        """Go on from the checkpoint, if there is one of this run."""
        if self._place is not None and self._place.exists():
            self.state = load_checkpoint(self._place, self.nets, Standing) or self.state

    def save(self) -> None:
        """Write a checkpoint: the first process for all, whose tensors are equal, or each its part."""
        if self._place is not None and (self.world.rank == 0 or self.sharded is not None):
            save_checkpoint(self._place, self.nets, self.state)
        self.saved = time.monotonic()

    def interrupted(self) -> None:
        """Say what is safe.

        Raises:
            Interrupted: Always.
        """
        where = f"training stopped in epoch {self.state.epoch + 1} of {self.epochs}"
        if self._place is None:
            raise Interrupted(where, hint="nothing was kept: run it again to begin anew") from None
        raise Interrupted(
            where, hint="run the same command again: it goes on from the last checkpoint"
        ) from None


def _targets(batch: SequenceBatch) -> Ints:
    """Items to predict in a batch, (M,)."""
    assert batch.target_BT is not None
    return batch.target_BT[batch.target_BT > 0]


def _sampler(snapshot: Snapshot, config: SequenceConfig, size: Size, seed: int) -> NegativeSampler | None:
    """What draws negatives; None where all items compete."""
    if config.loss == "full" or (config.loss == "auto" and snapshot.num_items <= FULL_SOFTMAX_ITEMS):
        return None
    count_N = target_counts(snapshot)
    return NegativeSampler(size.negatives, count_N / count_N.sum(), seed)
