"""A network too great for one process, cut over all of ``torchrun``: FSDP (Zhao et al. 2023, in torch's second form).

Every process keeps its share of each weight, its gradient and its moments; a block's whole weights exist only while
the block works. What is judged and given back is gathered.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from penchant.core import SequenceBatch
from penchant.models import Negatives
from penchant.training._distributed import World


class ShardedLoss(nn.Module):
    """The loss of a network as a forward pass, which is where FSDP gathers weights and scatters gradients."""

    def __init__(self, network: nn.Module, world: World) -> None:
        super().__init__()
        self.network = network
        mesh = init_device_mesh(world.device.partition(":")[0], (world.size,))
        for block in network.blocks:  # type: ignore[union-attr]
            fully_shard(block, mesh=mesh)
        fully_shard(self, mesh=mesh)
        for module in self.modules():
            if isinstance(module, FSDPModule):
                # The losses of the processes are weighed already: their gradients are added up, not averaged.
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)  # gloo knows nothing finer

    def forward(self, batch: SequenceBatch, negatives: Negatives | None) -> Tensor:
        """Mean cross-entropy over this process's targets, ()."""
        loss: Tensor = self.network.loss(batch, negatives)  # type: ignore[operator]
        return loss


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that is cut over all, sharing its memory; another tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def cut_like(pattern: Tensor, part: Tensor) -> Tensor:
    """Put this process's part in the place of that of ``pattern``, if that is cut; the reverse of ``local``."""
    if isinstance(pattern, DTensor) and part.shape == pattern.to_local().shape:
        return DTensor.from_local(part, pattern.device_mesh, pattern.placements)
    return part


@torch.no_grad()
def gather(sharded: dict[str, Tensor], whole: nn.Module) -> nn.Module:
    """Fill a network that is not cut with the weights of one that is; all processes call it together."""
    own: dict[str, Any] = whole.state_dict()
    for name, tensor in sharded.items():
        own[name].copy_(tensor.full_tensor() if isinstance(tensor, DTensor) else tensor)
    return whole
