"""The ``[data]`` table of ``shop.toml``: what counts as possible, and as human."""

from __future__ import annotations

import datetime as dt
from functools import cached_property
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from penchant.core import DAY, Noun
from penchant.core.errors import InputError

Duplicates = Literal["refuse", "keep"]
CurrencyCode = Annotated[str, Meta(pattern="^[A-Z]{3}$")]

# Digits after the point where it is not two (ISO 4217).
_NO_MINOR_UNIT = [
    "BIF",
    "CLP",
    "DJF",
    "GNF",
    "ISK",
    "JPY",
    "KMF",
    "KRW",
    "PYG",
    "RWF",
    "UGX",
    "UYI",
    "VND",
    "VUV",
    "XAF",
    "XOF",
    "XPF",
]
_THREE_DIGITS = ["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"]


def minor_units(currency: str | None) -> int:
    """How many minor units make one major unit of a currency; 100 when it is not known.

    Example:
        >>> minor_units("USD"), minor_units("JPY"), minor_units("KWD"), minor_units(None)
        (100, 1, 1000, 100)
    """
    if currency in _NO_MINOR_UNIT:
        return 1
    return 1000 if currency in _THREE_DIGITS else 100


class Settings(Noun, frozen=True, dict=True):
    """What the shop says about its data, and the limits beyond which a row is not believed.

    Example:
        >>> Settings(currency="EUR").earliest_ts
        788918400000000
    """

    currency: CurrencyCode | None = None  # of money that comes without one
    duplicates: Duplicates = "refuse"  # identical rows without ids: once, or each of them
    props: list[str] = []  # unknown fields of an event that are kept; all others are named and left out
    earliest: dt.date = dt.date(1995, 1, 1)  # an event before this day is not believed
    ahead_days: Annotated[float, Meta(ge=0, le=3650)] = 1.0  # how far in the future an event may lie
    max_value: Annotated[float, Meta(gt=0, le=1e15)] = 1e10  # minor units of one line
    max_quantity: Annotated[float, Meta(gt=0, le=1e12)] = 1e6
    negative_quantity: Literal["refund", "refuse"] = "refund"  # what a purchase of -3 is
    bot_events_per_minute: Annotated[int, Meta(ge=1)] = 120  # browsing events of one person in one minute
    bot_events_per_day: Annotated[int, Meta(ge=1)] = 5000
    bot_hours_per_day: Annotated[int, Meta(ge=1, le=25)] = 23  # hours of one day with events; 25 = never
    burst_reviews: Annotated[int, Meta(ge=2)] = (
        20  # reviews of an item in an hour by people who did nothing else
    )
    leave_out_bots: bool = True  # flagged bots and bursts stay in the log but out of what models learn from

    def __post_init__(self) -> None:
        if self.earliest.year < 1 or self.earliest.year > 2200:
            raise InputError(
                "earliest is not a sensible day", value=str(self.earliest), path="$.data.earliest"
            )

    @cached_property
    def earliest_ts(self) -> int:
        """``earliest`` in microseconds since 1970, UTC."""
        return (self.earliest - dt.date(1970, 1, 1)).days * DAY

    def latest_ts(self, now: int) -> int:
        """The last moment, in microseconds, that is still believed at ``now``."""
        return now + int(self.ahead_days * DAY)


def settings_from(table: dict[str, object]) -> Settings:
    """Read the ``[data]`` table; an unknown or wrong key is an ``InputError`` that names it."""
    try:
        return msgspec.convert(table, Settings)
    except msgspec.ValidationError as error:
        raise InputError(
            f"the [data] table of shop.toml is wrong: {error}", hint="correct or remove that key", path="data"
        ) from error
