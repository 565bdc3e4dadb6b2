"""From logged cases to a verdict on a policy: estimates, gates, the difference from what was shown, and its parts.

Letters: C cases (answers that were shown), K slots of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from penchant.core import Estimate, Floats, Ints
from penchant.evaluation._estimate import LEVEL
from penchant.evaluation._gates import SupportGate, refusal, support_gates
from penchant.evaluation._intervals import interval_of
from penchant.evaluation._ope import Feedback, Terms, plain_estimators
from penchant.evaluation._slate_ope import cascade_dr, iips, rips, sips
from penchant.evaluation._slope import tuned_estimators

Verdict = Literal["worth an A/B test", "not enough support", "worse"]


@dataclass(frozen=True, eq=False)
class Replay:
    """Logged answers beside what another policy would have done with them.

    Args:
        reward_CK: What each slot earned; 0 in slots that were not filled.
        logged_CK: Odds of the item shown in its slot given the slots above; 1 in slots that were not filled.
        target_CK: The same of the policy under test.
        predicted_CK: A reward model's guess for the item shown; None without a model.
        expected_CK: The guess averaged over what the policy under test would show in the slot.
        who_C: Person of each answer; None = all different.
        unsupported: Share of what the policy under test would show that was never shown; None = not known.
    """

    reward_CK: Floats
    logged_CK: Floats
    target_CK: Floats
    predicted_CK: Floats | None = None
    expected_CK: Floats | None = None
    who_C: Ints | None = None
    unsupported: float | None = None

    def take(self, case_C: Ints) -> Replay:
        """Some of the answers. What was never shown to them is not known apart."""
        parts = [
            self.reward_CK,
            self.logged_CK,
            self.target_CK,
            self.predicted_CK,
            self.expected_CK,
            self.who_C,
        ]
        return Replay(*(None if part is None else part[case_C] for part in parts))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Judgement:
    """What a log says of a policy. ``estimates`` has every estimator; ``value`` is the one that counts."""

    estimator: str
    value: Estimate
    logged: Estimate
    difference: Estimate
    estimates: dict[str, Estimate]
    gates: list[SupportGate]
    verdict: Verdict
    reason: str


def judge(replay: Replay, *, level: float = LEVEL) -> Judgement:
    """Estimate what the policy under test would have earned per answer, and say whether that is worth a test.

    The estimate that counts is doubly robust where there is a reward model (Cascade-DR for slates), else
    self-normalised. It is compared with what was earned on the same answers, so that people's differences cancel.
    """
    weight_CK = replay.target_CK / replay.logged_CK
    weight_C, reward_C = weight_CK.prod(axis=1), replay.reward_CK.sum(axis=1)
    terms = _estimators(replay, weight_CK)
    name = next(n for n in ("Cascade-DR", "DR", "SNIPS", "RIPS") if n in terms)
    chosen, zeros = terms[name], np.zeros_like(reward_C)
    value = interval_of(chosen, replay.who_C, level=level)
    logged = interval_of(Terms(reward_C, zeros), replay.who_C, level=level)
    against = Terms(chosen.plain_C - reward_C, chosen.weighted_C, chosen.weight_C)
    gap = interval_of(against, replay.who_C, level=level)
    estimates = {n: interval_of(t, replay.who_C, level=level) for n, t in terms.items()}
    if "DM" in estimates:  # its interval leaves out the model's own error
        estimates["DM"] = msgspec.structs.replace(estimates["DM"], method="reward model alone: no evidence")
    gates = support_gates(weight_C, unsupported=replay.unsupported, reward_C=reward_C)
    verdict, reason = _verdict(gap, gates, max(abs(logged.value), abs(value.value)))
    return Judgement(name, value, logged, gap, estimates, gates, verdict, reason)


def _estimators(replay: Replay, weight_CK: Floats) -> dict[str, Terms]:
    if replay.reward_CK.shape[1] == 1:
        f = Feedback(
            replay.reward_CK[:, 0],
            replay.logged_CK[:, 0],
            replay.target_CK[:, 0],
            None if replay.predicted_CK is None else replay.predicted_CK[:, 0],
            None if replay.expected_CK is None else replay.expected_CK[:, 0],
            replay.who_C,
        )
        return {**plain_estimators(f), **tuned_estimators(f)}
    found = {"SIPS": sips(replay.reward_CK, weight_CK), "IIPS": iips(replay.reward_CK, weight_CK)}
    found["RIPS"] = rips(replay.reward_CK, weight_CK)
    if replay.predicted_CK is not None and replay.expected_CK is not None:
        found["Cascade-DR"] = cascade_dr(replay.reward_CK, weight_CK, replay.predicted_CK, replay.expected_CK)
    return found


def _verdict(gap: Estimate, gates: list[SupportGate], scale: float) -> tuple[Verdict, str]:
    refused = refusal(gates)
    if refused is not None:
        return "not enough support", refused
    if max(abs(gap.low), abs(gap.high)) <= 1e-9 * scale:  # what is left is rounding
        return "not enough support", "it would have shown the same: the difference may as well be none"
    if gap.low > 0:
        return "worth an A/B test", f"it would have earned {gap.signed} more per answer"
    if gap.high < 0:
        return "worse", f"it would have earned {gap.signed} per answer against what was shown"
    return (
        "not enough support",
        f"the difference {gap.signed} may as well be none; about {_needed(gap):,} logged people would tell, "
        f"there are {gap.n:,}",
    )


def _needed(gap: Estimate) -> int:
    """People at whom a difference of this size would leave 0 outside its interval."""
    half = max(gap.high - gap.value, gap.value - gap.low)
    return int(np.ceil(gap.n * (half / max(abs(gap.value), half / 100)) ** 2))  # at most 10,000 times as many
