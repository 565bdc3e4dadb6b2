"""The interest classifier's arithmetic in numpy: forward, attribution, calibration. No torch.

Letters: B rows, R validation rows, F features, C tags, H hidden units. ``weights`` are named arrays:
``hidden0.weight`` (F, H), ``hidden0.bias`` (H,), ..., ``output.weight``, ``output.bias``, ``direct.weight``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

import numpy as np
import numpy.typing as npt

from penchant.core import Bools, Floats, rng

Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Weights = Mapping[str, Float32s]
_GRID = np.linspace(0.05, 0.95, 37)  # thresholds tried


def initial_weights(
    num_features: int, hidden: Sequence[int], direct: bool, bias_C: Floats, seed: int
) -> dict[str, Float32s]:
    """Draw the first weights: He's normal for hidden layers, zero for whatever reaches the output.

    The output bias starts at the log odds of the base rates, so training begins as the base-rate forecast
    and can only improve on it.
    """
    draw = rng(seed, "tags", "weights")
    weights: dict[str, Float32s] = {}
    width = num_features
    for layer, units in enumerate(hidden):
        scale = np.sqrt(2.0 / max(1, width))
        weights[f"hidden{layer}.weight"] = (draw.standard_normal((width, units)) * scale).astype(np.float32)
        weights[f"hidden{layer}.bias"] = np.zeros(units, np.float32)
        width = units
    weights["output.weight"] = np.zeros((width, len(bias_C)), np.float32)
    weights["output.bias"] = bias_C.astype(np.float32)
    if direct:
        weights["direct.weight"] = np.zeros((num_features, len(bias_C)), np.float32)
    return weights


def logits(weights: Weights, x_BF: Float32s) -> Float32s:
    """The network: hidden ReLU layers, an output layer, and a direct path from the features: (B, C)."""
    hidden_BH = x_BF
    for layer in _layers(weights):
        hidden_BH = np.maximum(hidden_BH @ weights[f"{layer}.weight"] + weights[f"{layer}.bias"], 0)
    out_BC = hidden_BH @ weights["output.weight"] + weights["output.bias"]
    if "direct.weight" in weights:
        out_BC = out_BC + x_BF @ weights["direct.weight"]
    return np.asarray(out_BC, np.float32)


def probabilities(logit_BC: Floats, scaling: Float64s, softmax: bool) -> Float32s:
    """Turn logits into calibrated probabilities: softmax of scaled logits, or a sigmoid for each tag.

    Args:
        logit_BC: Output of the network.
        scaling: (2,) slope and shift of the calibration; softmax has no shift.
        softmax: Exactly one tag a row.
    """
    z_BC = logit_BC.astype(np.float64) * scaling[0]
    if not softmax:
        return np.asarray(0.5 * (1 + np.tanh(0.5 * (z_BC + scaling[1]))), np.float32)
    odds_BC = np.exp(z_BC - z_BC.max(axis=1, keepdims=True))
    return np.asarray(odds_BC / odds_BC.sum(axis=1, keepdims=True), np.float32)


def attribution(weights: Weights, x_F: Float32s, direction_C: Float64s, steps: int = 32) -> Float64s:
    """Share out ``direction_C @ (logits(x) - logits(0))`` over the features: (F,), summing to it.

    Integrated gradients from the average person, whose features are all 0, to ``x_F`` (Sundararajan, Taly and
    Yan, "Axiomatic Attribution for Deep Networks", 2017), by the midpoint rule with ``steps`` points.
    """
    hidden = ((np.arange(steps) + 0.5) / steps)[:, None] * x_F
    active: list[tuple[str, Bools]] = []
    for layer in _layers(weights):
        before = hidden @ weights[f"{layer}.weight"] + weights[f"{layer}.bias"]
        active.append((layer, before > 0))
        hidden = np.maximum(before, 0)
    slope = np.broadcast_to(weights["output.weight"] @ direction_C, hidden.shape)
    for layer, on in reversed(active):
        slope = (slope * on) @ weights[f"{layer}.weight"].T
    mean_F = slope.mean(axis=0)
    if "direct.weight" in weights:
        mean_F = mean_F + weights["direct.weight"] @ direction_C
    return np.asarray(x_F * mean_F, np.float64)


def _layers(weights: Weights) -> list[str]:
    names: list[str] = []
    for number in count():
        if f"hidden{number}.weight" not in weights:
            return names
        names.append(f"hidden{number}")
    return names


def fit_scaling(logit_RC: Float32s, y_RC: Float32s, softmax: bool) -> Float64s:
    """Calibrate on rows the network was not fitted to: (2,) slope and shift that minimise the log loss.

    Softmax: temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", 2017); sigmoid: one
    Platt line shared by all tags, because rare tags have too few rows for their own. The slope stays within
    1/10 and 10.
    """
    from scipy.optimize import minimize

    z_RC, y = logit_RC.astype(np.float64), y_RC.astype(np.float64)

    def loss(point: Float64s) -> float:
        scaled = z_RC * np.exp(point[0])
        if softmax:
            top = scaled.max(axis=1, keepdims=True)
            log_sum = top + np.log(np.exp(scaled - top).sum(axis=1, keepdims=True))
            return float(np.mean(np.sum(y * (log_sum - scaled), axis=1)))
        scaled += point[1]
        return float(np.mean(np.logaddexp(0, scaled) - y * scaled))

    bounds = [(-np.log(10), np.log(10)), (0.0, 0.0) if softmax else (-5.0, 5.0)]
    found = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=bounds)
    return np.array([np.exp(found.x[0]), found.x[1]])


def fit_thresholds(p_RC: Float32s, y_RC: Float32s) -> Float64s:
    """Choose for each tag the probability from which it is said: (C,), the best F1 on validation rows.

    A tag with few rows leans on all tags together: their shared best threshold counts like ten true answers.
    """
    said = p_RC[:, :, None] >= _GRID
    right = (said & (y_RC[:, :, None] > 0)).sum(axis=0)  # (C, thresholds)
    wrong = said.sum(axis=0) + y_RC.sum(axis=0)[:, None]
    shared_F1 = 2 * right.sum(axis=0) / np.maximum(wrong.sum(axis=0), 1)
    own_F1 = (2 * right + 20 * shared_F1) / (wrong + 20)
    return np.asarray(_GRID[np.argmax(own_F1, axis=1)], np.float64)
