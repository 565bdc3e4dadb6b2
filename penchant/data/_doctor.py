"""The doctor: looks over everything stored and everything refused, and says what stands out."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import DAY, GUEST_PREFIX, HOUR, KINDS, TARGET_KINDS, Store, iso
from penchant.data._bots import ReviewBursts, bots_in, buckets
from penchant.data._columns import Notes, note_damage
from penchant.data._doctor_examples import MOST, Examples, refusal_examples
from penchant.data._doctor_findings import Finding, FunnelStep, Health, finding, hidden
from penchant.data._quarantine import Quarantine
from penchant.data._report import CleaningReport, refusals
from penchant.data._settings import Settings
from penchant.data._times import ORDINAL_START

_COLUMNS = ["subject", "ts", "kind", "item_id", "value", "currency", "query", "text", "seq"]
_NEVER = np.iinfo(np.int64).min
_SERVICE = frozenset(
    [
        "POST",
        "POSTAGE",
        "DOT",
        "D",
        "M",
        "MANUAL",
        "BANK",
        "CHARGES",
        "BANK_CHARGES",
        "AMAZONFEE",
        "S",
        "SAMPLES",
        "B",
        "C2",
        "CRUK",
        "FEE",
        "FEES",
        "SHIPPING",
        "DISCOUNT",
        "DELIVERY",
        "VOUCHER",
        "ADJUSTMENT",
        "DEPOSIT",
        "TAX",
        "TIP",
        "HANDLING",
        "SURCHARGE",
    ]
) | {"BANK CHARGES", "GIFT CARD", "GIFT WRAP"}


def diagnose(
    store: Store, settings: Settings, quarantine: Quarantine, now: int, *, refusal: str | None = None
) -> Health:
    """Look over a shop's data.

    Everything stored is read bucket by bucket, so that memory stays flat; besides it, one count for every item.

    Args:
        store: What is at rest.
        settings: The limits beyond which a person is a bot.
        quarantine: What was refused.
        now: Microseconds.
        refusal: Why training would refuse these data; None = it would not.
    """
    seen = _Seen(now, settings)
    for table in buckets(store, _COLUMNS):
        seen.add(table, settings)
    seen.counts["late"] = seen.arrivals.late(store)
    catalog = store.catalog()["id"]
    counts = Counter(quarantine.counts())
    reports = quarantine.reports()
    examples = refusal_examples(reports)
    examples |= quarantine.examples(sorted(counts.keys() - examples.keys()))
    extra = [*_of_catalog(seen, catalog), *_of_reports(reports)]
    found = [*_of_events(seen, settings), *extra]
    if refusal is not None and seen.events:
        found.append(finding("too_little", 0, examples=[refusal]))
    if not any(f.severity in {"error", "warning"} for f in found) and not counts:
        found.append(finding("sound", 0))
    found.sort(key=lambda f: ("error", "warning", "info", "good").index(f.severity))
    return Health(
        as_of=now,
        events=seen.events,
        people=seen.people,
        guests=seen.guests,
        items=len(seen.items),
        catalog_items=len(catalog),
        described_users=store.users().num_rows,
        first_ts=seen.first,
        last_ts=seen.last,
        refused=sum(counts.values()),
        refusals=refusals(counts, examples),
        findings=found,
        funnel=[
            FunnelStep(kind=k, events=seen.kinds[k], people=seen.reached[k]) for k in KINDS if seen.kinds[k]
        ],
        currencies=dict(seen.currencies.most_common()),
        repeat_share=seen.repeat_share,
        sources=reports,
    )


class _Seen:
    """Everything counted while passing over the buckets."""

    def __init__(self, now: int, settings: Settings) -> None:
        self.now = now
        self.events = self.people = self.guests = self.singles = 0
        self.first: int | None = None
        self.last: int | None = None
        self.kinds: Counter[str] = Counter()
        self.reached: Counter[str] = Counter()
        self.items: Counter[str] = Counter()
        self.currencies: Counter[str] = Counter()
        self.hours = np.zeros(24, np.int64)
        self.days: set[int] = set()
        self.counts: Counter[str] = Counter()
        self.bots: dict[str, str] = {}
        self.bot_events = 0
        self.bursts = ReviewBursts(settings)
        self.targets = self.first_times = 0
        self.notes = Notes()
        self.arrivals = _Arrivals()
        self.examples = Examples()

    @property
    def repeat_share(self) -> float | None:
        return round(1 - self.first_times / self.targets, 6) if self.targets else None

    def add(self, table: pa.Table, settings: Settings) -> None:
        ts = table["ts"].to_numpy().astype(np.int64)
        self.events += table.num_rows
        self.first = int(ts.min()) if self.first is None else min(self.first, int(ts.min()))
        self.last = int(ts.max()) if self.last is None else max(self.last, int(ts.max()))
        person = self._people(table)
        self._times(table, ts, person)
        kind = _codes(table["kind"])
        self._kinds(table, kind, person)
        self._items(table, kind, person, ts)
        self._money(table)
        for name in ("item_id", "query", "text"):
            for chunk in table[name].chunks:
                note_damage(chunk, self.notes)
        bots = bots_in(table, settings)
        if bots:
            self.bots.update(bots)
            self.bot_events += pc.sum(pc.is_in(table["subject"], pa.array(list(bots)))).as_py()
        self.bursts.add(table)

    def _people(self, table: pa.Table) -> npt.NDArray[np.int64]:
        encoded = pc.dictionary_encode(table["subject"].combine_chunks())
        person: npt.NDArray[np.int64] = encoded.indices.to_numpy().astype(np.int64)
        count = np.bincount(person)
        self.people += len(count)
        self.singles += int((count == 1).sum())
        self.examples.add("single_event_people", table, count[person] == 1)
        self.guests += pc.sum(pc.starts_with(encoded.dictionary, GUEST_PREFIX)).as_py() or 0
        return person

    def _times(self, table: pa.Table, ts: npt.NDArray[np.int64], person: npt.NDArray[np.int64]) -> None:
        seq = table["seq"].to_numpy()
        midnight = ts % DAY == 0
        self._note("future", table, ts > self.now)
        self._note("days_only", table, midnight)
        self.counts["whole_hours"] += int(((ts % HOUR == 0) & ~midnight).sum())
        self.counts["ordinal"] += int(((ts >= ORDINAL_START) & (ts < ORDINAL_START + 400 * DAY)).sum())
        self.hours += np.bincount(ts[~midnight] % DAY // HOUR, minlength=24)
        self.days.update(np.unique(ts // DAY).tolist())
        arrival = np.lexsort((seq, person))
        overtaken = np.empty(len(ts), bool)
        overtaken[arrival] = _overtaken(person[arrival], ts[arrival])
        self._note("out_of_order", table, overtaken)
        self.arrivals.add(ts, seq)

    def _note(self, code: str, table: pa.Table, which: npt.NDArray[np.bool_]) -> None:
        """Count events, and show the first of them."""
        self.counts[code] += int(which.sum())
        self.examples.add(code, table, which)

    def _kinds(self, table: pa.Table, kind: pa.DictionaryArray, person: npt.NDArray[np.int64]) -> None:
        code = kind.indices.to_numpy().astype(np.int64)
        for number, name in enumerate(kind.dictionary.to_pylist()):
            mine = code == number
            self.kinds[name] += int(mine.sum())
            self.reached[name] += len(np.unique(person[mine]))

    def _items(
        self,
        table: pa.Table,
        kind: pa.DictionaryArray,
        person: npt.NDArray[np.int64],
        ts: npt.NDArray[np.int64],
    ) -> None:
        encoded = _codes(table["item_id"])
        item = pc.fill_null(encoded.indices, -1).to_numpy().astype(np.int64)
        names = encoded.dictionary.to_pylist()
        counts = np.bincount(item[item >= 0], minlength=len(names))
        for name, count in zip(names, counts.tolist(), strict=True):
            self.items[name] += count
        is_target = np.isin(kind.dictionary.to_pylist(), list(TARGET_KINDS))
        code = kind.indices.to_numpy()
        target = is_target[code] & (item >= 0)
        self.targets += int(target.sum())
        self.first_times += len(np.unique(person[target] * (len(names) + 1) + item[target]))
        timed = np.flatnonzero((item >= 0) & (ts % DAY != 0))
        rows = np.stack([person[timed], ts[timed], item[timed], code[timed].astype(np.int64)])
        order = np.lexsort(rows)
        again = (rows[:, order[1:]] == rows[:, order[:-1]]).all(axis=0)
        twin = np.zeros(len(ts), bool)
        twin[timed[order[1:][again]]] = True
        self._note("twins", table, twin)

    def _money(self, table: pa.Table) -> None:
        money = table.filter(pc.and_kleene(table["value"].is_valid(), pc.not_equal(table["kind"], "review")))
        self.counts["money"] += money.num_rows
        self.counts["missing_currency"] += money["currency"].null_count
        for group in money["currency"].value_counts().to_pylist():
            if group["values"] is not None:
                self.currencies[group["values"]] += group["counts"]
        free = pc.and_(pc.equal(money["kind"], "purchase"), pc.equal(money["value"], 0.0))
        self._note("zero_value", money, free.to_numpy().astype(bool))


def _overtaken(person: npt.NDArray[np.int64], ts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which events came after a later event of the same person; rows by person, then arrival.

    Example:
        >>> _overtaken(np.array([0, 0, 0, 1]), np.array([9, 3, 4, 1])).tolist()
        [False, True, True, False]
    """
    if not len(ts):
        return np.zeros(0, bool)
    by_time = np.argsort(ts, kind="stable")
    rank = np.empty(len(ts), np.int64)
    rank[by_time] = np.cumsum(np.diff(ts[by_time], prepend=ts[by_time[0]]) != 0)
    newest = np.maximum.accumulate(
        person * len(ts) + rank
    )  # people ascend, so nobody's rank reaches the next
    return newest > person * len(ts) + rank


class _Arrivals:
    """The newest time among the events that arrived up to a number, to tell what came late.

    Exact for two million arrivals; beyond that blocks of them share one time, so that memory stays flat, and
    newer events in an event's own block are passed over.
    """

    _MOST = 1 << 21

    def __init__(self) -> None:
        self._shift = 0
        self._newest = np.empty(0, np.int64)
        self.shown: list[str] = []

    def add(self, ts: npt.NDArray[np.int64], seq: npt.NDArray[np.int64]) -> None:
        while int(seq.max()) >> self._shift >= self._MOST:
            self._shift += 1
            even = np.pad(self._newest, (0, len(self._newest) % 2), constant_values=_NEVER)
            self._newest = even.reshape(-1, 2).max(axis=1)
        block = seq >> self._shift
        missing = max(int(block.max()) + 1 - len(self._newest), 0)
        self._newest = np.pad(self._newest, (0, missing), constant_values=_NEVER)
        np.maximum.at(self._newest, block, ts)

    def late(self, store: Store) -> int:
        """How many events arrived more than a day after newer ones, of whomever; after all were added."""
        before = np.maximum.accumulate(self._newest)
        count = 0
        for table in buckets(store, ["ts", "seq"]):
            ts, block = table["ts"].to_numpy(), table["seq"].to_numpy() >> self._shift
            ts, block = ts[block > 0], block[block > 0]
            late = np.flatnonzero(before[block - 1] > ts + DAY)
            count += len(late)
            for at in late[: MOST - len(self.shown)]:
                newer = iso(int(before[block[at] - 1]))
                self.shown.append(f"of {iso(int(ts[at]))}, when one of {newer} was there")
        return count


def _codes(column: pa.ChunkedArray) -> Any:
    return pc.dictionary_encode(column.combine_chunks())


def _of_events(seen: _Seen, settings: Settings) -> list[Finding]:
    n = seen.events
    if not n:
        return [finding("no_events", 0)]
    found = []
    if not seen.kinds["purchase"]:
        found.append(finding("no_purchases", 0))
    if seen.bots:
        worst = sorted(seen.bots.items(), key=lambda b: (-_size(b[1]), b[0]))[:4]
        told = [f"{hidden(s)}: {why}" for s, why in worst]
        told.append(f"all of them: {seen.bot_events:,} events, {seen.bot_events / n:.1%} of the log")
        found.append(finding("bots", len(seen.bots), seen.people, of="people", examples=told))
    if bursts := seen.bursts.found():
        told = [f"{why.removeprefix('one of ')}" for why in sorted(set(bursts.values()))[:5]]
        found.append(finding("review_bursts", len(bursts), seen.people, of="people", examples=told))
    found += _of_times(seen)
    currencies = set(seen.currencies) | ({settings.currency} if settings.currency else set())
    if len(currencies) > 1:
        told = [f"{c}: {k:,} events" for c, k in seen.currencies.most_common(5)]
        found.append(finding("mixed_currencies", sum(seen.currencies.values()), n, examples=told))
    if settings.currency is None and seen.counts["missing_currency"]:
        found.append(finding("missing_currency", seen.counts["missing_currency"], n))
    damaged = seen.notes.counts["encoding_damage"]
    if damaged:
        found.append(finding("encoding_damage", damaged, n, examples=seen.notes.examples["encoding_damage"]))
    for code, count, total, of in (
        ("single_event_people", seen.singles, seen.people, "people"),
        ("guests", seen.guests, seen.people, "people"),
        ("zero_value", seen.counts["zero_value"], seen.kinds["purchase"], "purchases"),
        ("twins", seen.counts["twins"], n, "events"),
    ):
        if count:
            found.append(finding(code, count, total, of=of, examples=seen.examples.of(code)))
    return found


def _size(why: str) -> int:
    return int("".join(ch for ch in why if ch.isdigit()) or 0)


def _of_times(seen: _Seen) -> list[Finding]:
    n, counts = seen.events, seen.counts
    shown = {**seen.examples.shown, "late": seen.arrivals.shown}
    found = [
        finding(code, counts[code], n, examples=shown[code])
        for code in ("future", "out_of_order", "late")
        if counts[code]
    ]
    if counts["ordinal"] == n:
        return [*found, finding("ordinal_time", n, n)]
    if counts["days_only"] > 0.2 * n:
        found.append(finding("days_only", counts["days_only"], n, examples=shown["days_only"]))
    if counts["whole_hours"] > 0.5 * n:
        found.append(finding("whole_hours", counts["whole_hours"], n))
    quiet = _quiet_hour(seen.hours) if len(seen.days) >= 7 else None
    if quiet is not None and 10 <= quiet < 18:
        told = [f"fewest events between {quiet:02d}:00 and {quiet + 4:02d}:00 UTC"]
        found.append(finding("zone", int(seen.hours.sum()), n, examples=told))
    if seen.first is not None and seen.last is not None:
        span = range(seen.first // DAY, seen.last // DAY + 1)
        silent = [d for d in span if d not in seen.days] if len(span) < 40_000 else []
        if len(span) >= 14 and silent and len(silent) < 0.5 * len(span):
            told = [iso(d * DAY)[:10] for d in silent[:5]]
            found.append(finding("silent_days", len(silent), len(span), of="days", examples=told))
    return found


def _quiet_hour(hours: npt.NDArray[np.int64]) -> int | None:
    """Start of the quietest four hours; None when there is too little or too even activity to say."""
    total = int(hours.sum())
    if total < 2000 or int((hours > 0.01 * total).sum()) < 8:  # a few busy hours are an excerpt, or a job
        return None
    four = np.sum([np.roll(hours, -k) for k in range(4)], axis=0)
    least = np.flatnonzero(four == four.min())
    start = int(least[len(least) // 2])
    return start if four[start] < 0.25 * total * 4 / 24 else None


def _of_catalog(seen: _Seen, catalog: pa.ChunkedArray) -> list[Finding]:
    found = []
    if seen.events and not len(catalog):
        found.append(finding("no_catalog", 0))
    elif seen.events:
        known = set(catalog.to_pylist())
        orphans = {i: c for i, c in seen.items.items() if i not in known}
        if orphans:
            top = sorted(orphans.items(), key=lambda o: (-o[1], o[0]))[:5]
            told = [f"{i}: {c:,} events" for i, c in top]
            found.append(finding("orphans", sum(orphans.values()), sum(seen.items.values()), examples=told))
        unseen = len(known) - sum(1 for i in seen.items if i in known)
        if unseen:
            found.append(finding("never_seen", unseen, len(known), of="products"))
    service = _service_items(seen.items)
    if service:
        told = [f"{i}: {c:,} events" for i, c in service[:5]]
        count = sum(c for _, c in service)
        found.append(finding("service_items", count, sum(seen.items.values()), examples=told))
    return found


def _service_items(items: Counter[str]) -> list[tuple[str, int]]:
    """Codes that are known words for fees, in a shop where nearly every code has a digit in it."""
    if not items:
        return []
    wordy = [i for i in items if not any(ch.isdigit() for ch in i)]
    if len(wordy) > 0.05 * len(items):
        return []
    service = [i for i in items if i.upper() in _SERVICE]
    return sorted(((i, items[i]) for i in service), key=lambda o: (-o[1], o[0]))


def _of_reports(reports: list[CleaningReport]) -> list[Finding]:
    columns = sorted({c for r in reports if r.what == "events" for c in r.ignored})
    return [finding("ignored_columns", len(columns), of="columns", examples=columns)] if columns else []
