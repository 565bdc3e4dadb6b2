"""One step of learning: dense weights by AdamW, great tables only in the rows that a step touched.

A step over a table of N rows costs N, however few items are in the step; above some ten thousand items that is most
of the time. There the gradients are sparse, Adam is the lazy one of torch (``SparseAdam``), and the running average of
a row waits until the row changes: while a weight stands still, many small steps of its average towards it are one
large one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from penchant.training._shards import cut_like, local

TOUCHED_ROWS = 50_000  # tables of more rows are updated and averaged by rows
_BETAS = (0.9, 0.98)


@dataclass(eq=False)
class Table:
    """A great table: its weights, their running average, and how far the average of each row lags behind."""

    weight_ND: Tensor
    average_ND: Tensor
    kept_N: Tensor  # log of the share of the old average that was kept, summed up to a row's last move

    @torch.no_grad()
    def catch_up(self, kept: float, rows: Tensor | None = None) -> None:
        """Move the average of some rows, or of all, as if it had been moved in every step up to now."""
        at = slice(None) if rows is None else rows
        missed = -torch.expm1(kept - self.kept_N[at])[:, None].to(self.weight_ND.dtype)
        average_RD = self.average_ND[at]
        self.average_ND[at] = average_RD + missed * (self.weight_ND[at] - average_RD)
        self.kept_N[at] = kept


@dataclass(eq=False)
class Optimiser:
    """The optimisers of a network, its running average (Polyak and Juditsky 1992), and what they look after."""

    network: nn.Module
    mean: nn.Module
    parts: tuple[torch.optim.Optimizer, ...]
    tables: tuple[Table, ...]  # with sparse gradients
    kept: float = 0.0  # log of the share of the very first average that is still in it

    @classmethod
    def of(
        cls, network: nn.Module, mean: nn.Module, *, weight_decay: float, learning_rate: float, by_rows: bool
    ) -> Optimiser:
        """Make the optimisers.

        Args:
            network: Its great embeddings are switched to sparse gradients when ``by_rows``.
            mean: A copy of the network that becomes its running average.
            weight_decay: Of everything but biases, norms and great tables.
            learning_rate: To begin with.
            by_rows: Whether tables are only looked up, in one process, so that a step touches few rows.
        """
        tables = []
        for module, copied in zip(network.modules(), mean.modules(), strict=True):
            if by_rows and isinstance(module, nn.Embedding) and module.num_embeddings > TOUCHED_ROWS:
                module.sparse = True
                kept_N = torch.zeros(module.num_embeddings, dtype=torch.float64, device=module.weight.device)
                tables.append(Table(module.weight, cast(nn.Embedding, copied).weight, kept_N))
        known = {id(table.weight_ND) for table in tables}
        dense = [p for p in network.parameters() if id(p) not in known]
        groups = [
            {"params": [p for p in dense if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in dense if p.ndim <= 1], "weight_decay": 0.0},
        ]
        parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=learning_rate, betas=_BETAS, fused=True)
        ]
        if tables:
            parts.append(
                torch.optim.SparseAdam([table.weight_ND for table in tables], lr=learning_rate, betas=_BETAS)
            )
        return cls(network, mean, tuple(parts), tuple(tables))

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=bool(self.tables))

    def step(self, learning_rate: float, clip: float, keep: float) -> None:
        """Shorten the gradient to at most ``clip``, take one step, and move the average by 1 - ``keep``."""
        if self.tables:
            self._clip(clip)
        else:
            nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        for table in self.tables:
            if table.weight_ND.grad is not None:
                table.catch_up(self.kept, table.weight_ND.grad.indices()[0])
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = learning_rate
            part.step()
        self._average(keep)

    def _clip(self, limit: float) -> None:
        for table in self.tables:
            if table.weight_ND.grad is not None:
                table.weight_ND.grad = table.weight_ND.grad.coalesce()
        grads = [p.grad for p in self.network.parameters() if p.grad is not None]
        values = [grad._values() if grad.is_sparse else grad for grad in grads]
        length = torch.stack([value.norm() for value in values]).norm()
        scale = (limit / (length + 1e-6)).clamp(max=1.0)
        for value in values:
            value.mul_(scale)

    @torch.no_grad()
    def _average(self, keep: float) -> None:
        self.kept += math.log(keep)
        great = {id(table.weight_ND) for table in self.tables}
        both = zip(self.mean.parameters(), self.network.parameters(), strict=True)
        pairs = [(local(a), local(p)) for a, p in both if id(p) not in great]
        torch._foreach_lerp_([a for a, _ in pairs], [p for _, p in pairs], 1 - keep)

    def averaged(self) -> nn.Module:
        """The running average, every row of it up to date."""
        for table in self.tables:
            table.catch_up(self.kept)
        return self.mean

    def tensors(self) -> dict[str, Tensor]:
        """Its state by name, for a checkpoint."""
        rows = {f"rows.{number}.kept_N": table.kept_N for number, table in enumerate(self.tables)}
        kept = torch.tensor(self.kept, dtype=torch.float64)
        return {"rows.all.kept": kept, **rows} | {
            f"{place}.{number}.{name}": torch.as_tensor(local(value) if isinstance(value, Tensor) else value)
            for place, part in enumerate(self.parts)
            for number, slots in part.state_dict()["state"].items()
            for name, value in slots.items()
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put back what ``tensors`` gave."""
        self.kept = float(tensors["rows.all.kept"])
        for which, table in enumerate(self.tables):
            table.kept_N.copy_(tensors[f"rows.{which}.kept_N"])
        for place, part in enumerate(self.parts):
            parameters = [parameter for group in part.param_groups for parameter in group["params"]]
            slots: dict[int, dict[str, Tensor | int]] = {}
            for key, value in tensors.items():
                where, number, name = key.split(".")
                if where == str(place):
                    # SparseAdam counts its steps in a plain number; a tensor would round its powers
                    whole = value.ndim == 0 and not value.is_floating_point()
                    slots.setdefault(int(number), {})[name] = (
                        int(value) if whole else cut_like(parameters[int(number)], value)
                    )
            part.load_state_dict({"state": slots, "param_groups": part.state_dict()["param_groups"]})
