"""Several processes under ``torchrun`` as one: who am I, add up, and let the first one decide.

A single process goes through the same calls; they then cost nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """This process among all: ``rank`` of ``size``, and the device it works on."""

    rank: int
    size: int
    device: str

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up a tensor over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def decide(self, value: Callable[[], float]) -> float:
        """Compute a figure in the first process and tell it to all, so that all go the same way."""
        if self.size == 1:
            return float(value())
        told = torch.zeros(1, dtype=torch.float64, device=self.device)
        if self.rank == 0:
            told[0] = float(value())
        dist.broadcast(told, 0)
        return float(told)


def join(device: str) -> World:
    """Take one's place among the processes that ``torchrun`` started; alone without it.

    Uses nccl on GPUs, one a process, and gloo on CPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or not dist.is_available():
        return World(0, 1, device)
    on_gpu = device.startswith("cuda")
    if on_gpu:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if on_gpu else "gloo")
    return World(dist.get_rank(), dist.get_world_size(), device)
