"""What the doctor shows of what it found: a few events or rows, never who it was."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penchant.core import iso
from penchant.data._doctor_findings import hidden
from penchant.data._report import CleaningReport

MOST = 5  # shown of each


class Examples:
    """The first few events of each finding, as text."""

    def __init__(self) -> None:
        self.shown: dict[str, list[str]] = defaultdict(list)

    def add(self, code: str, table: pa.Table, which: npt.NDArray[np.bool_]) -> None:
        """Show events of a table (subject, kind, item_id, ts) while there is room."""
        shown = self.shown[code]
        if len(shown) < MOST:
            places = np.flatnonzero(which)[: MOST - len(shown)]
            columns = table.select(["subject", "kind", "item_id", "ts"])
            shown += [_told(**event) for event in columns.take(pa.array(places)).to_pylist()]

    def of(self, code: str) -> list[str]:
        """What is shown of a finding."""
        return self.shown.get(code, [])


def _told(subject: str, kind: str, item_id: str | None, ts: int) -> str:
    return f"{hidden(subject)}: {kind}{f' {item_id}' if item_id else ''} at {iso(ts)}"


def refusal_examples(reports: Iterable[CleaningReport]) -> dict[str, list[str]]:
    """Examples of each reason; where several files have it, from each in turn and with the file's name."""
    found: dict[str, list[tuple[str, list[str]]]] = defaultdict(list)
    for report in reports:
        for refused in report.refusals:
            found[refused.reason].append((report.source, refused.examples))
    return {reason: _in_turn(parts) if len(parts) > 1 else parts[0][1] for reason, parts in found.items()}


def _in_turn(parts: list[tuple[str, list[str]]]) -> list[str]:
    """The first example of each file, then the second of each.

    Example:
        >>> _in_turn([("a.csv", ["row 1: x", "row 2: x"]), ("b.csv", ["row 7"])])
        ['row 1 of a.csv: x', 'row 7 of b.csv', 'row 2 of a.csv: x']
    """
    told = []
    for place in range(MOST):
        for source, examples in parts:
            if place < len(examples):
                row, mark, value = examples[place].partition(": ")
                told.append(f"{row} of {source}{mark}{value}")
    return told[:MOST]
