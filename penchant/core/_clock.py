"""Time and randomness, the two inputs that tests must be able to hold still."""

from __future__ import annotations

import datetime as dt
import time
import zlib
from collections.abc import Callable

import numpy as np

Clock = Callable[[], int]
SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR


def now() -> int:
    """Microseconds since 1970, UTC."""
    return time.time_ns() // 1000


def iso(ts: int) -> str:
    """A time in microseconds as ISO 8601, to the second, UTC.

    Example:
        >>> iso(0)
        '1970-01-01T00:00:00Z'
    """
    moment = dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=int(ts))
    return moment.isoformat(timespec="seconds") + "Z"


def micros(moment: dt.datetime) -> int:
    """A moment as microseconds since 1970; one without a time zone is taken as UTC.

    Example:
        >>> micros(dt.datetime(1970, 1, 2))
        86400000000
    """
    aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return (aware - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def rng(seed: int, *names: str) -> np.random.Generator:
    """A generator for one purpose: seeds derived per person do not depend on the order of arrival.

    Example:
        >>> int(rng(0, "user", "u1").integers(1000)) == int(rng(0, "user", "u1").integers(1000))
        True
    """
    words = [seed, *(zlib.crc32(name.encode()) for name in names)]
    return np.random.default_rng(np.array(words, np.uint32) if seed < 1 << 32 else words)  # the same, sooner
