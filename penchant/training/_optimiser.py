"""One step of learning: dense weights by AdamW, great tables only in the rows that a step touched.

A step over a table of N rows costs N, however few items are in the step; above some ten thousand items that is most
of the time. There the gradients are sparse and Adam is the lazy one of torch (``SparseAdam``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from penchant.training._shards import cut_like, local

TOUCHED_ROWS = 50_000  # tables of more rows are updated and averaged by rows
_BETAS = (0.9, 0.98)
_AVERAGE_EVERY = 10  # steps between two averages of a great table


@dataclass(frozen=True, eq=False)
class Optimiser:
    """The optimisers of a network and what they look after."""

    network: nn.Module
    parts: tuple[torch.optim.Optimizer, ...]
    tables: tuple[Tensor, ...]  # with sparse gradients

    @classmethod
    def of(cls, network: nn.Module, *, weight_decay: float, learning_rate: float, by_rows: bool) -> Optimiser:
        """Make the optimisers.

        Args:
            network: Its great embeddings are switched to sparse gradients when ``by_rows``.
            weight_decay: Of everything but biases, norms and great tables.
            learning_rate: To begin with.
            by_rows: Whether tables are only looked up, in one process, so that a step touches few rows.
        """
        tables = []
        for module in network.modules():
            if by_rows and isinstance(module, nn.Embedding) and module.num_embeddings > TOUCHED_ROWS:
                module.sparse = True
                tables.append(module.weight)
        known = {id(table) for table in tables}
        dense = [p for p in network.parameters() if id(p) not in known]
        groups = [
            {"params": [p for p in dense if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in dense if p.ndim <= 1], "weight_decay": 0.0},
        ]
        parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=learning_rate, betas=_BETAS, fused=True)
        ]
        if tables:
            parts.append(torch.optim.SparseAdam(tables, lr=learning_rate, betas=_BETAS))
        return cls(network, tuple(parts), tuple(tables))

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=bool(self.tables))

    def step(self, learning_rate: float, clip: float) -> None:
        """Shorten the gradient to at most ``clip`` and take one step."""
        if self.tables:
            self._clip(clip)
        else:
            nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = learning_rate
            part.step()

    def _clip(self, limit: float) -> None:
        for table in self.tables:
            if table.grad is not None:
                table.grad = table.grad.coalesce()
        grads = [p.grad for p in self.network.parameters() if p.grad is not None]
        values = [grad._values() if grad.is_sparse else grad for grad in grads]
        length = torch.stack([value.norm() for value in values]).norm()
        scale = (limit / (length + 1e-6)).clamp(max=1.0)
        for value in values:
            value.mul_(scale)

    @torch.no_grad()
    def average(self, into: nn.Module, keep: float, step: int) -> None:
        """Move the running average of all weights towards them by 1 - ``keep``; great tables every tenth step."""
        known = {id(table) for table in self.tables}
        both = zip(into.parameters(), self.network.parameters(), strict=True)
        pairs = [(local(a), local(p)) for a, p in both]
        mine = [(a, p) for a, p in pairs if id(p) not in known]
        torch._foreach_lerp_([a for a, _ in mine], [p for _, p in mine], 1 - keep)
        if step % _AVERAGE_EVERY == 0:
            for a, p in pairs:
                if id(p) in known:
                    a.lerp_(p, 1 - keep**_AVERAGE_EVERY)

    def tensors(self) -> dict[str, Tensor]:
        """Its state by name, for a checkpoint."""
        return {
            f"{place}.{number}.{name}": torch.as_tensor(local(value) if isinstance(value, Tensor) else value)
            for place, part in enumerate(self.parts)
            for number, slots in part.state_dict()["state"].items()
            for name, value in slots.items()
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put back what ``tensors`` gave."""
        for place, part in enumerate(self.parts):
            parameters = [parameter for group in part.param_groups for parameter in group["params"]]
            slots: dict[int, dict[str, Tensor | int]] = {}
            for key, value in tensors.items():
                where, number, name = key.split(".")
                if int(where) == place:
                    # SparseAdam counts its steps in a plain number; a tensor would round its powers
                    whole = value.ndim == 0 and not value.is_floating_point()
                    slots.setdefault(int(number), {})[name] = (
                        int(value) if whole else cut_like(parameters[int(number)], value)
                    )
            part.load_state_dict({"state": slots, "param_groups": part.state_dict()["param_groups"]})
