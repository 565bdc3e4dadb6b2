"""Losses over the catalogue that never keep a (targets, items) matrix.

Letters: M real targets, C targets in one chunk, N items without the padding item, K negatives, R interests,
D width. The score of an item is the best of its dot products with the R interests.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = 4_000_000  # logits alive at once: 16 MB, small enough to stay near the cache


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
        num_targets, num_interests, _ = mean_MRD.shape
        grad_mean, grad_item = torch.empty_like(mean_MRD), torch.zeros_like(item_ND)
        loss = mean_MRD.new_zeros(())
        chunk = max(1, CHUNK_ELEMENTS // (len(item_ND) * num_interests))
        for start in range(0, num_targets, chunk):
            mean_CRD, target_C1 = mean_MRD[start : start + chunk], target_M[start : start + chunk, None]
            logits_CN, winner_CN = _best_interest(mean_CRD, item_ND)
            loss += _softmax_minus_target(logits_CN, target_C1)
            for r in range(num_interests):
                slope_CN = logits_CN if winner_CN is None else logits_CN * (winner_CN == r)
                torch.mm(
                    slope_CN, item_ND, out=grad_mean[start : start + chunk, r]
                ) if num_interests == 1 else (grad_mean[start : start + chunk, r].copy_(slope_CN @ item_ND))
                grad_item.addmm_(slope_CN.T, mean_CRD[:, r])
        ctx.save_for_backward(grad_mean, grad_item)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_mean, grad_item = ctx.saved_tensors
        return grad_mean * grads[0], grad_item * grads[0], None


def _best_interest(mean_CRD: Tensor, item_ND: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits (C, N) of the best interest and which one it was (None when there is only one)."""
    if mean_CRD.shape[1] == 1:
        return mean_CRD[:, 0] @ item_ND.T, None
    best = (mean_CRD @ item_ND.T).max(1)
    return best.values, best.indices


def _softmax_minus_target(logits_CN: Tensor, target_C1: Tensor) -> Tensor:
    """Turn logits into d loss / d logits in place; returns the summed loss."""
    top_C1 = logits_CN.amax(1, keepdim=True)
    hit_C1 = logits_CN.gather(1, target_C1)
    logits_CN.sub_(top_C1).exp_()
    total_C1 = logits_CN.sum(1, keepdim=True)
    logits_CN.div_(total_C1)
    logits_CN.scatter_add_(1, target_C1, torch.full_like(hit_C1, -1.0))
    return (top_C1 + total_C1.log() - hit_C1).sum()


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
    hit_M1 = torch.einsum("mrd,md->mr", mean_MRD, target_MD).amax(1, keepdim=True)
    miss_MK = (mean_MRD @ negative_KD.T).amax(1) - log_chance_K
    miss_MK = miss_MK.masked_fill(same_MK, -torch.inf)
    return (torch.logsumexp(torch.cat([hit_M1, miss_MK], 1), 1, keepdim=True) - hit_M1).sum()
