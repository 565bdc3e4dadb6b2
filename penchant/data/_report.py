"""What cleaning did, in numbers and words."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import Noun
from penchant.data._columns import Notes
from penchant.data._rules import RULE, RULES

# What was noticed without refusing anything.
REMARKS: dict[str, str] = {
    "ids_trimmed": "ids with blanks around them; the blanks were removed",
    "ids_composed": "ids in another Unicode form than NFC; they were brought to it, so that twins are one",
    "encoding_damage": "texts that were decoded wrongly before they reached us; they were left as they are",
    "ordinal_time": "events whose time is only an order: gaps between them mean nothing",
    "day_time": "events with a day but no time of day",
    "repeated_rows": "identical rows that were kept as separate events",
    "bad_price": "prices that are no amount; the product is kept without a price",
    "truncated": "texts that were too long and were cut",
    "same_product": "rows that repeat a product without a change; they count once",
    "source": "what was found out about the file",
}


class Refused(Noun, frozen=True):
    """How many rows were refused for one reason, and what that means."""

    reason: str
    count: int
    says: str
    costs: str
    todo: str
    severity: str
    examples: list[str] = []  # "row 17: the offending value", never who it was


class Remark(Noun, frozen=True):
    """Something noticed, with a count and examples."""

    code: str
    says: str
    count: int
    examples: list[str] = []


class CleaningReport(Noun, frozen=True):
    """What became of a file: events = accepted + refused, and every reason has its count.

    ``rows`` are lines of the file; one row of an order with three products is three events. ``ignored``
    are columns that nobody asked for and that were left out.
    """

    source: str
    sha256: str
    format: str
    what: str
    dialect: str
    rows: int
    events: int
    accepted: int
    refused: int
    refusals: list[Refused] = []
    remarks: list[Remark] = []
    ignored: list[str] = []
    props: list[str] = []
    kinds: dict[str, int] = {}
    first_ts: int | None = None
    last_ts: int | None = None

    @property
    def notes(self) -> list[str]:
        """What was noticed, as sentences."""
        found = [_sentence(r) for r in self.remarks]
        if self.ignored:
            found.append(
                "columns left out: " + ", ".join(self.ignored) + " (name them in props to keep them)"
            )
        return found


def _sentence(remark: Remark) -> str:
    text = remark.says if remark.code == "source" else f"{remark.count:,} {remark.says}"
    return text + (", as in " + "; ".join(remark.examples[:2]) if remark.examples else "")


class Tally:
    """Counts what a run of cleaning does, batch by batch."""

    def __init__(self) -> None:
        self.rows = 0
        self.accepted = 0
        self.reasons: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.notes = Notes()
        self.kinds: Counter[str] = Counter()
        self.first_ts: int | None = None
        self.last_ts: int | None = None

    def refuse(self, table: pa.Table) -> None:
        """Count refused rows; ``table`` has row, reason and detail."""
        for group in table["reason"].value_counts().to_pylist():
            self.reasons[group["values"]] += group["counts"]
        for reason in sorted(set(self.reasons) - {r for r, e in self.examples.items() if len(e) >= 5}):
            kept = self.examples.setdefault(reason, [])
            for item in table.filter(pc.equal(table["reason"], reason)).slice(0, 5 - len(kept)).to_pylist():
                kept.append(_example(item["row"], item["detail"]))

    def report(
        self,
        *,
        source: str,
        sha256: str,
        format: str,
        what: str,
        dialect: str,
        ignored: list[str],
        props: list[str],
        remarks: list[str],
    ) -> CleaningReport:
        """The figures so far as a report."""
        refused = sum(self.reasons.values())
        found = [
            Remark(code=code, says=REMARKS[code], count=count, examples=self.notes.examples.get(code, []))
            for code, count in sorted(self.notes.counts.items())
        ]
        found += [Remark(code="source", says=text, count=1) for text in remarks]
        return CleaningReport(
            source=source,
            sha256=sha256,
            format=format,
            what=what,
            dialect=dialect,
            rows=self.rows,
            events=self.accepted + refused,
            accepted=self.accepted,
            refused=refused,
            refusals=refusals(self.reasons, self.examples),
            remarks=found,
            ignored=ignored,
            props=props,
            kinds=dict(sorted(self.kinds.items())),
            first_ts=self.first_ts,
            last_ts=self.last_ts,
        )


def refusals(counts: Counter[str], examples: dict[str, list[str]]) -> list[Refused]:
    """Counts by reason with the words of each, in the order of the rules."""
    order = {rule.code: number for number, rule in enumerate(RULES)}
    return [
        Refused(
            reason=code,
            count=counts[code],
            says=RULE[code].says,
            costs=RULE[code].costs,
            todo=RULE[code].todo,
            severity=RULE[code].severity,
            examples=examples.get(code, []),
        )
        for code in sorted(counts, key=lambda c: order.get(c, len(order)))
        if counts[code]
    ]


def _example(row: int, value: str | None) -> str:
    if value is None:
        return f"row {row}"
    return f"row {row}: {value if len(value) <= 120 else value[:117] + '...'}"
