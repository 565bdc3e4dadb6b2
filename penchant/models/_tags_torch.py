"""The training loop of the interest classifier; the only part of it that needs torch.

Letters: B rows in a batch, R rows in all, F features, C tags, H hidden units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from penchant.core import Run, rng

Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Recipe:
    """How to train one network; all of it comes from the model's configuration and the size of the table."""

    softmax: bool
    hidden: Sequence[int]
    direct: bool
    dropout: float
    optimiser: str
    learning_rate: float
    weight_decay: float
    epochs: int
    patience: int
    batch_size: int
    class_weight_C: Float32s | None = None


@dataclass(frozen=True, eq=False)
class Fitted:
    """The best weights met, as named float32 arrays, after how many epochs, and the losses there."""

    weights: dict[str, Float32s]
    epochs: int
    loss: float
    validation: float | None


def logits(
    weights: dict[str, Tensor],
    x_BF: Tensor,
    dropout: Callable[[Tensor], Tensor] = lambda hidden_BH: hidden_BH,
) -> Tensor:
    """The network: hidden ReLU layers, an output layer, and a direct path from the features: (B, C)."""
    hidden_BH = x_BF
    layer = 0
    while f"hidden{layer}.weight" in weights:
        hidden_BH = torch.relu(hidden_BH @ weights[f"hidden{layer}.weight"] + weights[f"hidden{layer}.bias"])
        hidden_BH = dropout(hidden_BH)
        layer += 1
    out_BC = hidden_BH @ weights["output.weight"] + weights["output.bias"]
    return out_BC + x_BF @ weights["direct.weight"] if "direct.weight" in weights else out_BC


def _loss(recipe: Recipe, out_BC: Tensor, y_BC: Tensor, weight_C: Tensor | None) -> Tensor:
    if recipe.softmax:
        return functional.cross_entropy(out_BC, y_BC, weight=weight_C)
    return functional.binary_cross_entropy_with_logits(out_BC, y_BC, pos_weight=weight_C)


def _optimiser(recipe: Recipe, weights: dict[str, Tensor]) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [
        {"params": [w for name, w in weights.items() if name.endswith(".weight")]},
        {"params": [w for name, w in weights.items() if name.endswith(".bias")], "weight_decay": 0.0},
    ]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimiser == "adam":
        return torch.optim.AdamW(groups, lr=rate, weight_decay=decay)
    # SGD adds the decay to the gradient, where the learning rate scales it like AdamW's.
    return torch.optim.SGD(groups, lr=rate, momentum=0.9, weight_decay=decay)


def train(
    x_RF: Float32s,
    y_RC: Float32s,
    valid_R: npt.NDArray[np.bool_],
    first: dict[str, Float32s],
    recipe: Recipe,
    run: Run,
) -> Fitted:
    """Train one network; same inputs and seed give the same bits.

    Args:
        x_RF: Normalised features.
        y_RC: Targets: rows of 0 and 1; with softmax each row sums to 1.
        valid_R: Rows kept apart to stop early on; with none of them all epochs are run.
        first: The first weights.
        recipe: How to train.
        run: Seed, device and progress.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # faster on networks this small, and sums do not depend on the number of cores
    try:
        return _train(x_RF, y_RC, valid_R, first, recipe, run)
    finally:
        torch.set_num_threads(threads)


def _train(
    x_RF: Float32s,
    y_RC: Float32s,
    valid_R: npt.NDArray[np.bool_],
    first: dict[str, Float32s],
    recipe: Recipe,
    run: Run,
) -> Fitted:
    device = torch.device(run.device)
    weights = {name: torch.tensor(array, device=device, requires_grad=True) for name, array in first.items()}
    weight_C = None if recipe.class_weight_C is None else torch.tensor(recipe.class_weight_C, device=device)
    x, y, held = (torch.tensor(array, device=device) for array in (x_RF, y_RC, valid_R))
    x_valid, y_valid, x, y = x[held], y[held], x[~held], y[~held]
    optimiser = _optimiser(recipe, weights)
    order = rng(run.seed, "tags", "order")
    noise = torch.Generator(device=device).manual_seed(run.seed)

    def drop(hidden_BH: Tensor) -> Tensor:
        keep = torch.rand(hidden_BH.shape, generator=noise, device=device) >= recipe.dropout
        return hidden_BH * keep / (1 - recipe.dropout)

    best = Fitted(first, 0, float("inf"), None)
    for epoch in range(1, recipe.epochs + 1):
        total = 0.0
        for index in np.array_split(order.permutation(len(x)), max(1, round(len(x) / recipe.batch_size))):
            batch = torch.from_numpy(index).to(device)
            out_BC = logits(weights, x[batch], drop) if recipe.dropout else logits(weights, x[batch])
            loss = _loss(recipe, out_BC, y[batch], weight_C)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += loss.item() * len(index)
        figures = {"loss": total / max(1, len(x))}
        if len(x_valid):
            with torch.no_grad():
                figures["validation"] = _loss(recipe, logits(weights, x_valid), y_valid, weight_C).item()
        run.progress("train tags", epoch, recipe.epochs, figures)
        if "validation" not in figures or best.validation is None or figures["validation"] < best.validation:
            kept = {name: tensor.detach().cpu().numpy().copy() for name, tensor in weights.items()}
            best = Fitted(kept, epoch, figures["loss"], figures.get("validation"))
        elif epoch - best.epochs >= recipe.patience:
            break
    return best
