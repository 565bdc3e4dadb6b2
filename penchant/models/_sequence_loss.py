"""Losses over the catalogue that never keep a (targets, items) matrix.

Letters: M real targets, C targets in one chunk, N items without the padding item, K negatives, R interests,
D width. The score of an item is the best of its dot products with the R interests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from penchant.models._precision import fast_matmuls

_CHUNK = 3_000_000  # logits alive at once on a CPU: 12 MB stay in its cache between the passes over them
_CHUNK_GPU = 64_000_000  # a GPU is only busy with large pieces
_ROWS = 32  # targets of a chunk are a multiple of it: oneDNN compiles a kernel for every shape it meets


def softmax_loss(mean_MRD: Tensor, item_ND: Tensor, target_M: Tensor) -> Tensor:
    """Cross-entropy over all items, summed over targets, as the definition says it: the slow, obvious twin."""
    logits_MN = (mean_MRD @ item_ND.T).amax(1)
    return torch.nn.functional.cross_entropy(logits_MN, target_M, reduction="sum")


def fused_softmax_loss(mean_MRD: Tensor, item_ND: Tensor, target_M: Tensor) -> Tensor:
    """Same value and gradients as ``softmax_loss``, one chunk of targets at a time.

    The gradients are made in the forward pass while the chunk's probabilities are at hand, so that memory
    does not grow with targets times items. (The idea of Cut Cross-Entropy, Wijmans et al. 2024, without a
    compiled kernel.)
    """
    loss: Tensor = _FusedSoftmax.apply(mean_MRD, item_ND, target_M)  # type: ignore[no-untyped-call]
    return loss


class _FusedSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mean_MRD: Tensor, item_ND: Tensor, target_M: Tensor) -> Tensor:
        grad_mean_MRD, grad_item_ND = torch.zeros_like(mean_MRD), torch.zeros_like(item_ND)
        low = _autocast_type(mean_MRD)
        item_low_ND = item_ND.to(low)
        loss = mean_MRD.new_zeros(())
        elements = _CHUNK_GPU if mean_MRD.is_cuda else _CHUNK
        room_CN = item_ND.new_empty(0, dtype=low)
        with fast_matmuls(mean_MRD.device.type):
            for part in _chunks(len(mean_MRD), elements // (len(item_ND) * mean_MRD.shape[1])):
                mean_CRD, target_C1 = mean_MRD[part].to(low), target_M[part, None]
                room_CN = room_CN.resize_(len(mean_CRD), len(item_ND))
                logits_CN, winner_CN = _best_interest(mean_CRD, item_low_ND, room_CN)
                chance_CN, right_C1 = _softmax(logits_CN, target_C1)
                rare_C = (right_C1 < torch.finfo(right_C1.dtype).tiny)[:, 0]
                loss -= right_C1[~rare_C].log().sum()
                if rare_C.any():  # chances that float32 cannot hold; their slope is -1 all the same
                    loss += softmax_loss(mean_MRD[part][rare_C], item_ND, target_M[part][rare_C])
                slope_CN = chance_CN.scatter_(1, target_C1, right_C1 - 1)
                for r in range(mean_MRD.shape[1]):
                    slope_r_CN = (slope_CN if winner_CN is None else slope_CN * (winner_CN == r)).to(low)
                    grad_mean_MRD[part, r] = slope_r_CN @ item_low_ND
                    grad_item_ND += slope_r_CN.T @ mean_CRD[:, r]
        ctx.save_for_backward(grad_mean_MRD, grad_item_ND)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_mean_MRD, grad_item_ND = ctx.saved_tensors
        return grad_mean_MRD * grads[0], grad_item_ND * grads[0], None


def _chunks(rows: int, at_once: int) -> Iterator[slice]:
    """Cut so many rows into pieces of few different sizes: whole ones, then multiples of ``_ROWS``, then the rest.

    Example:
        >>> [part.stop - part.start for part in _chunks(300, 100)]
        [96, 96, 96, 12]
    """
    whole = max(1, at_once // _ROWS * _ROWS or at_once)
    start = 0
    while start < rows:
        left = rows - start
        step = min(whole, left if left < _ROWS else left // _ROWS * _ROWS)
        yield slice(start, start + step)
        start += step


def _autocast_type(tensor: Tensor) -> torch.dtype:
    """What matrices are multiplied in here: inside a function of its own autograd nobody casts for us."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


def _exact(logits: Tensor) -> Tensor:
    """At least float32: what is summed over the catalogue needs more than the seven bits of bfloat16."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _best_interest(mean_CRD: Tensor, item_ND: Tensor, room_CN: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits (C, N) of the best interest and which one it was (None when there is only one)."""
    if mean_CRD.shape[1] == 1:
        return torch.mm(mean_CRD[:, 0], item_ND.T, out=room_CN), None
    best = (mean_CRD @ item_ND.T).max(1)
    return best.values, best.indices


def _softmax(logits_CN: Tensor, target_C1: Tensor) -> tuple[Tensor, Tensor]:
    """Chances of all items (C, N), which overwrite the logits where they are float32, and of the targets (C, 1)."""
    logits_CN = _exact(logits_CN)
    chance_CN = torch.softmax(logits_CN, 1, out=logits_CN)
    return chance_CN, chance_CN.gather(1, target_C1)


def sampled_softmax_loss(
    mean_MRD: Tensor, target_MD: Tensor, negative_KD: Tensor, log_chance_K: Tensor, same_MK: Tensor
) -> Tensor:
    """Cross-entropy with the sum over items estimated from negatives shared by the whole batch, summed.

    Each negative stands for 1 / (its chance of being drawn) items (Horvitz and Thompson 1952; the logQ
    correction of Yi et al. 2019 with the target itself left uncorrected), so that the loss estimates the
    full softmax and its scores keep the same scale.

    Args:
        mean_MRD: interests at each target.
        target_MD: vectors of the targets.
        negative_KD: vectors of the negatives, each item at most once.
        log_chance_K: log of each negative's chance to be among them.
        same_MK: true where a negative is the target itself.
    """
    hit_M1 = _exact(torch.einsum("mrd,md->mr", mean_MRD, target_MD).amax(1, keepdim=True))
    miss_MK = _exact((mean_MRD @ negative_KD.T).amax(1)) - log_chance_K
    miss_MK = miss_MK.masked_fill(same_MK, -torch.inf)
    return (torch.logsumexp(torch.cat([hit_M1, miss_MK], 1), 1, keepdim=True) - hit_M1).sum()
