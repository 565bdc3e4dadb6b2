"""The evaluation report: one HTML page that needs nothing else, with its plots inside."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence

from penchant.core import Estimate
from penchant.evaluation import _plots
from penchant.evaluation._board import NEURAL, Leaderboard
from penchant.evaluation._classification import Classification
from penchant.evaluation._metrics import Evaluation
from penchant.evaluation._template import render_page

SHOWN = ("HR@10", "NDCG@10", "MRR", "recall@50", "coverage@10", "novelty@10", "value@10")
MOST_CLASSES = 15  # of the tags' classes, the most frequent ones


def render_report_html(
    *,
    title: str,
    protocol: str,
    board: Leaderboard,
    curves: Mapping[str, Sequence[Mapping[str, float]]] | None = None,
    tags: Mapping[str, Classification] | None = None,
    tag_source: str = "",
    tag_note: str = "",
    health: str = "",
    baskets: Mapping[str, Evaluation] | None = None,
    basket_words: str = "",
    notes: Sequence[str] = (),
) -> str:
    """Put a leaderboard, its plots and the tags into one page.

    Args:
        title: Of the page.
        protocol: What was done, in words; how the figures are defined is added.
        board: The rows.
        curves: Training curves by model: dictionaries with epoch, loss and validation.
        tags: Classification of the tags and their baselines, by name; "tags" first.
        tag_source: Where the tags' labels come from.
        tag_note: Why the tags are not used; stands in place of their figures.
        health: Sentences on the data; an empty line parts paragraphs.
        baskets: What each model reached on next baskets, where people buy such.
        basket_words: What that is measured on.
        notes: Further sentences.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    tags = tags or {}
    filters: dict[str, Callable[..., str]] = {"figure": _figure, "interval": _interval, "signed": _signed}
    filters["words"] = _plots.name_of
    values = {
        "title": title,
        "protocol": protocol,
        "detail": board.rows[0].evaluation.protocol.text,
        "board": board,
        "neural": NEURAL,
        "shown": [m for m in SHOWN if m in board.rows[0].evaluation.metrics],
        "parts": _parts(board),
        "chances": board.rows[0].evaluation.reliability,
        "plots": _embedded(board, curves or {}, tags),
        "tags": tags,
        "classes": _classes(tags),
        "tag_source": tag_source,
        "tag_note": tag_note,
        "health": [paragraph.strip() for paragraph in health.split("\n\n") if paragraph.strip()],
        "baskets": sorted((baskets or {}).items(), key=lambda row: -row[1].metrics["recall@10"].value),
        "basket_words": basket_words,
        "notes": notes,
    }
    return render_page("report.html", filters, values)


def _figure(estimate: Estimate) -> str:
    return f"{estimate.value:.2f}" if abs(estimate.value) >= 10 else f"{estimate.value:.4f}"


def _interval(estimate: Estimate) -> str:
    return f"{estimate.low:.4f} to {estimate.high:.4f}"


def _signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.4f}"


def _parts(board: Leaderboard) -> list[tuple[str, str, list[str]]]:
    """Tables of parts of the people: (heading, attribute of the evaluation, names of the parts)."""
    first = board.rows[0].evaluation
    tables = [
        ("By length of the history", "by_length", list(first.by_length)),
        ("By group", "by_group", list(first.by_group)),
    ]
    return [table for table in tables if table[2]]


def _embedded(
    board: Leaderboard,
    curves: Mapping[str, Sequence[Mapping[str, float]]],
    tags: Mapping[str, Classification],
) -> dict[str, tuple[str, str]]:
    """Plots by place in the page: (data for the page, caption)."""
    found = {
        "board": (_plots.plot_board(board), f"{board.measure} with 95 % intervals"),
        "by_length": (_plots.plot_lengths(board), f"{board.measure} by length of the history"),
        "by_group": (_plots.plot_groups(board), f"{board.measure} by group, with 95 % intervals"),
        "chances": (
            _plots.plot_chances(board),
            "Chances of items: on the diagonal, what is said comes true; each point stands for a tenth of the hits",
        ),
        "curve": (
            _plots.plot_curve(curves.get(NEURAL, ())),
            "Training of the sequence model, epoch by epoch; dotted: the epoch that was kept",
        ),
        "calibration": (
            _plots.plot_calibration(tags),
            "Calibration of the tags beside the base rate: on the diagonal, what is said comes true",
        ),
    }
    return {
        place: (base64.b64encode(image).decode(), caption)
        for place, (image, caption) in found.items()
        if image is not None
    }


def _classes(tags: Mapping[str, Classification]) -> list[tuple[str, dict[str, Estimate]]]:
    if "tags" not in tags:
        return []
    found = sorted(tags["tags"].by_class.items(), key=lambda pair: -pair[1]["share"].value)
    return found[:MOST_CLASSES]
