"""In what precision a device multiplies: as fast as it can without the training noticing.

On a GPU matrices are multiplied in bfloat16 under autocast, sums and weights stay float32. On a CPU everything is
float32: there autocast costs more than it saves (seven times the time of a step where bfloat16 is emulated).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch


def autocast(device: str) -> AbstractContextManager[Any]:
    """The context of a forward pass: bfloat16 on a GPU that has it, nothing elsewhere."""
    if device.startswith("cuda") and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


@contextmanager
def fast_matmuls(device: str) -> Iterator[None]:
    """Let torch use the fastest float32 product of the device, and leave its setting as it was.

    On a GPU that is TF32. On a CPU "medium" hands products to oneDNN, whose AVX-512 kernels take half the time on
    some makers' CPUs. It is asked for only where oneDNN has no narrower unit to use in its place (AMX), so that the
    results remain those of float32.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(matmul_precision(device))
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def matmul_precision(device: str) -> str:
    """Torch's word for it: "high" (TF32), "medium" or "highest"."""
    if device.startswith("cuda"):
        return "high"
    wide = torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()
    return "medium" if wide else "highest"
