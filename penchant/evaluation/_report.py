"""The evaluation report: one HTML page that needs nothing else, with its plots inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from penchant.core.errors import MissingExtra
from penchant.evaluation._board import NEURAL, Leaderboard
from penchant.evaluation._classification import Classification

SHOWN = ("HR@10", "NDCG@10", "MRR", "recall@50", "coverage@10", "novelty@10")
_ACCENT, _GREY, _WARM = "#0b6e6e", "#9aa7b0", "#d9822b"


def render_report_html(
    *,
    title: str,
    protocol: str,
    board: Leaderboard,
    curves: Mapping[str, Sequence[Mapping[str, float]]] | None = None,
    tags: Mapping[str, Classification] | None = None,
    tag_source: str = "",
    health: str = "",
    notes: Sequence[str] = (),
) -> str:
    """Put a leaderboard, its plots and the tags into one page.

    Args:
        title: Of the page.
        protocol: What was done, in words.
        board: The rows.
        curves: Training curves by model: dictionaries with epoch, loss and validation.
        tags: Classification of the tags and their baselines, by name; "tags" first.
        tag_source: Where the tags' labels come from.
        health: A sentence on the data.
        notes: Further sentences.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        import jinja2
        import matplotlib as mpl
    except ImportError:
        raise MissingExtra("report", "the HTML report with plots") from None
    mpl.use("Agg")
    engine = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    engine.filters["figure"] = lambda e: f"{e.value:.4f}"
    engine.filters["interval"] = lambda e: f"{e.low:.4f} to {e.high:.4f}"
    plots = [_plot_board(board), _plot_lengths(board), _plot_curves(curves or {}), _plot_tags(tags or {})]
    groups = board.rows[0].evaluation.by_group
    return engine.get_template("report.html").render(
        title=title,
        protocol=protocol,
        board=board,
        shown=[m for m in SHOWN if m in board.rows[0].evaluation.metrics],
        plots=[plot for plot in plots if plot],
        groups=groups,
        tags=tags or {},
        tag_source=tag_source,
        health=health,
        notes=notes,
    )


def _embed(figure: Any, caption: str) -> dict[str, str]:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130, bbox_inches="tight")
    import matplotlib.pyplot as plt

    plt.close(figure)
    return {"image": base64.b64encode(out.getvalue()).decode(), "caption": caption}


def _axes(width: float = 7, height: float = 3.4) -> tuple[Any, Any]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(width, height))
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _plot_board(board: Leaderboard) -> dict[str, str]:
    """NDCG@10 of every row with its interval."""
    figure, axes = _axes(height=0.5 + 0.45 * len(board.rows))
    for place, row in enumerate(reversed(board.rows)):
        found = row.evaluation.metrics[board.measure]
        colour = _ACCENT if row.name == NEURAL else _GREY
        axes.barh(place, found.value, color=colour, height=0.62)
        axes.plot([found.low, found.high], [place, place], color="black", lw=1.2)
        axes.text(found.high, place, f"  {found.value:.4f}", va="center", fontsize=8)
    axes.set_yticks(range(len(board.rows)), [row.name for row in reversed(board.rows)])
    axes.set_xlabel(board.measure)
    return _embed(figure, f"{board.measure} with 95 % intervals")


def _plot_lengths(board: Leaderboard) -> dict[str, str] | None:
    """NDCG@10 by how many events a person had."""
    figure, axes = _axes()
    drawn = 0
    for row in board.rows:
        bands = row.evaluation.by_length
        if len(bands) < 2 or row.name not in {board.rows[0].name, NEURAL, board.reference, "popularity"}:
            continue
        names = list(bands)
        values = [bands[n][board.measure] for n in names]
        error = [[e.value - e.low for e in values], [e.high - e.value for e in values]]
        axes.errorbar(names, [e.value for e in values], yerr=error, marker="o", capsize=2, label=row.name)
        drawn += 1
    if not drawn:
        import matplotlib.pyplot as plt

        plt.close(figure)
        return None
    axes.set_xlabel("events in the history")
    axes.set_ylabel(board.measure)
    axes.legend(frameon=False, fontsize=8)
    return _embed(figure, f"{board.measure} by length of the history")


def _plot_curves(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, str] | None:
    """Loss and validation of the neural model by epoch."""
    points = [p for p in curves.get(NEURAL, []) if {"epoch", "loss", "validation"} <= set(p)]
    by_epoch = {p["epoch"]: p for p in points}
    if not by_epoch:
        return None
    figure, axes = _axes()
    epochs = sorted(by_epoch)
    axes.plot(epochs, [by_epoch[e]["loss"] for e in epochs], color=_GREY, label="training loss")
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss")
    other = axes.twinx()
    other.spines["top"].set_visible(False)
    other.plot(epochs, [by_epoch[e]["validation"] for e in epochs], color=_ACCENT, marker="o", ms=3)
    other.set_ylabel("validation NDCG@10", color=_ACCENT)
    return _embed(figure, "Training of the sequence model")


def _plot_tags(tags: Mapping[str, Classification]) -> dict[str, str] | None:
    """Do tags that are given 70 % come true 70 % of the time?"""
    if "tags" not in tags:
        return None
    figure, axes = _axes(width=4.2, height=4)
    axes.plot([0, 1], [0, 1], color="#cccccc", lw=1)
    for name, colour in (("base rate", _WARM), ("tags", _ACCENT)):
        if name in tags:
            said = [found.said for found in tags[name].bins]
            came = [found.came.value for found in tags[name].bins]
            axes.plot(said, came, marker="o", color=colour, label=name)
    axes.set_xlabel("probability given")
    axes.set_ylabel("share that came true")
    axes.legend(frameon=False, fontsize=8)
    return _embed(figure, "Calibration of the interest tags")
