"""Linear layers whose products are as fast as the CPU can make them, though every batch has another shape.

Letters: M rows, I features in, O features out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from penchant.models._precision import fast_matmuls, matmul_precision

_ROWS = 128  # the fast library compiles a kernel for every shape it meets: it gets multiples of so many rows


class Linear(nn.Linear):
    """``nn.Linear`` without a bias; in training on a CPU, most rows go through its fastest float32 product."""

    def __init__(self, features_in: int, features_out: int) -> None:
        super().__init__(features_in, features_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        fast = self.training and x.device.type == "cpu" and matmul_precision("cpu") != "highest"
        if not fast or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        out: Tensor = _ByRows.apply(x.reshape(-1, x.shape[-1]), self.weight)  # type: ignore[no-untyped-call]
        return out.view(*x.shape[:-1], -1)


class _ByRows(torch.autograd.Function):
    """x W^T: a whole number of ``_ROWS`` rows by the fast library, the rest by torch's own."""

    @staticmethod
    def forward(ctx: Any, x_MI: Tensor, weight_OI: Tensor) -> Tensor:
        ctx.save_for_backward(x_MI, weight_OI)
        return _product(x_MI, weight_OI.T)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x_MI, weight_OI = ctx.saved_tensors
        slope_MO = grads[0]
        many = len(x_MI) // _ROWS * _ROWS
        with fast_matmuls("cpu"):
            slope_OI = slope_MO[:many].T @ x_MI[:many]
        if many < len(x_MI):
            slope_OI += slope_MO[many:].T @ x_MI[many:]
        return _product(slope_MO, weight_OI), slope_OI


def _product(left_MK: Tensor, right_KO: Tensor) -> Tensor:
    many = len(left_MK) // _ROWS * _ROWS
    out_MO = left_MK.new_empty(len(left_MK), right_KO.shape[1])
    with fast_matmuls("cpu"):
        torch.mm(left_MK[:many], right_KO, out=out_MO[:many])
    if many < len(left_MK):
        torch.mm(left_MK[many:], right_KO, out=out_MO[many:])
    return out_MO
