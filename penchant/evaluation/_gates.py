"""When a log cannot carry a verdict: each gate says what it saw, what it asks, and whether that is met."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta

from penchant.core import Bools, Floats, Noun

LEAST_EFFECTIVE = 100.0
LEAST_SHARE = 0.01
MOST_ERRORS = 3.0
MOST_OF_ONE = 0.1
MOST_UNSUPPORTED = 0.05


class SupportGate(Noun, frozen=True):
    """One check of a log's support for a policy."""

    name: Annotated[
        str, Meta(description="effective sample size, mean weight, largest weight, support or cases")
    ]
    passed: bool
    value: float
    asks: float
    says: str


def effective_size(weight_C: Floats) -> float:
    """Kish's effective sample size: how many equal cases the weighted ones are worth.

    Example:
        >>> effective_size(np.array([1.0, 1.0, 0.0, 0.0]))
        2.0
    """
    square = float((weight_C**2).sum())
    return float(weight_C.sum()) ** 2 / square if square > 0 else 0.0


def support_gates(
    weight_C: Floats, *, unsupported: float | None = None, reward_C: Floats | None = None
) -> list[SupportGate]:
    """Check whether a log can speak for a policy.

    Args:
        weight_C: Ratios of odds, policy under test over logger; for slates the product over the slots.
        unsupported: Share of what the policy under test would do that the logger never does, where known.
        reward_C: Rewards: fewer than 10 cases that earned anything cannot rank policies.
    """
    n = len(weight_C)
    effective = effective_size(weight_C)
    asked = max(LEAST_EFFECTIVE, LEAST_SHARE * n)
    mean = float(weight_C.mean())
    error = float(weight_C.std(ddof=1)) / np.sqrt(n) if n > 1 else np.inf
    largest = float(weight_C.max() / weight_C.sum()) if weight_C.sum() > 0 else 1.0
    gates = [
        SupportGate(
            name="effective sample size",
            passed=effective >= asked,
            value=effective,
            asks=asked,
            says=f"the {n:,} logged cases are worth {effective:,.0f} of the new policy's own; {asked:,.0f} are asked",
        ),
        SupportGate(
            name="mean weight",
            passed=bool(abs(mean - 1) <= max(MOST_ERRORS * error, 1e-9)),
            value=mean,
            asks=1.0,
            says=f"the weights average {mean:.3f} +- {error:.3f}; honest odds and full support give 1",
        ),
        SupportGate(
            name="largest weight",
            passed=largest <= MOST_OF_ONE,
            value=largest,
            asks=MOST_OF_ONE,
            says=f"one single case carries {largest:.1%} of all weight; at most {MOST_OF_ONE:.0%} is allowed",
        ),
    ]
    if unsupported is not None:
        gates.append(
            SupportGate(
                name="support",
                passed=unsupported <= MOST_UNSUPPORTED,
                value=1 - unsupported,
                asks=1 - MOST_UNSUPPORTED,
                says=f"{unsupported:.1%} of what the new policy would show was never shown; "
                f"at most {MOST_UNSUPPORTED:.0%} is allowed",
            )
        )
    if reward_C is not None:
        gates.append(_rewarded(reward_C, weight_C > 0))
    return gates


def _rewarded(reward_C: Floats, taken_C: Bools) -> SupportGate:
    count = int(((reward_C != 0) & taken_C).sum())
    says = f"{count} cases that the new policy might have shown earned anything; 10 are asked"
    return SupportGate(name="rewarded cases", passed=count >= 10, value=float(count), asks=10.0, says=says)


def refusal(gates: list[SupportGate]) -> str | None:
    """Why there is no verdict, in one sentence; None where every gate is passed."""
    failed = [gate.says for gate in gates if not gate.passed]
    return "; ".join(failed) if failed else None
