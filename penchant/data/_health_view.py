"""The doctor's report for people: in a terminal, and as one page that needs nothing else."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from penchant.core import DAY, iso
from penchant.data._doctor_findings import Finding, Health
from penchant.data._report import Refused

_COLOURS = {"error": "bold red", "warning": "yellow", "info": "cyan", "good": "green"}


def render_health_html(health: Health) -> str:
    """The report as one HTML page, self-contained; every value from the data is escaped."""
    import jinja2

    folder = Path(__file__).parent / "templates"
    engine = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined
    )
    engine.filters["number"] = lambda value: f"{value:,}"
    engine.filters["percent"] = _percent
    engine.filters["moment"] = lambda ts: "none" if ts is None else iso(ts)
    return engine.get_template("health.html").render(health=health, days=_days(health), steps=_steps(health))


def render_health_text(health: Health, width: int = 110, *, color: bool = False) -> str:
    """The report as text for a terminal of ``width`` columns."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=color, no_color=not color, highlight=False)
    console.print(
        f"[bold]Data health[/bold]  {health.events:,} events of {health.people:,} people, {health.items:,} products"
    )
    console.print(
        f"{iso(health.first_ts)} to {iso(health.last_ts)}"
        if health.first_ts is not None and health.last_ts is not None
        else "no events"
    )
    if health.repeat_share is not None:
        console.print(
            f"{_percent(health.repeat_share)} of turns to a product are by somebody who had turned to it before"
        )
    if health.funnel:
        table = Table(
            "kind", "events", "people", box=box.SIMPLE, title="What people did", title_justify="left"
        )
        for step in health.funnel:
            table.add_row(step.kind, f"{step.events:,}", f"{step.people:,}")
        console.print(table)
    _rows(console, Table, box, escape, "Set aside in quarantine", [_refused(r) for r in health.refusals])
    _rows(console, Table, box, escape, "What stands out", [_found(f) for f in health.findings])
    return out.getvalue()


Line = tuple[str, str, str, str, str, str]


def _rows(console: Any, table_type: Any, box: Any, escape: Any, title: str, lines: list[Line]) -> None:
    if not lines:
        return
    table = table_type(box=box.SIMPLE, title=title, title_justify="left", show_lines=False)
    table.add_column("how many", justify="right", no_wrap=True)
    table.add_column("what", ratio=3)
    table.add_column("what it costs, and what to do", ratio=5)
    for severity, count, what, example, costs, todo in lines:
        shown = escape(what) + (f"\n[dim]{escape(example)}[/dim]" if example else "")
        colour = _COLOURS[severity]
        table.add_row(f"[{colour}]{count}[/{colour}]", shown, f"{escape(costs)}\n[bold]{escape(todo)}[/bold]")
    console.print(table)


def _refused(item: Refused) -> Line:
    example = "; ".join(item.examples[:2])
    return item.severity, f"{item.count:,}", f"{item.reason}: {item.says}", example, item.costs, item.todo


def _found(item: Finding) -> Line:
    share = "" if item.share is None else f"\n{_percent(item.share)} of {item.of}"
    count = f"{item.count:,}{share}" if item.count else item.severity
    return item.severity, count, item.title, "; ".join(item.examples[:3]), item.costs, item.todo


def _percent(share: float) -> str:
    """A share as a percentage; what is little but not nothing is not shown as 0.

    Example:
        >>> _percent(0.25), _percent(0.00001)
        ('25.0 %', '< 0.1 %')
    """
    return "< 0.1 %" if 0 < share < 0.001 else f"{share:.1%}".replace("%", " %")


def _days(health: Health) -> int | None:
    if health.first_ts is None or health.last_ts is None:
        return None
    return int((health.last_ts - health.first_ts) // DAY) + 1


def _steps(health: Health) -> list[dict[str, Any]]:
    most = max((s.events for s in health.funnel), default=1)
    return [
        {"kind": s.kind, "events": s.events, "people": s.people, "width": round(100 * s.events / most, 1)}
        for s in health.funnel
    ]
