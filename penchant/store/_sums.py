"""Checksums of the journal's rows: a row that does not fit its own was not written like that."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

EventRow = tuple[int, int, int, bytes, int, int, bytes]
"""seq, id_hash, content, person, bucket, ts, body."""


def event_sum(row: EventRow) -> int:
    """Checksum of an event's row."""
    seq, id_hash, content, person, bucket, ts, body = row
    head = struct.pack("<qqqqq", seq, id_hash, content, bucket, ts)
    return zlib.crc32(body, zlib.crc32(person, zlib.crc32(head)))


def decision_sum(row: tuple[str, int, bytes, bytes]) -> int:
    """Checksum of a decision's row (recommendation_id, ts, person, body)."""
    recommendation_id, ts, person, body = row
    head = zlib.crc32(struct.pack("<q", ts), zlib.crc32(recommendation_id.encode()))
    return zlib.crc32(body, zlib.crc32(person, head))


def is_sound(event: Any) -> bool:
    """Whether an event (EVENT_COLUMNS) is as it was written."""
    return fits(event_sum, event[:7], event[7])


def fits(sum_of: Callable[[Any], int], row: tuple[Any, ...], made: int | None) -> bool:
    """Whether a row is as it was when its checksum was made."""
    try:
        return sum_of(row) == made
    except (AttributeError, TypeError, struct.error):  # a flipped bit can make a number of a text
        return False
