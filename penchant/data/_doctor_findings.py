"""What the doctor can find, in words, and the report that carries it."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from penchant.core import Noun
from penchant.data._report import CleaningReport, Refused

SEVERITIES = ("error", "warning", "info", "good")


class Finding(Noun, frozen=True):
    """One thing found: how much of it, what it costs and what to do. ``share`` is of ``of``, from 0 to 1."""

    code: str
    severity: str  # error | warning | info | good
    title: str
    count: int
    costs: str
    todo: str
    share: float | None = None
    of: str = "events"
    examples: list[str] = []


class FunnelStep(Noun, frozen=True):
    """How many events and how many people reached a kind of event."""

    kind: str
    events: int
    people: int


class Health(Noun, frozen=True):
    """The state of a shop's data: what is stored, what was refused, and what stands out.

    People appear only as short hashes. ``sources`` are the reports of the files taken in.
    """

    as_of: int
    events: int
    people: int
    guests: int
    items: int
    catalog_items: int
    described_users: int
    first_ts: int | None
    last_ts: int | None
    refused: int
    refusals: list[Refused] = []
    findings: list[Finding] = []
    funnel: list[FunnelStep] = []
    currencies: dict[str, int] = {}
    repeat_share: float | None = None
    sources: list[CleaningReport] = []

    @property
    def worst(self) -> str:
        """The highest severity among the findings and refusals."""
        present = {f.severity for f in self.findings} | {r.severity for r in self.refusals}
        return next((s for s in SEVERITIES if s in present), "good")


@dataclass(frozen=True)
class Words:
    """How a finding is told."""

    severity: str
    title: str
    costs: str
    todo: str


WORDS: dict[str, Words] = {
    "no_events": Words(
        "error", "nothing is stored yet", "nothing can be learned", "run `penchant ingest FILE`"
    ),
    "too_little": Words(
        "warning",
        "too little to learn from yet",
        "`penchant train` refuses; popularity answers meanwhile",
        "ingest a longer log of more people: some must have turned to an item late in it",
    ),
    "no_purchases": Words(
        "warning",
        "no purchases among the events",
        "interests are learned from looks alone; revenue cannot be measured",
        "export orders too, or map the kind that means a purchase",
    ),
    "bots": Words(
        "warning",
        "people with rates that no human has",
        "a few robots can outvote thousands of customers; they are left out of learning when "
        "data.leave_out_bots is true",
        "look at them by their rates; set data.bot_events_per_minute and _per_day to fit your shop",
    ),
    "review_bursts": Words(
        "warning",
        "reviews by people who bought nothing and did nothing else, many of one product within an hour",
        "accounts made to push a product; they are left out of learning when data.leave_out_bots is true",
        "look at the products and their reviews; set data.burst_reviews to fit your shop",
    ),
    "future": Words(
        "warning",
        "events later than now, though within the tolerance",
        "a clock that is ahead mixes up the order of events",
        "correct the clock or the time zone of the sender",
    ),
    "days_only": Words(
        "info",
        "events exactly at midnight: a day without a time of day",
        "the order within a day is the order in the file, and sessions cannot be told apart",
        "export the full time, if it exists",
    ),
    "whole_hours": Words(
        "info",
        "events exactly on the hour",
        "times were rounded before they reached us; gaps within a session are lost",
        "export the full time, if it exists",
    ),
    "zone": Words(
        "info",
        "the quiet hours of the shop fall on a European or American day",
        "if the shop is not in Asia or the Pacific, times were written in a local zone and read as UTC",
        'set timezone = "Area/City" in the mapping and ingest again',
    ),
    "out_of_order": Words(
        "info",
        "events that arrived after a later event of the same person",
        "nothing: they are put in their place by time",
        "nothing to do; send them sooner if recommendations should react at once",
    ),
    "late": Words(
        "info",
        "events that arrived more than a day after newer ones",
        "nothing for training; in a shop that is running live histories are built again, which takes a moment",
        "nothing to do; load history oldest first if you can",
    ),
    "mixed_currencies": Words(
        "warning",
        "money in several currencies",
        "values of different currencies are compared as if they were one",
        "convert before sending, or keep one shop for each currency",
    ),
    "missing_currency": Words(
        "info",
        "money without a currency",
        "it is taken to be in the currency of the shop",
        "set data.currency in shop.toml, or send the currency with each event",
    ),
    "encoding_damage": Words(
        "warning",
        "texts that were decoded wrongly before they reached us",
        "one product or query may appear under two names",
        "export again as UTF-8; what can be restored with certainty is shown",
    ),
    "single_event_people": Words(
        "info",
        "people with a single event",
        "nothing can be predicted from what came before, for there is nothing before",
        "send views and searches too, and the same id across visits",
    ),
    "guests": Words(
        "info",
        "people known only by a cookie or device",
        "their history ends with the cookie",
        "send user_id once they log in",
    ),
    "no_catalog": Words(
        "warning",
        "no catalogue",
        "no titles, no categories, no filters, and new products cannot be recommended",
        "run `penchant catalog FILE`",
    ),
    "orphans": Words(
        "warning",
        "events with products that the catalogue does not know",
        "these products have no title, no category and pass no filter",
        "send the whole catalogue, discontinued products included; check that both use the same ids",
    ),
    "never_seen": Words(
        "info",
        "products of the catalogue that nobody turned to",
        "nothing is known about them but their description",
        "they are candidates for exploration",
    ),
    "service_items": Words(
        "warning",
        "product codes that look like postage, fees or corrections",
        "they would be recommended as if they were products",
        "list them under not_items of the mapping and ingest again",
    ),
    "zero_value": Words(
        "info",
        "purchases worth nothing",
        "gifts and corrections look like wants",
        "leave them out of the export if they are not sales",
    ),
    "twins": Words(
        "info",
        "events alike in person, kind, product and moment, with ids of their own",
        "if they were sent twice they count twice",
        "use the same event_id when an event is sent again",
    ),
    "silent_days": Words(
        "info",
        "days without a single event between the first and the last",
        "if the shop was open, a piece of the log is missing",
        "compare with your own count for these days",
    ),
    "ordinal_time": Words(
        "info",
        "events whose time is only an order",
        "recency, sessions and seasons cannot be learned",
        "export times, if they exist",
    ),
    "ignored_columns": Words(
        "info",
        "columns of the files that were left out",
        "what they say is not used",
        "name them in props of the mapping, or in data.props, to keep them",
    ),
    "sound": Words("good", "nothing stands out", "nothing", "go on: run `penchant train`"),
}


def finding(
    code: str, count: int, total: int | None = None, *, of: str = "events", examples: list[str] | None = None
) -> Finding:
    """A finding in its words; ``total`` gives the share."""
    words = WORDS[code]
    return Finding(
        code=code,
        severity=words.severity,
        title=words.title,
        count=count,
        costs=words.costs,
        todo=words.todo,
        share=round(count / total, 6) if total else None,
        of=of,
        examples=(examples or [])[:5],
    )


def hidden(subject: str) -> str:
    """A person as a short hash, fit for a report: the same in all of it, and of no use to look anybody up by.

    Example:
        >>> hidden("u1") == hidden("u1") != hidden("u2")
        True
    """
    return "person " + hashlib.blake2b(subject.encode(), key=_SALT, digest_size=4).hexdigest()


_SALT = secrets.token_bytes(32)  # forgotten with the process
