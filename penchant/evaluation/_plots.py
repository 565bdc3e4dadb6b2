"""The plots of the report, as PNG bytes. Nothing here touches matplotlib's global state."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from penchant.core import Estimate
from penchant.core.errors import MissingExtra
from penchant.evaluation._board import NEURAL, Leaderboard, Row
from penchant.evaluation._classification import Classification

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACCENT, GREY, WARM, INK, PALE = "#0b6e6e", "#8d9aa4", "#c8701a", "#1c2730", "#dfe5e9"
FEW = 10  # groups of fewer people are left out of plots: their intervals would hide everything else

NAMES = {
    "popularity": "popularity",
    "recent_popularity": "recent popularity",
    "item_knn": "item neighbours",
    "transitions": "counted transitions",
    "ease": "EASE",
    "ials": "iALS",
    "sequence": "sequence model",
}


def name_of(kind: str) -> str:
    """A model kind in words."""
    return NAMES.get(kind, kind)


def _panels(width: float, height: float, rows: int) -> tuple[Figure, list[Axes]]:
    """A figure of panels one above the other, with one common horizontal axis."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("report", "the HTML report with plots") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = list(figure.subplots(rows, sharex=True, squeeze=False)[:, 0])
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GREY)
        axes.tick_params(colors=INK, length=3, labelsize=9)
    return figure, panels


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure, (axes,) = _panels(width, height, 1)
    return figure, axes


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=150, metadata={"Software": None})
    return out.getvalue()


def _bars(estimates: Sequence[Estimate]) -> list[list[float]]:
    """Interval ends as matplotlib wants them: distances below and above."""
    return [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]


def leaders(board: Leaderboard) -> list[tuple[Row, str, str]]:
    """The rows worth a line of their own: the best, the neural one, the reference and popularity."""
    wanted = dict.fromkeys((board.rows[0].name, NEURAL, board.reference, "popularity"))
    by_name = {row.name: row for row in board.rows}
    looks = {NEURAL: (ACCENT, "o"), board.reference: (WARM, "s"), "popularity": (GREY, "D")}
    return [(by_name[name], *looks.get(name, ("#5b4b8a", "^"))) for name in wanted if name in by_name]


def plot_board(board: Leaderboard) -> bytes:
    """Every row's measure with its interval, best on top."""
    figure, axes = _figure(6.4, 0.9 + 0.42 * len(board.rows))
    rows = list(reversed(board.rows))
    found = [row.evaluation.metrics[board.measure] for row in rows]
    colours = [ACCENT if r.name == NEURAL else WARM if r.name == board.reference else GREY for r in rows]
    axes.barh(range(len(rows)), [e.value for e in found], color=colours, height=0.62)
    axes.errorbar(
        [e.value for e in found], range(len(rows)), xerr=_bars(found), fmt="none", ecolor=INK, capsize=3
    )
    for place, estimate in enumerate(found):
        axes.annotate(
            f"{estimate.value:.4f}",
            (estimate.high, place),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set_yticks(range(len(rows)), [name_of(row.name) for row in rows])
    axes.set_xlim(0, 1.18 * max(max(e.high for e in found), 1e-6))
    axes.set_xlabel(board.measure)
    return _png(figure)


def _line(
    axes: Axes, places: Sequence[float], values: Sequence[Estimate], name: str, colour: str, marker: str
) -> None:
    """One model's estimates along an axis, with their intervals."""
    axes.errorbar(
        places,
        [e.value for e in values],
        yerr=_bars(values),
        color=colour,
        marker=marker,
        ms=5,
        lw=1.5,
        elinewidth=1,
        label=name,
    )


def plot_lengths(board: Leaderboard) -> bytes | None:
    """The measure by how many events a person had; None where there is only one band."""
    bands = _filled(board.rows[0].evaluation.by_length, board.measure)
    if len(bands) < 2:
        return None
    figure, axes = _figure(6.4, 3.4)
    for shift, (row, colour, marker) in enumerate(leaders(board)):
        values = [row.evaluation.by_length[band][board.measure] for band in bands]
        places = [place + 0.08 * (shift - 1.5) for place in range(len(bands))]
        _line(axes, places, values, name_of(row.name), colour, marker)
    people = board.rows[0].evaluation.by_length
    axes.set_xticks(
        range(len(bands)), [f"{band}\n{people[band][board.measure].n:,} people" for band in bands]
    )
    axes.set_xlabel("events in the history")
    axes.set_ylabel(board.measure)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9)
    return _png(figure)


def plot_groups(board: Leaderboard) -> bytes | None:
    """The measure by group of people; None where there are no groups."""
    groups = _filled(board.rows[0].evaluation.by_group, board.measure)
    if not groups:
        return None
    lines = leaders(board)
    figure, axes = _figure(6.4, 1.2 + 0.16 * len(lines) * len(groups))
    for shift, (row, colour, marker) in enumerate(lines):
        values = [row.evaluation.by_group[group][board.measure] for group in groups]
        places = [-(place + 0.16 * (shift - (len(lines) - 1) / 2)) for place in range(len(groups))]
        axes.errorbar(
            [e.value for e in values],
            places,
            xerr=_bars(values),
            fmt=marker,
            color=colour,
            ms=4.5,
            elinewidth=1.2,
            label=name_of(row.name),
        )
    people = board.rows[0].evaluation.by_group
    labels = [f"{group.replace('=', ': ')} ({people[group][board.measure].n:,})" for group in groups]
    axes.set_yticks([-place for place in range(len(groups))], labels)
    axes.grid(axis="x", color=PALE)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"{board.measure} (people in brackets)")
    axes.legend(frameon=False, fontsize=9, ncols=2, loc="lower center", bbox_to_anchor=(0.4, 1.0))
    return _png(figure)


def _filled(parts: Mapping[str, Mapping[str, Estimate]], measure: str) -> list[str]:
    return [name for name, found in parts.items() if found[measure].n >= FEW]


def plot_curve(points: Sequence[Mapping[str, float]]) -> bytes | None:
    """Training loss above, validation below, by epoch; None where nothing was recorded.

    Each has a panel of its own: on one panel with two scales, lines of a similar shape hide each other, and
    two epochs, of which both fall, would even lie exactly on one another.
    """
    by_epoch = {p["epoch"]: p for p in points if {"epoch", "loss", "validation"} <= set(p)}
    if not by_epoch:
        return None
    figure, (upper, lower) = _panels(6.4, 3.8, 2)
    epochs = sorted(by_epoch)
    validation = [by_epoch[e]["validation"] for e in epochs]
    best = epochs[validation.index(max(validation))]
    loss = [by_epoch[e]["loss"] for e in epochs]
    for axes, values, colour, name in (
        (upper, loss, "#5c6b76", "training loss"),
        (lower, validation, ACCENT, "validation"),
    ):
        axes.plot(epochs, values, color=colour, marker="o", ms=4, lw=1.8)
        axes.axvline(best, color=ACCENT, lw=1, ls=":")
        axes.set_ylabel(name, color=colour)
    lower.set_xlabel("epoch")
    lower.locator_params(axis="x", integer=True)
    figure.align_ylabels()
    return _png(figure)


def plot_chances(board: Leaderboard) -> bytes | None:
    """Do items that are given 10 % come true 10 % of the time? Both axes logarithmic; None where nobody asked."""
    lines = [line for line in leaders(board) if line[0].evaluation.reliability is not None]
    if not lines:
        return None
    figure, axes = _figure(4.6, 4.4)
    shown = []
    for row, colour, marker in lines:
        assert row.evaluation.reliability is not None
        bins = [b for b in row.evaluation.reliability.bins if b.came.value > 0]
        shown += [b.said for b in bins] + [b.came.value for b in bins]
        _line(axes, [b.said for b in bins], [b.came for b in bins], name_of(row.name), colour, marker)
    if not shown:
        return None
    ends = [min(shown) / 1.5, min(1.0, max(shown) * 1.5)]
    axes.set_xscale("log")
    axes.set_yscale("log")
    _promised(axes, ends)
    return _png(figure)


def _promised(axes: Axes, ends: Sequence[float]) -> None:
    """The words of a reliability plot, and the line on which everything comes true as often as it is said."""
    axes.plot(ends, ends, color=PALE, lw=2, zorder=0)
    axes.set_xlabel("probability given")
    axes.set_ylabel("share that came true")
    axes.legend(frameon=False, fontsize=9)


def plot_calibration(tags: Mapping[str, Classification]) -> bytes | None:
    """Do tags that are given 70 % come true 70 % of the time? Beside the base rate; None without tags."""
    if "tags" not in tags:
        return None
    figure, axes = _figure(4.6, 4.4)
    for name, colour, marker in (("base rate", WARM, "s"), ("tags", ACCENT, "o")):
        bins = tags[name].bins if name in tags else []
        if not bins:
            continue
        _line(axes, [b.said for b in bins], [b.came for b in bins], name, colour, marker)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    _promised(axes, [0, 1])
    return _png(figure)


def plot_forest(
    estimates: Mapping[str, Estimate],
    *,
    line: float | None = None,
    line_name: str = "",
    unit: str = "",
    pale: Sequence[str] = (),
) -> bytes:
    """Estimates with their intervals, one above the other, and a dotted line to compare them with."""
    figure, axes = _figure(6.4, 0.9 + 0.36 * len(estimates))
    names = list(estimates)[::-1]
    for place, name in enumerate(names):
        found = estimates[name]
        colour = GREY if name in pale else ACCENT
        axes.errorbar(
            [found.value], [place], xerr=_bars([found]), fmt="o", ms=5, color=colour, ecolor=colour, capsize=3
        )
    if line is not None:
        axes.axvline(line, color=WARM, lw=1.2, ls=":")
        axes.annotate(
            line_name,
            (line, 1.0),
            (3, 2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=8,
            color=WARM,
        )
    axes.set_yticks(range(len(estimates)), names)
    axes.set_ylim(-0.6, len(estimates) - 0.4)
    axes.set_xlabel(unit)
    return _png(figure)
