"""A page for people who decide: the verdict first, then why, then figures and plots. Needs nothing beside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penchant.core import Estimate
from penchant.evaluation._plots import plot_forest
from penchant.evaluation._template import render_page


@dataclass(frozen=True)
class Table:
    """A heading, columns, rows of texts, and a sentence below."""

    heading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Forest:
    """Estimates side by side as a plot: values with their intervals, and a line to compare them with."""

    caption: str
    estimates: Mapping[str, Estimate]
    line: float | None = None
    line_name: str = ""
    unit: str = ""
    pale: Sequence[str] = ()  # drawn in grey: shown, but no evidence


def render_decision_html(
    *,
    title: str,
    verdict: str,
    tone: str,
    paragraphs: Sequence[str] = (),
    parts: Sequence[Table | Forest] = (),
    notes: Sequence[str] = (),
) -> str:
    """Put a verdict and what it rests on into one page.

    Args:
        title: Of the page.
        verdict: One sentence.
        tone: ``good``, ``bad`` or ``open``: the colour beside the verdict.
        paragraphs: Sentences below it.
        parts: Tables and plots, in order.
        notes: Further sentences, at the end.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    made = [
        {"of": part, "table": part, "image": None}
        if isinstance(part, Table)
        else {"of": part, "table": None, "image": _image(part)}
        for part in parts
    ]
    values = {
        "title": title,
        "verdict": verdict,
        "tone": tone,
        "paragraphs": paragraphs,
        "parts": made,
        "notes": notes,
    }
    return render_page("decision.html", {}, values)


def _image(forest: Forest) -> str:
    image = plot_forest(
        forest.estimates, line=forest.line, line_name=forest.line_name, unit=forest.unit, pale=forest.pale
    )
    return base64.b64encode(image).decode()
