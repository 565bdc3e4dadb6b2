"""Event ids made from content, so that the same event sent twice counts once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

SEPARATOR = "\x1f"
# What the id is made of, in this order: a letter and the column. Nulls add nothing.
HASHED: tuple[tuple[str, str], ...] = (
    ("u", "user_id"),
    ("a", "anonymous_id"),
    ("t", "ts"),
    ("k", "kind"),
    ("i", "item_id"),
    ("s", "session_id"),
    ("v", "value"),
    ("n", "quantity"),
    ("c", "currency"),
    ("q", "query"),
    ("x", "text"),
    ("r", "recommendation_id"),
    ("p", "position"),
    ("o", "consent"),
    ("j", "props"),
)


def content_id(row: Mapping[str, Any]) -> str:
    """The id of an event that came without one, 32 hexadecimal digits (MD5).

    Numbers count to a thousandth of a minor unit.

    Example:
        >>> content_id({"user_id": "u1", "ts": 0, "kind": "view", "item_id": "shoe"})
        'a6a3de0a0a5348ea7de9184b68c2b068'
    """
    parts = []
    for letter, name in HASHED:
        value = row.get(name)
        if value is None:
            continue
        if name in {"value", "quantity"}:
            number = float(value)
            if not abs(number) < 1e15:  # NaN, infinite or absurd: refused anyway
                continue
            value = _half_away(number * 1000.0)
        parts.append(f"{letter}{value}")
    return hashlib.md5(SEPARATOR.join(parts).encode(), usedforsecurity=False).hexdigest()


def _half_away(number: float) -> int:
    """Round half away from zero, as SQL does."""
    whole = int(number)
    rest = abs(number - whole)
    return whole + (1 if number > 0 else -1) if rest >= 0.5 else whole
