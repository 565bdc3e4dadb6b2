"""An experiment in words and as a page, for the one who has to decide."""

from __future__ import annotations

from typing import Literal

from penchant.core import Estimate, iso
from penchant.engine import _experiment_requests as xr
from penchant.evaluation import Forest, Table, render_decision_html

Verdict = Literal[
    "ship", "keep the control", "keep running", "no difference found", "cannot be read", "stopped"
]
_TONES = {"ship": "good", "keep the control": "bad", "cannot be read": "bad", "stopped": "bad"}


def percent(estimate: Estimate | None) -> str:
    """A relative difference as people say it.

    Example:
        >>> percent(Estimate(value=0.05, low=-0.01, high=0.11, n=9, method="m"))
        '+5.0 % (-1.0 % to +11.0 %)'
    """
    if estimate is None:
        return "not known"
    return f"{estimate.value:+.1%} ({estimate.low:+.1%} to {estimate.high:+.1%})".replace("%", " %")


def in_words(
    experiment: xr.Experiment,
    differences: list[xr.ArmDifference],
    guardrails: list[xr.GuardrailReport],
    mismatch: bool,
    sizes: list[int],
    counted: int,
) -> tuple[Verdict, str]:
    """The verdict and one or two sentences on it."""
    if mismatch:
        return "cannot be read", (
            f"the arms have {' and '.join(f'{n:,}' for n in sizes)} people, which chance does not explain: "
            "something loses people of one arm, so no difference can be believed"
        )
    broken = [g for g in guardrails if g.broken]
    if broken:
        first = broken[0]
        return "stopped", f"{first.arm} broke the guardrail {first.guardrail}: {percent(first.relative)}"
    if not differences:
        return "keep running", f"{counted:,} people count so far: too few to say anything"
    best = max(differences, key=lambda d: d.difference.value)
    told = f"{best.arm} changes {best.metric} by {percent(best.relative)}"
    if best.verdict == "better":
        return "ship", told
    if all(d.verdict == "worse" for d in differences):
        return "keep the control", told
    if experiment.stop_ts is not None:
        return "no difference found", f"{told}, which may be nothing; {experiment.stopped}"
    left = max(0, experiment.people - counted)
    return (
        "keep running",
        f"{told}, which may be nothing yet; {left:,} of {experiment.people:,} planned people to go",
    )


def experiment_html(report: xr.ExperimentReport) -> str:
    """The report as a page."""
    relative = {d.arm: d.relative for d in report.differences if d.relative is not None}
    parts: list[Forest | Table] = []
    if relative:
        caption = "Change against the control; the intervals hold however often the experiment is looked at"
        parts.append(Forest(caption, relative, 0.0, "control", f"relative change of {report.metric}"))
    rows = [
        [a.arm, f"{a.entered:,}", f"{a.people:,}", "" if a.mean is None else str(a.mean)] for a in report.arms
    ]
    columns = ["arm", "people who entered", "people who count", f"{report.metric} per person"]
    if any(a.items is not None for a in report.arms):
        columns += ["items met", "items discovered"]
        for row, a in zip(rows, report.arms, strict=True):
            row += [f"{a.items:,}", f"{a.discovered:,}"]
    size = f"p = {report.sample_ratio:.3g} that the arms' sizes are as dealt."
    parts.append(Table("The arms", columns, rows, size))
    if report.differences:
        parts.append(
            Table(
                "Against the control",
                (
                    "arm",
                    "change",
                    "difference per person",
                    "variance explained by the time before",
                    "verdict",
                ),
                [
                    [d.arm, percent(d.relative), d.difference.signed, f"{d.variance_cut:.0%}", d.verdict]
                    for d in report.differences
                ],
            )
        )
    if report.guardrails:
        rows = [
            [g.guardrail, g.arm, percent(g.relative), "BROKEN" if g.broken else "held"]
            for g in report.guardrails
        ]
        parts.append(Table("Guardrails", ("guardrail", "arm", "change", ""), rows))
    until = "" if report.stop_ts is None else f" to {iso(report.stop_ts)}"
    return render_decision_html(
        title=f"Experiment {report.name}",
        verdict=f"{report.verdict.capitalize()}: {report.says}.",
        tone=_TONES.get(report.verdict, "open"),
        paragraphs=[
            f"From {iso(report.start_ts)}{until}; {report.fraction:.0%} of the {report.planned:,} planned people count."
        ],
        parts=parts,
        notes=report.notes,
    )
