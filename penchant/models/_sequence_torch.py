"""The sequence transformer: from what a person did, in order, to what they want next.

Letters: B people, T events (oldest first, padded on the right), D width, H heads, R interests, N items,
L labels of an item at most, M real targets. A causal pre-norm transformer (Vaswani et al. 2017; SASRec, Kang and
McAuley 2018) over the sum of item, event kind, time gap and value; distances between events enter as a learned bias
of the attention; item vectors, shared by input and output, are the item's own plus those of its labels (brand,
category, labels: what items with few events have in common with others); R linear heads give R interests (Li et
al. 2019, MIND), and an item's score is its best dot product with them. Asked about one kind of event, such as the next
purchase, the last state is scaled and shifted as that kind has learned to (FiLM, Perez et al. 2018).
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from penchant.core import SequenceBatch
from penchant.models._dropout import Dropout
from penchant.models._interest import Negatives
from penchant.models._linear import Linear
from penchant.models._sequence_config import KIND_ROWS, NUM_GAPS, SequenceConfig, Size
from penchant.models._sequence_loss import fused_softmax_loss, sampled_softmax_loss


class SequenceTransformer(nn.Module):
    """Fulfils ``InterestModel``.

    Args:
        config: the settings.
        num_items: N; items are numbered from 1.
        label_NL: labels of each item, (N + 1, L) numbers from 1, 0 = none; None = nothing is known of items.
    """

    label_NL: Tensor
    share_N: Tensor

    def __init__(
        self, config: SequenceConfig, num_items: int, label_NL: npt.NDArray[np.int64] | None = None
    ) -> None:
        super().__init__()
        size = config.build()
        self.config, self.num_interests = config, config.interests
        self.item = nn.Embedding(num_items + 1, size.width, padding_idx=0)
        self.label: nn.Embedding | None = None
        if label_NL is not None and label_NL.size:
            self.label = nn.Embedding(int(label_NL.max()) + 1, size.width, padding_idx=0)
            # An item's labels together weigh about as much as one of them, however many it has.
            share_N = 1 / np.sqrt(np.maximum(1, (label_NL > 0).sum(axis=1)))
            self.register_buffer("label_NL", torch.from_numpy(label_NL), persistent=False)
            self.register_buffer("share_N", torch.from_numpy(share_N.astype(np.float32)), persistent=False)
        self.kind = nn.Embedding(KIND_ROWS, size.width)
        self.gap = nn.Embedding(NUM_GAPS, size.width)
        self.value = nn.Linear(1, size.width, bias=False)
        self.dropout = Dropout(config.dropout_or_default)
        self.blocks = nn.ModuleList(Block(size, config.dropout_or_default) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width)
        self.heads = Linear(size.width, config.interests * size.width)
        self.asked: nn.Parameter | None = None
        if config.asked:
            self.asked = nn.Parameter(torch.zeros(KIND_ROWS, 2, size.width))
        self._initialise(size.width)

    def _initialise(self, width: int) -> None:
        """All initial values in one place: unit variance into the first block, small residual branches."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.5 / math.sqrt(max(1, module.in_features)))
        for table in (self.item, self.kind, self.gap):
            nn.init.normal_(table.weight, std=1 / math.sqrt(width))
        with torch.no_grad():
            self.item.weight[0] = 0
            self.kind.weight.mul_(0.1)
            self.gap.weight.mul_(0.1)
            if self.label is not None:
                nn.init.normal_(self.label.weight, std=0.5 / math.sqrt(width))
                self.label.weight[0] = 0
            eye = torch.eye(width)
            self.heads.weight.copy_((self.heads.weight * 0.2).view(-1, width, width).add(eye).view(-1, width))

    def forward(self, vec_BTD: Tensor, kind_BT: Tensor, gap_BT: Tensor, value_BT: Tensor) -> Tensor:
        """State after every event, (B, T, D), from the vector of its item and what else is known of it.

        Padding on the right is harmless: nothing looks ahead.
        """
        step_BT = (gap_BT * 2).round().clamp(0, NUM_GAPS - 1).long()
        x_BTD = vec_BTD + self.kind(kind_BT) + self.gap(step_BT) + self.value(value_BT[..., None] / 10)
        x_BTD = self.dropout(x_BTD * math.sqrt(x_BTD.shape[-1]))
        for block in self.blocks:
            x_BTD = block(x_BTD)
        state_BTD: Tensor = self.norm(x_BTD)
        return state_BTD

    def _interests(self, state_MD: Tensor, asked_M: Tensor | None) -> Tensor:
        """Interests in what is asked for: each kind scales and shifts the state in its own way (FiLM)."""
        if self.asked is not None and asked_M is not None:
            scale_MD, shift_MD = self.asked[asked_M].unbind(1)
            state_MD = state_MD * (1 + scale_MD) + shift_MD
        mean_MRD: Tensor = self.heads(state_MD).view(-1, self.num_interests, state_MD.shape[-1])
        return mean_MRD

    def encode(
        self,
        vec_BTD: Tensor,
        kind_BT: Tensor,
        gap_BT: Tensor,
        value_BT: Tensor,
        length_B: Tensor,
        asked_B: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Interests after the last event of each row: mean (B, R, D), spread (B, R); what is exported.

        It is given vectors, not items, so that the exported graph is small and knows nothing of the catalogue.

        The score is a logit, so the length of a mean vector is the concentration of a von Mises-Fisher
        belief about its direction; the spread is that belief's angular deviation, 1 / sqrt(1 + length).
        """
        x_BTD = self(vec_BTD, kind_BT, gap_BT, value_BT)
        last_B11 = (length_B - 1).clamp(min=0)[:, None, None].expand(-1, 1, x_BTD.shape[-1])
        mean_BRD = self._interests(x_BTD.gather(1, last_B11)[:, 0], asked_B)
        return mean_BRD, (1 + mean_BRD.norm(dim=-1)).rsqrt()

    def interests(self, batch: SequenceBatch) -> tuple[Tensor, Tensor]:
        """What each person wants after their last event: mean (B, R, D) and spread (B, R)."""
        asked = None if batch.asked_B is None else self._tensor(batch.asked_B)
        return self.encode(*self._inputs(batch), self._tensor(batch.length_B), asked)

    def vectors(self, item: Tensor) -> Tensor:
        """Vectors of some items: one more dimension, D, than ``item`` has."""
        own: Tensor = self.item(item)
        if self.label is None:
            return own
        bag_PL = self.label_NL[item].view(-1, self.label_NL.shape[1])
        labels_PD = F.embedding_bag(bag_PL, self.label.weight, mode="sum", padding_idx=0)
        return own + labels_PD.view(own.shape) * self.share_N[item][..., None]

    def items(self) -> Tensor:
        """Vectors of all items, (N + 1, D); row 0 is zero."""
        if self.label is None:
            return self.item.weight
        return self.vectors(torch.arange(len(self.item.weight), device=self.item.weight.device))

    def folded(self) -> SequenceTransformer:
        """A copy whose item vectors hold their labels already: the same answers, without the work."""
        copied = copy.deepcopy(self)
        with torch.no_grad():
            copied.item.weight.copy_(self.items())
        copied.label = None
        return copied

    def loss(self, batch: SequenceBatch, negatives: Negatives | None = None) -> Tensor:
        """Cross-entropy summed over all questions of the batch, divided by the number of its real targets, ().

        Every position is asked what comes next; with ``later_BT`` also what the next event of one kind will be.
        """
        assert batch.target_BT is not None, "a batch without targets has no loss"
        target_BT = self._tensor(batch.target_BT)
        real_BT = target_BT > 0
        num_targets = max(1, int(real_BT.sum()))
        state_BTD = self(*self._inputs(batch))
        state_MD, target_M, asked_M = state_BTD[real_BT], target_BT[real_BT], None
        if batch.later_BT is not None and batch.later_kind_BT is not None:
            later_BT = self._tensor(batch.later_BT)
            comes_BT = later_BT > 0
            kind_L = self._tensor(batch.later_kind_BT)[comes_BT]
            asked_M = torch.cat([kind_L.new_zeros(len(target_M)), kind_L])
            state_MD = torch.cat([state_MD, state_BTD[comes_BT]])
            target_M = torch.cat([target_M, later_BT[comes_BT]])
        mean_MRD = self._interests(state_MD, asked_M)
        if negatives is None:
            total = fused_softmax_loss(mean_MRD, self.items()[1:], target_M - 1)
        else:
            negative_K = self._tensor(negatives.item_K)
            total = sampled_softmax_loss(
                mean_MRD,
                self.vectors(target_M),
                self.vectors(negative_K),
                self._tensor(negatives.log_chance_K),
                target_M[:, None] == negative_K,
            )
        return total / num_targets

    def _tensor(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.item.weight.device)

    def _inputs(self, batch: SequenceBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        kind, gap, value = (self._tensor(array) for array in (batch.kind_BT, batch.gap_BT, batch.value_BT))
        return self.vectors(self._tensor(batch.item_BT)), kind, gap, value


class Block(nn.Module):
    """One pre-norm block: causal attention with a bias by distance, then a gated feed-forward layer."""

    def __init__(self, size: Size, dropout: float) -> None:
        super().__init__()
        width, hidden = size.width, size.feedforward
        self.num_heads = size.heads
        self.attention_norm, self.forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)
        self.up = Linear(width, 2 * hidden)  # half of it is the gate (SwiGLU, Shazeer 2020)
        self.down = Linear(hidden, width)
        self.dropout = Dropout(dropout)
        self.distance_HT = nn.Parameter(
            -0.1 * torch.arange(size.length).float().expand(size.heads, -1).clone()
        )

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        x_BTD = x_BTD + self.dropout(self._attend(self.attention_norm(x_BTD)))
        up, gate = self.up(self.forward_norm(x_BTD)).chunk(2, -1)
        out_BTD: Tensor = x_BTD + self.dropout(self.down(up * F.silu(gate)))
        return out_BTD

    def _attend(self, x_BTD: Tensor) -> Tensor:
        b, t, d = x_BTD.shape
        q, k, v = self.qkv(x_BTD).view(b, t, 3, self.num_heads, d // self.num_heads).permute(2, 0, 3, 1, 4)
        step_T = torch.arange(t, device=x_BTD.device)
        back_TT = step_T[:, None] - step_T[None]
        bias_HTT = self.distance_HT[:, back_TT.clamp(min=0, max=self.distance_HT.shape[1] - 1)]
        bias_HTT = bias_HTT.masked_fill(back_TT < 0, -torch.inf)
        mixed_BHTd = F.scaled_dot_product_attention(q, k, v, attn_mask=bias_HTT[None])
        out_BTD: Tensor = self.out(torch.cat(mixed_BHTd.unbind(1), -1))
        return out_BTD
